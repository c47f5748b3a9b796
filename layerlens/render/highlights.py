"""What every form of a report picks out of it: packages by ecosystem, the command line, what to do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layerlens.model import Diagnostic, Severity
from layerlens.render import units
from layerlens.report import ImageSummary, PackageReport, PathReport, Report, display

BUILD_ONLY = (
    "compilers",
    "dev-dependencies",
    "package-cache",
    "headers",
    "static-libs",
    "debug",
    "sources",
    "tests",
    "docs",
    "vcs",
    "logs-temp",
)
"""Categories that a program seldom needs when it runs: where to look first."""

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class EcosystemSummary:
    """The packages of one ecosystem: how many, how big, the biggest first."""

    name: str
    packages: Sequence[PackageReport]
    size_bytes: int
    files: int


def by_ecosystem(packages: Sequence[PackageReport]) -> list[EcosystemSummary]:
    """Packages grouped by ecosystem, the one that owns most first."""
    groups: dict[str, list[PackageReport]] = {}
    for package in packages:
        groups.setdefault(package.ecosystem, []).append(package)
    summaries = [
        EcosystemSummary(
            name,
            sorted(found, key=lambda p: (-p.size_bytes, p.name, p.version)),
            sum(p.size_bytes for p in found),
            sum(p.files for p in found),
        )
        for name, found in groups.items()
    ]
    return sorted(summaries, key=lambda s: (-s.size_bytes, s.name))


def command_line(image: ImageSummary) -> str:
    """ENTRYPOINT and CMD as one would type them; empty where the image says neither."""
    words = [*(image.entrypoint or ()), *(image.cmd or ())]
    return shlex.join(display(word) for word in words)


def hidden_layers(layers: Sequence[int]) -> str:
    """The layers of a waste item: those that store the bytes, then the one that hid them: ``0,3 → 4``."""
    if len(layers) < 2:
        return layer_list(layers)
    return f"{layer_list(layers[:-1])} → {layers[-1]}"


def layer_list(layers: Sequence[int]) -> str:
    """Layer indexes with runs drawn together: ``0-3,7``."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], layer)
        else:
            runs.append((layer, layer))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def diagnostics_count(diagnostics: Sequence[Diagnostic]) -> str:
    """``2 warnings, 1 info``, the worst first; empty where there are none."""
    found = Counter(diagnostic.severity for diagnostic in diagnostics)
    return ", ".join(
        units.count(found[severity], severity, "info" if severity == "info" else "")
        for severity in _SEVERITIES
        if found[severity]
    )


def worst_first(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Diagnostics by severity, in the report's order within one severity."""
    return sorted(diagnostics, key=lambda diagnostic: _SEVERITIES.index(diagnostic.severity))


def next_step(report: Report) -> tuple[str, str] | None:
    """One command worth typing next, and why: the biggest thing that looks as if it need not be there.

    Of the visible subtrees that only a build needs and of the hidden bytes, the larger wins. Names that
    cannot be typed as they are shown are passed over. None where nothing of a size stands out.
    """
    reference = report.image.reference
    if reference == "-" or not reference.isprintable():
        return None
    floor = max(report.totals.layer_bytes // 100, 1)
    source = shlex.quote(reference)
    path = max(_build_only(report.paths), key=lambda p: p.size_bytes, default=None)
    item = max((w for w in report.waste.items if w.layers), key=lambda w: w.size_bytes, default=None)
    if item and item.size_bytes >= floor and (not path or item.size_bytes > path.size_bytes):
        command = f"layerlens ls {source} --layer {item.layers[0]}"
        return command, f"{units.size(item.size_bytes)} there are {item.kind} in a later layer"
    if path and path.size_bytes >= floor:
        command = f"layerlens why {source} {shlex.quote(path.path)}"
        return command, f"what brought these {units.size(path.size_bytes)}, mostly {path.category}"
    return None


def _build_only(paths: Sequence[PathReport]) -> Iterator[PathReport]:
    """Subtrees that nothing but a build seems to need: a listed path below that is for something else, as
    the runtime inside ``/usr``, rules one out.
    """
    others = [path.path for path in paths if path.category not in BUILD_ONLY]
    for path in paths:
        inside = path.path.rstrip("/") + "/"
        if (
            path.category in BUILD_ONLY
            and path.path.isprintable()
            and not any(other.startswith(inside) for other in others)
        ):
            yield path
