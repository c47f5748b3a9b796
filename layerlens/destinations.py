"""Where a slim image goes: a docker-archive, an OCI layout (folder or tar), or the stream that an engine loads.

Everything is written once and hashed on the way, beside its target, and renamed when it is whole: an error, a full
disk or a signal leaves what was there before. The same image gives the same bytes (isal's gzip may differ between
kinds of processors; the diff IDs and the config's digest never do).

Formats: "Docker Image Specification v1.2" (``manifest.json``), OCI image-spec image-layout.md, manifest.md,
config.md.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from layerlens.errors import OutputError, UsageError
from layerlens.layers import Hashing
from layerlens.slim import OutputLayer, SlimImage, SlimLayer, StoredLayer
from layerlens.sources import Progress
from layerlens.sources.spool import compression_of
from layerlens.tarheader import END, made, padded
from layerlens.tarindex import BLOCK

OutputFormat = Literal["docker-archive", "oci"]
Compression = Literal["none", "gzip", "zstd"]

WRITING = "writing the slim image"
"""What the progress line says."""

_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MEDIA_TYPES = {"none": _OCI_LAYER, "gzip": f"{_OCI_LAYER}+gzip", "zstd": f"{_OCI_LAYER}+zstd"}
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_REF_NAME = "org.opencontainers.image.ref.name"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the image's ID (its config's digest), its diff IDs, and the bytes of its layers as stored."""

    image_id: str
    diff_ids: tuple[str, ...]
    stored_bytes: int


class WritableImage(Protocol):
    """What can be written: :class:`layerlens.slim.SlimImage`, or an image as its source has it."""

    @property
    def layers(self) -> Sequence[StoredLayer | SlimLayer]:
        """The layers, base first."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers as they are written."""

    @property
    def epoch(self) -> int:
        """The image's time in whole seconds since 1970."""

    def config(self, diff_ids: Sequence[str]) -> bytes:
        """The config blob for layers with these diff IDs."""


def write_image(
    image: SlimImage,
    target: Path,
    form: OutputFormat = "docker-archive",
    *,
    tag: str | None = None,
    compression: Compression = "gzip",
    progress: Progress | None = None,
) -> Written:
    """Write the image to ``target``: a file, or for ``oci`` a folder unless its name ends in ``.tar``.

    ``tag`` is the name it has inside. ``compression`` is of an OCI layout's layers; those of a docker-archive are
    uncompressed, as the tools write them.

    Raises:
        OutputError: the target cannot be written, or something else than an image of that form is there.
    """
    if is_stream(target):
        return _write_stream(image, target, form, tag, progress)
    target = Path(os.path.realpath(target))
    try:
        if form == "docker-archive":
            with _BesideFile(target) as beside:
                archive = DockerArchive(image, tag, progress)
                for chunk in archive.chunks():
                    beside.write(chunk)
                beside.keep()
            return archive.written
        if target.suffix == ".tar":
            with _BesideFile(target) as beside:
                written = _OciWriter(image, _TarFolder(beside), tag, compression, progress).write()
                beside.keep()
            return written
        with _BesideFolder(target) as folder:
            written = _OciWriter(image, _PlainFolder(folder.path), tag, compression, progress).write()
            folder.keep()
        return written
    except OSError as error:
        raise _cannot_write(target, error, image.size_bytes) from error


def is_stream(target: Path) -> bool:
    """Whether the target is there and is a pipe or a device: written as it is, since nothing can take its place."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_stream(
    image: SlimImage, target: Path, form: OutputFormat, tag: str | None, progress: Progress | None
) -> Written:
    if form != "docker-archive":
        raise OutputError(
            f"{target} is no folder", "An OCI layout needs a folder, or a file that ends in .tar."
        )
    archive = DockerArchive(image, tag, progress)
    try:
        with target.open("wb") as stream:
            for chunk in archive.chunks():
                stream.write(chunk)
    except OSError as error:
        raise _cannot_write(target, error, image.size_bytes) from error
    return archive.written


def _cannot_write(target: Path, error: OSError, needed: int) -> OutputError:
    hint = "Name a place that can be written."
    if error.errno in _FULL:
        hint = f"The image needs {needed:,} bytes there: make room, or name another place."
    return OutputError(f"cannot write {target}: {(error.strerror or str(error)).lower()}", hint)


# --- a target that appears whole or not at all -----------------------------------------------------------------


class _BesideFile:
    """A file that nobody sees before :meth:`keep`; without a name where there is O_TMPFILE (open(2))."""

    def __init__(self, target: Path) -> None:
        self._target = target
        if target.is_dir():
            raise OutputError(f"{target} is a folder", "Name a file in it.")
        self._name = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
        self._named = False
        self.position = 0
        self._fd = self._open()

    def _open(self) -> int:
        if hasattr(os, "O_TMPFILE"):
            try:
                return os.open(self._target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
        descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._named = True
        return descriptor

    def __enter__(self) -> _BesideFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        if self._named:
            self._name.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            count = os.write(self._fd, view)
            self.position += count
            view = view[count:]

    def patch(self, offset: int, block: bytes) -> None:
        """Write over what was written."""
        os.pwrite(self._fd, block, offset)

    def keep(self) -> None:
        """Put the file in the place of whatever the target was."""
        if self._target.exists():
            os.fchmod(self._fd, self._target.stat().st_mode & 0o7777)
        if not self._named:
            # Only with a descriptor does os.link call linkat(2) with AT_SYMLINK_FOLLOW, which this needs.
            os.link(f"/proc/self/fd/{self._fd}", self._name, src_dir_fd=self._fd, follow_symlinks=True)
            self._named = True
        self._name.replace(self._target)
        self._named = False


class _BesideFolder:
    """A folder that takes the target's place on :meth:`keep`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        if target.exists() and not _replaceable(target):
            raise OutputError(
                f"{target} is there already and is no OCI layout", "Name a folder that does not exist yet."
            )
        self.path = Path(tempfile.mkdtemp(prefix=f".{target.name[:200]}.", suffix=".tmp", dir=target.parent))
        self.path.chmod(0o777 & ~_umask())

    def __enter__(self) -> _BesideFolder:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def keep(self) -> None:
        """Take the target's place; what was there goes last."""
        if not self._target.exists():
            self.path.rename(self._target)
            return
        old = Path(
            tempfile.mkdtemp(prefix=f".{self._target.name[:200]}.", suffix=".old", dir=self._target.parent)
        )
        try:
            self._target.rename(old)
            try:
                self.path.rename(self._target)
            except BaseException:
                old.rename(self._target)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


def _replaceable(target: Path) -> bool:
    return target.is_dir() and ((target / "oci-layout").is_file() or not any(target.iterdir()))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# --- docker-archive ---------------------------------------------------------------------------------------------


class DockerArchive:
    """The image as ``docker load`` takes it, made while it is read: layers, then config and manifest.

    ``chunks`` can be iterated once; :attr:`written` is known afterwards. Without ``tag`` it has no name.
    """

    def __init__(
        self,
        image: WritableImage,
        tag: str | None = None,
        progress: Progress | None = None,
        task: str = WRITING,
    ) -> None:
        self._image = image
        self._tag = tag
        self._meter = _Meter(image, progress, task)
        self._written: Written | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of it was handed out."""
        return self._written is not None

    @property
    def written(self) -> Written:
        """What was written; asking before the last chunk is a mistake."""
        assert self._written is not None
        return self._written

    def chunks(self) -> Iterator[bytes]:
        """The archive, in pieces of about a megabyte."""
        names, diff_ids = [], []
        epoch = self._image.epoch
        stored_bytes = 0
        for number, stored in enumerate(self._image.layers):
            layer = stored.for_docker() if isinstance(stored, StoredLayer) else stored
            stored_bytes += layer.size_bytes
            names.append(f"layer-{number}.tar")
            yield made(names[-1].encode(), size=layer.size_bytes, mtime=epoch)
            with Hashing("sha256") as hashing:
                for chunk in layer.chunks():
                    hashing.update(chunk)
                    self._meter.add(len(chunk))
                    yield chunk
                diff_ids.append(layer.diff_id if isinstance(layer, StoredLayer) else hashing.digest())
            if layer.size_bytes % BLOCK:
                yield bytes(-layer.size_bytes % BLOCK)
        config = self._image.config(diff_ids)
        image_id = _digest(config)
        config_name = f"{image_id.removeprefix('sha256:')}.json"
        manifest = _json(
            [{"Config": config_name, "RepoTags": [self._tag] if self._tag else None, "Layers": names}]
        )
        yield made(config_name.encode(), size=len(config), mtime=epoch) + padded(config)
        yield made(b"manifest.json", size=len(manifest), mtime=epoch) + padded(manifest) + END
        self._written = Written(image_id, tuple(diff_ids), stored_bytes)


class _Meter:
    """Adds up bytes for the progress line."""

    def __init__(self, image: WritableImage, progress: Progress | None, task: str = WRITING) -> None:
        self._progress = progress
        self._task = task
        self._total = image.size_bytes
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._task, self._done, self._total)


# --- OCI layout --------------------------------------------------------------------------------------------------


class _PlainFolder:
    """An OCI layout's files in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "blobs" / "sha256").mkdir(parents=True)

    def file(self, name: str, content: bytes) -> None:
        (self._root / name).write_bytes(content)

    def blob(self, fill: Callable[[Callable[[bytes], Any]], str]) -> tuple[str, int]:
        """``fill`` writes a blob and returns its digest; (digest, size)."""
        partial = self._root / "blobs" / "partial"
        with partial.open("xb") as file:
            digest = fill(file.write)
            size = file.tell()
        partial.replace(self._root / _blob_name(digest))
        return digest, size


class _TarFolder:
    """The same as members of one tar; a blob's header is put in once its digest is known."""

    def __init__(self, beside: _BesideFile) -> None:
        self._beside = beside
        self._names: set[str] = set()

    def file(self, name: str, content: bytes) -> None:
        if name not in self._names:
            self._names.add(name)
            self._beside.write(made(name.encode(), size=len(content)) + padded(content))
        if name == "index.json":
            self._beside.write(END)

    def blob(self, fill: Callable[[Callable[[bytes], Any]], str]) -> tuple[str, int]:
        start = self._beside.position
        # A blob of eight gigabytes or more needs a pax record, so that every blob gets the room for one.
        self._beside.write(bytes(3 * BLOCK))
        digest = fill(self._beside.write)
        size = self._beside.position - start - 3 * BLOCK
        self._beside.write(bytes(-size % BLOCK))
        self._beside.patch(start, made(_blob_name(digest).encode(), size=size, always_pax=True))
        return digest, size


class _OciWriter:
    """An OCI layout with one image in it."""

    def __init__(
        self,
        image: SlimImage,
        folder: _PlainFolder | _TarFolder,
        tag: str | None,
        compression: Compression,
        progress: Progress | None,
    ) -> None:
        self._image = image
        self._folder = folder
        self._tag = tag
        self._compression = compression
        self._meter = _Meter(image, progress)

    def write(self) -> Written:
        folder = self._folder
        folder.file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        diff_ids, layers = [], []
        for layer in self._image.layers:
            diff_id, descriptor = self._layer(layer)
            diff_ids.append(diff_id)
            layers.append(descriptor)
        config = self._image.config(diff_ids)
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _OCI_MANIFEST,
                "config": self._small(config, _OCI_CONFIG),
                "layers": layers,
            }
        )
        descriptor = self._small(manifest, _OCI_MANIFEST)
        parsed = json.loads(config)
        descriptor["platform"] = {
            key: parsed[key] for key in ("architecture", "os", "os.version", "variant") if parsed.get(key)
        }
        descriptor["annotations"] = _names(self._tag)
        folder.file(
            "index.json", _json({"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": [descriptor]})
        )
        return Written(_digest(config), tuple(diff_ids), sum(layer["size"] for layer in layers))

    def _small(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(content)
        self._folder.file(_blob_name(digest), content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def _layer(self, layer: OutputLayer) -> tuple[str, dict[str, Any]]:
        """Write one layer: (diff ID, descriptor)."""
        stored = isinstance(layer, StoredLayer)
        compression: str = "none" if stored else self._compression
        diff_id = ""

        def fill(write: Callable[[bytes], Any]) -> str:
            nonlocal diff_id, compression
            with Hashing("sha256") as blob_hash, Hashing("sha256") as tar_hash:
                compress, flush = _compressor(compression)
                first = True
                for chunk in layer.chunks():
                    if first and isinstance(layer, StoredLayer):
                        compression = compression_of(chunk[:6])
                    first = False
                    if not isinstance(layer, StoredLayer):
                        tar_hash.update(chunk)
                    self._meter.add(len(chunk))
                    _forward(compress(chunk), blob_hash, write)
                _forward(flush(), blob_hash, write)
                diff_id = layer.diff_id if isinstance(layer, StoredLayer) else tar_hash.digest()
                return blob_hash.digest()

        digest, size = self._folder.blob(fill)
        return diff_id, {"mediaType": _MEDIA_TYPES[compression], "digest": digest, "size": size}


def _forward(piece: bytes, blob_hash: Hashing, write: Callable[[bytes], Any]) -> None:
    if piece:
        blob_hash.update(piece)
        write(piece)


def _compressor(compression: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if compression == "gzip":
        from isal import isal_zlib

        deflate = isal_zlib.compressobj(_GZIP_LEVEL, wbits=31)  # a header without name and time (RFC 1952)
        return deflate.compress, deflate.flush
    if compression == "zstd":
        if sys.version_info >= (3, 14):  # pragma: no cover
            from compression import zstd
        else:
            from backports import zstd

        frame = zstd.ZstdCompressor(level=_ZSTD_LEVEL)
        return frame.compress, frame.flush
    if compression == "none":
        return bytes, bytes
    raise UsageError(f"no such compression: {compression}", "Choose gzip, zstd or none.")


def _names(tag: str | None) -> dict[str, str]:
    """Annotations by which tools find the image: the tag alone (image-layout.md), and containerd's full name."""
    if tag is None:
        return {_REF_NAME: "latest"}
    short = tag.rpartition(":")[2] if ":" in tag.rpartition("/")[2] else "latest"
    return {_REF_NAME: short, "io.containerd.image.name": tag}


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(content: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
