"""What users hold: :func:`open_image`, :func:`inspect`, and the classes that they return.

Every method is a call downwards; nothing is computed before somebody asks for it, and nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerlens import report as report_module
from layerlens.attribution import Attribution, find_duplicates
from layerlens.beside import Beside
from layerlens.categories import CATEGORIES
from layerlens.ecosystems import ecosystems
from layerlens.errors import PathNotFoundError, UsageError
from layerlens.filesystem import Filesystem
from layerlens.history import instructions, parse_config
from layerlens.layers import Layer, close_layers, open_layers
from layerlens.model import (
    Diagnostic,
    Edge,
    Entry,
    EntryType,
    ImageConfig,
    ImagePath,
    Instruction,
    Package,
    Platform,
    Verdict,
)
from layerlens.report import CategoryReport, ImageSummary, LayerReport, PackageReport, Totals
from layerlens.sources import Progress, Source, open_source

if TYPE_CHECKING:
    from pandas import DataFrame

_MISSING_FROM_LAYER = "List the layer with `layerlens ls IMAGE --layer N`."


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one path. ``verdict``, ``chain`` and ``would_need`` are None: no plan was made."""

    path: ImagePath
    type: EntryType
    size_bytes: int
    """Payload of a file; sum over everything below a directory."""
    layer: int
    instruction: str | None
    package: str | None
    """``ecosystem:name version``."""
    category: str | None
    """Of a directory, that of most of its bytes; None for what has no bytes."""
    verdict: Verdict | None = None
    chain: Sequence[Edge] | None = None
    would_need: Sequence[Edge] | None = None


@dataclass(frozen=True, slots=True)
class Report(report_module.Report):
    """The report of one image: plain values, a dictionary, tables for pandas, and HTML in Jupyter."""

    attribution: Attribution | None = field(default=None, repr=False, compare=False)

    def to_pandas(self, table: str = "files") -> DataFrame:
        """``files``, ``layers``, ``packages``, ``paths`` or ``waste`` as a DataFrame; needs the extra `notebook`.

        Raises:
            LayerLensError: no such table, or pandas is not installed.
        """
        from layerlens.render.notebook import to_frame

        return to_frame(self, table)

    def file_rows(self) -> Iterator[tuple[Any, ...]]:
        """Every live path, sorted, with the columns of ``render.notebook.FILE_COLUMNS``."""
        if self.attribution is None:
            raise UsageError(
                "this report has lost its files", "Ask the image for a fresh one: image.inspect()."
            )
        fs, attribution = self.attribution.fs, self.attribution
        for path in sorted(fs.live):
            entry = fs.entry(path)
            owner = attribution.owner_of(path)
            yield (
                path,
                entry.type.label,
                entry.size_bytes,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime,
                attribution.category_of(path) if entry.type is not EntryType.DIR else None,
                owner.name if owner else None,
                owner.ecosystem if owner else None,
                entry.layer,
                entry.link_target,
            )

    def _repr_html_(self) -> str:
        from layerlens.render.notebook import report_html

        return report_html(self)


class Image:
    """An opened image. A context manager; closing it drops files, connections and spools.

    ``source`` is its way in; ``config``, ``instructions``, ``layers``, ``fs`` (the squash) and ``attribution``
    are made when they are first asked for.
    """

    def __init__(
        self, source: Source, *, verify_digests: bool = False, progress: Progress | None = None
    ) -> None:
        self.source = source
        self._verify_digests = verify_digests
        self._progress = progress
        self._layers: list[Layer] | None = None

    @property
    def reference(self) -> str:
        """The reference as it was given."""
        return self.source.reference

    @property
    def id(self) -> str | None:
        """The image's ID."""
        return self.source.image_id

    @cached_property
    def config(self) -> ImageConfig:
        """The parsed config (image-spec config.md)."""
        return parse_config(self.source.config)

    @property
    def platform(self) -> Platform:
        """The platform that the config names."""
        return self.config.platform

    @cached_property
    def _history(self) -> tuple[tuple[Instruction, ...], list[Diagnostic]]:
        return instructions(self.config, len(self.source.layers))

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The history as Dockerfile lines, base first, those that made no layer included."""
        return self._history[0]

    @property
    def layers(self) -> list[Layer]:
        """The layers, indexed; this is what reads the image."""
        if self._layers is None:
            found = ecosystems()

            def wants(path: str) -> bool:
                return any(ecosystem.wants(path) for ecosystem in found)

            self._layers = open_layers(
                self.source.layers, wants, verify=self._verify_digests, progress=self._progress
            )
        return self._layers

    @cached_property
    def fs(self) -> Filesystem:
        """The squash."""
        return Filesystem(self.layers)

    @cached_property
    def _packages(self) -> tuple[list[Package], list[Diagnostic]]:
        diagnostics: list[Diagnostic] = []
        packages: list[Package] = []
        for ecosystem in ecosystems():
            packages.extend(ecosystem.packages(self.fs, self.config, diagnostics))
        return packages, diagnostics

    @cached_property
    def attribution(self) -> Attribution:
        """Category and owner of every live byte."""
        return Attribution(self.fs, self._packages[0])

    @cached_property
    def _instruction_by_layer(self) -> list[Instruction | None]:
        made: list[Instruction | None] = [None] * len(self.source.layers)
        for instruction in self.instructions:
            if instruction.layer is not None:
                made[instruction.layer] = instruction
        return made

    @property
    def summary(self) -> ImageSummary:
        """What the config says of the image."""
        config = self.config
        return ImageSummary(
            reference=self.reference,
            id=self.id,
            platform=str(config.platform),
            created=config.created,
            entrypoint=config.entrypoint,
            cmd=config.cmd,
            user=config.user,
            workdir=config.workdir,
            env=config.env,
            exposed_ports=config.exposed_ports,
            healthcheck=config.healthcheck,
        )

    def inspect(self) -> Report:
        """Where every byte is: see :class:`layerlens.report.Report`."""
        fs = self.fs
        # Comparing contents needs nothing of what the packages say, so that another core can do it meanwhile.
        duplicates = Beside(lambda: find_duplicates(fs))
        try:
            attribution, made = self.attribution, self._instruction_by_layer
            texts = [None if instruction is None else instruction.text for instruction in made]
            waste = attribution.waste(texts, duplicates.result())
        finally:
            duplicates.close()
        shadowed = attribution.shadowed_by_layer()
        layers = []
        for number, (source, layer) in enumerate(zip(self.source.layers, self.layers, strict=True)):
            instruction = made[number]
            sums = attribution.layer_categories[number]
            layers.append(
                LayerReport(
                    index=number,
                    diff_id=source.diff_id,
                    digest=source.digest,
                    size_bytes=sum(layer.index.sizes),
                    compressed_bytes=source.compressed_bytes,
                    shadowed_bytes=shadowed[number],
                    entries=len(layer.index),
                    instruction=texts[number],
                    from_base=instruction.from_base if instruction is not None else False,
                    categories=dict(_largest_first(sums)),
                )
            )
        totals = Totals(
            layer_bytes=attribution.live_bytes + waste.shadowed_bytes,
            live_bytes=attribution.live_bytes,
            shadowed_bytes=waste.shadowed_bytes,
            compressed_bytes=sum(source.compressed_bytes for source in self.source.layers),
            entries=self.fs.entry_count,
            live_files=attribution.live_files,
        )
        categories = [
            CategoryReport(name, size, attribution.category_files[CATEGORIES.index(name)])
            for name, size in _largest_first(attribution.category_bytes, attribution.category_files)
        ]
        diagnostics = [
            *self.source.diagnostics,
            *self._history[1],
            *self.fs.diagnostics,
            *self._packages[1],
        ]
        return Report(
            image=self.summary,
            totals=totals,
            layers=layers,
            categories=categories,
            packages=self._package_reports(),
            paths=attribution.paths(),
            waste=waste,
            diagnostics=diagnostics,
            instructions=self.instructions,
            attribution=attribution,
        )

    def _package_reports(self) -> list[PackageReport]:
        attribution = self.attribution
        reports = []
        locations = Counter(package.location for package in attribution.packages)
        for number, package in enumerate(attribution.packages):
            location = self.fs.follow(package.location)
            if locations[package.location] > 1:  # one database for all (apk): its own files tell the layer
                owned = (self.fs.resolve_parent(path) for path in package.paths)
                location = next((path for path in owned if path in self.fs.live), location)
            reports.append(
                PackageReport(
                    ecosystem=package.ecosystem,
                    name=package.name,
                    version=package.version,
                    size_bytes=attribution.package_bytes[number],
                    files=attribution.package_files[number],
                    needed=None,
                    layer=None if location is None else self.fs.layer_of(location),
                    location=package.location,
                )
            )
        reports.sort(key=lambda r: (-r.size_bytes, r.ecosystem, r.name, r.version, r.location or ""))
        return reports

    def ls(self, path: ImagePath = "/", layer: int | None = None) -> Iterator[Entry]:
        """Everything under ``path``, sorted by path: the squash, or with ``layer`` that layer's own entries.

        Raises:
            PathNotFoundError: no such path there.
            UsageError: no such layer.
        """
        path = "/" + path.strip("/")
        if layer is None:
            return self._ls_squash(path)
        if not 0 <= layer < len(self.layers):
            last = len(self.layers) - 1
            raise UsageError(f"there is no layer {layer}", f"Layers go from 0 (the base) to {last}.")
        return self._ls_layer(path, layer)

    def _ls_squash(self, path: ImagePath) -> Iterator[Entry]:
        fs = self.fs
        real = fs.resolve(path)
        if real in fs.children or real == "/":
            start = "" if real == "/" else real
            found = [p for p in (fs.live if not start else fs.walk(real)) if p != "/"]
            if start or "/" in fs.live:
                found.append(real)
        else:
            found = [real]
        return (fs.entry(p) for p in sorted(found))

    def _ls_layer(self, path: ImagePath, layer: int) -> Iterator[Entry]:
        fs = self.fs
        index, base = fs.indexes[layer], fs.bases[layer]
        inside = path.rstrip("/") + "/"
        rows = [row for row, p in enumerate(index.paths) if p == path or p.startswith(inside)]
        if not rows and path != "/":
            raise PathNotFoundError(f"layer {layer} has nothing at {path}", _MISSING_FROM_LAYER)
        rows.sort(key=lambda row: (index.paths[row], row))
        return (fs.stored_entry(base + row) for row in rows)

    def why(self, path: ImagePath) -> Explanation:
        """Layer, instruction, owner and category of a live path; the path itself, its last link not followed.

        Raises:
            PathNotFoundError: no such live path.
        """
        fs = self.fs
        asked = "/" + path.strip("/")
        real = fs.resolve_parent(asked) if asked != "/" else "/"
        entry = fs.entry(real)
        owner = self.attribution.owner_of(real)
        tree = self.attribution.subtrees.get("" if real == "/" else real)
        payload = fs.payload_gid(real)
        size = tree.size_bytes if tree is not None else entry.size_bytes
        layer = entry.layer
        if entry.type is EntryType.HARDLINK and payload is not None:
            layer, row = fs.locate(payload)
            size = fs.indexes[layer].sizes[row]
        instruction = self._instruction_by_layer[layer] if self._instruction_by_layer else None
        return Explanation(
            path=real,
            type=entry.type,
            size_bytes=size,
            layer=layer,
            instruction=None if instruction is None else instruction.text,
            package=None if owner is None else f"{owner.ecosystem}:{owner.name} {owner.version}",
            category=self.attribution.category_of(real),
        )

    def close(self) -> None:
        """Close the source and drop every spool; calling it twice is fine."""
        if self._layers is not None:
            close_layers(self._layers)
        self.source.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<layerlens.Image {self.reference!r}>"

    def _repr_html_(self) -> str:
        from layerlens.render.notebook import image_html

        return image_html(self.summary, self.instructions, [sum(layer.index.sizes) for layer in self.layers])


def _largest_first(sums: Sequence[int], files: Sequence[int] | None = None) -> Iterator[tuple[str, int]]:
    """Categories that have bytes (or files, where given), most bytes first."""
    present = [number for number, size in enumerate(sums) if size or (files is not None and files[number])]
    present.sort(key=lambda number: (-sums[number], number))
    return ((CATEGORIES[number], sums[number]) for number in present)


def open_image(
    source: str,
    *,
    platform: str | Platform | None = None,
    verify_digests: bool = False,
    progress: Progress | None = None,
) -> Image:
    """Open an image by what a user would type: a name, a path, ``-``, ``docker://…``, ``oci:…``.

    ``platform`` (``os/arch[/variant]``) chooses among several, this machine's by default. ``verify_digests``
    hashes also what would be hopped over. ``progress`` hears of exports, spools and inflating.

    Raises:
        LayerLensError: with ``.hint``; see :mod:`layerlens.errors` for the kinds.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    opened = open_source(source, platform=wanted, progress=progress)
    return Image(opened, verify_digests=verify_digests, progress=progress)


def inspect(image: Image | str) -> Report:
    """The report of an image, opened or named."""
    if isinstance(image, Image):
        return image.inspect()
    with open_image(image) as opened:
        return opened.inspect()
