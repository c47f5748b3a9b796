"""Images from literals, and every form in which images travel, byte for byte the same each time.

A layer is a dict of absolute paths::

    layer({"/etc/": DIR, "/etc/motd": b"hello", "/sh": Symlink("bin/sh"), "/h": Hardlink("/etc/motd")},
          whiteouts=["/old"], opaque=["/cache"])

gives the bytes of an uncompressed layer tar. ``image([...])`` puts layers, config and history together. The
writers below lay the image out as the tools do; each names the source of its shape. The tar writer is this
module's own, so that a reader is not only tested on the habits of ``tarfile``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Format = Literal["ustar", "gnu", "pax"]
Compression = Literal["none", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-chunked"]

MTIME = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"
BLOCK = 512
END = bytes(2 * BLOCK)


# --- members ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What a tar header says of every member; a mode of None takes the type's usual one."""

    mode: int | None = None
    uid: int = 0
    gid: int = 0
    mtime: int | float = MTIME
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File(Attributes):
    data: bytes = b""
    claimed_size: int | None = None
    """What the header says instead of ``len(data)``; for archives that lie."""


@dataclass(frozen=True, slots=True)
class Dir(Attributes):
    pass


@dataclass(frozen=True, slots=True)
class Symlink(Attributes):
    target: str | bytes = ""


@dataclass(frozen=True, slots=True)
class Hardlink(Attributes):
    target: str | bytes = ""
    """Absolute path (written without the slash, as engines do) unless the layer is ``verbatim``."""


@dataclass(frozen=True, slots=True)
class Device(Attributes):
    kind: Literal["char", "block"] = "char"
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, slots=True)
class Fifo(Attributes):
    pass


DIR = Dir()
FIFO = Fifo()

Member = bytes | File | Dir | Symlink | Hardlink | Device | Fifo
Members = Mapping[str, Member] | Iterable[tuple[str | bytes, Member]]

_TYPEFLAG = {File: b"0", Hardlink: b"1", Symlink: b"2", Dir: b"5", Fifo: b"6"}
_MODE = {File: 0o644, Hardlink: 0o644, Symlink: 0o777, Dir: 0o755, Fifo: 0o644, Device: 0o660}


def as_bytes(name: str | bytes) -> bytes:
    """The exact bytes of a name: UTF-8, surrogate escapes for bytes that are not."""
    return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


# --- tar --------------------------------------------------------------------------------------------------


def _number(value: int, width: int) -> bytes:
    """A numeric field: octal with a NUL (POSIX.1-2017 pax, ustar), base-256 where it does not fit (GNU)."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (b"\xff" if value < 0 else b"\x80") + (value & ((1 << (8 * (width - 1))) - 1)).to_bytes(width - 1)


def header(
    name: bytes,
    typeflag: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    linkname: bytes = b"",
    device: tuple[int, int] | None = None,
    prefix: bytes = b"",
    gnu: bool = False,
) -> bytes:
    """One 512-byte header as given, checksum right, nothing checked: lies are welcome."""
    block = bytearray(BLOCK)
    block[0 : len(name[:100])] = name[:100]
    block[100:108] = _number(mode, 8)
    block[108:116] = _number(uid, 8)
    block[116:124] = _number(gid, 8)
    block[124:136] = _number(size, 12)
    block[136:148] = _number(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = typeflag
    block[157 : 157 + len(linkname[:100])] = linkname[:100]
    block[257:265] = b"ustar  \0" if gnu else b"ustar\x0000"
    if device is not None:
        block[329:337] = _number(device[0], 8)
        block[337:345] = _number(device[1], 8)
    if prefix:
        block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """``data`` filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def pax_record(key: str, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, the length counting itself (POSIX.1-2017 pax, Extended Header)."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return b"%d" % length + body


def pax_header(
    records: Mapping[str, bytes], *, globally: bool = False, name: bytes = b"PaxHeaders.0/x"
) -> bytes:
    """An extended header (``x``), or a global one (``g``), with its records."""
    body = b"".join(pax_record(key, value) for key, value in records.items())
    return header(name, b"g" if globally else b"x", size=len(body)) + padded(body)


def gnu_long(name: bytes, typeflag: bytes) -> bytes:
    """GNU's ``././@LongLink`` member that carries the next member's name (``L``) or link target (``K``)."""
    data = name + b"\0"
    return header(b"././@LongLink", typeflag, size=len(data), mode=0, mtime=0, gnu=True) + padded(data)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar wants it, or None where no slash falls right."""
    if len(name) <= 100:
        return b"", name
    for at in range(len(name) - 101, min(156, len(name) - 1)):
        if at > 0 and name[at : at + 1] == b"/":
            return name[:at], name[at + 1 :]
    return None


def member(name: bytes, spec: Member, form: Format = "pax") -> bytes:
    """One member: header blocks and payload, ``name`` written as it is."""
    if isinstance(spec, bytes):
        spec = File(data=spec)
    typeflag = (b"3" if spec.kind == "char" else b"4") if isinstance(spec, Device) else _TYPEFLAG[type(spec)]
    data = spec.data if isinstance(spec, File) else b""
    size = len(data)
    if isinstance(spec, File) and spec.claimed_size is not None:
        size = spec.claimed_size
    target = as_bytes(spec.target) if isinstance(spec, Symlink | Hardlink) else b""
    mode = _MODE[type(spec)] if spec.mode is None else spec.mode
    extra, short, prefix, records = b"", name, b"", {}
    uid, gid, mtime = spec.uid, spec.gid, int(spec.mtime // 1)
    if form == "gnu":
        extra += gnu_long(target, b"K") if len(target) > 100 else b""
        extra += gnu_long(name, b"L") if len(name) > 100 else b""
    else:
        split = _split(name)
        if split is not None:
            prefix, short = split
        if form == "pax":
            if split is None or not name.isascii():
                records["path"] = name
            if len(target) > 100 or not target.isascii():
                records["linkpath"] = target
            for key, value, limit in (("uid", uid, 8**7), ("gid", gid, 8**7), ("size", size, 8**11)):
                if not 0 <= value < limit:
                    records[key] = b"%d" % value
            if spec.mtime != mtime or not 0 <= mtime < 8**11:
                records["mtime"] = repr(spec.mtime).encode()
            uid, gid = (uid if 0 <= uid < 8**7 else 0), (gid if 0 <= gid < 8**7 else 0)
            size = size if 0 <= size < 8**11 else 0
            mtime = mtime if 0 <= mtime < 8**11 else 0
        elif split is None or len(target) > 100:
            raise ValueError(f"does not fit ustar: {name!r} -> {target!r}")
    for key, value in sorted(spec.xattrs.items()):
        records[f"SCHILY.xattr.{key}"] = value
    if records:
        extra = pax_header(records) + extra
    head = header(
        short,
        typeflag,
        size=size,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=mtime,
        linkname=target,
        device=(spec.major, spec.minor) if isinstance(spec, Device) else None,
        prefix=prefix,
        gnu=form == "gnu",
    )
    return extra + head + padded(data)


def layer(
    members: Members = (),
    *,
    whiteouts: Sequence[str] = (),
    opaque: Sequence[str] = (),
    form: Format = "pax",
    verbatim: bool = False,
    markers_first: bool = False,
    end: bytes = END,
) -> bytes:
    """The uncompressed tar of one layer.

    Paths are absolute and written as engines write them, without the leading slash and with one at the end of
    a directory; ``verbatim`` writes names and hard-link targets exactly as given. ``whiteouts`` are paths to
    hide, ``opaque`` directories to empty (image-spec layer.md); the markers follow the members unless
    ``markers_first``.
    """
    pairs = list(members.items()) if isinstance(members, Mapping) else list(members)
    markers: list[tuple[str | bytes, Member]] = [
        (path.rstrip("/") + "/.wh..wh..opq", File()) for path in opaque
    ]
    for path in whiteouts:
        parent, _, name = path.rstrip("/").rpartition("/")
        markers.append((f"{parent}/.wh.{name}", File()))
    pairs = markers + pairs if markers_first else pairs + markers
    parts = []
    for path, spec in pairs:
        name = as_bytes(path)
        if not verbatim:
            name = name.strip(b"/") + (b"/" if isinstance(spec, Dir) else b"")
            if isinstance(spec, Hardlink):
                spec = replace(spec, target=as_bytes(spec.target).lstrip(b"/"))
        parts.append(member(name, spec, form))
    return b"".join(parts) + end


# --- images -----------------------------------------------------------------------------------------------


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(digest: str) -> str:
    return digest.partition(":")[2]


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """Layers (uncompressed tars, base first), the config's bytes, and tags."""

    layers: tuple[bytes, ...]
    config: bytes
    tags: tuple[str, ...] = ("kit:latest",)

    @property
    def diff_ids(self) -> list[str]:
        return [sha256(data) for data in self.layers]

    @property
    def image_id(self) -> str:
        return sha256(self.config)

    @property
    def platform(self) -> dict[str, str]:
        config = json.loads(self.config)
        keys = ("architecture", "os", "variant")
        return {key: config[key] for key in keys if key in config}


def image(
    layers: Sequence[bytes],
    *,
    config: Mapping[str, Any] | None = None,
    history: Sequence[str | Mapping[str, Any]] | None = None,
    platform: str = "linux/amd64",
    tags: Sequence[str] = ("kit:latest",),
    top: Mapping[str, Any] | None = None,
) -> BuiltImage:
    """An image of ``layers``; ``config`` is the config's own ``config`` object, ``top`` what goes beside it.

    ``history`` holds entries, or ``created_by`` lines that each make a layer; lines that begin with ``ENV``,
    ``CMD`` and their like become empty entries. By default every layer gets a ``RUN`` line.
    """
    os_name, architecture, *variant = platform.split("/")
    lines = [f"RUN step-{index}" for index in range(len(layers))] if history is None else history
    empty = (
        "ENV ",
        "CMD ",
        "ENTRYPOINT ",
        "EXPOSE ",
        "LABEL ",
        "USER ",
        "HEALTHCHECK ",
        "ARG ",
        "STOPSIGNAL ",
    )
    entries: list[dict[str, Any]] = []
    for line in lines:
        if not isinstance(line, str):
            entries.append(dict(line))
            continue
        entry: dict[str, Any] = {"created": CREATED, "created_by": line, "comment": "buildkit.dockerfile.v0"}
        if line.startswith(empty):
            entry["empty_layer"] = True
        entries.append(entry)
    document: dict[str, Any] = {
        "architecture": architecture,
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/app"], **(config or {})},
        "created": CREATED,
        "history": entries,
        "os": os_name,
        "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in layers]},
        **(top or {}),
    }
    if variant:
        document["variant"] = variant[0]
    return BuiltImage(tuple(layers), dumps(document), tuple(tags))


# --- compression ------------------------------------------------------------------------------------------


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def _thirds(data: bytes) -> list[bytes]:
    """Three pieces that fall inside blocks, where a reader that stops early is caught."""
    step = len(data) // 3 + 7
    return [data[at : at + step] for at in range(0, len(data), step)] or [b""]


def skippable(data: bytes, magic: int = 0x184D2A50) -> bytes:
    """A skippable frame (RFC 8878, 3.1.2), as zstd:chunked keeps its table of contents in."""
    return magic.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


def compress(data: bytes, how: Compression) -> bytes:
    """``data`` as a layer blob, the same bytes each time."""
    match how:
        case "none":
            return data
        case "gzip":
            return _gzip(data)
        case "gzip-members":
            return b"".join(_gzip(part) for part in _thirds(data))
        case "zstd":
            return zstd.compress(data, 3)
        case "zstd-frames":
            return b"".join(zstd.compress(part, 3) for part in _thirds(data))
        case "zstd-chunked":
            frames = b"".join(zstd.compress(part, 3) for part in _thirds(data))
            return frames + skippable(zstd.compress(b'{"version":1,"entries":[]}')) + skippable(bytes(64))


_SUFFIX = {"none": "", "gzip": "+gzip", "gzip-members": "+gzip"}


def layer_media_type(how: Compression, *, docker: bool = False) -> str:
    """The media type of a layer: OCI's (image-spec layer.md) or Docker's (distribution manifest-v2-2.md)."""
    if docker:
        kind = {"none": "tar", "gzip": "tar.gzip", "gzip-members": "tar.gzip"}.get(how, "tar.zstd")
        return f"application/vnd.docker.image.rootfs.diff.{kind}"
    return "application/vnd.oci.image.layer.v1.tar" + _SUFFIX.get(how, "+zstd")


# --- trees of files, as archive or folder -----------------------------------------------------------------

Tree = list[tuple[str, Member]]


def tar_of(tree: Tree, *, form: Format = "pax", end: bytes = END) -> bytes:
    """The archive of a tree, members in its order."""
    parts = []
    for name, spec in tree:
        suffix = b"/" if isinstance(spec, Dir) else b""
        parts.append(member(as_bytes(name) + suffix, spec, form))
    return b"".join(parts) + end


def shuffled(tree: Tree, seed: int) -> Tree:
    """The same members in another order: a reader may rely on none."""
    tree = list(tree)
    random.Random(seed).shuffle(tree)
    return tree


def write_folder(tree: Tree, folder: Path) -> Path:
    """The tree as a folder on disk."""
    folder.mkdir(parents=True)
    for name, spec in tree:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(spec, Dir):
            target.mkdir(exist_ok=True)
        elif isinstance(spec, Symlink):
            target.symlink_to(os.fsdecode(as_bytes(spec.target)))
        elif isinstance(spec, bytes | File):
            target.write_bytes(spec if isinstance(spec, bytes) else spec.data)
        else:
            raise TypeError(spec)
    return folder


# --- docker-archive, in every dialect ---------------------------------------------------------------------


def _familiar(tag: str) -> tuple[str, str]:
    name, _, version = tag.rpartition(":")
    return name, version


def _repositories(images: Sequence[BuiltImage], top: Callable[[BuiltImage], str]) -> bytes:
    table: dict[str, dict[str, str]] = {}
    for built in images:
        for tag in built.tags:
            name, version = _familiar(tag)
            table.setdefault(name, {})[version] = top(built)
    return dumps(table)


def _legacy_ids(built: BuiltImage) -> list[str]:
    """One ID per layer that depends on all below it, as ``v1.CreateID`` gives (the exact value is free)."""
    ids, parent = [], ""
    for index, diff_id in enumerate(built.diff_ids):
        top = built.image_id if index == len(built.layers) - 1 else ""
        parent = hex_of(sha256(f"{parent} {diff_id} {top}".encode()))
        ids.append(parent)
    return ids


def _legacy_json(ids: Sequence[str], index: int) -> bytes:
    parent = {"parent": ids[index - 1]} if index else {}
    return dumps({"id": ids[index], **parent, "created": "1970-01-01T00:00:00Z", "os": "linux"})


def docker_archive_old(*images: BuiltImage) -> Tree:
    """``docker save`` before Engine 25: a folder per layer, the same layer again as a symlink.

    Shape: moby v24 ``image/tarexport/save.go`` (``saveLayer`` links a diff ID it has written already),
    members sorted by name as ``archive.Tar`` walks them.
    """
    files: dict[str, Member] = {}
    written: dict[str, str] = {}
    manifest = []
    for built in images:
        ids = _legacy_ids(built)
        for index, (legacy, data) in enumerate(zip(ids, built.layers, strict=True)):
            diff_id = sha256(data)
            files[legacy] = DIR
            files[f"{legacy}/VERSION"] = b"1.0"
            files[f"{legacy}/json"] = _legacy_json(ids, index)
            if f"{legacy}/layer.tar" not in files:
                known = written.get(diff_id)
                files[f"{legacy}/layer.tar"] = (
                    data if known is None else Symlink(target=f"../{known}/layer.tar")
                )
                written.setdefault(diff_id, legacy)
        config = hex_of(built.image_id) + ".json"
        files[config] = built.config
        layers = [f"{legacy}/layer.tar" for legacy in ids]
        manifest.append({"Config": config, "RepoTags": list(built.tags) or None, "Layers": layers})
    files["manifest.json"] = dumps(manifest)
    files["repositories"] = _repositories(images, lambda built: _legacy_ids(built)[-1])
    return sorted(files.items())


IndexKind = Literal["full", "null-manifests", "no-layers", "absent"]


def docker_archive_25(*images: BuiltImage, index: IndexKind = "full") -> Tree:
    """``docker save`` from Engine 25 on (graph drivers): blobs named by diff ID, an OCI index beside.

    Shape: moby v25 ``image/tarexport/save.go``. ``null-manifests`` and ``no-layers`` are what 25.0.0 wrote by
    mistake (moby #47065, #47210); v1 configs are blobs that nothing references.
    """
    files: dict[str, Member] = {"blobs": DIR, "blobs/sha256": DIR}

    def blob(data: bytes) -> str:
        files[f"blobs/sha256/{hex_of(sha256(data))}"] = data
        return sha256(data)

    manifest, descriptors = [], []
    for built in images:
        ids = _legacy_ids(built)
        sources = {}
        for position, data in enumerate(built.layers):
            blob(_legacy_json(ids, position))
            sources[blob(data)] = {
                "mediaType": layer_media_type("none"),
                "size": len(data),
                "digest": sha256(data),
            }
        blob(built.config)
        layers = [f"blobs/sha256/{hex_of(diff_id)}" for diff_id in built.diff_ids]
        manifest.append(
            {
                "Config": f"blobs/sha256/{hex_of(built.image_id)}",
                "RepoTags": list(built.tags) or None,
                "Layers": layers,
                "LayerSources": sources,
            }
        )
        body = _oci_manifest(built, [(data, "none") for data in built.layers])
        if index == "no-layers":
            body["layers"] = []
        descriptor = _descriptor(dumps(body), "application/vnd.oci.image.manifest.v1+json")
        blob(dumps(body))
        for tag in built.tags:
            annotations = {
                "io.containerd.image.name": f"docker.io/library/{tag}",
                "org.opencontainers.image.ref.name": _familiar(tag)[1],
            }
            descriptors.append({**descriptor, "annotations": annotations})
    if index != "absent":
        files["oci-layout"] = dumps({"imageLayoutVersion": "1.0.0"})
        body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        files["index.json"] = dumps({**body, "manifests": None if index == "null-manifests" else descriptors})
    files["manifest.json"] = dumps(manifest)
    files["repositories"] = _repositories(images, lambda built: hex_of([built.image_id, *built.diff_ids][-1]))
    return sorted(files.items())


def containerd_save(built: BuiltImage, compression: Compression = "gzip", *, partial: bool = True) -> Tree:
    """What engines with the containerd image store save: compressed blobs under plain names, a nested index.

    Shape: containerd ``core/images/archive/exporter.go`` (records sorted by name; ``manifest.json`` for the
    matching platform, no ``LayerSources``). With ``partial``, the nested index lists another platform whose
    blobs are not there, as when only one was pulled, and a BuildKit attestation.
    """
    files: dict[str, Member] = {"blobs": DIR, "blobs/sha256": DIR}

    def blob(data: bytes) -> str:
        files[f"blobs/sha256/{hex_of(sha256(data))}"] = data
        return sha256(data)

    blobs = [compress(data, compression) for data in built.layers]
    manifest = dumps(_oci_manifest(built, [(data, compression) for data in built.layers]))
    for data in (*blobs, built.config, manifest):
        blob(data)
    kind = "application/vnd.oci.image.manifest.v1+json"
    inner = [{**_descriptor(manifest, kind), "platform": built.platform}]
    if partial:
        absent = _descriptor(b"a manifest that was never pulled", kind)
        inner.append({**absent, "platform": {"architecture": "s390x", "os": "linux"}})
        attestation, extra = _attestation(manifest)
        for data in extra:
            blob(data)
        inner.append(attestation)
    nested = dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": inner}
    )
    blob(nested)
    tops = []
    for tag in built.tags:
        annotations = {
            "io.containerd.image.name": f"docker.io/library/{tag}",
            "org.opencontainers.image.ref.name": _familiar(tag)[1],
        }
        descriptor = _descriptor(nested, "application/vnd.oci.image.index.v1+json")
        tops.append({**descriptor, "annotations": annotations})
    files["index.json"] = dumps({"schemaVersion": 2, "manifests": tops})
    files["oci-layout"] = dumps({"imageLayoutVersion": "1.0.0"})
    files["manifest.json"] = dumps(
        [
            {
                "Config": f"blobs/sha256/{hex_of(built.image_id)}",
                "RepoTags": list(built.tags),
                "Layers": [f"blobs/sha256/{hex_of(sha256(data))}" for data in blobs],
            }
        ]
    )
    return sorted(files.items())


def kaniko(*images: BuiltImage) -> Tree:
    """kaniko's ``--tar-path``, which is go-containerregistry's ``tarball.MultiWrite``.

    Shape: google/go-containerregistry ``pkg/v1/tarball/write.go``: per image the config, named by its digest
    (``sha256:…``), then ``<hex>.tar.gz`` of each layer's blob once, ``manifest.json`` last, no directories.
    """
    tree: Tree = []
    seen, manifest = set(), []
    for built in images:
        tree.append((built.image_id, File(data=built.config, mtime=0)))
        names = []
        for data in built.layers:
            blob = compress(data, "gzip")
            name = hex_of(sha256(blob)) + ".tar.gz"
            names.append(name)
            if name not in seen:
                seen.add(name)
                tree.append((name, File(data=blob, mtime=0)))
        manifest.append({"Config": built.image_id, "RepoTags": list(built.tags) or None, "Layers": names})
    tree.append(("manifest.json", File(data=dumps(manifest), mtime=0)))
    return tree


def podman(*images: BuiltImage) -> Tree:
    """``podman save`` and skopeo's ``docker-archive:``: layers at the root, links beside the legacy files.

    Shape: containers/image ``docker/internal/tarfile/writer.go``: ``<diff ID>.tar`` and ``<config>.json`` at
    the root as they come, then per layer ``<id>/layer.tar`` → ``../<diff ID>.tar``, ``VERSION``, ``json``;
    ``manifest.json`` and ``repositories`` last; mode 0444, time 0.
    """
    tree: Tree = []
    seen, manifest = set(), []

    def send(name: str, data: bytes) -> None:
        tree.append((name, File(data=data, mode=0o444, mtime=0)))

    for built in images:
        for data in built.layers:
            name = hex_of(sha256(data)) + ".tar"
            if name not in seen:
                seen.add(name)
                send(name, data)
        send(hex_of(built.image_id) + ".json", built.config)
        ids = _legacy_ids(built)
        for index, (legacy, diff_id) in enumerate(zip(ids, built.diff_ids, strict=True)):
            if legacy in seen:
                continue
            seen.add(legacy)
            tree.append((f"{legacy}/layer.tar", Symlink(target=f"../{hex_of(diff_id)}.tar", mtime=0)))
            send(f"{legacy}/VERSION", b"1.0")
            send(f"{legacy}/json", _legacy_json(ids, index))
        manifest.append(
            {
                "Config": hex_of(built.image_id) + ".json",
                "RepoTags": [f"docker.io/library/{tag}" for tag in built.tags],
                "Layers": [hex_of(diff_id) + ".tar" for diff_id in built.diff_ids],
            }
        )
    send("manifest.json", dumps(manifest))
    send("repositories", _repositories(images, lambda built: _legacy_ids(built)[-1]))
    return tree


# --- OCI layout -------------------------------------------------------------------------------------------


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def _oci_manifest(
    built: BuiltImage, layers: Sequence[tuple[bytes, Compression]], *, docker: bool = False
) -> dict[str, Any]:
    vendor = "application/vnd.docker.distribution.manifest.v2+json" if docker else None
    config = "application/vnd.docker.container.image.v1+json" if docker else None
    return {
        "schemaVersion": 2,
        "mediaType": vendor or "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(built.config, config or "application/vnd.oci.image.config.v1+json"),
        "layers": [
            _descriptor(compress(data, how), layer_media_type(how, docker=docker)) for data, how in layers
        ],
    }


def _attestation(manifest: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """An attestation manifest as BuildKit writes it (buildkit docs/attestations/attestation-storage.md)."""
    statement = dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": [], "predicate": {}})
    config = dumps(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(statement)]},
        }
    )
    body = dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(statement, "application/vnd.in-toto+json")],
        }
    )
    descriptor = {
        **_descriptor(body, "application/vnd.oci.image.manifest.v1+json"),
        "annotations": {
            "vnd.docker.reference.digest": sha256(manifest),
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }
    return descriptor, [statement, config, body]


def oci_layout(
    *images: BuiltImage,
    compression: Compression = "gzip",
    nested: int = 0,
    docker: bool = False,
    attestations: bool = False,
    platforms: bool = True,
) -> Tree:
    """An OCI image layout (image-spec image-layout.md) of ``images``.

    ``nested`` wraps the manifests in that many image indexes; ``docker`` uses Docker's media types inside;
    ``attestations`` adds one beside each manifest; ``platforms`` says each manifest's platform in the index.
    Images that share a tag are the platforms of one image: they go into one (at least once nested) index.
    """
    files: dict[str, Member] = {"oci-layout": dumps({"imageLayoutVersion": "1.0.0"})}
    index_type = (
        "application/vnd.docker.distribution.manifest.list.v2+json"
        if docker
        else "application/vnd.oci.image.index.v1+json"
    )

    def blob(data: bytes) -> None:
        files[f"blobs/sha256/{hex_of(sha256(data))}"] = data

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for built in images:
        manifest = dumps(_oci_manifest(built, [(data, compression) for data in built.layers], docker=docker))
        for data in (manifest, built.config, *(compress(data, compression) for data in built.layers)):
            blob(data)
        descriptor = _descriptor(manifest, json.loads(manifest)["mediaType"])
        if platforms:
            descriptor["platform"] = built.platform
        group = groups.setdefault(built.tags, [])
        group.append(descriptor)
        if attestations:
            attestation, blobs = _attestation(manifest)
            group.append(attestation)
            for data in blobs:
                blob(data)
    tops = []
    for tags, group in groups.items():
        members, depth = group, nested or (1 if len(group) > 1 and len(images) > 1 else 0)
        for _ in range(depth):
            body = dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": members})
            blob(body)
            members = [_descriptor(body, index_type)]
        for tag in tags:
            note = {"org.opencontainers.image.ref.name": tag}
            tops += [entry if "annotations" in entry else {**entry, "annotations": note} for entry in members]
    body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": tops}
    files["index.json"] = dumps(body)
    return sorted(files.items())


# --- one registry of all ways -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """One form in which an image travels: ``write(image, folder)`` gives the SOURCE to hand to layerlens."""

    name: str
    write: Callable[[BuiltImage, Path], str]
    stdin: bool = False
    """True where the SOURCE is a file to feed through standard input."""


def _file(name: str, data: Callable[[BuiltImage], bytes]) -> Callable[[BuiltImage, Path], str]:
    def write(built: BuiltImage, folder: Path) -> str:
        (folder / name).write_bytes(data(built))
        return str(folder / name)

    return write


def _folder(tree: Callable[[BuiltImage], Tree]) -> Callable[[BuiltImage, Path], str]:
    return lambda built, folder: str(write_folder(tree(built), folder / "layout"))


def ways() -> list[Way]:
    """Every form, for the one test that asks the same report of all."""
    compressions: tuple[Compression, ...] = (
        "none",
        "gzip",
        "gzip-members",
        "zstd",
        "zstd-frames",
        "zstd-chunked",
    )
    trees: dict[str, Callable[[BuiltImage], Tree]] = {
        "docker-old": docker_archive_old,
        "docker-25": docker_archive_25,
        "docker-25-null-index": lambda built: docker_archive_25(built, index="null-manifests"),
        "docker-25-empty-index": lambda built: docker_archive_25(built, index="no-layers"),
        "docker-25-no-index": lambda built: docker_archive_25(built, index="absent"),
        "containerd-gzip": lambda built: containerd_save(built, "gzip"),
        "containerd-zstd": lambda built: containerd_save(built, "zstd"),
        "containerd-whole": lambda built: containerd_save(built, "gzip", partial=False),
        "kaniko": kaniko,
        "podman": podman,
        **{f"oci-{how}": lambda built, how=how: oci_layout(built, compression=how) for how in compressions},
        "oci-nested": lambda built: oci_layout(built, nested=2),
        "oci-docker-types": lambda built: oci_layout(built, docker=True),
        "oci-docker-list": lambda built: oci_layout(built, docker=True, nested=1),
        "oci-attested": lambda built: oci_layout(built, nested=1, attestations=True),
        "oci-attested-flat": lambda built: oci_layout(built, attestations=True),
        "oci-no-platform": lambda built: oci_layout(built, platforms=False),
    }
    found: dict[str, Way] = {}

    def add(name: str, file: str, data: Callable[[BuiltImage], bytes], *, stdin: bool = False) -> None:
        found[name] = Way(name, _file(file, data), stdin)

    for name, tree in trees.items():
        add(f"{name}.tar", "image.tar", lambda b, t=tree: tar_of(t(b)))
        if name.startswith("oci-"):
            found[f"{name}/"] = Way(f"{name}/", _folder(tree))
    for name in ("docker-old", "docker-25", "podman", "oci-gzip"):
        tree = trees[name]
        for seed in (1, 2):
            add(f"{name} shuffled {seed}", "i.tar", lambda b, t=tree, s=seed: tar_of(shuffled(t(b), s)))
        add(f"{name}.tar.gz", "image.tar.gz", lambda b, t=tree: compress(tar_of(t(b)), "gzip"))
        add(f"{name}.tgz members", "image.tgz", lambda b, t=tree: compress(tar_of(t(b)), "gzip-members"))
        add(f"{name}.tar.zst", "image.tar.zst", lambda b, t=tree: compress(tar_of(t(b)), "zstd-frames"))
        add(f"{name} stdin", "i", lambda b, t=tree: tar_of(t(b)), stdin=True)
        add(f"{name} shuffled stdin", "i", lambda b, t=tree: tar_of(shuffled(t(b), 3)), stdin=True)
        add(f"{name} gzip stdin", "i", lambda b, t=tree: compress(tar_of(t(b)), "gzip"), stdin=True)
        add(f"{name} zstd stdin", "i", lambda b, t=tree: compress(tar_of(t(b)), "zstd"), stdin=True)
    forms: tuple[Format, ...] = ("gnu", "ustar")
    for form in forms:
        add(f"docker-old in {form}", "image.tar", lambda b, f=form: tar_of(docker_archive_old(b), form=f))
    add("no end blocks", "image.tar", lambda b: tar_of(docker_archive_25(b), end=b""))
    add("trailing data", "image.tar", lambda b: tar_of(docker_archive_25(b)) + b"\xffjunk" * 5000)
    add("other platforms", "image.tar", lambda b: tar_of(oci_layout(foreign(b), b, foreign(b, "arm64"))))
    add("leading dots", "image.tar", lambda b: tar_of(_dotted(docker_archive_old(b))))
    return list(found.values())


def _dotted(tree: Tree) -> Tree:
    """Names with ``./`` in front, as `tar -C folder -c .` repacks an archive."""
    return [("./" + name, spec) for name, spec in tree]


def other(tag: str) -> BuiltImage:
    """A different small image."""
    return image([layer({"/other": tag.encode()})], tags=(tag,))


def foreign(built: BuiltImage, architecture: str = "s390x") -> BuiltImage:
    """The same tag for a platform that is not the host's."""
    body = layer({"/foreign": architecture.encode()})
    return image([body], tags=built.tags, platform=f"linux/{architecture}")


# --- an image with a bit of everything --------------------------------------------------------------------


def sample(tags: Sequence[str] = ("kit:latest",)) -> BuiltImage:
    """Four layers that use every kind of entry, marker and shadowing, and packages of several ecosystems."""
    base = layer(
        {
            "/bin/": DIR,
            "/bin/sh": File(data=b"\x7fELF" + b"sh" * 3000, mode=0o755),
            "/bin/app": File(data=b"#!/bin/sh\nexec python3 /app/main.py\n", mode=0o755),
            "/bin/su": File(data=b"su" * 500, mode=0o4755, gid=42),
            "/bin/ping": File(
                data=b"ping" * 300, mode=0o755, xattrs={"security.capability": b"\1\0\0\2\0 " + bytes(14)}
            ),
            "/etc/": DIR,
            "/etc/os-release": b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
            "/lib": Symlink(target="usr/lib"),
            "/usr/": DIR,
            "/usr/lib/": DIR,
            "/usr/lib/libc.so.6": File(data=b"\x7fELF" + b"c" * 9000, mode=0o755),
            "/usr/lib/libc.a": b"!<arch>\n" + b"a" * 4000,
            "/usr/lib/libc-again.so": Hardlink(target="/usr/lib/libc.so.6", mode=0o755),
            "/usr/share/doc/hello/copyright": b"Copyright\n" * 20,
            "/usr/bin/hello": File(data=b"\x7fELF" + b"hello" * 200, mode=0o755),
            "/var/lib/dpkg/status": (
                b"Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.10-3\n"
                b"Section: devel\nDescription: example\n\n"
                b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n"
                b"Section: libs\nDescription: C library\n\n"
            ),
            "/var/lib/dpkg/info/hello.list": (
                b"/.\n/usr\n/usr/bin\n/usr/bin/hello\n/usr/share/doc/hello/copyright\n"
            ),
            "/var/lib/dpkg/info/libc6:amd64.list": b"/.\n/lib\n/lib/libc.so.6\n",
            "/var/cache/apt/archives/x.deb": b"deb" * 700,
            "/tmp/": Dir(mode=0o1777),
            "/dev/": DIR,
            "/dev/null": Device(kind="char", major=1, minor=3, mode=0o666),
            "/dev/sda": Device(kind="block", major=8, minor=0),
            "/run/fifo": FIFO,
            "/srv/old/a": b"a" * 1500,
            "/srv/old/b": b"b" * 1500,
        }
    )
    build = layer(
        {
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1": File(data=b"\x7fELF" + b"cc1" * 5000, mode=0o755),
            "/usr/include/stdio.h": b"#pragma once\n" * 100,
            "/app/": Dir(uid=1000, gid=1000),
            "/app/main.py": File(data=b"print('first')\n", uid=1000, gid=1000),
            "/app/node_modules/left-pad/package.json": b'{"name":"left-pad","version":"1.3.0"}',
            "/app/node_modules/left-pad/index.js": b"module.exports = s => s\n" * 40,
            "/app/.git/HEAD": b"ref: refs/heads/main\n",
            "/app/venv/pyvenv.cfg": b"home = /usr/bin\nversion = 3.11.2\n",
            "/app/venv/lib/python3.11/site-packages/six.py": b"# six\n" * 600,
            "/app/venv/lib/python3.11/site-packages/six-1.16.0.dist-info/METADATA": (
                b"Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\n"
            ),
            "/app/venv/lib/python3.11/site-packages/six-1.16.0.dist-info/RECORD": (
                b"six.py,,\nsix-1.16.0.dist-info/METADATA,,\nsix-1.16.0.dist-info/RECORD,,\n"
            ),
            "/root/.cache/pip/http/x": b"cached" * 900,
            "/data/": DIR,
            "/data/one": b"1" * 2000,
            "/data/two": b"2" * 2000,
            "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n",
        },
        form="gnu",
    )
    change = layer(
        {
            "/app/": Dir(uid=1000, gid=1000),
            "/app/main.py": File(data=b"print('second')\n" * 9, uid=1000, gid=1000),
            "/bin/app": File(data=b"#!/bin/sh\nexec python3 /app/main.py\n", mode=0o700),
            "/data/three": b"1" * 2000,
            "/app/caf\u00e9": "déjà vu".encode(),
            "/app/" + "n" * 130: b"a long name",
            "/app/line\nbreak": b"newline",
        },
        whiteouts=["/srv/old", "/var/cache/apt/archives/x.deb", "/nothing/here"],
        opaque=["/data"],
        markers_first=True,
    )
    link = layer(
        {
            "/app/": Dir(uid=1000, gid=1000),
            "/app/alias.py": Symlink(target="main.py"),
            "/srv/": DIR,
            "/srv/new": b"",
        }
    )
    return image(
        [base, build, change, link],
        tags=tags,
        config={
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PORT=8000"],
            "Cmd": ["--serve"],
            "Entrypoint": ["/bin/app"],
            "User": "app",
            "WorkingDir": "/app",
            "ExposedPorts": {"8000/tcp": {}, "53/udp": {}},
            "Healthcheck": {"Test": ["CMD", "/bin/app", "--check"], "Interval": 30_000_000_000},
            "Labels": {"org.example": "kit"},
        },
        history=[
            {"created": CREATED, "created_by": "/bin/sh -c #(nop) ADD file:0123456789abcdef in / "},
            {"created": CREATED, "created_by": '/bin/sh -c #(nop)  CMD ["bash"]', "empty_layer": True},
            {
                "created": CREATED,
                "created_by": "RUN /bin/sh -c apt-get install gcc # buildkit",
                "comment": "buildkit.dockerfile.v0",
            },
            {
                "created": CREATED,
                "created_by": "ENV PORT=8000",
                "empty_layer": True,
                "comment": "buildkit.dockerfile.v0",
            },
            {"created": CREATED, "created_by": "/bin/sh -c #(nop) COPY dir:fedcba9876543210 in /app "},
            {"created": CREATED},
        ],
    )
