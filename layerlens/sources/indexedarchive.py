"""An image archive that passes by once: its layers are indexed on the way, and only what else it has is kept.

What is asked most often (what is in an image, where, and how large) an index answers. Then a gigabyte of layers need
not be written to a disk to be read again. What remains is a file with holes where the layers' tars were, which every
reader of archives reads as it reads the whole one.

Formats: POSIX.1-2017, pax, "ustar Interchange Format"; which of its members are layers, their own first header tells.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from layerlens.errors import InvalidImageError
from layerlens.passing import CHUNK_BYTES, Lane, Sizes, passing, settle
from layerlens.sources import PassedLayer
from layerlens.sources.membersums import REGULAR, payload_bytes
from layerlens.sources.spool import Spool, SpoolWriter, fill
from layerlens.tarindex import BLOCK, Wants, index_chunks

_MAGIC = b"ustar"
_ZEROS = bytes(BLOCK)


def index_archive(
    stream: io.RawIOBase, wants: Wants, kept: SpoolWriter, count: Callable[[int], object]
) -> Spool:
    """Read an uncompressed image archive up to its end; the file with what is kept of it.

    ``wants`` is as for :func:`layerlens.tarindex.index_chunks`; ``count`` hears how many bytes were read. In the
    result, ``passed`` has the layers that lay uncompressed in the archive, whose bytes are gone.

    Raises:
        InvalidImageError: not an archive, or one that ends early; a layer that is broken.
        SpoolError: what is kept finds no room.
    """
    reader = _Reader(stream, wants, kept, count)
    layers = reader.read()
    settle(layer.index for layer in layers.values())
    spool = kept.finish(reader.position)
    spool.passed = layers
    return spool


def _is_tars(block: bytes) -> bool:
    """Whether a tar begins with it; what does not, however it is compressed, is kept as it is."""
    return block[257:262] == _MAGIC and payload_bytes(block) is not None


class _Reader:
    """The archive as far as it was read."""

    def __init__(
        self, stream: io.RawIOBase, wants: Wants, kept: SpoolWriter, count: Callable[[int], object]
    ) -> None:
        self.position = 0
        self._stream = stream
        self._wants = wants
        self._kept = kept
        self._count = count
        self._sizes = Sizes()
        self._buffer = memoryview(bytearray(CHUNK_BYTES))

    def read(self) -> dict[tuple[int, int], PassedLayer]:
        """Read up to the two blocks of zeros that an archive ends with; the layers, by offset and size."""
        layers: dict[tuple[int, int], PassedLayer] = {}
        empty = 0
        while empty < 2:
            header = bytes(self._copy(BLOCK))
            empty = empty + 1 if header == _ZEROS else 0
            size = 0 if empty else payload_bytes(header)
            if size is None:
                raise InvalidImageError("what came is not an archive", "Export it to a file, and give that.")
            start, left = self.position, size
            if header[156] in REGULAR and size >= 2 * BLOCK:
                first = bytes(self._take(BLOCK))
                if _is_tars(first):
                    layers[start, size] = self._layer(first, size)
                    left = 0
                else:
                    self._keep(first)
                    left -= BLOCK
            left += -size % BLOCK
            while left:
                left -= len(self._copy(min(left, CHUNK_BYTES)))
        return layers

    def _take(self, size: int) -> memoryview:
        """The next ``size`` bytes, valid until more are read."""
        view = self._buffer[:size]
        self._fill(view)
        return view

    def _fill(self, view: memoryview) -> None:
        done = fill(self._stream, view)
        self.position += done
        if done < len(view):
            raise InvalidImageError("the archive ends early", "Export it again.")
        self._count(self.position)

    def _keep(self, data: bytes | memoryview) -> None:
        """Write what was read last to the file."""
        self._kept.write(memoryview(data), self.position - len(data))

    def _copy(self, size: int) -> memoryview:
        data = self._take(size)
        self._keep(data)
        return data

    def _layer(self, first: bytes, size: int) -> PassedLayer:
        """Index and hash the tar of ``size`` bytes that begins with ``first``, which was read last."""
        tar_hash = hashlib.sha256()
        tar = cast("BinaryIO", _Member(first, size, self._fill))
        with Lane() as lane:
            index = index_chunks(passing(tar, lane, tar_hash.update), self._wants, seen=self._sizes.seen)
        return PassedLayer(index, f"sha256:{tar_hash.hexdigest()}")


class _Member(io.RawIOBase):
    """The bytes of one member, of which the first were read already; ``fill`` reads more, or raises."""

    def __init__(self, first: bytes, size: int, fill: Callable[[memoryview], object]) -> None:
        super().__init__()
        self._first = first
        self._left = size
        self._fill = fill

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        begun = len(self._first)
        view[:begun] = self._first
        self._first = b""
        self._fill(view[begun:])
        self._left -= len(view)
        return len(view)
