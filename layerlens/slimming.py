"""From a plan to the small image in its place: assembled, loaded or written, proved, and only then under its name.

:mod:`layerlens.slim` puts layers together and :mod:`layerlens.destinations` writes them; here is what a plan means
for them, in which order things happen, and what is undone where one of them fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layerlens.destinations import Compression, DockerArchive, OutputFormat, Written, write_image
from layerlens.errors import OutputError, UsageError
from layerlens.loadercache import PATH as LOADER_CACHE
from layerlens.loadercache import loader_cache, parse_cache
from layerlens.loading import loaded
from layerlens.model import EntryType, ImagePath
from layerlens.plan import Plan, group_of
from layerlens.report import diagnostic_row, display
from layerlens.security import Security, security_of
from layerlens.slim import BaseImage, SlimImage, SlimLayer, SlimSpec, plan_slim
from layerlens.sources import Progress, Source, references
from layerlens.sources.docker_engine import Engine, EngineImage, EngineSource, connect

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
        is_archive = self.output is not None and self.output.suffix == ".tar" and not self.output.is_dir()
        return "docker-archive" if is_archive else "oci"

    @property
    def loads(self) -> bool:
        """Whether the image goes into an engine."""
        return self.output is None


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
    spec = SlimSpec(keep=keep, group=group, config=needs.config.raw, rewrites=rewritten(plan))
    return plan_slim(fs, spec, _base_image(plan, keep))


def kept_paths(plan: Plan) -> list[ImagePath]:
    """What is taken from the image, sorted: of the needed paths those that the base does not have."""
    return sorted(path for path in plan.needs.kept if plan.verdicts.get(path) != "base")


def _base_image(plan: Plan, keep: Sequence[ImagePath]) -> BaseImage | None:
    base = plan.base
    if base is None:
        return None
    if base.fs is None or base.config is None:
        raise UsageError(
            f"the runtime image {base.reference} cannot be opened, and a slim image needs its layers",
            "Pull it, name an archive of it, or choose --runtime scratch.",
        )
    for path in keep:
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
    found = dict(plan.rewrites)
    there = set(plan.verdicts)  # on a base, what that has as well
    cache = loader_cache(plan.fs, there) if plan.fs.exists(LOADER_CACHE) else None
    if cache is not None and parse_cache(cache).entries:
        found[LOADER_CACHE] = cache
    found.update(_accounts(plan))
    return found


def _accounts(plan: Plan) -> dict[ImagePath, bytes]:
    """The base's own passwd(5) and group(5) with the lines that it lacks."""
    base = plan.base.fs if plan.base is not None else None
    found: dict[ImagePath, bytes] = {}
    for path, line in plan.accounts:
        if path not in found:
            there = base is not None and base.is_file(path)
            found[path] = base.read(path, _ACCOUNTS_BYTES) if base is not None and there else b""
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
class Slimmed:
    """A slim image and what is to be said of it."""

    reference: str
    """The original, as it was named."""
    plan: Plan = field(repr=False)
    image: SlimImage = field(repr=False)
    destination: Destination
    written: Written | None
    """None where it was not made, because it did not pass."""
    before: Security
    after: Security

    @property
    def size_bytes(self) -> int:
        """Payload bytes of its layers, the base's included."""
        base = self.plan.base
        return self.image.payload_bytes + (base.size_bytes if base is not None else 0)

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
            "output": None if place.output is None else str(place.output),
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
            "rewritten": [display(path) for path in sorted(rewritten(plan))],
            "security": {"before": self.before.to_dict(), "after": self.after.to_dict()},
            "warnings": [display(warning) for warning in plan.warnings],
            "diagnostics": [diagnostic_row(diagnostic) for diagnostic in plan.diagnostics],
        }


Planner = Callable[[Mapping[ImagePath, str]], Plan]
"""Makes the plan that also keeps these paths, each with the reason why."""


def slim(
    source: Source, planner: Planner, destination: Destination, *, progress: Progress | None = None
) -> Slimmed:
    """Make the slim image of what ``source`` opened and put it where ``destination`` says.

    Raises:
        UsageError: the destination makes no sense, or the base cannot be used.
        OutputError: it cannot be written there.
        EngineError: the engine cannot be reached, refuses, or goes away.
    """
    destination.check()
    with ExitStack() as stack:
        engine = stack.enter_context(engine_of(source)) if destination.loads else None
        plan = planner({})
        image = slim_image(plan)
        written = _put(image, destination, engine, progress)
    return _slimmed(source, plan, image, destination, written)


@contextmanager
def engine_of(*sources: Source) -> Iterator[Engine]:
    """The engine that the first of these is from, else the first that answers. EngineError where none does."""
    for source in sources:
        if isinstance(source, EngineSource):
            yield source.engine
            return
    engine = connect()
    try:
        yield engine
    finally:
        engine.close()


def _put(
    image: SlimImage, destination: Destination, engine: Engine | None, progress: Progress | None
) -> Written:
    if destination.output is not None:
        return write_image(
            image,
            destination.output,
            destination.output_format,
            tag=destination.tag,
            compression=destination.compression or "gzip",
            progress=progress,
        )
    assert engine is not None and destination.tag is not None
    archive = DockerArchive(image, progress=progress)
    with loaded(engine, archive) as guest:
        name_image(engine, guest.image, destination.tag)
        guest.keep()
    return replace(archive.written, image_id=guest.image.image_id)


def name_image(engine: Engine, image: EngineImage, tag: str) -> None:
    """Give an image of an engine a name; the image that had it keeps its other names."""
    found = references.split_tag(tag)
    assert found is not None, "Destination.check lets only names through"
    engine.ask(f"naming the image {tag} failed", "tag", image.image_id, *found)


def _slimmed(
    source: Source, plan: Plan, image: SlimImage, destination: Destination, written: Written | None
) -> Slimmed:
    fs, attribution = plan.fs, plan.needs.attribution
    keep = kept_paths(plan)
    owners = {id(owner): owner for path in keep if (owner := attribution.owner_of(path)) is not None}
    after = security_of(fs, set(keep), owners.values())
    if plan.base is not None and plan.base.fs is not None:
        after = after.with_more(security_of(plan.base.fs, plan.base.fs.live.keys(), plan.base.packages))
    return Slimmed(
        reference=source.reference,
        plan=plan,
        image=image,
        destination=destination,
        written=written,
        before=security_of(fs, fs.live.keys(), attribution.packages),
        after=after,
    )
