"""Engines' storages from literals: overlay2, containers/storage, containerd's content store.

The tar-split streams are written here by the format's own description (github.com/vbatts/tar-split, tar/storage,
tar/asm), from what ``tarfile`` says of a tar.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagekit


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc64(data: bytes) -> bytes:
    """CRC-64 of ISO 3309, big-endian, as Go's hash/crc64 sums it."""
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return (crc ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")


def go_json(value: dict[str, Any]) -> str:
    """JSON as Go writes it: no spaces, and ``<``, ``>``, ``&`` escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def entries(tar: bytes) -> list[dict[str, Any]]:
    """The lines of a tar-split stream."""
    return [dict(line) for line in _entries(tar)]


@cache
def _entries(tar: bytes) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def segment(raw: bytes) -> None:
        if raw:
            made.append({"type": 2, "payload": base64.b64encode(raw).decode()})

    done = 0
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as members:
        for member in members:
            size = member.size if member.isreg() else 0
            segment(tar[done : member.offset_data])
            done = member.offset_data + size
            raw = member.name.encode("utf-8", "surrogateescape") + (b"/" if member.isdir() else b"")
            entry: dict[str, Any] = {"type": 1}
            try:
                entry["name"] = raw.decode()
            except UnicodeDecodeError:
                entry["name_raw"] = base64.b64encode(raw).decode()
            if size:
                entry["size"] = size
            check = base64.b64encode(crc64(tar[member.offset_data : done])).decode() if size else None
            made.append({**entry, "payload": check})
    segment(tar[done:])
    return [{**entry, "position": number} for number, entry in enumerate(made)]


def split(tar: bytes) -> bytes:
    """The tar-split stream of a tar."""
    return packed(entries(tar))


def packed(lines: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(go_json(line) + "\n" for line in lines).encode())


def unpack(tar: bytes, folder: Path) -> None:
    """A layer's folder: regular files, links and directories; devices and whiteouts need root and are left out."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as members:
        for member in members:
            path = folder / member.name.strip("/")
            if path.name.startswith(".wh."):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(exist_ok=True)
            elif member.issym():
                path.symlink_to(member.linkname)
            elif member.islnk():
                (path).hardlink_to(folder / member.linkname.strip("/"))
            elif member.isreg():
                found = members.extractfile(member)
                assert found is not None
                path.write_bytes(found.read())


def _size(tar: bytes) -> int:
    """What Docker counts: the bytes of files, and of the targets of symbolic links."""
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as members:
        return sum(
            len(member.linkname.encode("utf-8", "surrogateescape")) if member.issym() else member.size
            for member in members
            if member.issym() or member.isreg()
        )


class Overlay2:
    """Docker's folder with the driver overlay2."""

    driver = "overlay2"
    engine = "docker"

    def __init__(self, root: Path) -> None:
        self.root = root

    def info(self) -> dict[str, Any]:
        status = [["Backing Filesystem", "extfs"], ["Native Overlay Diff", "true"]]
        return {"DockerRootDir": str(self.root), "Driver": self.driver, "DriverStatus": status}

    def add(self, built: imagekit.BuiltImage) -> None:
        path = self.config(built)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(built.config)
        for number, (tar, diff_id) in enumerate(zip(built.layers, built.diff_ids, strict=True)):
            known = self.layer(built, number)
            if not known.exists():
                known.mkdir(parents=True)
                (known / "diff").write_text(diff_id)
                cache_id = hashlib.sha256(str(known).encode()).hexdigest()
                (known / "cache-id").write_text(cache_id)
                self.split(built, number).write_bytes(split(tar))
                unpack(tar, self.folder(built, number))
                (known / "size").write_text(str(_size(tar)))

    def config(self, built: imagekit.BuiltImage) -> Path:
        images = self.root / "image/overlay2/imagedb/content/sha256"
        return images / imagekit.hex_of(built.image_id)

    def layer(self, built: imagekit.BuiltImage, number: int) -> Path:
        chain = ""
        for diff_id in built.diff_ids[: number + 1]:
            chain = imagekit.sha256(f"{chain} {diff_id}".encode()) if chain else diff_id
        return self.root / "image/overlay2/layerdb/sha256" / imagekit.hex_of(chain)

    def split(self, built: imagekit.BuiltImage, number: int) -> Path:
        return self.layer(built, number) / "tar-split.json.gz"

    def folder(self, built: imagekit.BuiltImage, number: int) -> Path:
        return self.root / "overlay2" / (self.layer(built, number) / "cache-id").read_text() / "diff"


class ContainersStorage:
    """The graph root of Podman and Buildah."""

    driver = "overlay"
    engine = "podman"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[dict[str, Any]] = []
        self.layers: dict[str, dict[str, Any]] = {}

    def info(self) -> dict[str, Any]:
        status = [["Using metacopy", "false"], ["Native Overlay Diff", "true"]]
        return {"DockerRootDir": str(self.root), "Driver": self.driver, "DriverStatus": status}

    def add(self, built: imagekit.BuiltImage) -> None:
        path = self.config(built)
        path.parent.mkdir(parents=True)
        path.write_bytes(built.config)
        parent = ""
        for number, (tar, diff_id) in enumerate(zip(built.layers, built.diff_ids, strict=True)):
            key = self._id(built, number)
            if key not in self.layers:
                self.layers[key] = {"id": key, "diff-digest": diff_id, "diff-size": len(tar)}
                if parent:
                    self.layers[key]["parent"] = parent
                unpack(tar, self.folder(built, number))
                self.split(built, number).parent.mkdir(exist_ok=True)
                self.split(built, number).write_bytes(split(tar))
            parent = key
        self.images.append({"id": imagekit.hex_of(built.image_id), "layer": parent})
        (self.root / "overlay-images/images.json").write_text(json.dumps(self.images))
        (self.root / "overlay-layers/layers.json").write_text(json.dumps(list(self.layers.values())))

    def _id(self, built: imagekit.BuiltImage, number: int) -> str:
        return imagekit.hex_of(imagekit.sha256(" ".join(built.diff_ids[: number + 1]).encode()))

    def config(self, built: imagekit.BuiltImage) -> Path:
        key = "=" + base64.b64encode(built.image_id.encode()).decode()
        return self.root / "overlay-images" / imagekit.hex_of(built.image_id) / key

    def split(self, built: imagekit.BuiltImage, number: int) -> Path:
        return self.root / "overlay-layers" / f"{self._id(built, number)}.tar-split.gz"

    def folder(self, built: imagekit.BuiltImage, number: int) -> Path:
        return self.root / "overlay" / self._id(built, number) / "diff"


Storage = Overlay2 | ContainersStorage


def content_store(built: imagekit.BuiltImage, root: Path, *, partial: bool = True) -> str:
    """containerd's content store below its root; the digest of the image's index."""
    tree = dict(imagekit.containerd_save(built, partial=partial))
    blobs = root / "io.containerd.content.v1.content/blobs/sha256"
    blobs.mkdir(parents=True)
    for name, data in tree.items():
        if name.startswith("blobs/sha256/") and isinstance(data, bytes):
            (blobs / Path(name).name).write_bytes(data)
    index = tree["index.json"]
    assert isinstance(index, bytes)
    digest: str = json.loads(index)["manifests"][0]["digest"]
    return digest


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in sorted(names))
