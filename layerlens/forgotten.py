"""What the last stage of a Dockerfile forgets to copy: where an earlier one has it, and the COPY that brings it.

A file of the image asks for something that is not there. The COPY that brought the file says where in which stage it
was; what lay around it there is told by the instructions of that stage. Only what they prove is copied, since a
COPY of what is not there breaks the build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from posixpath import basename, dirname, join, normpath

from layerlens.dockerfile import Dockerfile, Instruction, Scope, Stage, absolute, insert_after, source_stage
from layerlens.dockerlines import copy_line
from layerlens.ecosystems import Lack
from layerlens.model import ImageConfig, ImagePath

MAX_STEPS = 200
"""Stages that are gone through for one path; more is a circle or a lie."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One COPY that a stage lacks."""

    line: str
    target: ImagePath
    """What it brings, as the image will have it."""
    lacks: tuple[Lack, ...]
    """What asks for it."""
    before: Instruction
    """The instruction of the stage that it belongs in front of: the COPY that brought what asks for it."""

    @property
    def told(self) -> str:
        """For people: who asks in vain, and what is added."""
        first = self.lacks[0]
        more = f", and {len(self.lacks) - 1} more such" if len(self.lacks) > 1 else ""
        return f"{first.path} {first.evidence}{more}: forgotten is {self.line}"


@dataclass(frozen=True, slots=True)
class _Copied:
    """A COPY as it works."""

    instruction: Instruction
    stage: Stage | None
    """Where from; None for the build context or another image."""
    sources: tuple[str, ...]
    target: ImagePath
    into: bool
    """Whether the target is a directory in which each file arrives under its own name."""


@dataclass(frozen=True, slots=True)
class _Ran:
    """A RUN: its command line, and where it runs."""

    line: str
    workdir: ImagePath


def find_forgotten(
    dockerfile: Dockerfile, target: Stage, config: ImageConfig, lacks: Sequence[Lack]
) -> tuple[Forgotten, ...]:
    """The COPYs that give ``target`` what files of its image lack, in the order in which they are to be added."""
    return _Finder(dockerfile, target, config).found(lacks)


def mended(dockerfile: Dockerfile, target: Stage, found: Sequence[Forgotten]) -> str:
    """The file with these COPYs in its stage ``target``, each in front of what asks for it; all else untouched.

    What changes less often, packages, so comes before what changes more often, and the build cache stays useful.
    """
    first = min((one.before for one in found), key=lambda instruction: instruction.start)
    before = [target.origin, *target.instructions]
    place = before[before.index(first) - 1]
    return insert_after(dockerfile, place, [one.line for one in found])


class _Finder:
    def __init__(self, dockerfile: Dockerfile, target: Stage, config: ImageConfig) -> None:
        self.dockerfile, self.target = dockerfile, target
        self.steps = {stage.index: tuple(self._steps(stage, config)) for stage in dockerfile.stages}
        self.budget = MAX_STEPS

    def found(self, lacks: Sequence[Lack]) -> tuple[Forgotten, ...]:
        by_line: dict[str, tuple[ImagePath, Instruction, list[Lack]]] = {}
        own = [step for step in self.steps[self.target.index] if isinstance(step, _Copied)]
        there = {step.target for step in own}
        for lack in lacks:
            self.budget = MAX_STEPS
            made = next((one for one in (self._for(lack, step) for step in reversed(own)) if one), None)
            if made is None:
                continue
            line, target, instruction = made
            if target not in there:
                by_line.setdefault(line, (target, instruction, []))[2].append(lack)
        return tuple(
            Forgotten(line, target, tuple(asking), instruction)
            for line, (target, instruction, asking) in sorted(by_line.items())
        )

    def _for(self, lack: Lack, copied: _Copied) -> tuple[str, ImagePath, Instruction] | None:
        """The COPY line for one lack, where ``copied`` brought the file that asks."""
        if copied.stage is None:
            return None
        for source in copied.sources:
            there = _origin(lack.path, absolute("/", source), copied)
            if there is None:
                continue
            for stage in (copied.stage, *reversed(self.dockerfile.stages[: self.target.index])):
                for place, target in _places(lack, there):
                    if self._has(stage, place, lack):
                        chown = copied.instruction.flag("chown")
                        escape = self.dockerfile.escape
                        line = copy_line([place], target, stage.label, chown, escape=escape)
                        return line, target, copied.instruction
        return None

    def _has(self, stage: Stage, path: ImagePath, lack: Lack) -> bool:
        """Whether the instructions of a stage prove that ``path`` is in it."""
        self.budget -= 1
        if self.budget < 0:
            return False
        return any(
            lack.made_by(step.line) and dirname(path) == step.workdir
            if isinstance(step, _Ran)
            else self._brings(step, path, lack)
            for step in self.steps[stage.index]
        )

    def _brings(self, step: _Copied, path: ImagePath, lack: Lack) -> bool:
        if path == step.target and not step.into:
            return True
        for source in step.sources:
            if step.into and dirname(path) == step.target and fnmatchcase(basename(path), basename(source)):
                return True
            inside = _origin(path, absolute("/", source), step)
            if step.stage is not None and inside is not None and self._has(step.stage, inside, lack):
                return True
        return False

    def _steps(self, stage: Stage, config: ImageConfig) -> Iterator[_Copied | _Ran]:
        """What makes files in a stage, those that it is built upon included."""
        scope = Scope(self.dockerfile, config)
        for one in self.dockerfile.lineage(stage):
            scope.enter(one)
            for instruction in one.instructions:
                if instruction.keyword == "RUN":
                    line = " ".join(instruction.words) if instruction.exec_form else instruction.arguments
                    yield _Ran(line, scope.workdir)
                elif instruction.keyword in ("COPY", "ADD"):
                    yield self._copied(one, instruction, scope)
                else:
                    scope.take(instruction)

    def _copied(self, stage: Stage, instruction: Instruction, scope: Scope) -> _Copied:
        *sources, target = (scope.expand(word) for word in instruction.words)
        name = instruction.flag("from")
        # A file keeps its name where the target is a directory; a directory's contents are what is copied.
        files = len(sources) > 1 or any("*" in basename(source) for source in sources)
        names = all("." in basename(source.rstrip("/")).lstrip(".") for source in sources)
        return _Copied(
            instruction,
            None if name is None else source_stage(self.dockerfile, stage, name),
            tuple(sources),
            absolute(scope.workdir, target),
            files or (names and target.endswith(("/", "."))),
        )


def _origin(path: ImagePath, source: ImagePath, copied: _Copied) -> ImagePath | None:
    """Where a path was before it was copied; None where this COPY did not bring it."""
    target = join(copied.target, basename(source)) if copied.into else copied.target
    if path == target:
        return source
    inside = target.rstrip("/") + "/"
    return join(source, path[len(inside) :]) if path.startswith(inside) else None


def _places(lack: Lack, there: ImagePath) -> Iterator[tuple[ImagePath, ImagePath]]:
    """Where what is lacking would be in the stage that has the file as ``there``, and where it is to go."""
    was, now = dirname(there), dirname(lack.path)
    yield normpath(join(was, lack.wanted)), normpath(join(now, lack.wanted))
    while lack.above and was != "/":
        # As far as both lie in directories of the same names, it goes where it was.
        if now != "/" and basename(was) == basename(now):
            now = dirname(now)
        was = dirname(was)
        yield join(was, lack.wanted), join(now, lack.wanted)
