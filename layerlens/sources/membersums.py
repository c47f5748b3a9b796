"""SHA-256 of an archive's members while it passes by: what was spooled need not be read again to verify it.

An image archive is a tar whose members are layers, each a tar or a compressed one. :class:`MemberDigests` hops along
the headers of the outer one as they pass and hashes the payloads. What it says is always true of the bytes it names,
however odd the archive: where it takes something else for a header, nobody will ask for what it hashed then.

Format: POSIX.1-2017, pax, "ustar Interchange Format"; numbers in base 256 are GNU's (tar.h, ``GNU_FORMAT``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from layerlens.errors import InvalidImageError
from layerlens.passing import Buffers, Lane, buffers
from layerlens.tarindex import number_field

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_SMALLEST = 2 * _BLOCK
"""Bytes of the smallest tar: its end alone. What is smaller is no layer."""
_MOST_HEADERS = 1 << 16
"""Headers that are followed; an archive of an image has some three a layer."""
_COMPRESSED = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")
"""gzip (RFC 1952) and zstd (RFC 8878): such a layer is hashed when it is inflated."""
REGULAR = b"0\0" + b"7"
"""Typeflags of regular files."""
_WITHOUT_PAYLOAD = b"123456"
_BUFFERS = 8
_BUFFER_BYTES = 1 << 20


class MemberDigests:
    """Fed with an archive piece by piece; ``found`` has ``sha256:…`` of members by their offset and size in bytes."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], str] = {}
        self.has_ended = False
        """Whether the two blocks of zeros have passed that an archive ends with."""
        self._position = 0
        self._header = b""
        self._headers = 0
        self._skip = 0
        """Bytes up to the next thing of interest."""
        self._member = (0, 0)
        self._hash: Any = None
        self._left = 0
        """Bytes of the member's payload that have not passed yet."""
        self._following = True
        self._empty = 0
        """Blocks of zeros that came last."""

    def feed(self, piece: memoryview) -> None:
        """The bytes that come next, in whatever portions."""
        while piece and self._following:
            if self._skip:
                taken = min(self._skip, len(piece))
                self._skip -= taken
            elif self._left:
                taken = self._hashed(piece)
            else:
                taken = min(_BLOCK - len(self._header), len(piece))
                self._header += piece[:taken]
            self._position += taken
            piece = piece[taken:]
            if len(self._header) == _BLOCK:
                self._start(self._header)
                self._header = b""

    def stop(self) -> None:
        """Hash no more."""
        self._following = False

    def _start(self, header: bytes) -> None:
        """Look at a header, whose payload comes next."""
        self._headers += 1
        if header == _ZEROS:
            self._empty += 1
            self.has_ended = self._empty == 2
            self._following = not self.has_ended
            return
        self._empty = 0
        size = payload_bytes(header)
        if size is None or self._headers > _MOST_HEADERS:
            self.stop()
        elif header[156] in REGULAR and size >= _SMALLEST:
            self._member, self._left, self._hash = (self._position, size), size, None
        else:
            self._skip = size + -size % _BLOCK

    def _hashed(self, piece: memoryview) -> int:
        """Hash what ``piece`` has of the member; the number of its bytes."""
        size = self._member[1]
        if self._hash is None:
            if bytes(piece[:4]).startswith(_COMPRESSED):
                self._skip, self._left = size + -size % _BLOCK, 0
                return 0
            self._hash = hashlib.sha256()
        taken = min(self._left, len(piece))
        self._hash.update(piece[:taken])
        self._left -= taken
        if not self._left:
            self.found[self._member] = f"sha256:{self._hash.hexdigest()}"
            self._skip = -size % _BLOCK
        return taken


def payload_bytes(header: bytes) -> int | None:
    """Bytes of payload behind a header; None for what is none."""
    try:
        checksum = number_field(header[148:156], 0)
        size = number_field(header[124:136], 0)
    except InvalidImageError:
        return None
    if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        return None
    return 0 if header[156] in _WITHOUT_PAYLOAD else size


class Following:
    """:class:`MemberDigests` on a thread of its own, fed through buffers of a megabyte that it gives back.

    Whoever fills them waits when hashing is that many buffers behind. ``hashlib`` lets go of the interpreter.
    """

    def __init__(self) -> None:
        self._digests = MemberDigests()
        self._lane = Lane("layerlens-members")
        self._free: Buffers | None = None

    def buffer(self) -> memoryview:
        """One that may be filled."""
        if self._free is None:
            self._free = buffers(_BUFFERS, _BUFFER_BYTES)
        return self._free.get()

    def passed(self, piece: memoryview, buffer: memoryview) -> None:
        """``piece``, with which ``buffer`` begins, came next; the buffer is given back once it is hashed."""
        assert self._free is not None, "buffers come from here"
        self._lane.put(self._feed, buffer, len(piece), self._free)

    def has_ended(self) -> bool:
        """Whether the archive's end was among what passed and was looked at by now."""
        return self._digests.has_ended

    def finish(self) -> Mapping[tuple[int, int], str]:
        """Wait for the thread's end; the digests by offset and size in bytes."""
        self._lane.join()
        return self._digests.found

    def _feed(self, piece: memoryview) -> None:
        try:
            self._digests.feed(piece)
        except Exception:  # out of memory, say: who needs a digest will compute it
            self._digests.stop()
