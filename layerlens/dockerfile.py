"""Dockerfiles: text → nouns → text.

The grammar is BuildKit's (frontend/dockerfile/parser and frontend/dockerfile/instructions; "Dockerfile
reference" below is docs.docker.com/reference/dockerfile). What BuildKit refuses is refused, with line and
column; what it lets pass is let pass. Every instruction keeps the slice of the text it stands in, and nothing
is ever printed from the nouns: rewriting inserts into the text or replaces whole lines of it, so that all
other bytes stay as they are: comments, heredocs, line ends, a byte order mark.

Words are split and variables expanded by e2b-dockerfile-utils, a port of BuildKit's shell lexer; its own parser
drops ONBUILD's arguments, checks no flags and knows no columns, hence the one here.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from layerlens.dockerlines import SHORTEST_DURATION_NS, env_pairs
from layerlens.errors import DockerfileError
from layerlens.history import KEYWORDS
from layerlens.model import ImageConfig
from layerlens.patterns import regex

# -- the nouns ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive, ``# escape=` `` (Dockerfile reference, "Parser directives")."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document of an instruction (Dockerfile reference, "Here-documents")."""

    name: str
    content: str
    """As written, with line ends; leading tabs too, where ``chomp`` says that the builder takes them off."""
    chomp: bool
    expand: bool
    """Whether variables in it are expanded: its name was written without quotes."""

    @property
    def data(self) -> str:
        """The content as the builder uses it."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, with where it stands."""

    keyword: str
    """In capitals, whatever was written."""
    flags: tuple[str, ...]
    """``--from=builder`` …, quotes removed; what follows is not expanded."""
    arguments: str
    """What follows keyword and flags, continuation lines joined as the builder joins them."""
    words: tuple[str, ...]
    """The arguments split as the builder splits them for this keyword, not yet expanded: the members of the exec
    form; one word for a shell form; name, value, name, value … for ENV and LABEL."""
    exec_form: bool
    """True where the arguments are a JSON list."""
    heredocs: tuple[Heredoc, ...]
    trigger: Instruction | None
    """For ONBUILD, the instruction it delays."""
    line: int
    column: int
    """Both from 1: where the keyword stands."""
    end_line: int
    """The last line that belongs to it, heredocs included."""
    start: int = field(repr=False)
    """Offset in the text of the first line it stands in …"""
    end: int = field(repr=False)
    """… and the offset after its last line."""
    source: str = field(repr=False)
    """The text of these lines, byte for byte."""

    def flag(self, name: str) -> str | None:
        """The value of ``--name=value``, "true" for a bare ``--name``; None where it is not given."""
        for written in self.flags:
            key, equals, value = written.partition("=")
            if key == f"--{name}":
                return value if equals else "true"
        return None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Names and values of ENV and LABEL, and of ARG, where a value may be missing ("" then)."""
        if self.keyword == "ARG":
            return tuple((name, value) for name, _, value in (word.partition("=") for word in self.words))
        return tuple(zip(self.words[::2], self.words[1::2], strict=True))

    @property
    def text(self) -> str:
        """The instruction on one line, for people: ``RUN npm ci && npm run build``."""
        return re.sub(r"\s+", " ", " ".join((self.keyword, *self.flags, self.arguments))).strip()


@dataclass(frozen=True, slots=True)
class Stage:
    """A build stage: FROM and all up to the next (Dockerfile reference, "FROM")."""

    index: int
    name: str | None
    """In small letters, as the builder compares it; None where FROM gives none."""
    base: str
    """As written, with its variables."""
    base_expanded: str
    """With the global ARGs (given or by default) put in."""
    platform: str | None
    from_stage: int | None
    """Index of the stage that ``base`` names; None for an image."""
    origin: Instruction
    """The FROM instruction itself."""
    instructions: tuple[Instruction, ...]
    """What follows FROM."""

    @property
    def lines(self) -> tuple[int, int]:
        """First and last line, from 1, of FROM to the last instruction, both included."""
        return self.origin.line, self.last.end_line

    @property
    def last(self) -> Instruction:
        """The stage's last instruction; FROM itself where there is no other."""
        return self.instructions[-1] if self.instructions else self.origin

    @property
    def label(self) -> str:
        """How others refer to it: its name, else its number."""
        return self.name or str(self.index)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile; ``text`` is it, byte for byte, and the rest says what stands where."""

    text: str = field(repr=False)
    directives: tuple[Directive, ...]
    global_args: tuple[Instruction, ...]
    """ARG instructions before the first FROM."""
    stages: tuple[Stage, ...]
    """At least one."""
    escape: str
    """The escape character, a backslash or a backtick."""
    build_args: Mapping[str, str]

    @property
    def newline(self) -> str:
        r"""The line end of the file: ``\r\n`` where its first line ends so."""
        first, newline, _ = self.text.partition("\n")
        return "\r\n" if newline and first.endswith("\r") else "\n"

    @property
    def needs_buildkit(self) -> bool:
        """Whether the classic builder refuses it: heredocs, or flags that only BuildKit has."""
        return any(
            instruction.heredocs
            or any(written.partition("=")[0] in _BUILDKIT_FLAGS for written in instruction.flags)
            for stage in self.stages
            for instruction in stage.instructions
        )

    def stage(self, name: str) -> Stage:
        """The stage of that name or, for a number, at that index, as ``--target`` and ``--from`` find it.

        Raises:
            DockerfileError: there is none.
        """
        found = _find_stage(self.stages, name)
        if found is None:
            known = ", ".join(stage.label for stage in self.stages)
            raise DockerfileError(f"Dockerfile: no stage named {name}", f"Its stages are: {known}.")
        return found

    def lineage(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that ``stage`` is built upon, the one that starts from an image first, itself last."""
        chain = [stage]
        while chain[-1].from_stage is not None:
            chain.append(self.stages[chain[-1].from_stage])
        return tuple(reversed(chain))

    @property
    def external_images(self) -> tuple[str, ...]:
        """Images that it takes from: FROM, ``COPY --from``, ``RUN --mount=from=``, in order, once each."""
        found: dict[str, None] = {}
        for stage in self.stages:
            if stage.from_stage is None and stage.base_expanded.lower() != "scratch":
                found[stage.base_expanded] = None
            for instruction in stage.instructions:
                for name in _sources(instruction):
                    if _find_stage(self.stages[: stage.index], name) is None:
                        found[name] = None
        return tuple(found)


def _find_stage(stages: Sequence[Stage], name: str) -> Stage | None:
    """The last stage of that name (case does not matter), else the one with that number."""
    for stage in reversed(stages):
        if stage.name is not None and stage.name == name.lower():
            return stage
    if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(stages):
        return stages[int(name)]
    return None


def source_stage(dockerfile: Dockerfile, stage: Stage, name: str) -> Stage | None:
    """The stage that ``--from=name`` means in ``stage``; None for an image."""
    return _find_stage(dockerfile.stages[: stage.index], name)


def _sources(instruction: Instruction) -> Iterator[str]:
    """Stages or images that an instruction takes files from."""
    taken = instruction.flag("from") if instruction.keyword in ("COPY", "ADD") else None
    if taken:
        yield taken
    for written in instruction.flags:
        if written.startswith("--mount="):
            for part in written.removeprefix("--mount=").split(","):
                key, _, value = part.partition("=")
                if key.strip().lower() == "from" and value:
                    yield value


# -- the grammar's tables ----------------------------------------------------------------------------------

_FLAGS: Final = {
    # Flags of each instruction by what they take; instructions/parse.go, commands_run*.go. A "bool" may stand
    # alone, "many" may be repeated.
    keyword: {name: kind for kind, names in kinds.items() for name in names.split()}
    for keyword, kinds in (
        ("ADD", {"one": "chown chmod checksum", "bool": "link keep-git-dir unpack", "many": "exclude"}),
        ("COPY", {"one": "from chown chmod", "bool": "link parents", "many": "exclude"}),
        ("FROM", {"one": "platform"}),
        ("HEALTHCHECK", {"one": "interval timeout start-period start-interval retries"}),
        ("RUN", {"one": "network security", "many": "mount device"}),
    )
}

_BUILDKIT_FLAGS: Final = {
    # What the classic builder refuses as needing BuildKit, or does not know (moby, builder/dockerfile).
    *("--mount", "--network", "--security", "--device", "--chmod", "--link", "--exclude", "--parents"),
    *("--checksum", "--keep-git-dir", "--unpack", "--start-interval"),
}

_DURATION = (
    # time.ParseDuration, and at least a millisecond or zero (parseOptInterval); blank is unset
    re.compile(r"|\+?0|\+?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+"),
    "a duration of at least 1ms, as 30s or 1m30s",
)

_DURATION_PART = regex(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def nanoseconds(duration: str) -> int:
    """A Go duration in nanoseconds."""
    return round(sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(duration)))


_FLAG_VALUES: Final = {
    # What a flag's value must look like, and that in words; instructions/parse.go, commands_run*.go.
    **dict.fromkeys(("--interval", "--timeout", "--start-period", "--start-interval"), _DURATION),
    "--retries": (re.compile(r"|\+?\d{1,10}|-0+"), "a number that is not negative"),
    "--network": (re.compile("default|none|host"), "default, none or host"),
    "--security": (re.compile("insecure|sandbox"), "insecure or sandbox"),
    "--mount": (
        re.compile(r"(?i:(?!(?:.*,)?\s*\"?from=[^,]*\$[^,]).*)", re.DOTALL),
        "no variable in from=: name a stage FROM $IMAGE AS name, and take from that",
    ),
}

_AT_LEAST_ONE: Final = frozenset(
    {"ARG", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "SHELL", "VOLUME"}
)
_EXACTLY_ONE: Final = frozenset({"MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR"})
_HEREDOC_KEYWORDS: Final = frozenset({"ADD", "COPY", "RUN"})
_NOT_IN_ONBUILD: Final = frozenset({"ONBUILD", "FROM", "MAINTAINER"})

_LINE = regex(r"[^\n]*\n|[^\n]+\Z")
_BLANKS = regex(r"[\t\v\f\r ]+")
_DIRECTIVE = regex(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(\S(?:.*\S)?)[\t\n\f\r ]*\Z")
_STAGE_NAME = regex(r"[a-z][a-z0-9\-_.]*")
_MAX_LINE_BYTES = 65_535
"""Go's bufio.MaxScanTokenSize - 1, which BuildKit reads lines with."""

_PREDEFINED_ARGS: Final = {
    # Dockerfile reference, "Automatic platform ARGs in the global scope", as a build on linux/amd64 sets them.
    f"{side}{name}": value
    for side in ("TARGET", "BUILD")
    for name, value in (("PLATFORM", "linux/amd64"), ("OS", "linux"), ("ARCH", "amd64"), ("VARIANT", ""))
}

# -- reading: lines, then instructions ---------------------------------------------------------------------


def decode(data: bytes) -> str:
    """The bytes of a Dockerfile as text that :func:`encode` gives back byte for byte, whatever they are."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The reverse of :func:`decode`."""
    return text.encode("utf-8", "surrogateescape")


def parse(text: str, build_args: Mapping[str, str] | None = None, name: str = "Dockerfile") -> Dockerfile:
    """A Dockerfile as nouns; ``build_args`` are what the build is given as ``--build-arg``.

    Args:
        text: with its own line ends (read bytes and :func:`decode` them; text mode would change them).
        build_args: values for ARG instructions, instead of their defaults.
        name: what messages call the file.

    Raises:
        DockerfileError: what BuildKit refuses too: ``Dockerfile:12:5: unknown instruction: RUNN``.
    """
    reader = _Reader(text, name)
    instructions = list(reader.instructions())
    if not instructions:
        raise reader.error("file with no instructions", max(len(reader.lines), 1), 1)
    given = dict(build_args or {})
    first = next((n for n, found in enumerate(instructions) if found.keyword == "FROM"), len(instructions))
    for instruction in instructions[:first]:
        if instruction.keyword != "ARG":
            raise reader.error(
                f"{instruction.keyword} stands before the first FROM",
                instruction.line,
                instruction.column,
                "A Dockerfile starts with FROM; only ARG may come before it.",
            )
    if first == len(instructions):
        last = instructions[-1]
        raise reader.error("no FROM: there is nothing to build", last.line, last.column, "Add a FROM line.")
    global_args = tuple(instructions[:first])
    scope = _global_scope(global_args, reader, given)
    return Dockerfile(
        text=text,
        directives=tuple(reader.directives),
        global_args=global_args,
        stages=_stages(instructions[first:], scope, reader),
        escape=reader.escape,
        build_args=given,
    )


@dataclass(slots=True)
class _Joined:
    """One logical line: the physical lines of an instruction, joined without comments and continuations."""

    text: str
    pieces: list[tuple[int, int, int]]
    """(offset in ``text``, line, column) of the first character of each physical line."""
    first: int
    last: int

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of a character of the joined text."""
        found = self.pieces[0]
        for piece in self.pieces:
            if piece[0] > offset:
                break
            found = piece
        return found[1], found[2] + offset - found[0]


class _Reader:
    """Walks the lines of a file as parser.go's ``Parse`` does."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.escape = "\\"
        self.directives: list[Directive] = []
        self._may_be_directive = True
        self._continuation = _continuation("\\")
        self.bom = len(text) - len(text.removeprefix("\ufeff"))
        self.lines = _LINE.findall(text[self.bom :])
        self.offsets = [self.bom]
        for line in self.lines:
            self.offsets.append(self.offsets[-1] + len(line))
        self.text = text
        self.at = 0

    def error(self, message: str, line: int, column: int, hint: str = "") -> DockerfileError:
        return DockerfileError(
            f"{self.name}:{line}:{column}: {message}",
            hint or "Mend that line; the Dockerfile reference says what each instruction takes.",
        )

    def instructions(self) -> Iterator[Instruction]:
        while self.at < len(self.lines):
            joined = self._logical_line()
            if joined is not None:
                yield self._instruction(joined)

    def _next(self) -> str:
        """The next line without its end."""
        line: str = self.lines[self.at]
        self.at += 1
        if len(line) > _MAX_LINE_BYTES // 4 and len(encode(line)) > _MAX_LINE_BYTES:
            raise self.error(
                f"line greater than max allowed size of {_MAX_LINE_BYTES}", self.at, _MAX_LINE_BYTES
            )
        line = line.rstrip("\r\n")
        if self._may_be_directive:
            self._directive(line.lstrip())
        return line

    def _directive(self, line: str) -> None:
        """Directives end at the first line that is none, blank lines and other comments included."""
        match = _DIRECTIVE.match(line[1:].lstrip()) if line.startswith("#") else None
        name = match[1].lower() if match else ""
        if match is None or name not in ("syntax", "escape", "check"):
            self._may_be_directive = False
            return
        column = self.lines[self.at - 1].index("#") + 1
        if any(known.name == name for known in self.directives):
            raise self.error(f"only one {name} parser directive can be used", self.at, column)
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise self.error(
                    f"invalid escape token {match[2]!r}", self.at, column, r"It is either \ or a backtick."
                )
            self.escape = match[2]
            self._continuation = _continuation(match[2])
        self.directives.append(Directive(name, match[2], self.at))

    def _logical_line(self) -> _Joined | None:
        """The next instruction's text; None for a blank or comment line."""
        raw = self._next()
        line = raw.lstrip()
        if line.startswith("#") or not line:
            return None
        first = self.at
        pieces = [(0, first, len(raw) - len(line) + 1)]
        line, goes_on = self._without_continuation(line)
        parts = [line]
        length = len(line)
        while goes_on and self.at < len(self.lines):
            line = self._next()
            if not line.strip() or line.lstrip().startswith("#"):
                continue  # comments, and blank lines with a warning in BuildKit
            pieces.append((length, self.at, 1))
            line, goes_on = self._without_continuation(line)
            parts.append(line)
            length += len(line)
        return _Joined("".join(parts), pieces, first, self.at)

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        match = self._continuation.search(line)
        return (line, False) if match is None else (line[: match.end("kept")] if match["kept"] else "", True)

    def _instruction(self, joined: _Joined) -> Instruction:
        instruction = _Line(joined, self).instruction(joined.text, 0)
        owner = instruction.trigger or instruction
        if owner.keyword in _HEREDOC_KEYWORDS and not owner.exec_form and "<<" in joined.text:
            heredocs = tuple(self._heredoc(opened, joined) for opened in self._openings(joined))
            instruction = replace(instruction, heredocs=heredocs)
            if instruction.trigger is not None:
                instruction = replace(instruction, trigger=replace(instruction.trigger, heredocs=heredocs))
        start, end = self.offsets[joined.first - 1], self.offsets[self.at]
        return replace(instruction, end_line=self.at, start=start, end=end, source=self.text[start:end])

    def _openings(self, joined: _Joined) -> list[Any]:
        from e2b_dockerfile_utils import ShellLex, parse_heredoc

        try:
            words = ShellLex("\\", raw_quotes=True, raw_escapes=True).process_words(joined.text)
        except ValueError:
            return []  # as heredocsFromLine does, which drops the error
        try:
            return [found for found in map(parse_heredoc, words) if found is not None]
        except ValueError as error:
            raise self.error(str(error), *joined.position(joined.text.index("<<"))) from error

    def _heredoc(self, opened: Any, joined: _Joined) -> Heredoc:
        content: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self._next()
            ends = line.rstrip("\r\n")
            if (ends.lstrip("\t") if opened.chomp else ends) == opened.name:
                return Heredoc(opened.name, "".join(content), opened.chomp, opened.expand)
            content.append(line)
        raise self.error(
            "unterminated heredoc",
            *joined.position(joined.text.index("<<")),
            f"No line says {opened.name} alone.",
        )


def _continuation(escape: str) -> re.Pattern[str]:
    """The escape character at the end of a line, unless another stands before it (parser.go, setEscapeToken)."""
    token = re.escape(escape)
    return re.compile(rf"(?P<kept>[^{token}]){token}[ \t]*\Z|^{token}[ \t]*\Z")


# -- reading: one logical line -----------------------------------------------------------------------------


class _ListMemberError(ValueError):
    """A JSON list of other things than strings: refused, where broken JSON is taken for a command of the shell."""


@dataclass(slots=True)
class _Line:
    """Splits one logical line into an instruction: split_command.go, line_parsers.go, instructions/parse.go."""

    joined: _Joined
    reader: _Reader

    def instruction(self, text: str, offset: int, delayed: bool = False) -> Instruction:
        """``text`` starts at ``offset`` of the joined line; ``delayed`` for what follows ONBUILD."""
        stripped = text.strip()
        at = offset + text.index(stripped)
        written, _, _ = _split_once(stripped)
        keyword = written.upper()
        if keyword not in KEYWORDS and not delayed:
            raise self.error(f"unknown instruction: {written}", at, _did_you_mean(keyword))
        rest_at = at + len(written) + len(_split_once(stripped)[1])
        flags, arguments, arguments_at = self._flags(self.joined.text[rest_at : at + len(stripped)], rest_at)
        if not delayed:  # the builder looks at a trigger only where it fires
            self._check_flags(keyword, flags)
        trigger = None
        if keyword == "ONBUILD":
            trigger = self._trigger(arguments, arguments_at, delayed, at)
            words, exec_form = ((trigger.keyword, *trigger.words), False) if trigger else ((), False)
        else:
            try:
                words, exec_form = _SPLITTERS.get(keyword, _split_nothing)(arguments, self.reader.escape)
            except _ListMemberError as error:
                raise self.error(str(error), arguments_at, "Write every member in double quotes.") from error
            except ValueError as error:
                raise self.error(str(error), arguments_at or at) from error
            if not delayed:
                self._check_words(keyword, words, exec_form, at, arguments_at)
        line, column = self.joined.position(at)
        return Instruction(
            keyword, tuple(word for word, _ in flags), arguments, words, exec_form, (), trigger,
            line, column, self.joined.last, 0, 0, "",
        )  # fmt: skip

    def error(self, message: str, offset: int, hint: str = "") -> DockerfileError:
        return self.reader.error(message, *self.joined.position(offset), hint)

    def _trigger(self, arguments: str, at: int, delayed: bool, keyword_at: int) -> Instruction | None:
        if not arguments:
            raise self.error("ONBUILD requires at least one argument", keyword_at)
        word = _split_once(arguments)[0].upper()
        if delayed or word in _NOT_IN_ONBUILD:
            raise self.error(f"{word} isn't allowed as an ONBUILD trigger", at)
        return self.instruction(arguments, at, delayed=True)

    def _flags(self, rest: str, at: int) -> tuple[list[tuple[str, int]], str, int]:
        """Leading ``--flag`` words with their offsets, then the arguments and their offset.

        extractBuilderFlags: quotes are taken off, the escape character protects one character, ``--`` ends them.
        """
        flags: list[tuple[str, int]] = []
        position = 0
        while True:
            while position < len(rest) and rest[position].isspace():
                position += 1
            if not rest.startswith("--", position):
                break
            start = position
            word, position = self._flag_word(rest, position)
            if word == "--":
                break
            flags.append((word, at + start))
        arguments = rest[position:].strip()
        return flags, arguments, at + rest.index(arguments, position) if arguments else at + position

    def _flag_word(self, rest: str, position: int) -> tuple[str, int]:
        word = []
        quote = ""
        while position < len(rest) and (quote or not rest[position].isspace()):
            character = rest[position]
            if character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
            elif character != self.reader.escape:
                word.append(character)
            elif position + 1 < len(rest):
                position += 1
                word.append(rest[position])
            else:
                quote = ""
            position += 1
        return "".join(word), position

    def _check_flags(self, keyword: str, flags: list[tuple[str, int]]) -> None:
        """instructions/bflag.go; STOPSIGNAL and ARG take flags and do not look at them, as in parse.go."""
        if keyword in ("STOPSIGNAL", "ARG"):
            return
        known = _FLAGS.get(keyword, {})
        seen = set()
        for written, at in flags:
            name, equals, value = written.partition("=")
            kind = known.get(name[2:])
            if kind is None:
                takes = ", ".join(f"--{flag}" for flag in sorted(known)) or "no flags"
                raise self.error(f"unknown flag: {name}", at, f"{keyword} takes {takes}.")
            if name in seen and kind != "many":
                raise self.error(f"duplicate flag specified: {name}", at)
            seen.add(name)
            if kind == "bool":
                if equals and not value:
                    raise self.error(f"missing a value on flag: {name}", at)
                if value.lower() not in ("", "true", "false"):
                    raise self.error(f"expecting boolean value for flag {name}, not: {value}", at)
            elif not equals:
                raise self.error(f"missing a value on flag: {name}", at)
            elif name in _FLAG_VALUES:
                form, what = _FLAG_VALUES[name]
                too_short = form is _DURATION[0] and 0 < nanoseconds(value) < SHORTEST_DURATION_NS
                if form.fullmatch(value) is None or too_short:
                    raise self.error(f"{value!r} is no value for {name}", at, f"It takes {what}.")

    def _check_words(
        self, keyword: str, words: tuple[str, ...], exec_form: bool, at: int, words_at: int
    ) -> None:
        """Numbers of arguments, and what a few keywords ask beyond them (instructions/parse.go)."""
        if keyword in _AT_LEAST_ONE and not words:
            raise self.error(f"{keyword} requires at least one argument", at)
        if keyword in _EXACTLY_ONE and len(words) != 1:
            raise self.error(f"{keyword} requires exactly one argument", at)
        if keyword in ("COPY", "ADD"):
            self._check_copy(keyword, words, at, words_at)
        elif keyword in ("ENV", "LABEL") and "" in words[::2]:
            raise self.error(f"{keyword} names can not be blank", words_at)
        elif keyword == "ARG" and any(word.startswith("=") for word in words):
            raise self.error("ARG names can not be blank", words_at)
        elif keyword == "SHELL" and not exec_form:
            raise self.error("SHELL requires the arguments to be in JSON form", words_at)
        elif keyword == "VOLUME" and not all(word.strip() for word in words):
            raise self.error("VOLUME specified can not be an empty string", words_at)
        elif keyword == "FROM":
            self._check_from(words, at, words_at)
        elif keyword == "HEALTHCHECK":
            self._check_healthcheck(words, words_at)

    def _check_copy(self, keyword: str, words: tuple[str, ...], at: int, words_at: int) -> None:
        if len(words) < 2:
            raise self.error(
                f"{keyword} requires at least two arguments, but only {len(words) or 'none'} was given",
                words_at if words else at,
                f"Write {keyword} SOURCE… DESTINATION.",
            )
        from e2b_dockerfile_utils import parse_heredoc

        try:
            heredoc = parse_heredoc(words[-1])
        except ValueError:
            heredoc = None
        if heredoc is not None:
            raise self.error(f"{keyword} cannot accept a heredoc as a destination", words_at)

    def _check_from(self, words: tuple[str, ...], at: int, words_at: int) -> None:
        if len(words) == 3 and words[1].lower() == "as":
            if _STAGE_NAME.fullmatch(words[2].lower()) is None:
                raise self.error(
                    f"invalid name for build stage: {words[2]!r}",
                    self.joined.text.index(words[2], words_at + len(words[0])),
                    "A stage's name starts with a letter; letters, digits, and - _ . may follow.",
                )
        elif len(words) != 1:
            raise self.error(
                "FROM requires either one or three arguments",
                words_at if words else at,
                "Write FROM IMAGE or FROM IMAGE AS NAME.",
            )

    def _check_healthcheck(self, words: tuple[str, ...], words_at: int) -> None:
        kind = words[0].upper()
        if kind == "NONE" and len(words) > 1:
            raise self.error("HEALTHCHECK NONE takes no arguments", words_at)
        if kind == "CMD" and len(words) == 1:
            raise self.error("missing command after HEALTHCHECK CMD", words_at)
        if kind not in ("NONE", "CMD"):
            raise self.error(f"unknown type {words[0]!r} in HEALTHCHECK (try CMD)", words_at)


def _split_once(text: str) -> tuple[str, str, str]:
    """The first word, the blanks after it, the rest."""
    match = _BLANKS.search(text)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


def _did_you_mean(keyword: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(keyword, KEYWORDS, 1)
    return f"Did you mean {close[0]}?" if close else "Does the line before lack a continuation character?"


_Splitter = Callable[[str, str], tuple[tuple[str, ...], bool]]


def _json_words(rest: str) -> tuple[str, ...] | None:
    """The members of a JSON list of strings; None where it is none, so that the builder takes it as text."""
    if not rest.startswith("["):
        return None

    def refuse(_constant: str) -> None:
        raise ValueError  # NaN and Infinity are no JSON

    try:
        value = json.loads(rest, parse_constant=refuse)
    except ValueError:
        return None
    except RecursionError:
        raise _ListMemberError("JSON nested too deeply") from None
    if not all(isinstance(member, str) for member in value):
        raise _ListMemberError("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(
        member.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if re.search("\\\\ud", rest, re.I)
        else member
        for member in value
    )


def _split_nothing(_rest: str, _escape: str) -> tuple[tuple[str, ...], bool]:
    return ("",), False  # an unknown instruction behind ONBUILD


def _split_text(rest: str, _escape: str) -> tuple[tuple[str, ...], bool]:
    return ((rest,) if rest else ()), False


def _split_command(rest: str, _escape: str) -> tuple[tuple[str, ...], bool]:
    members = _json_words(rest)
    return (members, True) if members is not None else (((rest,) if rest else ()), False)


def _split_blanks(rest: str, _escape: str) -> tuple[tuple[str, ...], bool]:
    return (tuple(_BLANKS.split(rest)) if rest else ()), False


def _split_list(rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
    members = _json_words(rest)
    return (members, True) if members is not None else _split_blanks(rest, escape)


def _split_words(rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
    from e2b_dockerfile_utils import parse_words

    return tuple(parse_words(rest, escape)), False


def _split_healthcheck(rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
    kind, _, command = _split_once(rest)
    if not kind:
        return (), False
    words, exec_form = _split_command(command.strip(), escape)
    return (kind, *words), exec_form


def _split_pairs(keyword: str) -> _Splitter:
    def split(rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
        words, _ = _split_words(rest, escape)
        if words and "=" not in words[0]:  # the old form: one name, a blank, the value
            name, blanks, value = _split_once(rest)
            if not blanks:
                raise ValueError(f"{keyword} must have two arguments")
            return (name, value), False
        for word in words:
            if "=" not in word:
                raise ValueError(f"can't find = in {word!r}: must be of the form name=value")
        return tuple(part for word in words for part in word.split("=", 1)), False

    return split


_SPLITTERS: Final[dict[str, _Splitter]] = {
    # parser.go's dispatch table.
    "ADD": _split_list,
    "ARG": _split_words,
    "CMD": _split_command,
    "COPY": _split_list,
    "ENTRYPOINT": _split_command,
    "ENV": _split_pairs("ENV"),
    "EXPOSE": _split_blanks,
    "FROM": _split_blanks,
    "HEALTHCHECK": _split_healthcheck,
    "LABEL": _split_pairs("LABEL"),
    "MAINTAINER": _split_text,
    "RUN": _split_command,
    "SHELL": _split_command,
    "STOPSIGNAL": _split_text,
    "USER": _split_text,
    "VOLUME": _split_list,
    "WORKDIR": _split_text,
}


# -- stages and variables ----------------------------------------------------------------------------------


def _expand(word: str, escape: str, variables: Mapping[str, str]) -> str:
    """Variables put in, quotes and escapes taken off (Dockerfile reference, "Environment replacement").

    Raises:
        ValueError: a substitution that the builder refuses, ``${name`` or ``${name:?}``.
    """
    if not any(character in word for character in ("$", "'", '"', escape)):
        return word
    from e2b_dockerfile_utils import ShellLex

    return ShellLex(escape, env=variables, skip_unset_env=False).process_word(word)


def _global_scope(args: Sequence[Instruction], reader: _Reader, given: Mapping[str, str]) -> dict[str, str]:
    scope = {**_PREDEFINED_ARGS, **{name: given[name] for name in _PREDEFINED_ARGS if name in given}}
    for instruction in args:
        for word in instruction.words:
            name, equals, value = word.partition("=")
            if name in given:
                scope[name] = given[name]
            elif equals:
                scope[name] = _expand_at(value, reader, scope, instruction)
    return scope


def _expand_at(word: str, reader: _Reader, scope: Mapping[str, str], instruction: Instruction) -> str:
    try:
        return _expand(word, reader.escape, scope)
    except ValueError as error:
        raise reader.error(str(error), instruction.line, instruction.column) from error


def _stages(
    instructions: Sequence[Instruction], scope: Mapping[str, str], reader: _Reader
) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    starts = [n for n, instruction in enumerate(instructions) if instruction.keyword == "FROM"]
    for start, end in zip(starts, [*starts[1:], len(instructions)], strict=True):
        origin = instructions[start]
        base = _expand_at(origin.words[0], reader, scope, origin)
        if not base:
            raise reader.error(
                f"base name ({origin.words[0]}) should not be blank", origin.line, origin.column,
                "Give the ARG a default, or the value as a build argument.",
            )  # fmt: skip
        platform = origin.flag("platform")
        parent = next((s for s in reversed(stages) if s.name is not None and s.name == base.lower()), None)
        stages.append(
            Stage(
                index=len(stages),
                name=origin.words[2].lower() if len(origin.words) == 3 else None,
                base=origin.words[0],
                base_expanded=base,
                platform=None if platform is None else _expand_at(platform, reader, scope, origin),
                from_stage=None if parent is None else parent.index,
                origin=origin,
                instructions=tuple(instructions[start + 1 : end]),
            )
        )
    return tuple(stages)


# -- rewriting ---------------------------------------------------------------------------------------------


def unused_stage_name(dockerfile: Dockerfile, wanted: str = "builder") -> str:
    """``wanted``, or ``wanted2``, ``wanted3`` … where a stage or an image of that name is in use already."""
    taken = {stage.name for stage in dockerfile.stages if stage.name is not None}
    taken |= {image.lower() for image in dockerfile.external_images}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}{number}"
    return name


def as_builder(dockerfile: Dockerfile, target: Stage, builder_name: str = "builder") -> tuple[str, str]:
    """The file with ``target`` named, so that later stages can copy from it, and the name it has.

    A stage that has a name keeps it, and the text comes back as it was; else ``AS builder`` is put behind its
    FROM, and nothing else changes. Stages after the target stay where they are.
    """
    if target.name is not None:
        return dockerfile.text, target.name
    name = unused_stage_name(dockerfile, builder_name)
    at = _end_of_from(target.origin)
    return f"{dockerfile.text[:at]} AS {name}{dockerfile.text[at:]}", name


def _end_of_from(origin: Instruction) -> int:
    """Offset in the text after the image of a FROM without a name, continuation lines and comments or not."""
    at = origin.source.rindex(origin.words[0]) if origin.words[0] in origin.source else -1
    if at < 0:
        raise DockerfileError(
            f"Dockerfile:{origin.line}:{origin.column}: the image's name is broken over lines",
            "Write FROM and the image on one line.",
        )
    for line in _LINE.finditer(origin.source):
        if origin.words[0] in line[0] and not line[0].lstrip().startswith("#"):
            at = line.start() + line[0].rindex(origin.words[0])
    return origin.start + at + len(origin.words[0])


def append_stages(dockerfile: Dockerfile, text: str, stages: str) -> str:
    r"""``text`` (the file, rewritten or not) with ``stages`` after a blank line, in the file's own line ends.

    ``stages`` uses ``\n``, and a backslash at the end of a line where an instruction goes on, which becomes the
    file's escape character.
    """
    newline = dockerfile.newline
    text = _finished(text, dockerfile.escape)
    if text and not text.endswith("\n"):
        text += newline
    if text.strip() and not text.endswith((newline * 2, "\n\n")):
        text += newline
    return text + _in_its_manner(dockerfile, stages)


@dataclass(frozen=True, slots=True)
class Succession:
    """How a stage of a file with several is followed by the small one that is made of it."""

    builder: str
    """What the stage is called from now on."""
    name: str | None
    """What the new last stage is called: as the target was, where nothing else counts on that."""
    takes_over: bool
    """Whether the new stages come right behind the target; otherwise they come last of all."""


def succession(dockerfile: Dockerfile, target: Stage) -> Succession:
    """How the small stage comes after ``target``.

    It takes over the target's name, so that ``--target`` means it, unless later stages are built upon the target or
    copy from it, or name a stage by a number that would be another's then.
    """
    if target.name is None:
        is_last = target.index == len(dockerfile.stages) - 1
        return Succession(
            unused_stage_name(dockerfile), None if is_last else unused_stage_name(dockerfile, "slim"), is_last
        )
    if any(_counts_on(stage, target) for stage in dockerfile.stages[target.index + 1 :]):
        return Succession(target.name, unused_stage_name(dockerfile, f"{target.name}-slim"), False)
    return Succession(unused_stage_name(dockerfile, f"{target.name}-builder"), target.name, True)


def _counts_on(stage: Stage, target: Stage) -> bool:
    """Whether a later stage has need of the target as it is, or of the numbers of stages."""
    names = [name for instruction in stage.instructions for name in _sources(instruction)]
    return stage.from_stage == target.index or any(
        name.lower() == target.name or (name.isdigit() and int(name) >= target.index) for name in names
    )


def succeed(dockerfile: Dockerfile, target: Stage, how: Succession, stages: str) -> str:
    """The file with ``stages`` (see :func:`append_stages`) after ``target``, which is renamed; all else untouched."""
    if target.name is None:
        text, _ = as_builder(dockerfile, target, how.builder)
    elif how.takes_over:
        at = _start_of_name(target.origin)
        text = dockerfile.text[:at] + how.builder + dockerfile.text[at + len(target.name) :]
    else:
        text = dockerfile.text
    if not how.takes_over:
        if how.name is not None:
            stages = f"# other stages count on {target.label}: docker build --target {how.name}\n{stages}"
        return append_stages(dockerfile, text, stages)
    end = target.last.end + len(text) - len(dockerfile.text)
    following = text[end:]
    text = append_stages(dockerfile, text[:end], stages)
    if following.strip() and not following.startswith(("\n", "\r\n")):
        text += dockerfile.newline
    return text + following


def _start_of_name(origin: Instruction) -> int:
    """Offset in the text of the stage's name in its FROM."""
    name = origin.words[2]
    for line in reversed(list(_LINE.finditer(origin.source))):
        if not line[0].lstrip().startswith("#") and name in line[0]:
            return origin.start + line.start() + line[0].rindex(name)
    raise DockerfileError(
        f"Dockerfile:{origin.line}:{origin.column}: the stage's name is broken over lines",
        "Write FROM, the image and its name on one line.",
    )


def insert_after(dockerfile: Dockerfile, instruction: Instruction, lines: Sequence[str]) -> str:
    """The file with ``lines`` behind an instruction, before the comments that lead to the next."""
    before, after = dockerfile.text[: instruction.end], dockerfile.text[instruction.end :]
    before = _finished(before, dockerfile.escape)
    if not before.endswith("\n"):
        before += dockerfile.newline
    return before + _in_its_manner(dockerfile, "".join(f"{line}\n" for line in lines)) + after


def _finished(text: str, escape: str) -> str:
    """The text without a continuation character behind which nothing comes, so that what is added is not joined."""
    lines = _LINE.findall(text)
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number].rstrip("\r\n")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _continuation(escape).search(line)
        if found is not None:
            lines[number] = line[: found.end("kept") if found["kept"] else 0] + lines[number][len(line) :]
        break
    return "".join(lines)


def _in_its_manner(dockerfile: Dockerfile, text: str) -> str:
    """Generated text with the file's own escape character at the ends of lines, and its line ends."""
    if dockerfile.escape != "\\":
        text = re.sub(r"\\$", dockerfile.escape, text, flags=re.MULTILINE)
    if text and not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", dockerfile.newline)


# -- variables and WORKDIR while a stage is walked --------------------------------------------------------


class Scope:
    """Variables and WORKDIR while a stage is walked (Dockerfile reference, "Using ARG variables")."""

    def __init__(self, dockerfile: Dockerfile, config: ImageConfig) -> None:
        self.dockerfile = dockerfile
        self.escape = dockerfile.escape
        self.globals = {**_PREDEFINED_ARGS, **dockerfile.build_args}
        for instruction in dockerfile.global_args:
            for word in instruction.words:
                name, equals, value = word.partition("=")
                if equals and name not in dockerfile.build_args:
                    self.globals[name] = _expand_or_keep(value, self.escape, self.globals)
        # The base's ENV is not in the Dockerfile; the image's is the nearest there is.
        self.env = dict(env_pairs(config))
        self.args: dict[str, str] = {}
        self.workdir = "/"
        self.own: set[str] = set()

    def enter(self, stage: Stage) -> None:
        """Go on with a stage: one that starts from an image knows nothing of those before."""
        if stage.from_stage is None:
            self.args, self.workdir = {}, "/"

    def expand(self, word: str) -> str:
        """A word with its variables put in, as far as they are known."""
        return _expand_or_keep(word, self.escape, {**self.args, **self.env})

    def expand_own(self, name: str, value: str) -> str:
        """As :meth:`expand`, where the value may build on the variable's own, which the base image set.

        What that was the config no longer tells, since it has the last value only: it stays as ``$NAME``.
        """
        if name in self.own:
            return self.expand(value)
        return _expand_or_keep(value, self.escape, {**self.args, **self.env, name: f"${name}"})

    def set_env(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Note what an ENV sets; a value that is not known whole stays the config's."""
        for name, value in pairs:
            if "$" not in value:
                self.env[name] = value
                self.own.add(name)

    def take(self, instruction: Instruction) -> None:
        """Go past an ARG, ENV or WORKDIR; others change nothing here."""
        if instruction.keyword == "ARG":
            self.declare(instruction.words)
        elif instruction.keyword == "ENV":
            self.set_env(
                [(self.expand(name), self.expand_own(name, value)) for name, value in instruction.pairs]
            )
        elif instruction.keyword == "WORKDIR":
            self.workdir = absolute(self.workdir, self.expand(instruction.words[0]))

    def declare(self, words: Sequence[str]) -> None:
        """Note what an ARG declares."""
        for word in words:
            name, equals, value = word.partition("=")
            given = self.dockerfile.build_args.get(name)
            if given is not None:
                self.args[name] = given
            elif equals:
                self.args[name] = self.expand(value)
            elif name in self.globals:
                self.args[name] = self.globals[name]


def _expand_or_keep(word: str, escape: str, variables: Mapping[str, str]) -> str:
    try:
        return _expand(word, escape, variables)
    except ValueError:  # ${name:?} of a value that only the build knew
        return word


def absolute(workdir: str, path: str) -> str:
    """A destination as the builder takes it: from the root, without ``.``, ``..`` and a slash at the end."""
    return posixpath.normpath(posixpath.join("/", workdir, path)).replace("//", "/")
