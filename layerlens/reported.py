"""Reports as earlier runs made them, for images that an engine vouches for.

What a report says follows from the image and from this program, so that its entry is named by both: the config, the
layers and how they are stored, and the files of the package. Where it also follows from other images (the ones that a
plan may stand on), their IDs are kept with it, and asked for again. The rows are kept as they are in memory, since a
report's own dictionary has lost the bytes of paths that are not UTF-8.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from layerlens.cache import Cache, Entry
from layerlens.model import Diagnostic, Instruction
from layerlens.report import (
    CategoryReport,
    DuplicateGroup,
    LayerReport,
    PackageReport,
    PathReport,
    Recommendation,
    Report,
    Totals,
    WasteItem,
    WasteReport,
)
from layerlens.sources import Source

_TABLES = {
    "layers": LayerReport,
    "categories": CategoryReport,
    "packages": PackageReport,
    "paths": PathReport,
    "instructions": Instruction,
    "diagnostics": Diagnostic,
}

Kind = TypeVar("Kind", bound=Report)


class ReportMemory:
    """The report of one image, with a plan or without. ``source`` has true diff IDs."""

    def __init__(self, cache: Cache, source: Source, *, with_plan: bool) -> None:
        self._cache = cache
        layers = [(layer.diff_id, layer.digest, layer.compressed_bytes) for layer in source.layers]
        # A plan speaks of the image by its name.
        said = [_program(), source.image_id, layers, [source.reference] if with_plan else None]
        digest = hashlib.sha256(json.dumps(said).encode())
        digest.update(source.config)
        self._key = digest.hexdigest()

    def find(self, made: Callable[..., Kind], image_id_of: Callable[[str], str | None]) -> Kind | None:
        """The report that an earlier run stored, as ``made`` makes it of its fields but for ``image``.

        ``image_id_of`` says which image a reference means now. None where they are others than then.
        """

        def understood(entry: Entry) -> Kind | None:
            said = json.loads(entry.section("report"))
            if any(image_id_of(reference) != image_id for reference, image_id in said["others"].items()):
                return None
            *sums, items, duplicates = said["waste"]
            plan = said["recommendation"]
            return made(
                totals=_row(Totals, said["totals"]),
                **{name: _rows(kind, said[name]) for name, kind in _TABLES.items()},
                waste=_row(WasteReport, [*sums, _rows(WasteItem, items), _rows(DuplicateGroup, duplicates)]),
                recommendation=None if plan is None else _row(Recommendation, plan),
            )

        return self._cache.read("report", self._key, understood)

    def store(self, report: Report, others: Mapping[str, str | None]) -> None:
        """Store a report; ``others`` are the IDs of the images that it depends on, by reference."""
        *sums, items, duplicates = _values(WasteReport)(report.waste)
        plan = report.recommendation
        said = {
            "others": dict(others),
            "totals": _values(Totals)(report.totals),
            **{name: _plain(kind, getattr(report, name)) for name, kind in _TABLES.items()},
            "waste": [*sums, _plain(WasteItem, items), _plain(DuplicateGroup, duplicates)],
            "recommendation": None if plan is None else _values(Recommendation)(plan),
        }
        self._cache.store("report", self._key, {"report": [json.dumps(said).encode()]})


def _program() -> list[tuple[str, int, int]]:
    """Every file of this package with its size in bytes and its time, the tables beside the modules included.

    A package in an archive has no folder; there the version, which every entry of the cache has, must do.
    """
    found = []
    for folder, _, names in os.walk(Path(__file__).parent):
        if not folder.endswith("__pycache__"):
            for name in names:
                path = f"{folder}/{name}"
                with suppress(FileNotFoundError):  # an editor's own, which come and go
                    status = os.stat(path)  # noqa: PTH116 - a path object costs as much as asking
                    found.append((path, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _values(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """What gives a row's values in the order of its class's fields."""
    return attrgetter(*(one.name for one in fields(kind)))


def _plain(kind: type, rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(map(_values(kind), rows))


def _rows(kind: type, rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [_row(kind, values) for values in rows]


def _row(kind: type, values: Sequence[Any]) -> Any:
    return kind(*(tuple(value) if type(value) is list else value for value in values))
