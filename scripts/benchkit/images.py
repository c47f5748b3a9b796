"""Docker archives of any number of entries, layers and bytes, made in seconds: large contents are holes.

The tree is that of an image with many packages: folders of some twenty small files below ``/app/node_modules`` and
``/usr/lib``, of names and sizes that repeat as real ones do. The diff IDs are made up: nothing reads a layer's every
byte unless it is asked to, and of ten gigabytes of zeros there is little to prove.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
FILES_A_FOLDER = 20
LARGEST_FILE = 64 << 20
"""Bytes of the files whose contents are holes."""
_SMALL_SIZES = (0, 90, 180, 350, 35, 500, 420, 260, 12, 1700)
_ENDINGS = (".js", ".d.ts", ".js.map", ".json", ".md", ".so", ".py", ".h", ".txt", "")


@dataclass(frozen=True, slots=True)
class Shape:
    """How large an image is."""

    entries: int
    layers: int = 1
    hole_bytes: int = 0
    """Payload of large files, over all layers, on top of the small ones."""


def write_archive(path: Path, shape: Shape) -> int:
    """Write a docker archive of this shape; returns how many entries its layers have."""
    entries = 0
    with path.open("wb") as file:
        names = []
        for number in range(shape.layers):
            names.append(f"layer{number}.tar")
            start = file.tell()
            file.write(bytes(BLOCK))  # the member's header, once its size is known
            first = shape.entries * number // shape.layers
            last = shape.entries * (number + 1) // shape.layers
            entries += _write_layer(file, range(first, last), shape.hole_bytes // shape.layers)
            size = file.tell() - start - BLOCK
            file.seek(start)
            file.write(_header(names[-1], size))
            file.seek(start + BLOCK + size)
            file.write(bytes(-size % BLOCK))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/app/node_modules/package0/file0.js"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{number:064x}" for number in range(shape.layers)],
            },
            "history": [{"created_by": f"COPY part{number} / "} for number in range(shape.layers)],
        }
        manifest = [{"Config": "config.json", "RepoTags": ["bench:latest"], "Layers": names}]
        _member(file, "config.json", json.dumps(config).encode())
        _member(file, "manifest.json", json.dumps(manifest).encode())
        file.write(bytes(2 * BLOCK))
    return entries


def _write_layer(file: BinaryIO, numbers: range, hole_bytes: int) -> int:
    entries = 0
    batch = io.BytesIO()
    for header, content in _entries(numbers):
        batch.write(header)
        batch.write(content)
        batch.write(bytes(-len(content) % BLOCK))
        entries += 1
        if batch.tell() > 1 << 20:
            file.write(batch.getvalue())
            batch = io.BytesIO()
    file.write(batch.getvalue())
    left, number = hole_bytes, 0
    while left > 0:
        # No two of one size, or they would be duplicates, whose every byte is read.
        size = min(LARGEST_FILE - number * BLOCK - numbers.start, left)
        file.write(_header(f"var/lib/data/{numbers.start}-{number}.bin", size))
        file.seek(size + -size % BLOCK, io.SEEK_CUR)
        left, number = left - size, number + 1
        entries += 1
    file.write(bytes(2 * BLOCK))
    return entries


def _entries(numbers: range) -> Iterator[tuple[bytes, bytes]]:
    """Header and content of each entry: one folder, then its files."""
    for number in numbers:
        folder, place = divmod(number, FILES_A_FOLDER)
        top = "app/node_modules" if folder % 3 else "usr/lib"
        parent = f"{top}/package{folder // 4}/part{folder % 4}"
        if place == 0 or number == numbers.start:
            yield _header(parent + "/", 0, kind=b"5", mode=0o755), b""
            if place == 0:
                continue
        seed = number - number % 3 if folder % 4 == 0 else number  # in some folders three in a row are alike
        size = _SMALL_SIZES[(seed * 7 + folder) % len(_SMALL_SIZES)]
        content = (f"{seed}\n".encode() * (size // 2 + 1))[:size]
        name = f"file{place}{_ENDINGS[(number * 3) % len(_ENDINGS)]}"
        yield _header(f"{parent}/{name}", size), content


def _template(kind: bytes, mode: int) -> bytes:
    member = tarfile.TarInfo("")
    member.type, member.mode, member.mtime = kind, mode, 1_700_000_000
    return member.tobuf(tarfile.USTAR_FORMAT)


_TEMPLATES: dict[tuple[bytes, int], bytes] = {}


def _header(name: str, size: int, *, kind: bytes = b"0", mode: int = 0o644) -> bytes:
    """A ustar header (POSIX.1-2017, "ustar Interchange Format") of a name of at most 100 bytes."""
    template = _TEMPLATES.get((kind, mode))
    if template is None:
        template = _TEMPLATES[kind, mode] = _template(kind, mode)
    header = bytearray(template)
    encoded = name.encode()
    header[: len(encoded)] = encoded
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _member(file: BinaryIO, name: str, content: bytes) -> None:
    file.write(_header(name, len(content)) + content + bytes(-len(content) % BLOCK))
