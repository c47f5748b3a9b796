"""Hashing what passes by, once: a layer's tar, and with it the files that may be equal to others.

A stream cannot be read again, and which of its files have an equal is known only when the last one has passed.
Hashing each of them besides the tar would cost as much as the tar. So a large file is hashed only if one of its size
passed before. Of the first of a size, two states of the *tar's* SHA-256 are kept: before the file, and after it. What
is of its size later is hashed on from the first of them as well; where that leads to the second, both have the same
bytes, or somebody has found a collision of SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, BinaryIO

CHUNK_BYTES = 512 << 10
"""Bytes that are inflated, scanned and hashed at a time: half a second-level cache, so that they are still in it."""
STORED_BYTES = 256 << 10
"""Compressed bytes that are read and hashed at a time."""
SLOTS = 5
"""Buffers of that size for each layer: one is filled, two are scanned, the others are or wait to be hashed."""
MAX_FIRSTS = 200_000
"""Sizes of which a first is kept, at half a kilobyte each; beyond, every file is hashed."""


@dataclass(slots=True)
class _First:
    """The first file of its size: the tar's hash before it and, once it has passed, after it."""

    before: Any
    row: int
    digests: dict[int, bytes]
    """Of its layer, by row."""
    after: bytes | None = None


@dataclass(slots=True)
class _Later:
    """A later file of the same size: its own digest, and where the first one's state led with its bytes."""

    first: _First
    digest: bytes
    after: bytes


@dataclass(slots=True)
class Firsts:
    """The first file of each size, over all layers that pass by at once."""

    by_size: dict[int, _First] = field(default_factory=dict)
    later: list[_Later] = field(default_factory=list)

    def settle(self) -> None:
        """Once all layers have passed: give each first file that has an equal that one's digest."""
        for one in self.later:
            if one.first.after == one.after:
                one.first.digests[one.first.row] = one.digest


class TarHash:
    """The SHA-256 of a tar that passes by in pieces, and of those files in it that may have an equal.

    ``digests``, by row, get those of the files. The scanner announces a file with :meth:`expect` before the piece in
    which it starts is hashed; another thread may do the hashing.
    """

    def __init__(self, firsts: Firsts) -> None:
        self.digests: dict[int, bytes] = {}
        self._firsts = firsts
        self._hash = hashlib.sha256()
        self._at = 0
        self._expected: deque[tuple[int, int, int]] = deque()
        self._end = 0
        """Where the file ends that is passing; 0 between such files."""
        self._row = 0
        self._first: _First | None = None
        self._own: Any = None
        """Of a later file of its size: its SHA-256."""
        self._on: Any = None
        """The same from the first one's state on."""

    def expect(self, row: int, start: int, size: int) -> None:
        """A file of ``size`` > 0 bytes starts at offset ``start`` of the tar."""
        self._expected.append((row, start, size))

    def update(self, piece: memoryview) -> None:
        """Hash what comes next in the tar."""
        at, done, length = self._at, 0, len(piece)
        while done < length:
            if self._end:
                part = piece[done : self._end - at]
                self._pass(part)
                done += len(part)
                if at + done == self._end:
                    self._leave()
            elif self._expected and self._expected[0][1] < at + length:
                row, start, size = self._expected.popleft()
                if start >= at + done:  # else it was announced too late, and has no digest
                    self._hash.update(piece[done : start - at])
                    done = start - at
                    self._enter(row, size)
                    self._end = start + size
            else:
                self._hash.update(piece[done:])
                done = length
        self._at = at + length

    def _pass(self, part: memoryview) -> None:
        self._hash.update(part)
        if self._own is not None:
            self._own.update(part)
        if self._on is not None:
            self._on.update(part)

    def _enter(self, row: int, size: int) -> None:
        by_size = self._firsts.by_size
        self._row, self._first, self._own, self._on = row, None, None, None
        known = by_size.get(size)
        if known is None and len(by_size) < MAX_FIRSTS:
            ours = _First(self._hash.copy(), row, self.digests)
            known = by_size.setdefault(size, ours)  # layers pass by on several threads
            if known is ours:
                self._first = ours
                return
        self._own = hashlib.sha256()
        if known is not None:
            self._first, self._on = known, known.before.copy()

    def _leave(self) -> None:
        self._end = 0
        first = self._first
        if self._own is None:
            if first is not None:
                first.after = self._hash.digest()
            return
        digest = self.digests[self._row] = self._own.digest()
        if first is not None and self._on is not None:
            self._firsts.later.append(_Later(first, digest, self._on.digest()))

    def hexdigest(self) -> str:
        """Of all that passed."""
        return self._hash.hexdigest()


class Lane:
    """A thread that consumes pieces of buffers in the order in which they are put, and gives the buffers back."""

    def __init__(self, name: str = "layerlens-hash") -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[memoryview], object], memoryview, int, Buffers] | None]
        self._jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def put(
        self, consume: Callable[[memoryview], object], buffer: memoryview, count: int, back: Buffers
    ) -> None:
        """Have the first ``count`` bytes of ``buffer`` consumed; it goes ``back`` afterwards."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((consume, buffer, count, back))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            consume, buffer, count, back = job
            try:
                if self._failed is None:
                    consume(buffer[:count])
            except BaseException as error:  # raised where it can be: whoever waits for the buffer goes on
                self._failed = error
            back.put(buffer)

    def join(self) -> None:
        """Wait until all is consumed; raises what consuming raised. Nothing can be put afterwards."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self._failed is not None:
            raise self._failed


Buffers = SimpleQueue[memoryview]


def buffers(count: int, size: int) -> Buffers:
    """``count`` buffers of ``size`` bytes each, to be taken and given back: memory that is touched only once."""
    pool: Buffers = SimpleQueue()
    for _ in range(count):
        pool.put(memoryview(bytearray(size)))
    return pool


def passing(
    stream: BinaryIO, lane: Lane, consume: Callable[[memoryview], object], pool: Buffers | None = None
) -> Iterator[memoryview]:
    """The chunks of ``stream``, each valid until the next one is asked for, and consumed on ``lane`` afterwards.

    A chunk is consumed only when the one after it was looked at too: what starts at its end is known then. ``pool``
    has the buffers, if they are not to be made for this stream.
    """
    pool = buffers(SLOTS, CHUNK_BYTES) if pool is None else pool
    before: tuple[memoryview, int] | None = None
    readinto: Callable[[memoryview], int] = stream.readinto  # type: ignore[attr-defined]
    while True:
        buffer = pool.get()
        count = readinto(buffer)
        if not count:
            pool.put(buffer)
            break
        yield buffer[:count]
        if before is not None:
            lane.put(consume, *before, pool)
        before = (buffer, count)
    if before is not None:
        lane.put(consume, *before, pool)


class Passed(io.RawIOBase):
    """A stream whose bytes are consumed on ``lane`` as they are read; ``count`` hears how many there were."""

    def __init__(
        self,
        stream: BinaryIO,
        lane: Lane,
        consume: Callable[[memoryview], object] | None,
        count: Callable[[int], object],
    ) -> None:
        super().__init__()
        self._readinto: Callable[[memoryview], int | None] = stream.readinto  # type: ignore[attr-defined]
        self._lane = lane
        self._consume = consume
        self._count = count
        self._pool = buffers(SLOTS, STORED_BYTES)

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one read of the stream below gives, and a buffer of the lane's; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._consume is None:
            count = self._readinto(view) or 0
        else:
            own = self._pool.get()
            count = self._readinto(own[: len(view)]) or 0
            view[:count] = own[:count]
            self._lane.put(self._consume, own, count, self._pool)
        if count:
            self._count(count)
        return count

    def drain(self) -> None:
        """Read what is left."""
        rest = memoryview(bytearray(STORED_BYTES))
        while self.readinto(rest):
            pass


_RECORD = struct.Struct("<BQQQ")
_EXPECT, _CHUNK, _COUNT, _END = range(4)
_RELAYED = 8
"""Buffers between two processes."""


class Relay:
    """Tars that a forked child reads, hashed by its parent, which has seen the files of both.

    The child fills buffers that both have in memory; one pipe says what is in them, the other which are free again.
    """

    def __init__(self, firsts: Firsts, count: Callable[[int], object]) -> None:
        self._firsts = firsts
        self._count = count
        self.hashes: dict[int, TarHash] = {}
        """Of each layer that has passed, by its number."""
        self._memory = memoryview(mmap.mmap(-1, _RELAYED * CHUNK_BYTES))
        self._records = os.pipe()
        self._free = os.pipe()
        self._closed: set[int] = set()
        os.write(self._free[1], bytes(range(_RELAYED)))
        self._thread: threading.Thread | None = None

    def _buffer(self, number: int) -> memoryview:
        return self._memory[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]

    # -- in the parent -------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Hash what the child sends, on a thread of its own; to be called once it was forked."""
        self._close(self._records[1], self._free[0])
        self._thread = threading.Thread(target=self._hash, name="layerlens-hash", daemon=True)
        self._thread.start()

    def _hash(self) -> None:
        """Hash until the child has no more. Whatever goes wrong here ends the child too: it gets no buffers then."""
        current = TarHash(self._firsts)
        try:
            with os.fdopen(self._records[0], "rb", closefd=False) as records:
                while len(record := records.read(_RECORD.size)) == _RECORD.size:
                    kind, one, two, three = _RECORD.unpack(record)
                    if kind == _EXPECT:
                        current.expect(one, two, three)
                    elif kind == _CHUNK:
                        current.update(self._buffer(one)[:two])
                        with contextlib.suppress(BrokenPipeError):  # it has sent all, and needs no more
                            os.write(self._free[1], bytes([one]))
                    elif kind == _COUNT:
                        self._count(one)
                    else:
                        self.hashes[one] = current
                        current = TarHash(self._firsts)
        finally:
            self._close(self._records[0], self._free[1])

    def close(self) -> None:
        """Wait until all is hashed that the child has sent; it has ended, or is about to."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._close(*self._records, *self._free)

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if descriptor not in self._closed:
                self._closed.add(descriptor)
                os.close(descriptor)

    # -- in the child --------------------------------------------------------------------------------------

    def _send(self, kind: int, one: int, two: int = 0, three: int = 0) -> None:
        os.write(self._records[1], _RECORD.pack(kind, one, two, three))

    def expect(self, row: int, start: int, size: int) -> None:
        """As :meth:`TarHash.expect`."""
        self._send(_EXPECT, row, start, size)

    def count(self, size: int) -> None:
        """``size`` more bytes of a blob were read."""
        self._send(_COUNT, size)

    def passing(self, stream: BinaryIO) -> Iterator[memoryview]:
        """As :func:`passing`."""
        self._close(self._records[0], self._free[1])  # the parent's ends, or nobody would learn of its death
        before: tuple[int, int] | None = None
        readinto: Callable[[memoryview], int] = stream.readinto  # type: ignore[attr-defined]
        while True:
            given = os.read(self._free[0], 1)
            if not given:
                raise BrokenPipeError("nobody hashes what is sent")
            number = given[0]
            buffer = self._buffer(number)
            count = readinto(buffer)
            if not count:
                break
            yield buffer[:count]
            if before is not None:
                self._send(_CHUNK, *before)
            before = (number, count)
        if before is not None:
            self._send(_CHUNK, *before)
        self._send(_CHUNK, number, 0)

    def end(self, layer: int) -> None:
        """All of a layer has passed."""
        self._send(_END, layer)
