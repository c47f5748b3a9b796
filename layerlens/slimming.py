"""From a plan to the small image in its place: assembled, loaded or written, proved, and only then under its name.

:mod:`layerlens.slim` puts layers together and :mod:`layerlens.destinations` writes them; here is what a plan means
for them, in which order things happen, and what is undone where one of them fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from layerlens.destinations import Compression, DockerArchive, OutputFormat, Written, is_stream, write_image
from layerlens.ecosystems import Extends, ecosystems
from layerlens.errors import OutputError, UsageError
from layerlens.filesystem import Filesystem
from layerlens.loadercache import PATH as LOADER_CACHE
from layerlens.loadercache import Cache, encode_cache, joined_cache, loader_cache
from layerlens.loading import Guest, engine_of, in_engine, loaded
from layerlens.model import EntryType, ImageConfig, ImagePath, Package
from layerlens.plan import Plan, group_of
from layerlens.probing import Probe
from layerlens.report import diagnostic_row, display
from layerlens.security import Security, security_of
from layerlens.slim import BaseImage, SlimImage, SlimLayer, SlimSpec, plan_slim
from layerlens.sources import Progress, Source, references
from layerlens.sources.docker_engine import Engine, EngineImage
from layerlens.trace import Observed, check_available, trace, with_above
from layerlens.verify import Verification, compiled_masks, find_missing, must_run_here, verify_images

MOST_ROUNDS = 3
"""How often a slim image that does not pass is mended and tried again."""
_ACCOUNTS_BYTES = 1 << 20
_OUTPUT_HINT = "Name a file that ends in .tar, or a folder for an OCI layout."


# --- where it goes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a slim image goes: into an engine under the name ``tag``, or to ``output``.

    ``output`` is a docker-archive where it ends in ``.tar`` and the folder of an OCI layout otherwise, unless
    ``form`` says which; ``tag`` is then the name inside. ``compression`` is of an OCI layout's layers.
    """

    tag: str | None = None
    output: Path | None = None
    form: OutputFormat | None = None
    compression: Compression | None = None

    def check(self) -> None:
        """Say what can be said before the work begins.

        Raises:
            UsageError: neither a tag nor an output, or what does not go together.
            OutputError: the output's folder is not there, or something else is in its place.
        """
        if self.tag is None and self.output is None:
            raise UsageError(
                "nothing says where the slim image goes", "Give it a name with -t, or a file with -o."
            )
        if self.tag is not None and references.split_tag(self.tag) is None:
            raise UsageError(
                f"{self.tag!r} cannot be the name of an image", "Names are like myapp:slim, in lower case."
            )
        if self.output is not None:
            self._check_output(self.output)
        elif self.form is not None or self.compression is not None:
            raise UsageError(
                "the form of an output is given, and no output",
                "Name one with -o; an engine stores images its own way.",
            )

    def _check_output(self, output: Path) -> None:
        if str(output) == "-":
            raise UsageError("standard output carries the report, not the image", _OUTPUT_HINT)
        suffix = "".join(output.suffixes[-2:])
        if self.form is None and not output.is_dir() and suffix in (".tar.gz", ".tgz", ".tar.zst"):
            raise UsageError(f"{output}: whole archives are not compressed", _OUTPUT_HINT)
        if self.output_format == "docker-archive":
            if self.compression not in (None, "none"):
                raise UsageError(
                    "the layers of a docker-archive are not compressed", "Choose --output-format oci."
                )
            if output.is_dir():
                raise OutputError(f"{output} is a folder", "Name a file in it.")
        if not output.absolute().parent.is_dir():
            raise OutputError(f"cannot write {output}: its folder is not there", "Make the folder first.")

    @property
    def output_format(self) -> OutputFormat:
        """The form of what is written to ``output``."""
        if self.form is not None:
            return self.form
        output = self.output
        if output is None or is_stream(output):
            return "docker-archive"
        return "docker-archive" if output.suffix == ".tar" and not output.is_dir() else "oci"


# --- what a plan means for an image ---------------------------------------------------------------------------------


def slim_image(plan: Plan) -> SlimImage:
    """The image that a plan describes, not yet written: what is needed and the base lacks, on the base.

    What the plan would install is copied as well, since nothing is run here.

    Raises:
        UsageError: the base could not be opened, or its links and folders lie where the image has others.
    """
    needs = plan.needs
    attribution, fs = needs.attribution, needs.fs

    def group(path: ImagePath) -> int:
        real = (fs.follow(path) or path) if fs.type_of(path) == EntryType.SYMLINK else path
        return group_of(attribution.category_of(real))

    keep = kept_paths(plan)
    base = _base_image(plan, keep)
    spec = SlimSpec(keep=keep, group=group, config=needs.config.raw, rewrites=rewritten(plan))
    return plan_slim(fs, spec, base)


def kept_paths(plan: Plan) -> list[ImagePath]:
    """What is taken from the image, sorted: of the needed paths those that the base does not have."""
    return sorted(path for path in plan.needs.kept if plan.verdicts.get(path) != "base")


def present(plan: Plan) -> set[ImagePath]:
    """Every path of the slim image, the base's included; directories above them may be left out."""
    base = plan.base.fs if plan.base is not None else None
    return {*kept_paths(plan), *(base.live if base is not None else ())}


def _base_image(plan: Plan, keep: Sequence[ImagePath]) -> BaseImage | None:
    base = plan.base
    if base is None:
        return None
    if base.fs is None or base.config is None:
        raise UsageError(
            f"the runtime image {base.reference} cannot be opened, and a slim image needs its layers",
            "Pull it, name an archive of it, or choose --runtime scratch.",
        )
    for path in sorted(with_above(keep)):
        theirs, ours = base.fs.type_of(path), plan.fs.type_of(path)
        if theirs is not None and theirs != ours and EntryType.DIR in (theirs, ours):
            raise UsageError(
                f"{path} is a {_kind(ours)} in the image and a {_kind(theirs)} in {base.reference}: "
                "they do not fit on each other",
                "Choose a runtime image of the same distribution, or --runtime scratch.",
            )
    return BaseImage(base.layers, base.config.raw)


def _kind(kind: int | None) -> str:
    return "nothing" if kind is None else EntryType(kind).label


def rewritten(plan: Plan) -> dict[ImagePath, bytes]:
    """Files that have another content in the slim image, so that they say what is there."""
    base = plan.base.fs if plan.base is not None else None
    found = dict(plan.rewrites)
    cache = loader_cache(plan.fs, present(plan)) if plan.fs.exists(LOADER_CACHE) else None
    if base is not None:
        cache = _joined(cache, base)
        found.update(_packages_on(plan, base))
        found.update(_accounts(plan, base))
    if cache is not None and cache.entries:
        found[LOADER_CACHE] = encode_cache(cache)
    return found


def _joined(cache: Cache | None, base: Filesystem) -> Cache | None:
    """The image's loader cache with what only the base has; None where the base's own says all."""
    theirs = loader_cache(base, base.live) if base.exists(LOADER_CACHE) else None
    if cache is None or theirs is None:
        return cache
    joined = joined_cache(cache, theirs)
    return None if set(joined.entries) == set(theirs.entries) else joined


def _packages_on(plan: Plan, base: Filesystem) -> dict[ImagePath, bytes]:
    """The base's package databases with the packages of which something was copied onto it."""
    added: dict[str, list[Package]] = {}
    for owner in _added(plan):
        added.setdefault(owner.ecosystem, []).append(owner)
    found: dict[ImagePath, bytes] = {}
    for ecosystem in ecosystems():
        if isinstance(ecosystem, Extends) and ecosystem.name in added:
            packages = sorted(added[ecosystem.name], key=lambda one: (one.name, one.version))
            found.update(ecosystem.extended(base, plan.fs, packages))
    return found


def _added(plan: Plan) -> list[Package]:
    """OS packages that the base has not and of which some file is copied onto it."""
    base = plan.base
    if base is None:
        return []
    return [owner for owner in _owners(plan) if owner.is_os and owner.name not in base.os_packages]


def _extends(ecosystem_name: str) -> bool:
    return any(found.name == ecosystem_name and isinstance(found, Extends) for found in ecosystems())


def _owners(plan: Plan) -> list[Package]:
    """The packages of which some file is taken from the image."""
    fs, owner_of = plan.fs, plan.needs.attribution.owner_of
    files = (path for path in kept_paths(plan) if fs.type_of(path) == EntryType.FILE)
    return list({id(owner): owner for path in files if (owner := owner_of(path)) is not None}.values())


def _accounts(plan: Plan, base: Filesystem) -> dict[ImagePath, bytes]:
    """The base's own passwd(5) and group(5) with the lines that it lacks."""
    found: dict[ImagePath, bytes] = {}
    for path, line in plan.accounts:
        if path not in found:
            found[path] = base.read(path, _ACCOUNTS_BYTES) if base.is_file(path) else b""
            if found[path] and not found[path].endswith(b"\n"):
                found[path] += b"\n"
        found[path] += line.encode("utf-8", "surrogateescape") + b"\n"
    return found


# --- what came of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlimLayerReport:
    """One layer of the slim image."""

    title: str
    """What it holds; a base layer is ``runtime image``."""
    size_bytes: int
    """Payload of its regular files; of a base's layer, its size as stored."""
    files: int | None
    diff_id: str


@dataclass(frozen=True, slots=True)
class Missed:
    """A path that is kept only because a container was seen to use it: a rule that static analysis lacks."""

    path: ImagePath
    how: str
    category: str | None
    package: str | None
    """``ecosystem:name version``."""


@dataclass(frozen=True, slots=True)
class Slimmed:
    """A slim image and what is to be said of it."""

    reference: str
    """The original, as it was named."""
    plan: Plan = field(repr=False)
    image: SlimImage = field(repr=False)
    destination: Destination
    written: Written | None
    """None where it was put nowhere, because it did not pass."""
    before: Security
    after: Security
    missed: tuple[Missed, ...] = ()
    verification: Verification | None = None
    """The last one; None where nothing was asked."""
    rounds: int = 0
    """How often it was mended and tried again."""
    done_without: tuple[ImagePath, ...] = ()
    """What ``drop`` left out of an image that passed all the same."""

    @property
    def passed(self) -> bool:
        """False where it was to be proved and was not."""
        return self.verification is None or self.verification.passed

    @property
    def size_bytes(self) -> int:
        """Payload bytes of its layers, the base's included."""
        base = self.plan.base
        return self.image.payload_bytes + (base.size_bytes if base is not None else 0)

    @property
    def warnings(self) -> list[str]:
        """What should be known of it. The plan's own warnings are of the Dockerfile that it would give."""
        unlisted = sorted(owner.name for owner in _added(self.plan) if not _extends(owner.ecosystem))
        if not unlisted:
            return []
        return [
            f"scanners do not see these packages, since the package database of {self.plan.runtime_image} stays as "
            f"it is: {', '.join(unlisted)}"
        ]

    @property
    def layers(self) -> list[SlimLayerReport]:
        """Its layers, base first; none where it was not written."""
        if self.written is None:
            return []
        found = []
        fs = self.plan.fs
        for layer, diff_id in zip(self.image.layers, self.written.diff_ids, strict=True):
            if isinstance(layer, SlimLayer):
                files = sum(1 for path in layer.paths if fs.type_of(path) in (EntryType.FILE, None))
                found.append(SlimLayerReport(layer.title, layer.payload_bytes, files, diff_id))
            else:
                found.append(SlimLayerReport("runtime image", layer.size_bytes, None, diff_id))
        return found

    def to_dict(self) -> dict[str, Any]:
        """As ``slim --format json`` prints it; every key is always there, null where there is nothing to say."""
        plan, written, place = self.plan, self.written, self.destination
        return {
            "image": self.reference,
            "runtime": plan.runtime,
            "runtime_image": plan.runtime_image,
            "id": None if written is None else written.image_id,
            "tag": place.tag,
            "output": None if place.output is None else display(str(place.output)),
            "output_format": None if place.output is None else place.output_format,
            "totals": {
                "original_bytes": plan.layer_bytes,
                "slim_bytes": self.size_bytes,
                "stored_bytes": None if written is None else written.stored_bytes,
                "saved_bytes": plan.layer_bytes - self.size_bytes,
                "saved_ratio": 1 - self.size_bytes / plan.layer_bytes if plan.layer_bytes else 0.0,
            },
            "layers": [
                {
                    "title": layer.title,
                    "size_bytes": layer.size_bytes,
                    "files": layer.files,
                    "diff_id": layer.diff_id,
                }
                for layer in self.layers
            ],
            "rewritten": [display(path) for path in self.image.rewritten],
            "security": {"before": self.before.to_dict(), "after": self.after.to_dict()},
            "verification": None if self.verification is None else self.verification.to_dict(),
            "rounds": self.rounds,
            "done_without": [display(path) for path in self.done_without],
            "observed": [
                {
                    "path": display(missed.path),
                    "reason": missed.how,
                    "category": missed.category,
                    "package": missed.package,
                }
                for missed in self.missed
            ],
            "warnings": [display(warning) for warning in self.warnings],
            "diagnostics": [diagnostic_row(diagnostic) for diagnostic in plan.diagnostics],
        }


# --- making it ------------------------------------------------------------------------------------------------------

Planner = Callable[[Mapping[ImagePath, str]], Plan]
"""Makes the plan that also keeps these paths, each with how it was seen to be used."""


class Original(Protocol):
    """The image to make a slim one of; :class:`layerlens.api.Image` is one."""

    @property
    def source(self) -> Source:
        """Its way in."""

    @property
    def fs(self) -> Filesystem:
        """Its squash."""

    @property
    def config(self) -> ImageConfig:
        """Its config."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What both images are asked, and what of the answers is not compared (regular expressions)."""

    probe: Probe = field(default_factory=Probe)
    ignore: tuple[str, ...] = ()


def slim(
    original: Original,
    planner: Planner,
    destination: Destination,
    *,
    proof: Proof | None = None,
    observe: Probe | None = None,
    progress: Progress | None = None,
) -> Slimmed:
    """Make the slim image of ``original`` and put it where ``destination`` says.

    With ``proof`` it goes there only once it answers as the original does. Where it does not, the original is watched
    under the same probe, what it was seen to use is added, and that is tried again, at most three times. With
    ``observe``, what the original uses under that probe is kept from the start.

    Raises:
        UsageError: the destination makes no sense, or the base cannot be used.
        OutputError: it cannot be written there.
        EngineError: the engine cannot be reached, refuses, or goes away.
        VerifyError: an image cannot be asked at all.
        UnavailableError: ``observe``, where this machine cannot watch containers.
    """
    destination.check()
    if observe is not None:
        check_available()
    return _Slimming(original, planner, destination, proof, progress).run(observe)


class _Slimming:
    """The steps of one slim image."""

    def __init__(
        self,
        original: Original,
        planner: Planner,
        destination: Destination,
        proof: Proof | None,
        progress: Progress | None,
    ) -> None:
        self._original = original
        self._planner = planner
        self._destination = destination
        self._proof = proof
        self._progress = progress
        self._seen: dict[ImagePath, str] = {}
        """Paths that the original was seen to use, and how."""

    def run(self, observe: Probe | None) -> Slimmed:
        proof, source = self._proof, self._original.source
        masks = compiled_masks(proof.ignore) if proof is not None else []
        with ExitStack() as stack:
            engine = twin = None
            if self._destination.output is None or proof is not None or observe is not None:
                engine = stack.enter_context(engine_of(source))
                if proof is not None or observe is not None:
                    twin = stack.enter_context(in_engine(engine, source, self._progress))
                    must_run_here(engine, twin)
            if engine is not None and twin is not None and observe is not None:
                original = self._original
                seen = trace(engine, twin.image_id, original.fs, original.config, observe)
                self._seen.update(_uses(seen))
            plan = self._planner(self._seen)
            image = slim_image(plan)
            if engine is None or twin is None or proof is None:
                return self._finished(plan, image, self._put(image, engine))
            return self._prove(plan, image, engine, twin, proof, masks)

    def _put(self, image: SlimImage, engine: Engine | None) -> Written:
        if self._destination.output is not None:
            return self._write(image, self._destination.output)
        assert engine is not None, "what is not written is loaded"
        archive = DockerArchive(image, progress=self._progress)
        with loaded(engine, archive) as guest:
            return self._leave(engine, guest, archive)

    def _leave(self, engine: Engine, guest: Guest, archive: DockerArchive) -> Written:
        """Let a loaded image stay in the engine, under its name."""
        self._name(engine, guest.image)
        guest.keep()
        return replace(archive.written, image_id=guest.image.image_id)

    def _write(self, image: SlimImage, output: Path) -> Written:
        place = self._destination
        return write_image(
            image,
            output,
            place.output_format,
            tag=place.tag,
            compression=place.compression or "gzip",
            progress=self._progress,
        )

    def _name(self, engine: Engine, image: EngineImage) -> None:
        """Give an image of the engine its name; the image that had it before keeps its others."""
        tag = self._destination.tag
        if tag is not None and engine.endpoint.engine == "podman" and references.has_no_registry(tag):
            tag = f"localhost/{tag}"  # as its own command line has it
        found = references.split_tag(tag) if tag is not None else None
        assert found is not None, "Destination.check lets only names through"
        engine.ask(f"naming the image {tag} failed", "tag", image.image_id, *found)

    # -- the proof -------------------------------------------------------------------------------------------------

    def _prove(
        self,
        plan: Plan,
        image: SlimImage,
        engine: Engine,
        twin: EngineImage,
        proof: Proof,
        masks: Sequence[re.Pattern[bytes]],
    ) -> Slimmed:
        """Try, mend and try again; put it in its place once it passes."""
        rounds = 0
        while True:
            archive = DockerArchive(image, progress=self._progress)
            with loaded(engine, archive) as guest:
                found = verify_images(engine, twin, guest.image, proof.probe, masks)
                if found.passed:
                    if self._destination.output is not None:
                        written = self._write(image, self._destination.output)
                    else:
                        written = self._leave(engine, guest, archive)
                    return self._finished(plan, image, written, found, rounds)
            if found.original_fails:
                return self._finished(plan, image, None, found, rounds)
            found, more = self._learn(plan, engine, twin, proof.probe, found, rounds)
            if not more or rounds == MOST_ROUNDS:
                return self._finished(plan, image, None, found, rounds)
            self._seen.update(more)
            mended = self._planner(self._seen)
            kept = mended.needs.kept.keys()
            if kept == plan.needs.kept.keys() or (found.missing and kept.isdisjoint(found.missing)):
                # --drop leaves out what is missing, and will again.
                return self._finished(plan, image, None, found, rounds)
            plan, image, rounds = mended, slim_image(mended), rounds + 1

    def _learn(
        self,
        plan: Plan,
        engine: Engine,
        twin: EngineImage,
        probe: Probe,
        found: Verification,
        rounds: int,
    ) -> tuple[Verification, dict[ImagePath, str]]:
        """What the original uses and the slim image lacks.

        Names that it only asks for are added where all that it opens is there and it still does not pass.
        """
        there, original = present(plan), self._original
        missing, untraced, seen = find_missing(engine, twin, original.fs, original.config, probe, there)
        found = replace(found, missing=missing, untraced=untraced)
        if seen is None:
            return found, {}
        uses = _uses(seen)
        if rounds or not missing:
            uses.update(dict.fromkeys(sorted(seen.looked_at), "the original asked whether it is there"))
        there = with_above(there)
        return found, {path: how for path, how in uses.items() if path not in there}

    def _finished(
        self,
        plan: Plan,
        image: SlimImage,
        written: Written | None,
        verification: Verification | None = None,
        rounds: int = 0,
    ) -> Slimmed:
        fs, attribution = plan.fs, plan.needs.attribution
        keep = kept_paths(plan)
        after = security_of(fs, set(keep), _owners(plan))
        if plan.base is not None and plan.base.fs is not None:
            after = after.with_more(security_of(plan.base.fs, plan.base.fs.live.keys(), plan.base.packages))
        return Slimmed(
            reference=self._original.source.reference,
            plan=plan,
            image=image,
            destination=self._destination,
            written=written,
            before=security_of(fs, fs.live.keys(), attribution.packages),
            after=after,
            missed=tuple(self._missed(plan)),
            verification=verification,
            rounds=rounds,
            done_without=plan.needs.dropped if verification is not None and verification.passed else (),
        )

    def _missed(self, plan: Plan) -> Iterator[Missed]:
        """Of what was seen to be used, what is kept for no other reason."""
        attribution, needs = plan.needs.attribution, plan.needs
        alone = {path for path in self._seen if (chain := needs.chain(path)) and chain[0].kind == "observed"}
        otherwise = with_above(path for path in needs.kept if path not in alone)
        for path, how in sorted(self._seen.items()):
            if path in alone and path not in otherwise:
                owner = attribution.owner_of(path)
                package = None if owner is None else f"{owner.ecosystem}:{owner.name} {owner.version}"
                yield Missed(path, how, attribution.category_of(path), package)


def _uses(seen: Observed) -> dict[ImagePath, str]:
    """What a container used, and how."""
    found = dict.fromkeys(sorted(seen.folders), "the original works in this directory")
    found.update(dict.fromkeys(sorted(seen.walked), "the original went through this link"))
    found.update(dict.fromkeys(sorted(seen.opened), "the original opened it"))
    return found
