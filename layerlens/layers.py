"""Opened layers: an index, bytes by range, and digests that were checked on the way.

A layer that lies uncompressed in a file is hopped over and read in place. Any other is inflated once: while
the tar index takes what it needs, two threads hash the blob as stored and the tar it inflates to, so that what
was read is what its digests name. Bytes that are asked for later, and were not kept, inflate it once more, into
a spool that has no name.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO, cast

from layerlens.beside import Beside
from layerlens.errors import DigestMismatchError, InvalidImageError, LayerLensError
from layerlens.sources import FileRange, Progress, SourceLayer
from layerlens.sources.spool import compression_of, open_inflated, spool
from layerlens.tarindex import LayerIndex, TarError, Wants, index_file, index_stream

_CHUNK = 1 << 20
_QUEUED = 8
"""Chunks that may wait for a hashing thread before reading waits for it."""
_WORTH_A_FORK = 64 << 20
"""Bytes of uncompressed layers from which on indexing them on two cores is worth a process."""
_PIPED = 2048
"""Layers that are shared out through a pipe: two bytes each, all of which must fit into it at once."""
_DAMAGED = "The image is damaged or was tampered with: export or download it again."


class Layer:
    """One opened layer: its ``source``, its ``index``, and ``pread`` on its uncompressed tar."""

    def __init__(self, source: SourceLayer, index: LayerIndex, plain: FileRange | None) -> None:
        self.source = source
        self.index = index
        self._plain = plain
        self._spool: BinaryIO | None = None

    def pread(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the uncompressed tar at ``offset``; InvalidImageError where it is shorter."""
        plain = self._plain
        if plain is None:
            self._spool = spool(open_inflated(self.source.open()), what="inflating a layer")
            fd = self._spool.fileno()
            plain = self._plain = FileRange(fd, 0, os.fstat(fd).st_size)
        if offset + size > plain.size:
            raise InvalidImageError(f"layer {self.source.diff_id} is shorter than its index says", _DAMAGED)
        data = os.pread(plain.fd, size, plain.offset + offset)
        while len(data) < size:
            more = os.pread(plain.fd, size - len(data), plain.offset + offset + len(data))
            if not more:
                raise InvalidImageError(f"layer {self.source.diff_id} ends early", _DAMAGED)
            data += more
        return data

    def close(self) -> None:
        """Drop the spool, if there is one; the source's own files are the source's."""
        if self._spool is not None:
            self._spool.close()
            self._spool = self._plain = None


def open_layers(
    sources: Sequence[SourceLayer],
    wants: Wants | None = None,
    *,
    verify: bool = False,
    progress: Progress | None = None,
) -> list[Layer]:
    """Open and index every layer, base first; what must be inflated is inflated two layers at a time.

    ``wants`` says which small files to keep while a layer is inflated. ``verify`` hashes uncompressed layers
    too, which are otherwise never read whole.

    Raises:
        InvalidImageError: a layer that is no tar, or damaged; the message names its diff ID.
        DigestMismatchError: a blob or tar that hashes to another digest; the message names both.
    """
    plain = [_plain_range(source) for source in sources]
    meter = _Meter(
        progress, sum(s.compressed_bytes for s, p in zip(sources, plain, strict=True) if p is None)
    )
    hashed = [verify or source.streamed for source in sources]
    if sum(1 for known in plain if known is None) + sum(hashed) == 0:
        return _open_all_plain([(s, p) for s, p in zip(sources, plain, strict=True) if p is not None])

    def open_one(number: int) -> Layer:
        source, known = sources[number], plain[number]
        if known is None:
            return _open_inflated(source, wants, meter)
        if hashed[number]:
            with Hashing("sha256") as tar_hash:
                layer = _open_plain(source, known)
                _feed(known, tar_hash)
                _check(source, None, tar_hash.digest(), f"layer {number}")
            return layer
        return _open_plain(source, known)

    from concurrent.futures import ThreadPoolExecutor  # five milliseconds that an uncompressed image saves

    pool = ThreadPoolExecutor(max_workers=min(4, max(1, os.cpu_count() or 1)))
    try:
        # The largest first: a short one left for the end costs less than a long one.
        order = sorted(range(len(sources)), key=lambda number: -sources[number].compressed_bytes)
        futures = {number: pool.submit(open_one, number) for number in order}
        return [futures[number].result() for number in range(len(sources))]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _plain_range(source: SourceLayer) -> FileRange | None:
    """The layer's uncompressed tar where it lies as such in a file; its first bytes decide."""
    known = source.file_range
    if known is None:
        return None
    try:
        compression = compression_of(os.pread(known.fd, 6, known.offset) if known.size >= 6 else b"")
    except InvalidImageError as error:
        raise _about(source, error) from None
    return known if compression == "none" else None


def _open_all_plain(opened: Sequence[tuple[SourceLayer, FileRange]]) -> list[Layer]:
    """Index layers that lie uncompressed in files; those of large images on two cores.

    Both sides take the next layer from one pipe, the largest first, since a layer's size says little of its entries.
    """
    indexes: dict[int, LayerIndex] = {}
    if len(opened) > 1 and sum(known.size for _, known in opened) >= _WORTH_A_FORK:
        reader, writer = os.pipe()
        try:
            order = sorted(range(len(opened)), key=lambda number: -opened[number][1].size)
            os.write(writer, b"".join(number.to_bytes(2, "big") for number in order[:_PIPED]))
            os.close(writer)

            def take() -> dict[int, LayerIndex]:
                taken = {}
                while record := os.read(reader, 2):
                    number = int.from_bytes(record, "big")
                    taken[number] = _open_plain(*opened[number]).index
                return taken

            beside = Beside(take)
            try:
                indexes = take()
                indexes |= beside.result()
            finally:
                beside.close()
        finally:
            os.close(reader)
    return [
        Layer(source, indexes[number], known) if number in indexes else _open_plain(source, known)
        for number, (source, known) in enumerate(opened)
    ]


def _open_plain(source: SourceLayer, known: FileRange) -> Layer:
    try:
        return Layer(source, index_file(known.fd, known.offset, known.size), known)
    except TarError as error:
        raise _about(source, error) from None


def _open_inflated(source: SourceLayer, wants: Wants | None, meter: _Meter) -> Layer:
    """Inflate, index, hash the blob and the tar, all at once."""
    algorithm = source.digest.partition(":")[0] if source.digest else "sha256"
    with Hashing(algorithm) as blob_hash, Hashing("sha256") as tar_hash:
        stored = source.open()
        try:
            blob = _Tee(stored, blob_hash if source.digest else None, meter)
            tar = _Tee(open_inflated(cast(BinaryIO, blob), what=f"layer {source.diff_id}"), tar_hash, None)
            index = index_stream(cast(BinaryIO, tar), wants)
            blob.drain()
        except TarError as error:
            raise _about(source, error) from None
        finally:
            stored.close()
        blob_digest = blob_hash.digest() if source.digest else None
        _check(source, blob_digest, tar_hash.digest(), f"layer {source.diff_id}")
    return Layer(source, index, None)


def _feed(known: FileRange, hashing: Hashing) -> None:
    at = 0
    while at < known.size:
        chunk = os.pread(known.fd, min(_CHUNK, known.size - at), known.offset + at)
        if not chunk:
            break
        hashing.update(chunk)
        at += len(chunk)


def _check(source: SourceLayer, blob: str | None, tar: str, what: str) -> None:
    if blob is not None and source.digest is not None and blob != source.digest:
        raise DigestMismatchError(f"{what} is stored as {source.digest} but hashes to {blob}", _DAMAGED)
    algorithm, _, _ = source.diff_id.partition(":")
    if algorithm == "sha256" and tar != source.diff_id:
        raise DigestMismatchError(
            f"{what}: the config lists the diff ID {source.diff_id}, but the layer inflates to {tar}",
            _DAMAGED,
        )


def _about(source: SourceLayer, error: LayerLensError) -> LayerLensError:
    """The same error, saying of which layer."""
    return InvalidImageError(f"layer {source.diff_id[:19]}: {error.message}", error.hint)


class Hashing:
    """A digest computed on a thread of its own; ``hashlib`` lets go of the interpreter meanwhile."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def update(self, chunk: bytes) -> None:
        """Hash ``chunk`` after all that came before; waits while too much is waiting."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="layerlens-hash", daemon=True)
            self._thread.start()
        self._queue.put(chunk)

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            self._hash.update(chunk)

    def digest(self) -> str:
        """``algorithm:hex`` of all that was fed; nothing can be fed afterwards."""
        self.__exit__()
        return f"{self._algorithm}:{self._hash.hexdigest()}"


class _Tee(io.RawIOBase):
    """A stream that passes what is read to a hash, and counts it."""

    def __init__(self, stream: BinaryIO, hashing: Hashing | None, meter: _Meter | None) -> None:
        super().__init__()
        self._stream = stream
        self._hashing = hashing
        self._meter = meter

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = self._stream.read(_CHUNK if size is None or size < 0 else size)
        self._passed(chunk)
        return chunk

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._passed(chunk)
        return len(chunk)

    def _passed(self, chunk: bytes) -> None:
        if chunk:
            if self._hashing is not None:
                self._hashing.update(chunk)
            if self._meter is not None:
                self._meter.add(len(chunk))

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_CHUNK):
            pass


class _Meter:
    """Adds up the bytes of all layers for one progress line."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            done = self._done
        if self._progress is not None:
            self._progress("reading layers", done, self._total)


def close_layers(layers: Iterable[Layer]) -> None:
    """Close every layer's spool."""
    for layer in layers:
        layer.close()
