"""Dockerfiles: text → nouns → text, and whether one built a given image.

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
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from layerlens.errors import DockerfileError
from layerlens.history import KEYWORDS, dockerfile_line
from layerlens.model import ImageConfig
from layerlens.model import Instruction as HistoryEntry

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

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
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
_SHORTEST_NS: Final = 1_000_000

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

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(\S(?:.*\S)?)[\t\n\f\r ]*\Z")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
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
        self.lines = re.findall(r"[^\n]*\n|[^\n]+\Z", text[self.bom :])
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
                too_short = form is _DURATION[0] and 0 < _nanoseconds(value) < _SHORTEST_NS
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
    for line in re.finditer(r"[^\n]*\n|[^\n]+\Z", origin.source):
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


def replace_stage(dockerfile: Dockerfile, target: Stage, stages: str) -> str:
    """The file with ``target``, from FROM to its last instruction, replaced by ``stages``; all else untouched.

    ``stages`` is as in :func:`append_stages`; it should give the last of its stages the target's name.

    Raises:
        DockerfileError: it is several stages and one after the target refers to a stage by number, which would
            be another's then.
    """
    added = len(re.findall(r"(?im)^[ \t]*FROM[ \t]", stages)) - 1
    if added:
        for stage in dockerfile.stages[target.index + 1 :]:
            for instruction in stage.instructions:
                if any(name.isdigit() and int(name) >= target.index for name in _sources(instruction)):
                    raise DockerfileError(
                        f"Dockerfile:{instruction.line}:{instruction.column}: refers to a stage by its number",
                        "Name the stages with AS, and refer to them by name.",
                    )
    end = target.last.end
    text = _in_its_manner(dockerfile, stages)
    if not dockerfile.text[:end].endswith("\n"):
        text = text.rstrip("\r\n")
    return dockerfile.text[: target.origin.start] + text + dockerfile.text[end:]


def insert_at_end(dockerfile: Dockerfile, stage: Stage, lines: Sequence[str]) -> str:
    """The file with ``lines`` after the stage's last instruction, before comments that lead to the next."""
    return _insert_after(dockerfile, stage.last, lines)


def insert_copies(dockerfile: Dockerfile, stage: Stage, lines: Sequence[str]) -> str:
    """The file with ``lines`` after the last instruction of the stage that makes files or sets WORKDIR or ENV.

    That is before the CMD, ENTRYPOINT, USER … at its end, where the lines see the final WORKDIR.
    """
    after = stage.origin
    for instruction in stage.instructions:
        if instruction.keyword in ("RUN", "COPY", "ADD", "WORKDIR") or (
            instruction.keyword in ("ENV", "ARG") and after.keyword in ("FROM", "ENV", "ARG")
        ):
            after = instruction
    return _insert_after(dockerfile, after, lines)


def _insert_after(dockerfile: Dockerfile, instruction: Instruction, lines: Sequence[str]) -> str:
    before, after = dockerfile.text[: instruction.end], dockerfile.text[instruction.end :]
    before = _finished(before, dockerfile.escape)
    if not before.endswith("\n"):
        before += dockerfile.newline
    return before + _in_its_manner(dockerfile, "".join(f"{line}\n" for line in lines)) + after


def _finished(text: str, escape: str) -> str:
    """The text without a continuation character behind which nothing comes, so that what is added is not joined."""
    lines = re.findall(r"[^\n]*\n|[^\n]+\Z", text)
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


# -- generated lines ---------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~^-]+")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./:@%+,=~^-]+")


def from_line(image: str, name: str | None = None, platform: str | None = None) -> str:
    """``FROM [--platform=…] image [AS name]``."""
    flag = f"--platform={platform} " if platform else ""
    return f"FROM {flag}{image}" + (f" AS {name}" if name else "")


def copy_line(
    sources: Sequence[str],
    target: str,
    from_stage: str | None = None,
    chown: str | None = None,
    chmod: str | None = None,
    escape: str = "\\",
) -> str:
    """``COPY [--from=…] [--chown=…] [--chmod=…] sources… target``, each source taken by its exact name.

    A path with blanks, quotes, ``$``, wildcards or the escape character is written so that the builder comes out
    with the path again: wildcards as in Go's ``filepath.Match``, then variables and quotes escaped (the builder
    expands the exec form's members too), then JSON. Several sources need a target that ends with ``/``.

    Raises:
        DockerfileError: a target whose bytes are not UTF-8, which no Dockerfile can name.
    """
    flags = [
        f"--{name}={value}"
        for name, value in (("from", from_stage), ("chown", chown), ("chmod", chmod))
        if value
    ]
    if _is_not_text(target):
        raise DockerfileError(
            f"a Dockerfile cannot name {target!r}: not UTF-8", "Copy the folder it is in instead."
        )
    if len(sources) > 1 and not target.endswith("/"):
        target += "/"
    words = [_unexpanded(_exact(source), escape) for source in sources] + [_unexpanded(target, escape)]
    if all(_PLAIN_PATH.fullmatch(path) for path in (*sources, target)):
        return " ".join(["COPY", *flags, *words])
    return " ".join(["COPY", *flags, _json(words)])


def _is_not_text(path: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in path)


def _exact(path: str) -> str:
    """A pattern of Go's ``filepath.Match`` for one path; a byte that is not UTF-8 can only be met by ``?``.

    The builder takes a path without wildcards as it stands, a backslash in it too.
    """
    if not any(character in "*?[" for character in path) and not _is_not_text(path):
        return path
    return re.sub("[\ud800-\udfff]", "?", re.sub(r"[*?\[\\]", lambda found: f"[{_in_class(found[0])}]", path))


def _in_class(character: str) -> str:
    return "\\\\" if character == "\\" else character


def _unexpanded(word: str, escape: str) -> str:
    """A word that the builder's expansion gives back unchanged outside quotes."""
    return re.sub(rf"[$'\"{re.escape(escape)}]", lambda found: escape + found[0], word)


def _json(words: Sequence[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)


def _quoted(value: str, escape: str) -> str:
    """A value of ENV, LABEL, WORKDIR or USER: bare where it can be, else in double quotes."""
    if _PLAIN.fullmatch(value):
        return value
    inside = re.sub(rf"[$\"{re.escape(escape)}]", lambda found: escape + found[0], value)
    return f'"{inside}"'


def _expressible(text: str) -> bool:
    """Whether a Dockerfile can hold it outside JSON: no line breaks, no NUL, and UTF-8."""
    return not any(character in "\n\r\0" for character in text) and not _is_not_text(text)


def _pairs_line(keyword: str, pairs: Sequence[tuple[str, str]], escape: str) -> str:
    written = [f"{_quoted(name, escape)}={_quoted(value, escape)}" for name, value in pairs]
    return f"{keyword} " + f" {escape}\n    ".join(written)


def env_line(pairs: Sequence[tuple[str, str]], escape: str = "\\") -> str:
    """``ENV A=b …``, one variable on a line; values with blanks, quotes, ``$`` … quoted."""
    return _pairs_line("ENV", pairs, escape)


def label_line(pairs: Sequence[tuple[str, str]], escape: str = "\\") -> str:
    """``LABEL a=b …``, as :func:`env_line`."""
    return _pairs_line("LABEL", pairs, escape)


def exec_line(keyword: str, words: Sequence[str]) -> str:
    """``CMD``, ``ENTRYPOINT`` or ``SHELL`` in exec form, which no shell and no expansion touches."""
    return f"{keyword} {_json(words)}"


def go_duration(nanoseconds: int) -> str:
    """A Go duration, ``1m30s`` or ``1.5s``, that ``time.ParseDuration`` reads back exactly."""
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds, fraction = divmod(rest, 1_000_000_000)
    text = f"{minutes}m" if minutes else ""
    if fraction:
        return f"{text}{seconds}.{fraction:09d}".rstrip("0") + "s"
    return f"{text}{seconds}s" if seconds or not text else text


_HEALTHCHECK_FLAGS: Final = (
    # Key of the config (docker-image-spec, HealthcheckConfig), flag of the instruction.
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start-period"),
    ("StartInterval", "start-interval"),
)


def healthcheck_line(healthcheck: Mapping[str, Any]) -> str | None:
    """HEALTHCHECK from a config's ``Healthcheck``; None where it says nothing (an empty ``Test`` inherits)."""
    test = healthcheck.get("Test")
    if not isinstance(test, list) or not test or not all(isinstance(word, str) for word in test):
        return None
    if test[0] == "NONE":
        return "HEALTHCHECK NONE"
    flags = []
    for key, flag in _HEALTHCHECK_FLAGS:
        value = healthcheck.get(key)
        if isinstance(value, int) and value >= _SHORTEST_NS:  # less is refused
            flags.append(f"--{flag}={go_duration(value)}")
    retries = healthcheck.get("Retries")
    if isinstance(retries, int) and retries > 0:
        flags.append(f"--retries={retries}")
    if test[0] == "CMD-SHELL":
        command = " ".join(test[1:])
        if not _expressible(command) or command != command.strip() or command.startswith("["):
            command = _json(["/bin/sh", "-c", command])
    else:
        command = _json(test[1:] if test[0] == "CMD" else test)
    return " ".join(["HEALTHCHECK", *flags, "CMD", command])


def carried_config_lines(
    config: ImageConfig,
    base: ImageConfig | None = None,
    without: Sequence[str] = (),
    escape: str = "\\",
) -> tuple[str, ...]:
    """Instructions that give an image on ``base`` (None: scratch) the run configuration of ``config``.

    In this order: ENV, WORKDIR, USER, EXPOSE, VOLUME, LABEL, HEALTHCHECK, STOPSIGNAL, SHELL, ENTRYPOINT, CMD;
    only what differs from the base's. ENTRYPOINT comes with CMD, since setting the one clears the other. Keywords
    in ``without`` are left out. What no Dockerfile can say is left out as well: see :func:`inexpressible`.
    """
    lines: list[str | None] = []
    for keyword, make in _CARRIED:
        if keyword not in without:
            lines.append(make(config, base, escape))
    return tuple(line for line in lines if line)


def inexpressible(config: ImageConfig) -> tuple[str, ...]:
    """What of a config no Dockerfile can say, for people: ``ENV BANNER`` (its value has a line break)."""
    found = [f"ENV {name}" for name, value in _env(config) if not _expressible(name + value)]
    found += [
        f"LABEL {name}"
        for name, value in sorted(config.labels.items())
        if not _expressible(name + value) or "=" in name or not name
    ]
    return tuple(found)


def _env(config: ImageConfig | None) -> list[tuple[str, str]]:
    if config is None:
        return []
    return [(name, value) for name, _, value in (pair.partition("=") for pair in config.env) if name]


def _carried_env(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = dict(_env(base))
    pairs = [
        (name, value)
        for name, value in dict(_env(config)).items()
        if there.get(name) != value and _expressible(name + value)
    ]
    return env_line(pairs, escape) if pairs else None


def _carried_label(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = base.labels if base is not None else {}
    pairs = [
        (name, value)
        for name, value in sorted(config.labels.items())
        if there.get(name) != value and _expressible(name + value) and "=" not in name and name
    ]
    return label_line(pairs, escape) if pairs else None


def _carried_word(keyword: str, field_name: str, default: str) -> Callable[..., str | None]:
    """WORKDIR, USER and STOPSIGNAL: one word, set again to its default where only the base has one."""

    def make(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
        mine: str | None = getattr(config, field_name)
        theirs: str | None = getattr(base, field_name) if base is not None else None
        if (mine or default) == (theirs or default) or not _expressible(mine or ""):
            return None
        return f"{keyword} {_quoted(mine or default, escape)}"

    return make


def _carried_expose(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    there = base.exposed_ports if base is not None else ()
    ports = [port for port in config.exposed_ports if port not in there]
    ports = [port.removesuffix("/tcp") for port in ports if re.fullmatch(r"[0-9-]+(?:/[a-z]+)?", port)]
    return f"EXPOSE {' '.join(ports)}" if ports else None


def _carried_volume(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    there = base.volumes if base is not None else ()
    volumes = [_unexpanded(path, escape) for path in config.volumes if path not in there and path.strip()]
    return f"VOLUME {_json(volumes)}" if volumes else None


def _carried_healthcheck(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    theirs = base.healthcheck if base is not None else None
    if config.healthcheck == theirs:
        return None
    return healthcheck_line(config.healthcheck or {}) or ("HEALTHCHECK NONE" if theirs else None)


def _carried_shell(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    theirs = base.shell if base is not None else None
    if config.shell == theirs or (not config.shell and not theirs):
        return None
    return exec_line("SHELL", config.shell or ("/bin/sh", "-c"))


def _carried_entrypoint(config: ImageConfig, base: ImageConfig | None, _escape: str) -> str | None:
    if (config.entrypoint or ()) == ((base.entrypoint if base is not None else None) or ()):
        return None
    return exec_line("ENTRYPOINT", config.entrypoint or ())


def _carried_cmd(config: ImageConfig, base: ImageConfig | None, escape: str) -> str | None:
    theirs = (base.cmd if base is not None else None) or ()
    if _carried_entrypoint(config, base, escape) is not None and (config.cmd or theirs):
        return exec_line("CMD", config.cmd or ())
    if (config.cmd or ()) == theirs:
        return None
    return exec_line("CMD", config.cmd or ())


_CARRIED: Final[tuple[tuple[str, Callable[[ImageConfig, ImageConfig | None, str], str | None]], ...]] = (
    ("ENV", _carried_env),
    ("WORKDIR", _carried_word("WORKDIR", "workdir", "/")),
    ("USER", _carried_word("USER", "user", "root")),
    ("EXPOSE", _carried_expose),
    ("VOLUME", _carried_volume),
    ("LABEL", _carried_label),
    ("HEALTHCHECK", _carried_healthcheck),
    ("STOPSIGNAL", _carried_word("STOPSIGNAL", "stop_signal", "SIGTERM")),
    ("SHELL", _carried_shell),
    ("ENTRYPOINT", _carried_entrypoint),
    ("CMD", _carried_cmd),
)


def dockerignore_lines(paths: Sequence[str]) -> tuple[str, ...]:
    """Lines of a .dockerignore that leave out exactly these paths of the context, sorted, each once.

    Docker's build context documentation, ".dockerignore files": patterns of Go's ``filepath.Match``, ``#`` begins a
    comment, ``!`` an exception, blanks around a line are taken off. What cannot be escaped is met by ``?``.
    """
    return tuple(sorted({_ignored(path.strip("/")) for path in paths if path.strip("/")}))


def _ignored(path: str) -> str:
    line = re.sub(r"[*?\[\]\\]", r"\\\g<0>", path)
    if line.startswith(("#", "!")):
        line = "\\" + line
    return re.sub(r"\A\s|\s\Z|[\n\r\ud800-\udfff]", "?", line)


# -- which image did it build? -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One instruction that the Dockerfile and the image's history do not share."""

    line: int | None
    """Where the Dockerfile has it; None for one that only the image has."""
    written: str | None
    """The Dockerfile's instruction, ``RUN npm ci``."""
    built: str | None
    """The image's, ``RUN npm install``; None for one that only the Dockerfile has."""

    def __str__(self) -> str:
        if self.written is None:
            return f"the image was built with {self.built}, which the Dockerfile lacks"
        where = f"Dockerfile:{self.line} {self.written}"
        if self.built is None:
            return f"{where} - the image was built without it"
        return f"{where} - the image was built with {self.built}"


def differences(
    dockerfile: Dockerfile,
    target: Stage,
    history: Sequence[HistoryEntry],
    config: ImageConfig,
) -> list[Difference]:
    """What of the target stage, with the stages it is built upon, the image's history does not say, in order.

    Compared is what history records: commands with blanks tidied, build arguments and the shell taken off;
    destinations of COPY and ADD, and their sources where the builder recorded names instead of a hash; the
    other instructions with variables put in. ENV of the base image is read off ``config`` where variables need
    it. A LABEL at the end that only the image has is ``build --label``. Without a history, or with a single
    entry for a whole build (kaniko ``--single-snapshot``, squashed images), WORKDIR, USER, CMD and ENTRYPOINT
    are compared with the config instead.

    Returns:
        An empty list where this Dockerfile built the image, as far as history can tell.
    """
    written = _written(dockerfile, target, config)
    built = _built(history)
    if sum(1 for entry in history if not entry.from_base) <= 1 < len(written):
        return _config_differences(dockerfile, target, config)
    own = [step for step, entry in zip(built, _recorded(history), strict=True) if not entry.from_base]
    tails = [own, built[max(len(built) - len(written), 0) :]]
    if built and built[-1].keyword == "LABEL":
        tails.append(built[max(len(built) - len(written) - 1, 0) :])
    return min((_compare(written, tail) for tail in tails), key=len)


def find_target(dockerfile: Dockerfile, history: Sequence[HistoryEntry], config: ImageConfig) -> Stage:
    """The stage that the image was built from: the one with the fewest differences, the last of equals."""
    return min(
        reversed(dockerfile.stages),
        key=lambda stage: len(differences(dockerfile, stage, history, config)),
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction in the form in which both sides are compared."""

    keyword: str
    essence: tuple[str, ...]
    sources: tuple[str, ...] | None
    """What COPY and ADD copy; None where unknown, which equals everything."""
    text: str
    line: int | None = None

    def same(self, other: _Step) -> bool:
        """Whether ``other``, which was built, is what this one wrote; a variable of the base may be anything."""
        if self.keyword != other.keyword or len(self.essence) != len(other.essence):
            return False
        if not all(map(_may_be, self.essence, other.essence)):
            return False
        return self.sources is None or other.sources is None or self.sources == other.sources


def _may_be(written: str, built: str) -> bool:
    """Whether a word, of which variables that only the base image knows are left as ``$NAME``, may be ``built``."""
    if written == built or "$" not in written:
        return written == built
    pieces = re.split(r"\$(?:\w+|\{[^}]*\})", written)
    if len(pieces) == 1 or not built.startswith(pieces[0]) or not built.endswith(pieces[-1]):
        return False
    at = len(pieces[0])
    for piece in pieces[1:-1]:
        at = built.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return at <= len(built) - len(pieces[-1])


def _compare(written: Sequence[_Step], built: Sequence[_Step]) -> list[Difference]:
    """The longest common subsequence of both; what stands between its members is paired in order."""
    rows = [[0] * (len(built) + 1) for _ in range(len(written) + 1)]
    for i in range(len(written) - 1, -1, -1):
        for j in range(len(built) - 1, -1, -1):
            same = written[i].same(built[j])
            rows[i][j] = 1 + rows[i + 1][j + 1] if same else max(rows[i + 1][j], rows[i][j + 1])
    found: list[Difference] = []
    left: list[_Step] = []
    right: list[_Step] = []
    i = j = 0
    while i < len(written) or j < len(built):
        if i < len(written) and j < len(built) and written[i].same(built[j]):
            found += _paired(left, right)
            left, right = [], []
            i, j = i + 1, j + 1
        elif j == len(built) or (i < len(written) and rows[i + 1][j] >= rows[i][j + 1]):
            left.append(written[i])
            i += 1
        else:
            right.append(built[j])
            j += 1
    while right and not left and right[-1].keyword == "LABEL":
        right.pop()  # docker build --label
    return found + _paired(left, right)


def _paired(left: list[_Step], right: list[_Step]) -> list[Difference]:
    """Each instruction with one of the same keyword on the other side, if there is one; the rest alone."""
    found = []
    rest = list(right)
    for step in left:
        partner = next((other for other in rest if other.keyword == step.keyword), None)
        if partner is not None:
            rest.remove(partner)
        found.append(Difference(step.line, step.text, partner.text if partner is not None else None))
    return found + [Difference(None, None, other.text) for other in rest]


def _recorded(history: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    return [entry for entry in history if not entry.text.startswith("ARG ")]


def _built(history: Sequence[HistoryEntry]) -> list[_Step]:
    """The image's own side. ARG is left out on both: BuildKit and buildah record it differently."""
    steps = []
    workdir = "/"
    for entry in _recorded(history):
        keyword, _, rest = entry.text.partition(" ")
        if keyword not in KEYWORDS:
            keyword, rest = "RUN", entry.text  # the exec form of RUN, as the classic builder records it
        if keyword == "WORKDIR":
            workdir = _absolute(workdir, rest)
        steps.append(_recorded_step(keyword, rest, entry.text, workdir))
    return steps


def _recorded_step(keyword: str, rest: str, text: str, workdir: str) -> _Step:
    if keyword in ("COPY", "ADD"):
        words = [word for word in rest.split() if not word.startswith("--")]
        sources = None if "…" in words else tuple(sorted(words[:-1]))
        return _Step(keyword, (_absolute(workdir, words[-1] if words else ""),), sources, text)
    if keyword == "WORKDIR":
        return _Step(keyword, (workdir,), None, text)
    if keyword == "RUN":
        return _Step(keyword, (_comparable(rest),), None, text)
    if keyword in ("EXPOSE", "VOLUME"):
        return _Step(keyword, tuple(sorted(word.removesuffix("/tcp") for word in rest.split())), None, text)
    return _Step(keyword, (_comparable(rest),), None, text)


def _comparable(text: str) -> str:
    """A command or a value without blanks and quotes, which builders record each in their own way."""
    return re.sub(r"[\s\"'\\]+", "", text)


def _written(dockerfile: Dockerfile, target: Stage, config: ImageConfig) -> list[_Step]:
    """The Dockerfile's side: every instruction of the target's lineage with its variables put in."""
    steps: list[_Step] = []
    scope = _Scope(dockerfile, config)
    for stage in dockerfile.lineage(target):
        scope.enter(stage)
        for instruction in stage.instructions:
            step = _written_step(instruction, scope)
            if step is not None:
                steps.append(step)
    return steps


class _Scope:
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
        self.env = dict(_env(config))
        self.args: dict[str, str] = {}
        self.workdir = "/"
        self.own: set[str] = set()

    def enter(self, stage: Stage) -> None:
        if stage.from_stage is None:
            self.args, self.workdir = {}, "/"

    def expand(self, word: str) -> str:
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

    def declare(self, words: Sequence[str]) -> None:
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


def _written_step(instruction: Instruction, scope: _Scope) -> _Step | None:
    keyword, words = instruction.keyword, instruction.words
    line, text = instruction.line, instruction.text
    if keyword == "ARG":
        scope.declare(words)
        return None
    if keyword in ("ENV", "LABEL"):
        pairs = [(scope.expand(name), scope.expand_own(name, value)) for name, value in instruction.pairs]
        if keyword == "ENV":
            scope.set_env(pairs)
        shown = " ".join(f"{name}={value}" for name, value in pairs)
        return _Step(keyword, (_comparable(shown),), None, text, line)
    if keyword == "WORKDIR":
        scope.workdir = _absolute(scope.workdir, scope.expand(words[0]))
        return _Step(keyword, (scope.workdir,), None, text, line)
    if keyword in ("COPY", "ADD"):
        target = _absolute(scope.workdir, scope.expand(words[-1]))
        # History has blanks between sources, and blanks in their names, alike.
        sources = tuple(sorted(part for word in words[:-1] for part in scope.expand(word).split()))
        return _Step(keyword, (target,), sources, text, line)
    if keyword == "RUN":
        return _Step(keyword, (_comparable(_run_text(instruction)),), None, text, line)
    if keyword in ("EXPOSE", "VOLUME"):
        members = [member for word in words for member in scope.expand(word).split()]
        return _Step(keyword, tuple(sorted(word.removesuffix("/tcp") for word in members)), None, text, line)
    if keyword in ("USER", "STOPSIGNAL"):
        return _Step(keyword, (_comparable(scope.expand(words[0])),), None, text, line)
    recorded = dockerfile_line(f"{keyword} {_config_text(instruction)}").partition(" ")[2]
    return _Step(keyword, (_comparable(recorded),), None, text, line)


def _config_text(instruction: Instruction) -> str:
    """CMD, ENTRYPOINT, SHELL, HEALTHCHECK, ONBUILD, MAINTAINER in the form that history shows them in."""
    if instruction.keyword == "HEALTHCHECK":
        order = [f"--{flag}" for _, flag in _HEALTHCHECK_FLAGS] + ["--retries"]
        flags = sorted(
            (_normal_flag(flag) for flag in instruction.flags),
            key=lambda flag: order.index(flag.partition("=")[0]),
        )
        kind, *command = instruction.words
        shown = _json(command) if instruction.exec_form else " ".join(command)
        return " ".join([*flags, kind.upper(), shown]).strip()
    return _json(instruction.words) if instruction.exec_form else instruction.arguments


def _nanoseconds(duration: str) -> int:
    """A Go duration in nanoseconds."""
    return round(sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(duration)))


def _normal_flag(flag: str) -> str:
    """A HEALTHCHECK flag with its duration as Go prints it: ``--interval=60s`` is recorded as ``1m0s``."""
    name, _, value = flag.partition("=")
    return flag if name == "--retries" else f"{name}={_go_prints(_nanoseconds(value))}"


def _go_prints(nanoseconds: int) -> str:
    """``time.Duration.String``: 1h0m0s, 1m30s, 500ms."""
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:g}ms"
    minutes, seconds = divmod(nanoseconds / 1_000_000_000, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"


def _run_text(instruction: Instruction) -> str:
    """What a RUN's history says: the command, a lone heredoc's content in its place (convert.go, dispatchRun)."""
    if instruction.exec_form:
        return " ".join(instruction.words)
    if not instruction.heredocs:
        return instruction.arguments
    first = instruction.heredocs[0]
    if re.fullmatch(r"\d*<<-?\s*[^<\s]*", instruction.arguments):
        return f"/dev/pipes/{first.name}" if first.data.startswith("#!") else first.data
    return instruction.arguments + "".join(f"\n{doc.content}{doc.name}" for doc in instruction.heredocs)


def _absolute(workdir: str, path: str) -> str:
    from posixpath import join, normpath

    return normpath(join("/", workdir, path)).replace("//", "/")


def _config_differences(dockerfile: Dockerfile, target: Stage, config: ImageConfig) -> list[Difference]:
    """The last WORKDIR, USER, CMD and ENTRYPOINT against the config, for images that tell no history."""
    scope = _Scope(dockerfile, config)
    last: dict[str, tuple[Instruction, str]] = {}
    for stage in dockerfile.lineage(target):
        scope.enter(stage)
        for instruction in stage.instructions:
            step = _written_step(instruction, scope)
            if step is not None and step.keyword in ("WORKDIR", "USER", "CMD", "ENTRYPOINT"):
                last[step.keyword] = (instruction, step.essence[0])
    actual = {
        "WORKDIR": config.workdir or "/",
        "USER": config.user or "",
        "CMD": _in_exec_form("CMD", config.cmd),
        "ENTRYPOINT": _in_exec_form("ENTRYPOINT", config.entrypoint),
    }
    return [
        Difference(instruction.line, instruction.text, f"{keyword} {actual[keyword]}")
        for keyword, (instruction, essence) in last.items()
        if _comparable(actual[keyword]) != _comparable(essence)
    ]


def _in_exec_form(keyword: str, words: tuple[str, ...] | None) -> str:
    return dockerfile_line(f"{keyword} {_json(words or ())}").partition(" ")[2]
