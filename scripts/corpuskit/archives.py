"""The corpus's images as docker-archives, saved once for each image ID."""

from __future__ import annotations

import subprocess
from pathlib import Path

from corpuskit.cases import STATE, Case
from corpuskit.engine import environment, inspect_image
from corpuskit.errors import CorpusError

ARCHIVES = STATE / "archives"


def archive_of(case: Case, variant: str = "single") -> Path:
    """The archive of one of a case's images; those of its earlier builds are removed."""
    tag = case.tag(variant)
    image = inspect_image(tag)
    if image is None:
        raise CorpusError(f"no image {tag} in the engine; run `scripts/corpus build {case.name}`")
    name = f"{case.name}.{variant}"
    archive = ARCHIVES / f"{name}.{image['Id'].removeprefix('sha256:')[:12]}.tar"
    if archive.exists():
        return archive
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    for stale in ARCHIVES.glob(f"{name}.*"):
        stale.unlink()
    partial = archive.with_suffix(".part")
    subprocess.run(["docker", "save", "--output", str(partial), tag], env=environment(), check=True)
    partial.replace(archive)
    return archive
