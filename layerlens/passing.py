"""What passes by is hashed meanwhile: a layer as stored, and the tar that it is.

A stream cannot be read again, and which of its large files have an equal is known only when the last one has passed.
SHA-256 of each of them besides the tar's would cost as much as the tar's. So they are compared by BLAKE3 (four times
as quick, and as hard to deceive), and SHA-256 is computed of those whose size was seen before; what is equal to one
of those has its digest (:func:`settle`).
"""

from __future__ import annotations

import io
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from layerlens.tarindex import LayerIndex

CHUNK_BYTES = 256 << 10
"""Bytes that are inflated, scanned and hashed at a time: few enough to be in a second-level cache until they are."""
STORED_BYTES = 256 << 10
"""Compressed bytes that are read and hashed at a time."""
SLOTS = 4
"""Buffers of that size, where another thread hashes."""
_MARKS = 1 << 20


class Sizes:
    """The sizes of large files that passed by, here and in the child that was forked since it was made.

    Each process marks what it saw in a part of their memory that it alone writes to, before it looks at the other's:
    of two files of a size that pass by at once, at least one is told of the other. Two sizes may share a mark, and
    are taken for the same then.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _MARKS)
        self._home = os.getpid()
        self._lock = threading.Lock()

    def seen(self, size: int) -> bool:
        """Whether a file of ``size`` bytes passed by before; from now on one has."""
        mark = size % (_MARKS - 3)  # a prime: sizes in whole blocks would share marks else
        own = 0 if os.getpid() == self._home else _MARKS
        memory = self._memory
        with self._lock:
            before = memory[own + mark]
            memory[own + mark] = 1
        return bool(before or memory[_MARKS - own + mark])


def settle(indexes: Iterable[LayerIndex]) -> None:
    """Once all layers of an image have passed: give each large file the digest of its equal, if that has one."""
    passed = list(indexes)
    digests = {
        row_print: index.digests[row]
        for index in passed
        for row, row_print in index.prints.items()
        if row in index.digests
    }
    for index in passed:
        for row, row_print in index.prints.items():
            digest = digests.get(row_print)
            if digest is not None:
                index.digests[row] = digest
        index.prints.clear()


class Inline:
    """Consumes pieces of buffers at once, while they are in a cache: the other cores have work of their own."""

    slots = 1
    """Buffers that it takes: one is filled at a time."""

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, consume: Consume, buffer: memoryview, count: int, back: Buffers) -> None:
        """As :meth:`Lane.put`."""
        consume(buffer[:count])
        back.put(buffer)


class Lane:
    """A thread that consumes pieces of buffers in the order in which they are put, and gives the buffers back."""

    slots = SLOTS
    """Buffers that it takes: one is filled, the others wait to be consumed."""

    def __init__(self, name: str = "layerlens-hash") -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Consume, memoryview, int, Buffers] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def put(self, consume: Consume, buffer: memoryview, count: int, back: Buffers) -> None:
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


Consume = Callable[[memoryview], object]
Buffers = SimpleQueue[memoryview]


def buffers(count: int, size: int) -> Buffers:
    """``count`` buffers of ``size`` bytes each, to be taken and given back: memory that is touched only once."""
    pool: Buffers = SimpleQueue()
    for _ in range(count):
        pool.put(memoryview(bytearray(size)))
    return pool


def passing(stream: BinaryIO, lane: Lane | Inline, consume: Consume) -> Iterator[memoryview]:
    """The chunks of ``stream``, each valid until the next one is asked for, and consumed on ``lane`` then."""
    pool = buffers(lane.slots, CHUNK_BYTES)
    readinto: Callable[[memoryview], int] = stream.readinto  # type: ignore[attr-defined]
    while True:
        buffer = pool.get()
        count = readinto(buffer)
        if not count:
            return
        yield buffer[:count]
        lane.put(consume, buffer, count, pool)


class Passed(io.RawIOBase):
    """A stream whose bytes are consumed on ``lane`` as they are read; ``count`` hears how many there were."""

    def __init__(
        self,
        stream: BinaryIO,
        lane: Lane | Inline,
        consume: Consume | None,
        count: Callable[[int], object],
    ) -> None:
        super().__init__()
        self._readinto: Callable[[memoryview], int | None] = stream.readinto  # type: ignore[attr-defined]
        self._lane = lane
        self._consume = consume
        self._count = count
        self._pool = buffers(lane.slots, STORED_BYTES)

    def readable(self) -> bool:
        """Always: this is what it is for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one read of the stream below gives, and a buffer of the lane's; 0 at the end."""
        view = memoryview(buffer).cast("B")
        if self._consume is None:
            count = self._readinto(view) or 0
        elif isinstance(self._lane, Inline):
            count = self._readinto(view[:STORED_BYTES]) or 0
            self._consume(view[:count])
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
