"""Squashes from real folders and literals, for tests whose oracle is the package manager that filled the folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from imagekit import Member, layer
from squashkit import squash

from layerlens.filesystem import Filesystem
from layerlens.history import parse_config
from layerlens.model import Diagnostic, ImageConfig, Package

CONFIG: ImageConfig = parse_config(b'{"os": "linux", "architecture": "amd64"}')


def fs(*layers: Mapping[str, Member]) -> Filesystem:
    """The squash of layers from literals."""
    return squash(*(layer(members) for members in layers))


def fs_of_folders(folders: Mapping[str, Path | str], more: Mapping[str, Member] | None = None) -> Filesystem:
    """The squash of real folders or files, each at a path of the image; ``more`` comes on top."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for at, folder in sorted(folders.items()):
            archive.add(folder, at.strip("/"))
    layers = [stream.getvalue()] + ([layer(more)] if more else [])
    return squash(*layers)


def packages(ecosystem: object, filesystem: Filesystem) -> tuple[list[Package], list[Diagnostic]]:
    """What an ecosystem finds, and what it says on the way."""
    diagnostics: list[Diagnostic] = []
    found: Iterable[Package] = ecosystem.packages(filesystem, CONFIG, diagnostics)  # type: ignore[attr-defined]
    return list(found), diagnostics


def owners(filesystem: Filesystem, found: Iterable[Package]) -> dict[str, Package]:
    """Each live file's language package: the path's own, else the innermost root's."""
    by_path: dict[str, Package] = {}
    by_root: dict[str, Package] = {}
    for package in found:
        by_path.update(dict.fromkeys(package.paths, package))
        by_root.update(dict.fromkeys(package.roots, package))
    result = {}
    for path in filesystem.walk_files("/"):
        above = path
        while path not in by_path and above and above not in by_root:
            above = above[: above.rindex("/")]
        owner = by_path.get(path) or by_root.get(above)
        if owner:
            result[path] = owner
    return result
