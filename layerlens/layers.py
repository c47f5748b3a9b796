"""Opened layers: an index, bytes by range, and digests that were checked on the way.

A layer that lies uncompressed in a file is hopped over and read in place. Any other is inflated once: while
the tar index takes what it needs, another thread hashes the blob as stored and the tar it inflates to, so that what
was read is what its digests name. Bytes that are asked for later, and were not kept, inflate it once more, into
a spool that has no name.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import queue
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar, cast

from layerlens.beside import Beside, may_fork
from layerlens.cache import Cache
from layerlens.errors import DigestMismatchError, InvalidImageError, LayerLensError
from layerlens.model import DiffId
from layerlens.passing import Inline, Lane, Passed, Sizes, passing, settle
from layerlens.remembered import LayerMemory, find_index, find_inflated, store_index, store_inflated
from layerlens.sources import FileRange, Progress, SourceLayer, Unpacked
from layerlens.sources.beneath import StorageError
from layerlens.sources.spool import compression_of, open_inflated, spool
from layerlens.sources.store import RangeReader
from layerlens.tarindex import LayerIndex, TarError, Wants, index_chunks, index_file

_CHUNK = 1 << 20
_QUEUED = 8
"""Chunks that may wait for a hashing thread before reading waits for it."""
_WORTH_A_FORK = 64 << 20
"""Bytes of uncompressed layers from which on indexing them on two cores is worth a process."""
_STREAMS_WORTH_A_FORK = 8 << 20
"""The same, of layers as they are stored compressed."""
_HEADERS_WORTH_A_FORK = 256 << 10
"""The same, of what an engine stores of the headers of unpacked layers."""
_PIPED = 2048
"""Layers that are shared out through a pipe: two bytes each, all of which must fit into it at once."""
_DAMAGED = "The image is damaged or was tampered with: export or download it again."

Result = TypeVar("Result")


class Layer:
    """One opened layer: its ``source``, its ``index``, and ``pread`` on its uncompressed tar."""

    def __init__(
        self,
        source: SourceLayer,
        index: LayerIndex,
        plain: FileRange | None,
    ) -> None:
        if source.compressed_bytes is None:
            source = replace(source, compressed_bytes=index.size)
        self.source = source
        self.index = index
        self.memory: LayerMemory | None = None
        """Bytes and digests that earlier runs asked for, where the diff ID is true."""
        self._plain = plain
        self._look = source.unpacked
        self._unpacked: Unpacked | None = None
        self._spool: BinaryIO | None = None
        self._fetching = threading.Lock()
        self._home = os.getpid()

    def recall(self, memory: LayerMemory) -> None:
        """Use what is remembered of this layer's diff ID, which the caller knows to be true."""
        self.memory = memory
        if not self.index.digests:
            self.index.digests = memory.digests

    def pread(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the uncompressed tar at ``offset``; InvalidImageError where it is shorter."""
        plain = self._plain
        if plain is None:
            if self.memory is not None:
                remembered = self.memory.read(offset, size)
                if remembered is not None:
                    return remembered
            kept = self._from_folder(offset, size)
            if kept is not None:
                return kept
            plain = self._fetched()
        if offset + size > plain.size:
            raise InvalidImageError(f"layer {self.source.diff_id} is shorter than its index says", _DAMAGED)
        data = os.pread(plain.fd, size, plain.offset + offset)
        while len(data) < size:
            more = os.pread(plain.fd, size - len(data), plain.offset + offset + len(data))
            if not more:
                raise InvalidImageError(f"layer {self.source.diff_id} ends early", _DAMAGED)
            data += more
        return data

    def _from_folder(self, offset: int, size: int) -> bytes | None:
        """As :meth:`pread`, where the engine keeps the layer unpacked and all is as it should be; else None."""
        look = self._look
        if look is not None:
            self._unpacked = look()  # two threads may both look: they find the same
            self._look = None
        unpacked = self._unpacked
        if unpacked is None:
            return None
        try:
            return unpacked.pread(self.index, offset, size)
        except StorageError as error:
            unpacked.give_up(error)
            self._unpacked = None
            return None

    def ask(self, offset: int, size: int) -> bytes:
        """As :meth:`pread`, for what a later run on the same image will ask for as well."""
        if self.memory is not None:
            self.memory.note(offset, size)
        return self.pread(offset, size)

    def _fetched(self) -> FileRange:
        """The uncompressed tar in a file, wherever it was until now: exported, or inflated into a spool.

        It is hashed on the way where its index may be from an earlier run. A forked child fetches nothing, since it
        would do so beside its parent; that does the work again, as after every failure of a child.
        """
        if os.getpid() != self._home:
            raise LayerLensError("a layer is not at hand", "")
        with self._fetching:
            if self._plain is None:
                plain = _plain_range(self.source)
                if plain is None:
                    with Hashing("sha256") as tar_hash:
                        blob = open_inflated(self.source.open(), what=f"layer {self.source.diff_id}")
                        tar = cast(BinaryIO, _Tee(blob, tar_hash))
                        self._spool = spool(tar, what="inflating a layer")
                        blob.close()
                        _check(self.source, tar_hash.digest(), f"layer {self.source.diff_id}")
                    fd = self._spool.fileno()
                    plain = FileRange(fd, 0, os.fstat(fd).st_size)
                elif self.source.streamed:
                    _check_plain(self.source, plain, f"layer {self.source.diff_id}")
                self._plain = plain
            return self._plain

    def remember(self, digests: Mapping[int, bytes]) -> None:
        """Store what this run asked for, and the SHA-256 of files by row of the index, for the next one."""
        if self.memory is not None:
            contents = sorted((self.index.offsets[row], data) for row, data in self.index.contents.items())
            for offset, data in contents:
                self.memory.note(offset, len(data))
            starts = [offset for offset, _ in contents]

            def content(offset: int, size: int) -> bytes:
                number = bisect_right(starts, offset) - 1
                if number >= 0:
                    start, data = contents[number]
                    if offset + size <= start + len(data):
                        return data[offset - start : offset - start + size]
                if self._plain is None and self._unpacked is None:
                    raise ValueError("what is not at hand any more is not fetched to be remembered")
                return self.pread(offset, size)

            self.memory.store({**self.index.digests, **digests}, content)

    def close(self) -> None:
        """Drop the spool, if there is one; the source's own files are the source's."""
        if self.memory is not None:
            self.memory.close()
        if self._spool is not None:
            self._spool.close()
            self._spool = self._plain = None


def open_layers(
    sources: Sequence[SourceLayer],
    wants: Wants | None = None,
    *,
    meanwhile: Callable[[], object] | None = None,
    verify: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
    trusted: bool = False,
) -> list[Layer]:
    """Open and index every layer, base first; what must be inflated is inflated two layers at a time.

    ``wants`` says which small files to keep while a layer is inflated. ``meanwhile`` may be called while another core
    indexes: it does what has to be done anyway. ``verify`` hashes uncompressed layers too, which are otherwise never
    read whole. With ``cache``, layers that are known are not read; ``trusted`` says
    that an engine vouches for the diff IDs.

    Raises:
        InvalidImageError: a layer that is no tar, or damaged; the message names its diff ID.
        DigestMismatchError: a blob or tar that hashes to another digest; the message names both.
    """
    known: dict[int, Layer] = {}
    if cache is not None and not verify:
        known = _recalled(sources, cache, trusted)
    missing = [number for number in range(len(sources)) if number not in known]
    read = _read_layers([sources[number] for number in missing], wants, meanwhile, verify, progress)
    memories: dict[DiffId, LayerMemory] = {}
    true = set(known)
    for number, (layer, verified) in zip(missing, read, strict=True):
        if cache is not None and (verified or trusted):
            _store(cache, layer, verified)
            true.add(number)
        known[number] = layer
    for number in sorted(true):
        diff_id = sources[number].diff_id  # an image may hold the same layer twice
        if cache is not None:
            if diff_id not in memories:
                memories[diff_id] = LayerMemory(cache, diff_id)
            known[number].recall(memories[diff_id])
    return [known[number] for number in range(len(sources))]


def _recalled(sources: Sequence[SourceLayer], cache: Cache, trusted: bool) -> dict[int, Layer]:
    """The layers whose index is in the cache and whose diff ID is true, by their number.

    Either an engine says so, or the blob as stored hashes to a digest that inflated to that diff ID before.
    """
    found: dict[int, Layer] = {}
    claimed: list[int] = []
    for number, source in enumerate(sources):
        if trusted:
            index = find_index(cache, source.diff_id)
            if index is not None:
                found[number] = Layer(source, index, None)
        elif source.digest is None or str(source.digest) == str(source.diff_id):
            continue  # what is stored uncompressed is read in place, sooner than it is hashed
        elif find_inflated(cache, source.digest) == source.diff_id:
            claimed.append(number)
    if claimed:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=min(4, max(1, os.cpu_count() or 1))) as pool:
            hashed = pool.map(_hashes_to_its_digest, [sources[number] for number in claimed])
            for number, true in zip(claimed, hashed, strict=True):
                index = find_index(cache, sources[number].diff_id) if true else None
                if index is not None:
                    found[number] = Layer(sources[number], index, None)
    return found


def _hashes_to_its_digest(source: SourceLayer) -> bool:
    """Whether the blob as stored is what its digest names."""
    algorithm, _, expected = (source.digest or "").partition(":")
    hasher = hashlib.new(algorithm)
    stream = source.open()
    try:
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
    finally:
        stream.close()
    return hasher.hexdigest() == expected


def _store(cache: Cache, layer: Layer, verified: bool) -> None:
    """Store the index of a layer, whose diff ID is true: it hashed to it (``verified``), or an engine says so."""
    source = layer.source
    store_index(cache, source.diff_id, layer.index)
    if verified and source.digest is not None and str(source.digest) != str(source.diff_id):
        store_inflated(cache, source.digest, source.diff_id)


def _read_layers(
    sources: Sequence[SourceLayer],
    wants: Wants | None,
    meanwhile: Callable[[], object] | None,
    verify: bool,
    progress: Progress | None,
) -> list[tuple[Layer, bool]]:
    """Each layer, and whether what was indexed hashed to its diff ID: out of an engine's folders where it can be.

    What has passed by already was indexed then.
    """
    read = {number: _taken(source) for number, source in enumerate(sources) if source.passed is not None}
    for number, index in _index_unpacked(sources, meanwhile, verify).items():
        read[number] = Layer(sources[number], index, None), False
    rest = [number for number in range(len(sources)) if number not in read]
    stored = _read_stored([sources[number] for number in rest], wants, meanwhile, verify, progress)
    read |= zip(rest, stored, strict=True)
    return [read[number] for number in range(len(sources))]


def _taken(source: SourceLayer) -> tuple[Layer, bool]:
    """The layer that was indexed as it passed by, and whether it hashed to its diff ID."""
    assert source.passed is not None
    _check(source, source.passed.sha256, f"layer {source.diff_id}")
    return Layer(source, source.passed.index, None), source.diff_id.startswith("sha256:")


def _index_unpacked(
    sources: Sequence[SourceLayer], meanwhile: Callable[[], object] | None, verify: bool
) -> dict[int, LayerIndex]:
    """The index of every layer that its engine keeps unpacked, by number; not of those where that fails."""
    kept: dict[int, Unpacked] = {}
    costs: dict[int, int] = {}
    for number, source in enumerate(sources):
        unpacked = source.unpacked() if source.unpacked is not None else None
        if unpacked is not None:
            try:
                costs[number] = unpacked.stored_bytes
                kept[number] = unpacked
            except StorageError as error:
                unpacked.give_up(error)

    def index(number: int) -> LayerIndex | StorageError:
        try:
            return kept[number].index()
        except StorageError as error:
            return error

    found = {}
    for number, result in _shared_out(costs, index, _HEADERS_WORTH_A_FORK, meanwhile).items():
        try:
            if isinstance(result, StorageError):
                raise result
            if verify:
                _hash_unpacked(sources[number], kept[number])
            found[number] = result
        except StorageError as error:
            kept[number].give_up(error)
    return found


def _hash_unpacked(source: SourceLayer, unpacked: Unpacked) -> None:
    """Raise StorageError where the folder and the headers are not the tar that the diff ID names."""
    try:
        _hash_tar(source, unpacked.open(), f"layer {source.diff_id}")
    except DigestMismatchError as error:
        raise StorageError(error.message) from error


def _read_stored(
    sources: Sequence[SourceLayer],
    wants: Wants | None,
    meanwhile: Callable[[], object] | None,
    verify: bool,
    progress: Progress | None,
) -> list[tuple[Layer, bool]]:
    """Each layer from where it is stored as such, and whether what was indexed hashed to its diff ID.

    A file of the user's that was hashed with ``verify`` does not count: it was read twice, and anybody who may write
    to it could have changed it in between.
    """
    plain = [_plain_range(source) for source in sources]
    meter = _Meter(
        progress, sum(s.compressed_bytes or 0 for s, p in zip(sources, plain, strict=True) if p is None)
    )
    hashed = [verify or source.streamed for source in sources]
    at_hand = [
        (source, known)
        for source, known, unproved in zip(sources, plain, hashed, strict=True)
        if known is not None and (not unproved or known.sha256 == source.diff_id)
    ]
    if len(at_hand) == len(sources):  # nothing has to be read whole
        return [(layer, layer.source.streamed) for layer in _open_all_plain(at_hand, meanwhile)]

    wanted = _Wanted(wants, meter)

    def open_one(number: int) -> tuple[Layer, bool]:
        source, known = sources[number], plain[number]
        strong = source.diff_id.startswith("sha256:")
        if known is None:
            index = passed[number] if number in passed else wanted.index(source)
            return Layer(source, index, None), strong
        if hashed[number]:
            layer = _open_plain(source, known)
            _check_plain(source, known, f"layer {number}")
            return layer, strong and source.streamed
        return _open_plain(source, known), False

    passed: dict[int, LayerIndex] = {}
    streams = {number: s.compressed_bytes or 0 for number, s in enumerate(sources) if plain[number] is None}
    if may_fork() and len(streams) > 1 and sum(streams.values()) >= _STREAMS_WORTH_A_FORK:
        passed = _inflate_beside(sources, streams, wanted, meanwhile)
        read = [open_one(number) for number in range(len(sources))]
    else:
        read = _on_threads(sources, open_one)
    settle(layer.index for layer, _ in read)
    return read


def _on_threads(sources: Sequence[SourceLayer], work: Callable[[int], Result]) -> list[Result]:
    """What ``work`` makes of the number of each layer; raises what it raises for the first of them."""
    from concurrent.futures import ThreadPoolExecutor  # five milliseconds that an uncompressed image saves

    pool = ThreadPoolExecutor(max_workers=min(4, max(1, os.cpu_count() or 1)))
    try:
        # The largest first: a short one left for the end costs less than a long one.
        order = sorted(range(len(sources)), key=lambda number: -(sources[number].compressed_bytes or 0))
        futures = {number: pool.submit(work, number) for number in order}
        return [futures[number].result() for number in range(len(sources))]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _inflate_beside(
    sources: Sequence[SourceLayer],
    costs: Mapping[int, int],
    wanted: _Wanted,
    meanwhile: Callable[[], object] | None,
) -> dict[int, LayerIndex]:
    """The indexes of layers that are inflated, by number, on two cores: in a forked child, and here.

    Those are missing that failed, or that come after one that failed: to be read again in their order, so that errors
    are the same.
    """
    home = os.getpid()
    broken: list[int] = []
    left = _after_each(costs)

    def work(number: int) -> LayerIndex | None:
        if broken and (os.getpid() != home or number > min(broken)):
            return None
        try:
            # While there is enough for the other core too, what is still in this one's cache is hashed at once.
            return wanted.index(sources[number], inline=left[number] >= costs[number])
        except LayerLensError:
            broken.append(number)
            return None

    passed = _shared_out(costs, work, 0, meanwhile, wanted.meter.tell)
    return {number: index for number, index in passed.items() if index is not None}


def _plain_range(source: SourceLayer) -> FileRange | None:
    """The layer's uncompressed tar where it lies as such in a file; its first bytes decide."""
    known = source.stored_range()
    if known is None:
        return None
    try:
        compression = compression_of(os.pread(known.fd, 6, known.offset) if known.size >= 6 else b"")
    except InvalidImageError as error:
        raise _about(source, error) from None
    return known if compression == "none" else None


def _open_all_plain(
    opened: Sequence[tuple[SourceLayer, FileRange]], meanwhile: Callable[[], object] | None
) -> list[Layer]:
    """Index layers that lie uncompressed in files; those of large images on two cores."""
    sizes = {number: known.size for number, (_, known) in enumerate(opened)}
    indexes = _shared_out(sizes, lambda number: _open_plain(*opened[number]).index, _WORTH_A_FORK, meanwhile)
    return [Layer(source, indexes[number], known) for number, (source, known) in enumerate(opened)]


def _shared_out(
    costs: Mapping[int, int],
    work: Callable[[int], Result],
    worth_a_fork: int,
    meanwhile: Callable[[], object] | None,
    waiting: Callable[[], object] | None = None,
) -> dict[int, Result]:
    """What ``work`` makes of every number, on two cores where what they cost is worth it.

    Both sides take the next number from one pipe, the largest first, since a layer's size says little of its entries.
    ``waiting`` is called now and then while only the other side works.
    """
    done: dict[int, Result] = {}
    if len(costs) > 1 and sum(costs.values()) >= worth_a_fork:
        reader, writer = os.pipe()
        try:
            order = _largest_first(costs)
            os.write(writer, b"".join(number.to_bytes(2, "big") for number in order[:_PIPED]))
            os.close(writer)

            def take() -> dict[int, Result]:
                taken = {}
                while record := os.read(reader, 2):
                    number = int.from_bytes(record, "big")
                    taken[number] = work(number)
                return taken

            beside = Beside(take)
            try:
                if meanwhile is not None:
                    meanwhile()
                done = take()
                done |= beside.result(waiting)
            finally:
                beside.close()
        finally:
            os.close(reader)
    return {number: done[number] if number in done else work(number) for number in costs}


def _largest_first(costs: Mapping[int, int]) -> list[int]:
    return sorted(costs, key=lambda number: -costs[number])


def _after_each(costs: Mapping[int, int]) -> dict[int, int]:
    """What those cost together that come after each, the largest first."""
    left, after = 0, {}
    for number in reversed(_largest_first(costs)):
        after[number] = left
        left += costs[number]
    return after


def _open_plain(source: SourceLayer, known: FileRange) -> Layer:
    try:
        return Layer(source, index_file(known.fd, known.offset, known.size), known)
    except TarError as error:
        raise _about(source, error) from None


class _Wanted:
    """What is wanted of layers that are inflated."""

    def __init__(self, wants: Wants | None, meter: _Meter) -> None:
        self._wants = wants
        self.meter = meter
        self._sizes = Sizes()

    def index(self, source: SourceLayer, *, inline: bool = False) -> LayerIndex:
        """Inflate, index, hash the blob and the tar, all at once; hash on a thread beside it unless ``inline``.

        Raises DigestMismatchError, InvalidImageError.
        """
        algorithm = source.digest.partition(":")[0] if source.digest else "sha256"
        blob_hash, tar_hash = hashlib.new(algorithm), hashlib.sha256()
        what = f"layer {source.diff_id}"
        stored = source.open()
        # It is read in large pieces, which need no buffer.
        unbuffered: BinaryIO = getattr(stored, "raw", stored)
        with Inline() if inline else Lane() as lane:
            try:
                consume = blob_hash.update if source.digest else None
                blob = Passed(unbuffered, lane, consume, self.meter.add)
                tar = open_inflated(cast(BinaryIO, blob), what=what)
                chunks = passing(tar, lane, tar_hash.update)
                index = index_chunks(chunks, self._wants, seen=self._sizes.seen)
                blob.drain()
            except TarError as error:
                raise _about(source, error) from None
            finally:
                stored.close()
        digest = f"{algorithm}:{blob_hash.hexdigest()}"
        if source.digest is not None and digest != source.digest:
            raise DigestMismatchError(f"{what} is stored as {source.digest} but hashes to {digest}", _DAMAGED)
        _check(source, f"sha256:{tar_hash.hexdigest()}", what)
        return index


def _check_plain(source: SourceLayer, known: FileRange, what: str) -> None:
    """As :func:`_hash_tar` of the tar at ``known``, which is only read if it was not hashed to its diff ID before."""
    if known.sha256 != source.diff_id:
        _hash_tar(source, cast(BinaryIO, RangeReader(known)), what)


def _hash_tar(source: SourceLayer, tar: BinaryIO, what: str) -> None:
    """Read an uncompressed tar to its end, and raise DigestMismatchError where the diff ID names another."""
    with Hashing("sha256") as tar_hash, tar:
        _Tee(tar, tar_hash).drain()
        _check(source, tar_hash.digest(), what)


def _check(source: SourceLayer, tar: str, what: str) -> None:
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
    """A stream that passes what is read to a hash."""

    def __init__(self, stream: BinaryIO, hashing: Hashing) -> None:
        super().__init__()
        self._stream = stream
        self._hashing = hashing

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = self._stream.read(_CHUNK if size is None or size < 0 else size)
        if chunk:
            self._hashing.update(chunk)
        return chunk

    def readinto(self, buffer: Any) -> int:
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def drain(self) -> None:
        """Read what is left."""
        while self.read(_CHUNK):
            pass


class _Meter:
    """Adds up the bytes of all layers for one progress line, those that a forked child reads among them."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        """Bytes that were read here, and in the child."""
        self._home = os.getpid()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        is_child = os.getpid() != self._home
        with self._lock:
            self._done[is_child] += count
        if not is_child:
            self.tell()

    def tell(self) -> None:
        """Say how far it is."""
        if self._progress is not None:
            self._progress("reading layers", self._done[0] + self._done[1], self._total)


def close_layers(layers: Iterable[Layer]) -> None:
    """Close every layer's spool."""
    for layer in layers:
        layer.close()
