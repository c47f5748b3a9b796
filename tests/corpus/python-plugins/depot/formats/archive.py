"""Archives, read by libarchive."""

from __future__ import annotations

from pathlib import Path

import libarchive

KINDS = {"application/gzip", "application/x-tar", "application/zip", "application/zstd", "application/x-cpio"}


def read(path: Path, mime: str) -> str | None:
    if mime not in KINDS:
        return None
    with libarchive.file_reader(str(path)) as archive:
        names = [entry.pathname for entry in archive if entry.isfile]
    return f"{len(names)} files: {' '.join(sorted(names))}"
