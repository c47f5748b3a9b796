"""Which image did a Dockerfile build? Its instructions held against an image's history."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from layerlens.dockerfile import Dockerfile, Instruction, Scope, Stage, absolute, nanoseconds
from layerlens.dockerlines import HEALTHCHECK_FLAGS, exec_form
from layerlens.history import KEYWORDS, dockerfile_line
from layerlens.model import ImageConfig
from layerlens.model import Instruction as HistoryEntry


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
            workdir = absolute(workdir, rest)
        steps.append(_recorded_step(keyword, rest, entry.text, workdir))
    return steps


def _recorded_step(keyword: str, rest: str, text: str, workdir: str) -> _Step:
    if keyword in ("COPY", "ADD"):
        words = [word for word in rest.split() if not word.startswith("--")]
        sources = None if "…" in words else tuple(sorted(words[:-1]))
        return _Step(keyword, (absolute(workdir, words[-1] if words else ""),), sources, text)
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
    scope = Scope(dockerfile, config)
    for stage in dockerfile.lineage(target):
        scope.enter(stage)
        for instruction in stage.instructions:
            step = _written_step(instruction, scope)
            if step is not None:
                steps.append(step)
    return steps


def _written_step(instruction: Instruction, scope: Scope) -> _Step | None:
    keyword, words = instruction.keyword, instruction.words
    line, text = instruction.line, instruction.text
    if keyword == "ARG":
        scope.take(instruction)
        return None
    if keyword in ("ENV", "LABEL"):
        pairs = [(scope.expand(name), scope.expand_own(name, value)) for name, value in instruction.pairs]
        scope.take(instruction)
        shown = " ".join(f"{name}={value}" for name, value in pairs)
        return _Step(keyword, (_comparable(shown),), None, text, line)
    if keyword == "WORKDIR":
        scope.take(instruction)
        return _Step(keyword, (scope.workdir,), None, text, line)
    if keyword in ("COPY", "ADD"):
        target = absolute(scope.workdir, scope.expand(words[-1]))
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
        order = [f"--{flag}" for _, flag in HEALTHCHECK_FLAGS] + ["--retries"]
        flags = sorted(
            (_normal_flag(flag) for flag in instruction.flags),
            key=lambda flag: order.index(flag.partition("=")[0]),
        )
        kind, *command = instruction.words
        shown = exec_form(command) if instruction.exec_form else " ".join(command)
        return " ".join([*flags, kind.upper(), shown]).strip()
    return exec_form(instruction.words) if instruction.exec_form else instruction.arguments


def _normal_flag(flag: str) -> str:
    """A HEALTHCHECK flag with its duration as Go prints it: ``--interval=60s`` is recorded as ``1m0s``."""
    name, _, value = flag.partition("=")
    return flag if name == "--retries" else f"{name}={_go_prints(nanoseconds(value))}"


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


def _config_differences(dockerfile: Dockerfile, target: Stage, config: ImageConfig) -> list[Difference]:
    """The last WORKDIR, USER, CMD and ENTRYPOINT against the config, for images that tell no history."""
    scope = Scope(dockerfile, config)
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
    return dockerfile_line(f"{keyword} {exec_form(words or ())}").partition(" ")[2]
