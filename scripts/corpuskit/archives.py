"""The corpus's images as docker-archives, saved once for each image ID beside the engine that has them.

They belong to the engine's images, not to a checkout: several checkouts share them. They are as large as the
images, so that the least recently used give way where the disk would fill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from corpuskit.cases import Case
from corpuskit.engine import environment, inspect_image, state_folder
from corpuskit.errors import CorpusError

FREE_BYTES = 4_000_000_000
"""What stays free on the disk beside two copies of the image (the engine writes one itself while it saves)."""


def archive_of(case: Case, variant: str = "single") -> Path:
    """The archive of one of a case's images; those of its earlier builds are removed."""
    tag = case.tag(variant)
    image = inspect_image(tag)
    if image is None:
        raise CorpusError(f"no image {tag} in the engine; run `scripts/corpus build {case.name}`")
    folder = state_folder() / "archives"
    name = f"{case.name}.{variant}"
    archive = folder / f"{name}.{image['Id'].removeprefix('sha256:')[:12]}.tar"
    if archive.exists():
        os.utime(archive)  # its last use
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{name}.*.tar"):
        stale.unlink(missing_ok=True)
    make_room(folder, 2 * int(image["Size"]) + FREE_BYTES)
    partial = archive.with_suffix(f".part{os.getpid()}")
    try:
        subprocess.run(["docker", "save", "--output", str(partial), tag], env=environment(), check=True)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive


def make_room(folder: Path, free_bytes: int) -> None:
    """Remove archives, the least recently used first, until so much of the disk is free or none is left."""
    last_uses = {}
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            last_uses[path] = path.stat().st_mtime_ns
    for path in sorted(last_uses, key=last_uses.__getitem__):
        if shutil.disk_usage(folder).free >= free_bytes:
            return
        path.unlink(missing_ok=True)
