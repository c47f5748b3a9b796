"""Where the files of an archive or layout lie: members of a tar, or a folder.

What :mod:`docker_archive` and :mod:`oci_layout` share: reading small JSON files with a bound, finding blobs by
digest, checking what is small against its digest, and the source that they both return.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from layerlens.errors import DigestMismatchError, InvalidImageError, PlatformError
from layerlens.model import Diagnostic, DiffId, Digest, EntryType, ImagePath, Platform
from layerlens.patterns import regex
from layerlens.sources import FileRange, SourceLayer
from layerlens.sources.spool import Spool
from layerlens.tarindex import TarError, Wants, index_file

MAX_JSON = 64 << 20
"""Largest manifest, index or config that is read, in bytes; registries refuse more than 4 MiB."""
MAX_LAYERS = 10_000

_DIGEST = regex(r"(sha256):([0-9a-f]{64})|(sha384):([0-9a-f]{96})|(sha512):([0-9a-f]{128})")
_HEX = regex(r"[0-9a-f]{64}")
_DAMAGED = "The archive is damaged or incomplete; export or download it again."


class Store(Protocol):
    """Read-only files by their path inside an archive or layout."""

    name: str

    def has(self, path: str) -> bool:
        """True where there is a regular file of that name (links followed)."""

    def file_range(self, path: str) -> FileRange:
        """Where its bytes lie; InvalidImageError where there is no such file."""

    def close(self) -> None:
        """Close what was opened."""


class TarStore:
    """The members of an uncompressed tar that lies in a seekable file. Takes the file over."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._fd = file.fileno()
        self._digests = file.digests if isinstance(file, Spool) else {}
        self._passed = file.passed if isinstance(file, Spool) else {}
        size = os.fstat(self._fd).st_size
        if size == 0:
            raise InvalidImageError(
                f"{name} is empty",
                "Give an archive that `docker save` or `skopeo copy` wrote, or an OCI layout.",
            )
        try:
            self._index = index_file(self._fd, 0, size)
        except TarError as error:
            if error.offset == 0:
                raise InvalidImageError(
                    f"{name} is not an image archive: its first bytes are no tar header",
                    "Give an archive that `docker save` or `skopeo copy` wrote, or an OCI layout.",
                ) from None
            raise InvalidImageError(f"{name} is cut short or damaged: {error}", _DAMAGED) from error
        self._rows = {path: row for row, path in enumerate(self._index.paths)}

    def paths(self) -> list[ImagePath]:
        """Every member's path, absolute, in the order of the tar."""
        return self._index.paths

    def _row(self, path: str) -> int | None:
        """The regular member that ``path`` leads to; `layer.tar` may be a link to another layer's."""
        at = "/" + path.lstrip("/")
        for _ in range(40):
            row = self._rows.get(at)
            if row is None:
                return None
            kind = self._index.types[row]
            if kind == EntryType.FILE:
                return row
            if kind == EntryType.SYMLINK:
                at = posixpath.normpath(posixpath.join(posixpath.dirname(at), self._index.links[row]))
                at = "/" + at.lstrip("/")
            elif kind == EntryType.HARDLINK:
                at = self._index.links[row]
            else:
                return None
        return None

    def has(self, path: str) -> bool:
        """True where there is a regular member of that name (links followed)."""
        return self._row(path) is not None

    def file_range(self, path: str) -> FileRange:
        """Where the member's bytes lie in the file."""
        row = self._row(path)
        if row is None or row in self._index.sparse:
            raise InvalidImageError(f"{self.name} lacks {path}", _DAMAGED)
        offset, size = self._index.offsets[row], self._index.sizes[row]
        member = offset, size
        return FileRange(self._fd, offset, size, self._digests.get(member), self._passed.get(member))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FolderStore:
    """The files of an OCI image layout folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._open: dict[str, FileRange] = {}

    def has(self, path: str) -> bool:
        """True where there is a regular file of that name."""
        try:
            return stat.S_ISREG((self._folder / path).stat().st_mode)
        except (OSError, ValueError):
            return False

    def file_range(self, path: str) -> FileRange:
        """The whole file, opened on first use."""
        known = self._open.get(path)
        if known is None:
            try:
                fd = os.open(self._folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                raise InvalidImageError(
                    f"{self.name}: {path}: {error.strerror or error}",
                    "The layout is incomplete; copy it again.",
                ) from error
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                os.close(fd)
                raise InvalidImageError(
                    f"{self.name}: {path} is not a file", "The layout is damaged; copy it again."
                )
            known = self._open[path] = FileRange(fd, 0, status.st_size)
        return known

    def close(self) -> None:
        """Close every file that was opened."""
        for file_range in self._open.values():
            os.close(file_range.fd)
        self._open.clear()


class RangeReader(io.RawIOBase):
    """A fresh stream over a :class:`FileRange`, by ``pread``: the file's own position is never moved."""

    def __init__(self, file_range: FileRange) -> None:
        super().__init__()
        self._range = file_range
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the range goes."""
        view = memoryview(buffer).cast("B")
        left = self._range.size - self._at
        if left <= 0 or not view:
            return 0
        count = os.preadv(self._range.fd, [view[:left]], self._range.offset + self._at)
        self._at += count
        return count


def read_range(file_range: FileRange) -> bytes:
    """All bytes of a small range."""
    parts: list[bytes] = []
    at = 0
    while at < file_range.size:
        data = os.pread(file_range.fd, file_range.size - at, file_range.offset + at)
        if not data:
            break
        parts.append(data)
        at += len(data)
    return b"".join(parts)


def read_small(store: Store, path: str) -> bytes:
    """A file of bounded size."""
    file_range = store.file_range(path)
    if file_range.size > MAX_JSON:
        raise InvalidImageError(
            f"{store.name}: {path} has {file_range.size} bytes", "No manifest is that large."
        )
    return read_range(file_range)


def read_json(store: Store, path: str) -> Any:
    """A JSON file of bounded size; InvalidImageError where it is not JSON."""
    return parse_json(read_small(store, path), f"{store.name}: {path}")


def parse_json(data: bytes, what: str) -> Any:
    """JSON, with every way to be wrong turned into InvalidImageError."""
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidImageError(f"{what} is not JSON: {str(error)[:100]}", _DAMAGED) from None


def _finite(word: str) -> float:
    """RFC 8259 has no NaN and no Infinity, and neither may what is printed of a config."""
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is not a number of JSON's")
    return value


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Names for an error message, the first ``limit`` of them."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def blob_path(digest: object, what: str) -> str:
    """``blobs/sha256/…`` of a digest (image-spec image-layout.md), which is checked for its form first."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidImageError(f"{what}: {str(digest)[:100]!r} is not a digest", _DAMAGED)
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def digest_in(path: str) -> Digest | None:
    """The SHA-256 digest that a path's last component spells, as in ``blobs/sha256/…`` and ``….json``."""
    name = posixpath.basename(path)
    stem = name.partition(".")[0]
    return Digest(f"sha256:{stem}") if _HEX.fullmatch(stem) else None


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Raise DigestMismatchError where ``data`` does not hash to ``digest``."""
    algorithm = digest.partition(":")[0]
    actual = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if actual != digest:
        raise DigestMismatchError(f"{what} is listed as {digest} but hashes to {actual}", _DAMAGED)


def diff_ids_of(config: bytes, what: str) -> list[DiffId]:
    """``rootfs.diff_ids`` of a config (image-spec config.md), each checked for its form."""
    parsed = parse_json(config, what)
    rootfs = parsed.get("rootfs") if isinstance(parsed, dict) else None
    if not isinstance(parsed, dict) or (rootfs is not None and not isinstance(rootfs, dict)):
        raise InvalidImageError(f"{what} is not an image config", _DAMAGED)
    diff_ids = (rootfs or {}).get("diff_ids") or []
    if not isinstance(diff_ids, list) or len(diff_ids) > MAX_LAYERS:
        raise InvalidImageError(f"{what}: rootfs.diff_ids is not a list of digests", _DAMAGED)
    for diff_id in diff_ids:
        blob_path(diff_id, what)
    return [DiffId(diff_id) for diff_id in diff_ids]


def platform_of(config: bytes, what: str) -> Platform:
    """``os/architecture/variant`` of a config; empty where it does not say."""
    parsed = parse_json(config, what)
    if not isinstance(parsed, dict):
        raise InvalidImageError(f"{what} is not an image config", _DAMAGED)
    variant = parsed.get("variant")
    return Platform(
        str(parsed.get("os") or "linux"),
        str(parsed.get("architecture") or ""),
        str(variant) if variant else None,
    )


def require_platform(found: Platform, wanted: Platform | None, what: str) -> None:
    """Raise PlatformError where an image that has one platform only is asked for as another."""
    if wanted is not None and found.architecture and not found.matches(wanted):
        raise PlatformError(
            f"{what} is for {found}, not for {wanted}", f"Ask for it with --platform {found}."
        )


def source_layer(
    file_range: FileRange, diff_id: DiffId, media_type: str, digest: Digest | None, streamed: bool
) -> SourceLayer:
    """A layer whose blob lies in a file."""

    def open_blob() -> BinaryIO:
        if file_range.passed is not None:
            raise InvalidImageError(f"layer {diff_id} was not kept", "Open the image again.")
        return io.BufferedReader(RangeReader(file_range), 1 << 20)

    return SourceLayer(
        diff_id,
        media_type,
        file_range.size,
        digest,
        open_blob,
        file_range if file_range.passed is None else None,
        streamed,
        passed=file_range.passed,
    )


class StoredSource:
    """An image found in a store: see :class:`layerlens.sources.Source`."""

    def __init__(
        self,
        reference: str,
        config: bytes,
        layers: Sequence[SourceLayer],
        diagnostics: Sequence[Diagnostic],
        close: Callable[[], None],
        *,
        diff_ids_trusted: bool = False,
    ) -> None:
        self.reference = reference
        self.config = config
        self.image_id = "sha256:" + hashlib.sha256(config).hexdigest()
        self.layers = layers
        self.diagnostics = diagnostics
        self.diff_ids_trusted = diff_ids_trusted
        self._close: Callable[[], None] | None = close

    def pass_by(self, wants: Wants) -> None:
        """Nothing passes by here: every byte is at hand."""

    def close(self) -> None:
        """Close the files below; calling it twice is fine."""
        close, self._close = self._close, None
        if close is not None:
            close()
