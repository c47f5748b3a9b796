"""Ecosystems: one file for each kind of package, found by being there.

An ecosystem finds the packages of one package manager inside an image and the paths that each owns. The
module of an ecosystem holds one object named ``ecosystem`` that satisfies :class:`Ecosystem`; nothing else
names it. Three ways to add one, none with an edit elsewhere:

- a module in this folder;
- a module in another folder that is appended to this package's ``__path__``;
- a distribution with an entry point in the group ``layerlens.ecosystems`` that names such an object
  (PyPA entry points specification).

Broken package data is a :class:`~layerlens.model.Diagnostic`, never an exception: see :func:`bounded_read`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from layerlens.errors import LayerLensError
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

ENTRY_POINT_GROUP = "layerlens.ecosystems"

READ_LIMIT = 16 * 1024 * 1024
"""No package database or metadata file is read beyond this many bytes; longer ones are cut, with a word."""


@runtime_checkable
class Ecosystem(Protocol):
    """What every kind of package provides."""

    name: str
    """Short lower-case name, as shown in reports: ``dpkg``, ``python``, ``node``."""

    def wants(self, path: ImagePath) -> bool:
        """Whether :meth:`packages` may read the content of ``path``, so that a streamed layer keeps it.

        Called once for every path of every layer: it looks at the path only.
        """

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """The packages installed in the image, in a stable order; trouble goes to ``diagnostics``."""


_found: dict[tuple[str, ...], tuple[Ecosystem, ...]] = {}


def ecosystems() -> tuple[Ecosystem, ...]:
    """Every ecosystem there is, sorted by name; imported at the first call and whenever a folder is added.

    A name that is taken twice goes to the module in the earlier folder, entry points last.
    """
    key = tuple(__path__)
    if key not in _found:
        by_name: dict[str, Ecosystem] = {}
        for found in (*_from_folders(key), *_from_entry_points()):
            by_name.setdefault(found.name, found)
        _found[key] = tuple(by_name[name] for name in sorted(by_name))
    return _found[key]


def _from_folders(folders: Iterable[str]) -> Iterator[Ecosystem]:
    for folder in folders:
        try:
            with os.scandir(folder) as listing:
                names = [entry.name for entry in listing]
        except OSError:  # a zipped package has no folder to list
            names = list(_zipped_names(folder))
        for name in sorted(names):
            stem, dot, suffix = name.partition(".")
            if suffix == "py" and dot and not stem.startswith("_"):
                module = importlib.import_module(f"{__name__}.{stem}")
                found = getattr(module, "ecosystem", None)
                if isinstance(found, Ecosystem):
                    yield found


def _zipped_names(folder: str) -> Iterator[str]:
    import pkgutil

    for module in pkgutil.iter_modules([folder]):
        yield f"{module.name}.py"


def _from_entry_points() -> Iterator[Ecosystem]:
    """Objects that installed distributions offer.

    ``importlib.metadata`` costs 45 ms to import, so that it is asked only where some distribution's
    ``entry_points.txt`` has the group at all, which reading those files tells in about one.
    """
    if not any(_names_group(folder) for folder in sys.path):
        return
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        loaded = point.load()
        if isinstance(loaded, type):
            loaded = loaded()
        yield cast(Ecosystem, loaded)


def _names_group(folder: str) -> bool:
    wanted = f"[{ENTRY_POINT_GROUP}]".encode()
    try:
        with os.scandir(folder or ".") as listing:
            metadata = [entry.path for entry in listing if entry.name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return False
    for path in metadata:
        try:
            with open(f"{path}/entry_points.txt", "rb") as stream:  # noqa: PTH123 - pathlib costs as much again
                if wanted in stream.read():
                    return True
        except OSError:
            continue
    return False


def bounded_read(
    fs: Filesystem, path: ImagePath, diagnostics: list[Diagnostic], limit: int = READ_LIMIT
) -> str | None:
    """The text of a metadata file, at most ``limit`` bytes; None with a diagnostic where it cannot be read.

    Bytes that are not UTF-8 become surrogate escapes, as in paths, so that owned paths still match.
    """
    try:
        raw: bytes = fs.read(path, limit + 1)
    except (LayerLensError, OSError) as error:
        diagnostics.append(Diagnostic("warning", "unreadable-metadata", f"cannot be read: {error}", path))
        return None
    if len(raw) > limit:
        diagnostics.append(
            Diagnostic("warning", "oversized-metadata", f"only its first {limit} bytes were read", path)
        )
        raw = raw[:limit]
    text = raw.decode("utf-8", "surrogateescape")
    return text[1:] if text.startswith("\ufeff") else text
