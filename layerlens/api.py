"""What users hold: :func:`open_image`, :func:`inspect`, and the classes that they return.

Every method is a call downwards; nothing is computed before somebody asks for it, and nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerlens import report as report_module
from layerlens.attribution import Attribution, find_equal, live_duplicates
from layerlens.beside import Beside, reap
from layerlens.cache import Cache
from layerlens.categories import CATEGORIES, Classifier, table
from layerlens.ecosystems import Ecosystem, any_wants, ecosystems, others_added
from layerlens.errors import LayerLensError, PathNotFoundError, UsageError
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
from layerlens.report import (
    CategoryReport,
    DuplicateGroup,
    ImageSummary,
    LayerReport,
    PackageReport,
    Recommendation,
    Totals,
)
from layerlens.sources import Progress, Source, open_source

if TYPE_CHECKING:
    from networkx import DiGraph
    from pandas import DataFrame

    from layerlens.destinations import Compression, OutputFormat
    from layerlens.dockerfile import Dockerfile, Stage
    from layerlens.exchange import Exchange
    from layerlens.forgotten import Forgotten
    from layerlens.graph import Needs
    from layerlens.planned import Plan
    from layerlens.probing import Probe
    from layerlens.reported import ReportMemory
    from layerlens.runtime import Base, Choice
    from layerlens.slimming import Proof, Slimmed
    from layerlens.unneeded import Unneeded
    from layerlens.verify import Verification

_MISSING_FROM_LAYER = "List the layer with `layerlens ls IMAGE --layer N`."


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one path. ``verdict``, ``chain`` and ``would_need`` are None where no plan could be made."""

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
    reason: str | None = None
    """Why it is dropped, in a sentence; None for what is kept."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """One path in the graph of needs, with what is beside it; shows itself in Jupyter."""

    explanation: Explanation
    needed_by: Sequence[Edge]
    """From each neighbour that needs it (a file, or the word for the config or an option); for a dropped path, from
    what would need it."""
    needs: Sequence[Edge]
    """To each path that it needs."""
    sizes: Mapping[ImagePath, int] = field(repr=False)
    """Bytes of the files among them."""

    def _repr_html_(self) -> str:
        from layerlens.render.notebook import neighbourhood_html

        return neighbourhood_html(self.explanation, self.needed_by, self.needs, self.sizes)


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
        self,
        source: Source,
        *,
        verify_digests: bool = False,
        progress: Progress | None = None,
        cache: Cache | None = None,
        contents: bool = True,
    ) -> None:
        self.source = source
        self._contents = contents
        self._cache = cache
        self._closed = False
        self._verify_digests = verify_digests
        self._progress = progress
        self._layers: list[Layer] | None = None
        self._bases: dict[str, Base | None] = {}
        self._unopened: dict[str, str] = {}
        """Why a runtime image could not be opened."""
        self._base_images: dict[str, Image | None] = {}
        self._shipped: dict[ImagePath, ImagePath] | None = None
        self._unneeded_found: Unneeded | None = None

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
            self._pass_by()
            self._layers = open_layers(
                self.source.layers,
                self._wants,
                meanwhile=lambda: (self._ecosystems, self._classifier),
                verify=self._verify_digests,
                progress=self._progress,
                cache=self._cache,
                trusted=self.source.diff_ids_trusted,
            )
        return self._layers

    def _pass_by(self) -> None:
        """Before the source is asked for anything that it would have to keep for it."""
        if not self._contents:
            self.source.pass_by(self._wants)

    def _wants(self, path: str) -> bool:
        """Whether an ecosystem asks for this path's content; called for every path of layers that are inflated."""
        return self._asking(path)

    @cached_property
    def _asking(self) -> Callable[[str], bool]:
        return any_wants(self._ecosystems)

    @cached_property
    def _ecosystems(self) -> tuple[Ecosystem, ...]:
        return ecosystems()

    @cached_property
    def _classifier(self) -> Classifier:
        return Classifier()

    @cached_property
    def fs(self) -> Filesystem:
        """The squash."""
        return Filesystem(self.layers)

    @cached_property
    def _packages(self) -> tuple[list[Package], list[Diagnostic]]:
        diagnostics: list[Diagnostic] = []
        packages: list[Package] = []
        for ecosystem in self._ecosystems:
            packages.extend(ecosystem.packages(self.fs, self.config, diagnostics))
        return packages, diagnostics

    @cached_property
    def attribution(self) -> Attribution:
        """Category and owner of every live byte."""
        return Attribution(self.fs, self._packages[0], self._classifier)

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

    def inspect(self, *, recommend: bool = True, files: bool = True) -> Report:
        """Where every byte is: see :class:`layerlens.report.Report`.

        With ``recommend``, also which of them are needed and what to ship; where that cannot be said (an image
        without a command, say), a diagnostic says why. Without ``files``, the report has no table of all files, and
        is the one that an earlier run made of an engine's image, if there is one.
        """
        self._pass_by()
        memory = self._report_memory(recommend)
        report = None
        if memory is not None and not files:
            report = memory.find(partial(Report, self.summary), self._base_id)
        if report is None:
            report = self._inspect(recommend)
            if memory is not None:
                others = self._base_images if recommend else ()
                memory.store(report, {reference: self._base_id(reference) for reference in others})
        troubled = self._cache.diagnostics if self._cache is not None else ()
        return replace(report, diagnostics=[*self.source.diagnostics, *report.diagnostics, *troubled])

    def _report_memory(self, recommend: bool) -> ReportMemory | None:
        """Where the report of this image may be that an earlier run made; None where no run's would be proved."""
        source = self.source
        if (
            self._cache is None
            or self._verify_digests
            or source.image_id is None
            or not source.diff_ids_trusted
        ):
            return None
        from layerlens.reported import ReportMemory

        return None if others_added() else ReportMemory(self._cache, source, with_plan=recommend)

    def _inspect(self, recommend: bool) -> Report:
        """The report, but for what was odd on the way to the image and with the cache."""
        opened = self.layers
        self.fs  # noqa: B018 - squashed before the fork, not once on either side of it
        # Comparing contents needs neither packages nor categories, so that another core can do it meanwhile.
        comparing = Beside(self._duplicates)
        try:
            attribution, made = self.attribution, self._instruction_by_layer
            texts = [None if instruction is None else instruction.text for instruction in made]
            duplicates, digests = comparing.result()
            self.fs.learn_digests(digests)
            waste = attribution.waste(texts, duplicates)
        finally:
            comparing.close()
        shadowed = attribution.shadowed_by_layer()
        plan, trouble = self._default_plan if recommend else (None, [])
        needed = None if plan is None else _needed_bytes(plan.needs)
        layers = []
        for number, layer in enumerate(opened):
            source = layer.source
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
            compressed_bytes=sum(layer.source.compressed_bytes or 0 for layer in opened),
            entries=self.fs.entry_count,
            live_files=attribution.live_files,
        )
        categories = [
            CategoryReport(
                name,
                size,
                attribution.category_files[CATEGORIES.index(name)],
                None if needed is None else needed[CATEGORIES.index(name)],
            )
            for name, size in _largest_first(attribution.category_bytes, attribution.category_files)
        ]
        return Report(
            image=self.summary,
            totals=totals,
            layers=layers,
            categories=categories,
            packages=self._package_reports(None if plan is None else plan.needs),
            paths=attribution.paths(),
            waste=waste,
            diagnostics=[*self._history[1], *self.fs.diagnostics, *self._packages[1], *trouble],
            instructions=self.instructions,
            recommendation=None if plan is None else _recommendation(plan),
            attribution=attribution,
        )

    def _duplicates(self) -> tuple[list[DuplicateGroup], dict[int, bytes]]:
        """The live files of equal content, and the digests that are known now.

        Where the next run can be told of digests, more are worth computing than it takes to compare.
        """
        equal = find_equal(self.fs, by_digest=any(layer.memory is not None for layer in self.layers))
        known = {gid: files.digest for files in equal for gid in files.gids}
        return live_duplicates(self.fs, equal), known | self.fs.learned_digests

    @cached_property
    def _default_plan(self) -> tuple[Plan | None, list[Diagnostic]]:
        """The plan for the default runtime; None where there can be none, and what there is to say of it."""
        try:
            plan = self.recommend()
        except LayerLensError as error:
            hint = f" {error.hint}" if error.hint else ""
            return None, [Diagnostic("info", "no-recommendation", f"{error.message}.{hint}")]
        return plan, list(plan.diagnostics)

    def needs(
        self,
        *,
        keep: Sequence[ImagePath] = (),
        roots: Sequence[ImagePath] = (),
        drop: Sequence[ImagePath] = (),
    ) -> DiGraph:
        """What the program needs, as a graph of paths: see :meth:`layerlens.graph.Needs.digraph`.

        Raises:
            UsageError: nothing says what the image runs.
        """
        if not (keep or roots or drop):
            plan = self._default_plan[0]
            if plan is not None:
                return plan.needs.digraph(plan.verdicts)
        return self._search(keep, roots, drop).digraph()

    def _search(
        self,
        keep: Sequence[ImagePath],
        roots: Sequence[ImagePath],
        drop: Sequence[ImagePath],
        observed: Mapping[ImagePath, str] | None = None,
    ) -> Needs:
        from layerlens.graph import Needs

        return Needs(self.attribution, self.config, keep=keep, roots=roots, drop=drop, observed=observed)

    def recommend(
        self,
        runtime: str | None = None,
        *,
        keep: Sequence[ImagePath] = (),
        roots: Sequence[ImagePath] = (),
        drop: Sequence[ImagePath] = (),
        dockerfile: Dockerfile | None = None,
        force: bool = False,
        exchange: bool = True,
        observed: Mapping[ImagePath, str] | None = None,
    ) -> Plan:
        """What to ship, and on what.

        ``runtime`` is ``base`` (a conventional slim image of the family), ``scratch``, or an image; None chooses:
        scratch for a static program, else base. ``dockerfile`` is the one that built the image; ``force`` goes on
        where it built another. ``keep``, ``roots``, ``drop`` and ``observed`` are as for
        :class:`layerlens.graph.Needs`. With ``exchange``, another server may be proposed for a static site; without
        it, the image's own program is what is shipped.

        Raises:
            UsageError: nothing says what the image runs, the Dockerfile built another image, the runtime image has
                another libc, or it can neither be opened nor found in the catalogue.
        """
        from layerlens import plan as planning
        from layerlens.planned import Plan

        target = None if dockerfile is None else self._target_of(dockerfile, force)
        warnings: list[str] = []
        found = None
        if exchange and not roots and observed is None:
            found = self._exchange(runtime, keep, drop, warnings)
        if found is None:
            needs = self._search(keep, roots, drop, observed)
            base, choice, more = self._base(runtime, needs)
            warnings += more
        else:
            needs, base, choice = found.needs, found.base, found.choice
        stood_on = base or (None if found is None else found.server)
        warnings += _unnamed(
            None if dockerfile is not None else self.reference,
            None if stood_on is None else stood_on.reference,
        )
        made = planning.make_plan(
            needs,
            base=base,
            choice=choice,
            layer_bytes=sum(sum(layer.index.sizes) for layer in self.layers),
            instructions=self.instructions,
            musl=(other for name in choice.musl if (other := self._open_base(name)) is not None),
            warnings=warnings,
            exchange=found,
        )
        planning.refuse_other_libc(made)
        values = {name: getattr(made, name) for name in made.__dataclass_fields__}
        lacking = self._forgotten(dockerfile, target, needs)
        return Plan(**values, reference=self.reference, source=dockerfile, target=target, forgotten=lacking)

    def slim(
        self,
        runtime: str = "scratch",
        *,
        tag: str | None = None,
        output: str | PathLike[str] | None = None,
        output_format: OutputFormat | None = None,
        compression: Compression | None = None,
        keep: Sequence[ImagePath] = (),
        roots: Sequence[ImagePath] = (),
        drop: Sequence[ImagePath] = (),
        proof: Proof | None = None,
        observe: Probe | None = None,
    ) -> Slimmed:
        """Make the small image itself: into an engine as ``tag``, or to ``output``.

        The arguments are those of :class:`layerlens.slimming.Destination`, :meth:`recommend` and
        :func:`layerlens.slimming.slim`; ask the result whether it :attr:`~layerlens.slimming.Slimmed.passed`.

        Raises:
            LayerLensError: see :func:`layerlens.slimming.slim`. Nothing of the slim image is left then.
        """
        from layerlens import slimming

        def planner(observed: Mapping[ImagePath, str]) -> Plan:
            return self.recommend(
                runtime, keep=keep, roots=roots, drop=drop, exchange=False, observed=observed
            )

        destination = slimming.Destination(
            tag, None if output is None else Path(output), output_format, compression
        )
        return slimming.slim(
            self, planner, destination, proof=proof, observe=observe, progress=self._progress
        )

    def verify(self, slim: str, probe: Probe | None = None, *, ignore: Sequence[str] = ()) -> Verification:
        """Run this image and ``slim`` under the same probe and compare; see :func:`layerlens.verify.verify`."""
        from layerlens import verify
        from layerlens.probing import Probe

        return verify.verify_beside(self.source, slim, probe or Probe(), ignore, progress=self._progress)

    def _forgotten(
        self, dockerfile: Dockerfile | None, target: Stage | None, needs: Needs
    ) -> tuple[Forgotten, ...]:
        """What the stage that built this image should have copied as well."""
        if dockerfile is None or target is None:
            return ()
        lacks = needs.lacks()
        if not lacks:
            return ()
        from layerlens.forgotten import find_forgotten

        return find_forgotten(dockerfile, target, self.config, lacks)

    def _target_of(self, dockerfile: Dockerfile, force: bool) -> Stage:
        """The stage of the user's file that built this image."""
        from layerlens.differences import differences, find_target

        target = find_target(dockerfile, self.instructions, self.config)
        found = differences(dockerfile, target, self.instructions, self.config)
        if found and not force:
            some = "; ".join(str(difference) for difference in found[:3])
            more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            raise UsageError(
                f"this Dockerfile built another image: {some}{more}",
                "Name the Dockerfile of this image, build it again, or go on with --force.",
            )
        return target

    def _exchange(
        self, runtime: str | None, keep: Sequence[ImagePath], drop: Sequence[ImagePath], warnings: list[str]
    ) -> Exchange | None:
        """Another server for what is a static site; why there is none where there could be goes to ``warnings``."""
        from layerlens import exchange

        site = exchange.static_site(self.attribution, self.config)
        if site is None:
            return None
        found, tried = exchange.proposed(
            self.attribution, self.config, site, runtime, self._open_base, keep=keep, drop=drop
        )
        if found is None and runtime in (None, "base", "scratch"):
            warnings.append(
                f"{site.evidence}: a server's image would do, but none could be used (tried: {', '.join(tried)}); "
                "pull one of them, or name one with --runtime IMAGE"
            )
        return found

    def _base(self, runtime: str | None, needs: Needs) -> tuple[Base | None, Choice, list[str]]:
        """The base to stand on, where it comes from, and what to warn of."""
        from layerlens import runtime as bases
        from layerlens.plan import is_static

        attribution = self.attribution
        owned = {p for p in needs.kept if (owner := attribution.owner_of(p)) is not None and owner.is_os}
        choice = bases.choose(self.fs, self.config, needs.kept, owned)
        if runtime == bases.SCRATCH:
            return None, choice, []
        if runtime not in (None, "base"):
            assert runtime is not None
            base = self._open_base(runtime)
            if base is None:
                raise UsageError(
                    f"the runtime image {runtime} cannot be opened ({self._unopened[runtime]}), and the catalogue "
                    "does not know it",
                    "Pull it, name an archive of it, or choose --runtime base or scratch.",
                )
            return base, choice, []
        if runtime is None and is_static(needs):
            return None, choice, []
        found = next(bases.opened_first(choice.images, self._open_base), None)
        if found is not None:
            return found, choice, []
        if runtime == "base":
            tried = ", ".join(choice.images) or "no image is known for it"
            raise UsageError(
                f"no runtime image could be opened ({choice.reason}; tried: {tried})",
                "Pull one of them, name one with --runtime IMAGE, or choose --runtime scratch.",
            )
        tried = ", ".join(choice.images)
        return (
            None,
            choice,
            [f"no slim base could be opened ({tried or choice.reason}): planned for scratch instead"],
        )

    def _open_base(self, reference: str) -> Base | None:
        """A runtime image, opened and analysed, else from the catalogue; None where it is neither there nor known."""
        from layerlens import runtime as bases

        if reference not in self._bases:
            image, base = self._base_image(reference), None
            try:
                if image is not None:
                    base = bases.Base(
                        reference=reference,
                        size_bytes=sum(sum(layer.index.sizes) for layer in image.layers),
                        fs=image.fs,
                        config=image.config,
                        packages=tuple(image.attribution.packages),
                        layers=tuple(layer.source for layer in image.layers),
                    )
            except LayerLensError as error:
                self._unopened[reference] = error.message
            self._bases[reference] = base or bases.catalogued(reference)
        return self._bases[reference]

    def _base_image(self, reference: str) -> Image | None:
        """A runtime image, opened once; None where there is none, and ``_unopened`` says why."""
        if reference not in self._base_images:
            self._base_images[reference] = None
            try:
                image = open_image(reference, platform=self.platform, cache=self._cache or False)
                self._base_images[reference] = image
            except LayerLensError as error:
                self._unopened[reference] = error.message
        return self._base_images[reference]

    def _base_id(self, reference: str) -> str | None:
        image = self._base_image(reference)
        return None if image is None else image.id

    def _package_reports(self, needs: Needs | None) -> list[PackageReport]:
        attribution = self.attribution
        needed = None if needs is None else _needed_packages(needs)
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
                    needed=None if needed is None else number in needed,
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
        """Layer, instruction, owner, category and verdict of a live path; its last link is not followed.

        With what needs it, or would need it, by the plan for the default runtime.

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
            **self._verdict_on(real),
        )

    def neighbourhood(self, path: ImagePath) -> Neighbourhood:
        """A live path with what needs it and what it needs, by the plan for the default runtime.

        Raises:
            PathNotFoundError: no such live path.
            UsageError: nothing says what the image runs.
        """
        explanation = self.why(path)
        plan = self._default_plan[0]
        needs = self._search((), (), ()) if plan is None else plan.needs
        needed_by, needed = needs.beside(explanation.path)
        if not needed_by:
            needed_by = list(explanation.chain or ())[-1:] or list(explanation.would_need or ())
        fs = self.fs
        near = {explanation.path, *(e.source for e in needed_by), *(e.target for e in needed)}
        sizes = {one: fs.size(one) for one in sorted(near) if fs.type_of(one) == EntryType.FILE}
        return Neighbourhood(explanation, needed_by, needed, sizes)

    def whys(self) -> Iterator[Explanation]:
        """:meth:`why` for every live path, sorted; what names what is found once for all of them."""
        plan = self._default_plan[0]
        if plan is not None:
            self._unneeded(plan).find_all()
        for path in sorted(self.fs.live):
            yield self.why(path)

    def _verdict_on(self, path: ImagePath) -> dict[str, Any]:
        plan = self._default_plan[0]
        if plan is None:
            return {}
        verdict, where = plan.verdict(path), path
        if verdict == "drop" and self.fs.is_dir(path):  # a directory is shipped where anything in it is
            where = self._shipped_inside(plan).get(path, path)
            verdict = plan.verdict(where)
        if verdict != "drop":
            return {"verdict": verdict, "chain": plan.chain(where), "would_need": []}
        unneeded = self._unneeded(plan)
        named = unneeded.named_by(path)
        return {
            "verdict": verdict,
            "chain": [],
            "would_need": named,
            "reason": unneeded.reason(path, named),
        }

    def _shipped_inside(self, plan: Plan) -> Mapping[ImagePath, ImagePath]:
        """For each directory above something that is shipped, the first such path."""
        if self._shipped is None:
            self._shipped = {}
            for path in sorted(plan.verdicts):
                if plan.verdict(path) != "drop":
                    above = path.rpartition("/")[0]
                    while above and above not in self._shipped:
                        self._shipped[above] = path
                        above = above.rpartition("/")[0]
                    self._shipped.setdefault("/", path)
        return self._shipped

    def _unneeded(self, plan: Plan) -> Unneeded:
        if self._unneeded_found is None:
            from layerlens.unneeded import Unneeded

            self._unneeded_found = Unneeded(plan.needs)
        return self._unneeded_found

    def close(self) -> None:
        """Close the source and drop every spool; calling it twice is fine.

        What analysis asked for is remembered in the cache first, so that the next run need not ask again.
        """
        if self._layers is not None:
            if not self._closed:
                self._remember(self._layers)
            close_layers(self._layers)
        self._closed = True
        for base in self._base_images.values():
            if base is not None:
                base.close()
        self.source.close()
        if self._cache is not None:
            self._cache.close()
        reap()

    def _remember(self, layers: Sequence[Layer]) -> None:
        if self._cache is None or "fs" not in self.__dict__:
            return
        learned: list[dict[int, bytes]] = [{} for _ in layers]
        for gid, digest in self.fs.learned_digests.items():
            number, row = self.fs.locate(gid)
            learned[number][row] = digest
        for layer, digests in zip(layers, learned, strict=True):
            layer.remember(digests)

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<layerlens.Image {self.reference!r}>"

    def _repr_html_(self) -> str:
        from layerlens.render.notebook import image_html

        return image_html(self.summary, self.instructions, [sum(layer.index.sizes) for layer in self.layers])


def _needed_bytes(needs: Needs) -> list[int]:
    """Bytes of the needed files by index into CATEGORIES."""
    fs, attribution = needs.fs, needs.attribution
    sums = [0] * len(CATEGORIES)
    for gid in {gid for path in needs.kept if (gid := fs.payload_gid(path)) is not None}:
        if attribution.types[gid] == EntryType.FILE:
            sums[attribution.categories[gid]] += attribution.sizes[gid]
    return sums


def _needed_packages(needs: Needs) -> set[int]:
    """Indexes of the packages of which some file is needed."""
    fs, attribution = needs.fs, needs.attribution
    gids = {gid for path in needs.kept if (gid := fs.payload_gid(path)) is not None}
    return {owner for gid in gids if (owner := attribution.owners[gid]) >= 0}


def _recommendation(plan: Plan) -> Recommendation:
    return Recommendation(
        runtime=plan.runtime,
        runtime_image=plan.runtime_image,
        estimated_bytes=plan.estimated_bytes,
        saved_bytes=plan.saved_bytes,
        saved_ratio=plan.saved_ratio,
        copies=plan.copies_dict(),
        os_packages=plan.os_packages,
    )


def _unnamed(*references: str | None) -> Iterator[str]:
    """A word for each image that a FROM line names though it was read from a file."""
    from layerlens.runtime import name_for_from

    for reference in references:
        name, is_known = name_for_from(reference or "scratch")
        if not is_known:
            yield f"{reference} was read from a file: load it into the engine as {name} before this is built"


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
    cache: Cache | bool = True,
    contents: bool = True,
) -> Image:
    """Open an image by what a user would type: a name, a path, ``-``, ``docker://…``, ``oci:…``.

    ``platform`` (``os/arch[/variant]``) chooses among several, this machine's by default. ``verify_digests``
    hashes also what would be hopped over. ``progress`` hears of exports, spools and inflating. What is read is kept
    in ``cache``, the user's own by default; with False nothing is kept, and nothing taken from earlier runs. Without
    ``contents``, what an engine exports is not kept either: that is quicker where only ``layers``, ``fs``,
    ``attribution`` and ``inspect(recommend=False)`` are asked for, and exports once more where anything else is.

    Raises:
        LayerLensError: with ``.hint``; see :mod:`layerlens.errors` for the kinds.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    used = cache if isinstance(cache, Cache) else Cache() if cache else None
    opened = open_source(
        source, platform=wanted, progress=progress, cache=used, meanwhile=_load_what_analysis_needs
    )
    return Image(opened, verify_digests=verify_digests, progress=progress, cache=used, contents=contents)


def _load_what_analysis_needs() -> None:
    """Import and parse what every analysis uses, while there is nothing else to do."""
    ecosystems()
    table()


def inspect(image: Image | str) -> Report:
    """The report of an image, opened or named."""
    if isinstance(image, Image):
        return image.inspect()
    with open_image(image) as opened:
        return opened.inspect()


def recommend(
    image: Image | str,
    runtime: str | None = None,
    *,
    keep: Sequence[ImagePath] = (),
    roots: Sequence[ImagePath] = (),
    drop: Sequence[ImagePath] = (),
    dockerfile: str | None = None,
    force: bool = False,
) -> Plan:
    """What to ship of an image, opened or named; see :meth:`Image.recommend`. ``dockerfile`` is the file's text."""
    from layerlens.dockerfile import parse

    parsed = None if dockerfile is None else parse(dockerfile)
    if isinstance(image, Image):
        return image.recommend(runtime, keep=keep, roots=roots, drop=drop, dockerfile=parsed, force=force)
    with open_image(image) as opened:
        return opened.recommend(runtime, keep=keep, roots=roots, drop=drop, dockerfile=parsed, force=force)
