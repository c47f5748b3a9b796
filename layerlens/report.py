"""The report of one image and its versioned dictionary (schema 1).

Plain frozen values; every number is an integer in bytes or a count. ``Report.to_dict`` is the JSON contract
that other tools are checked against: keys may be added, never renamed, and every key is always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from layerlens.model import Diagnostic, ImagePath, Instruction, ShadowKind
from layerlens.patterns import regex

SCHEMA_VERSION = 1
_SURROGATES = regex("[\ud800-\udfff]")


def display(path: str) -> str:
    """A path for JSON and people: bytes that are not UTF-8 become U+FFFD (control characters stay)."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except UnicodeEncodeError:  # surrogates that PEP 383 did not make, as "\ud800" in a config's JSON
            return _SURROGATES.sub("\ufffd", path)
    return path


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """Who the image is: reference, ID and what its config says of running it."""

    reference: str
    id: str | None
    platform: str
    created: str | None
    entrypoint: Sequence[str] | None
    cmd: Sequence[str] | None
    user: str | None
    workdir: str | None
    env: Sequence[str]
    exposed_ports: Sequence[str]
    healthcheck: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the image. ``layer_bytes`` = ``live_bytes`` + ``shadowed_bytes``, always."""

    layer_bytes: int
    live_bytes: int
    shadowed_bytes: int
    compressed_bytes: int | None
    entries: int
    live_files: int
    """Regular files a container sees; a hard-link group counts once."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: what it stores, how much of it is still visible, which instruction made it."""

    index: int
    diff_id: str
    digest: str | None
    size_bytes: int
    compressed_bytes: int | None
    shadowed_bytes: int
    entries: int
    instruction: str | None
    from_base: bool
    categories: dict[str, int]
    """Live bytes of this layer by category, largest first; sums to ``size_bytes - shadowed_bytes``."""


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """Live bytes of one category; over all categories they sum to the live bytes."""

    name: str
    size_bytes: int
    files: int
    needed_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PackageReport:
    """One package and the live bytes that it owns."""

    ecosystem: str
    name: str
    version: str
    size_bytes: int
    files: int
    needed: bool | None
    layer: int | None
    """The layer that brought the package: the one of its database entry or metadata file."""
    location: ImagePath | None = None


@dataclass(frozen=True, slots=True)
class PathReport:
    """A live subtree worth naming, with the package that owns its root if one does."""

    path: ImagePath
    size_bytes: int
    files: int
    category: str
    """The category of most of its bytes."""
    package: str | None
    layers: Sequence[int]


@dataclass(frozen=True, slots=True)
class WasteItem:
    """Bytes that are stored but not visible. ``layers``: the ones that store them, then the one that hid them."""

    path: ImagePath
    kind: ShadowKind
    size_bytes: int
    layers: Sequence[int]
    instruction: str | None
    """The instruction to blame: the one that hid the bytes."""
    files: int = 1


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Live regular files of the same content at different paths (names of one hard-link group are one file)."""

    digest: str
    size_bytes: int
    """Size of one copy."""
    paths: Sequence[ImagePath]


@dataclass(frozen=True, slots=True)
class WasteReport:
    """Shipped but of no use. ``efficiency`` = live / layer bytes; ``dive_efficiency`` by dive's own definition."""

    efficiency: float
    dive_efficiency: float
    shadowed_bytes: int
    duplicate_bytes: int
    """Bytes saved if each duplicate were stored once."""
    items: Sequence[WasteItem]
    duplicates: Sequence[DuplicateGroup]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a plan comes to: the runtime image, the copies and the sizes."""

    runtime: str
    runtime_image: str
    estimated_bytes: int
    saved_bytes: int
    saved_ratio: float
    copies: Sequence[dict[str, Any]]
    """``source``, ``target``, ``size_bytes``, ``reason``; least to most volatile."""
    os_packages: Sequence[str]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `inspect` says about an image."""

    image: ImageSummary
    totals: Totals
    layers: Sequence[LayerReport]
    categories: Sequence[CategoryReport]
    packages: Sequence[PackageReport]
    paths: Sequence[PathReport]
    waste: WasteReport
    diagnostics: Sequence[Diagnostic]
    instructions: Sequence[Instruction] = field(default=(), repr=False)
    """The whole history, instructions that made no layer included."""
    recommendation: Recommendation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Schema 1, in key order, ready for ``json.dumps``; the same image gives the same dictionary."""
        image, totals, waste = self.image, self.totals, self.waste
        return {
            "schema_version": SCHEMA_VERSION,
            "image": {
                "reference": image.reference,
                "id": image.id,
                "platform": image.platform,
                "created": image.created,
                "entrypoint": _optional_list(image.entrypoint),
                "cmd": _optional_list(image.cmd),
                "user": image.user,
                "workdir": image.workdir,
                "env": [display(value) for value in image.env],
                "exposed_ports": list(image.exposed_ports),
                "healthcheck": image.healthcheck,
            },
            "totals": {
                "layer_bytes": totals.layer_bytes,
                "live_bytes": totals.live_bytes,
                "shadowed_bytes": totals.shadowed_bytes,
                "compressed_bytes": totals.compressed_bytes,
                "entries": totals.entries,
                "live_files": totals.live_files,
            },
            "layers": [
                {
                    "index": layer.index,
                    "diff_id": layer.diff_id,
                    "digest": layer.digest,
                    "size_bytes": layer.size_bytes,
                    "compressed_bytes": layer.compressed_bytes,
                    "shadowed_bytes": layer.shadowed_bytes,
                    "entries": layer.entries,
                    "instruction": layer.instruction,
                    "from_base": layer.from_base,
                    "categories": layer.categories,
                }
                for layer in self.layers
            ],
            "categories": [
                {
                    "name": category.name,
                    "size_bytes": category.size_bytes,
                    "files": category.files,
                    "needed_bytes": category.needed_bytes,
                }
                for category in self.categories
            ],
            "packages": [
                {
                    "ecosystem": package.ecosystem,
                    "name": package.name,
                    "version": package.version,
                    "size_bytes": package.size_bytes,
                    "files": package.files,
                    "needed": package.needed,
                    "layer": package.layer,
                    "location": None if package.location is None else display(package.location),
                }
                for package in self.packages
            ],
            "paths": [
                {
                    "path": display(path.path),
                    "size_bytes": path.size_bytes,
                    "files": path.files,
                    "category": path.category,
                    "package": path.package,
                    "layers": list(path.layers),
                }
                for path in self.paths
            ],
            "waste": {
                "efficiency": waste.efficiency,
                "dive_efficiency": waste.dive_efficiency,
                "shadowed_bytes": waste.shadowed_bytes,
                "duplicate_bytes": waste.duplicate_bytes,
                "items": [
                    {
                        "path": display(item.path),
                        "kind": item.kind,
                        "size_bytes": item.size_bytes,
                        "layers": list(item.layers),
                        "instruction": item.instruction,
                        "files": item.files,
                    }
                    for item in waste.items
                ],
                "duplicates": [
                    {
                        "digest": group.digest,
                        "size_bytes": group.size_bytes,
                        "paths": [display(path) for path in group.paths],
                    }
                    for group in waste.duplicates
                ],
            },
            "recommendation": None
            if self.recommendation is None
            else {
                "runtime": self.recommendation.runtime,
                "runtime_image": self.recommendation.runtime_image,
                "estimated_bytes": self.recommendation.estimated_bytes,
                "saved_bytes": self.recommendation.saved_bytes,
                "saved_ratio": self.recommendation.saved_ratio,
                "copies": list(self.recommendation.copies),
                "os_packages": list(self.recommendation.os_packages),
            },
            "diagnostics": [diagnostic_row(diagnostic) for diagnostic in self.diagnostics],
        }


def diagnostic_row(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic as every document has it."""
    return {
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": display(diagnostic.message),
        "path": None if diagnostic.path is None else display(diagnostic.path),
    }


def _optional_list(words: Sequence[str] | None) -> list[str] | None:
    return None if words is None else [display(word) for word in words]
