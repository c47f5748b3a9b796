"""Layer bytes → entries, by hopping from header to header.

Formats: POSIX.1-2017 ustar and pax (``pax`` utility, "ustar Interchange Format", "pax Header Block"), GNU tar
(long names, long links, base-256 numbers, sparse files old and 0.0-1.0: the GNU tar manual, "Tar Internals"),
``SCHILY.xattr.*`` records, and the whiteouts of image-spec layer.md. ``tarfile`` is the reference it is
tested against, entry by entry. Where Go's ``archive/tar``, and so every engine, differs from ``tarfile``, the
engine's reading is taken: pax *global* headers are ignored.

A layer that lies uncompressed in a file is read through a small window with ``pread`` and its large
payloads are never touched; one that must be inflated passes by once, and what analysis will ask for is
taken on the way: checksums of regular files, and the contents of the small files that somebody wants.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from layerlens.errors import InvalidImageError
from layerlens.model import EntryType

try:
    from isal.isal_zlib import crc32  # ten times zlib's speed; the same polynomial (RFC 1952)
except ImportError:  # pragma: no cover - isal is a dependency, but the index must not need it
    from zlib import crc32

BLOCK = 512
WINDOW = 32 * 1024
"""Bytes read at a time where payloads are hopped over."""
SMALL = WINDOW // 2
_COPIED = 2 * WINDOW
"""Bytes of a stream that are copied into the window at a time, while its chunk is still in a cache."""
MAX_PATH = 4 << 20
MAX_EXTENSION = 64 << 20
"""Largest pax header or GNU long name that is read; larger ones are refused, not allocated."""
MAX_ENTRIES = 20_000_000
MAX_HOLES = 1 << 30
"""Zeros of one sparse file that are hashed as a reader would see them: a header may claim exabytes of them."""

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"

# Plain ints: reading a member off an enumeration costs as much as parsing a field.
_FILE, _DIR, _SYMLINK, _HARDLINK, _CHAR, _BLOCK, _FIFO, _WHITEOUT, _OPAQUE = map(int, EntryType)
_TYPES = {
    0x00: _FILE,
    0x30: _FILE,
    0x37: _FILE,
    0x31: _HARDLINK,
    0x32: _SYMLINK,
    0x33: _CHAR,
    0x34: _BLOCK,
    0x35: _DIR,
    0x36: _FIFO,
}

_HEADER = struct.Struct("100s24s12s12s8sB188xB166x")
"""A header block (POSIX ustar): name; mode, uid and gid; size; mtime; chksum; typeflag; the first byte of prefix."""

_ODD = re.compile(r"/(?:\.{0,2}(?:/|$)|\.wh\.)", re.DOTALL).search
"""A path that is not normal already, or may be a whiteout."""

Checks = Literal["crc32", "crc32-whole", "crc64"]
"""``crc32``: CRC-32 of small files' payloads. ``crc32-whole``: of every file's, whatever its size. ``crc64``: half of
a CRC-64 of every file's."""

Wants = Callable[[str], bool]
"""Says of a path whether its content will be asked for."""
Seen = Callable[[int], bool]
"""Says whether a large file of that size in bytes has passed by before this one."""


@dataclass(slots=True)
class LayerIndex:
    """The entries of one layer in the order of its tar, as columns: row *i* of each column is entry *i*.

    ``paths`` are absolute and normal (no ``.``, ``..`` or ``//``); of a whiteout, the path that it hides; of
    an opaque marker, the directory whose lower children it hides. Offsets count from the start of the
    uncompressed tar.
    """

    paths: list[str] = field(default_factory=list)
    types: bytearray = field(default_factory=bytearray)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Payload bytes of regular files (of sparse ones, the size that a reader sees); 0 for all else."""
    offsets: array[int] = field(default_factory=lambda: array("q"))
    """Where the payload starts."""
    starts: array[int] = field(default_factory=lambda: array("q"))
    """Where the entry starts, its pax and GNU extension headers included."""
    owners: array[int] = field(default_factory=lambda: array("I"))
    """Row of ``owner_table``."""
    mtimes: array[float] = field(default_factory=lambda: array("d"))
    """Seconds since 1970-01-01T00:00:00Z."""
    crcs: array[int] = field(default_factory=lambda: array("I"))
    """What ``checks`` says of each regular file: it thins out candidates for equal content and proves nothing."""
    owner_table: list[tuple[int, int, int]] = field(default_factory=list)
    """Distinct (mode, uid, gid); mode is the permission bits with setuid, setgid and sticky."""
    links: dict[int, str] = field(default_factory=dict)
    """Symlinks: the text as stored. Hard links: the target's absolute path."""
    devices: dict[int, tuple[int, int]] = field(default_factory=dict)
    xattrs: dict[int, dict[str, bytes]] = field(default_factory=dict)
    sparse: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Of sparse files: (offset in the file, length) of each stored piece, in stored order."""
    digests: dict[int, bytes] = field(default_factory=dict)
    """SHA-256 of regular files, where the layer passed by as a stream: of the small ones, and of large ones that may
    have an equal."""
    prints: dict[int, bytes] = field(default_factory=dict)
    """BLAKE3 of large files, until all layers have passed."""
    contents: dict[int, bytes] = field(default_factory=dict)
    """Contents taken in passing, where the layer passed by as a stream."""
    escapes: list[str] = field(default_factory=list)
    """Names that pointed above the root with ``..`` and were held inside it, as stored."""
    end: int = 0
    """Offset just after the last entry, before the end-of-archive blocks."""
    size: int = 0
    """Bytes of the whole uncompressed tar, end-of-archive blocks and padding included."""
    checks: Checks = "crc32"
    """What ``crcs`` holds. Two columns compare where they hold the same. 0 stands for what has no check, sparse files
    but for those of ``crc32-whole`` among them."""

    def __len__(self) -> int:
        return len(self.paths)


class TarError(InvalidImageError):
    """A layer's tar is broken: ``offset`` says where, in bytes from the start of the uncompressed tar."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(
            f"broken layer: {message} at offset {offset:,}",
            "The archive is damaged or cut short; export or download it again.",
        )
        self.offset = offset


def index_file(fd: int, base: int, size: int) -> LayerIndex:
    """Index the uncompressed tar at ``base`` … ``base + size`` of an open file; reads headers, hops payloads.

    Raises:
        TarError: a header that is not one, a payload that ends after the layer does.
    """

    def refill(pos: int) -> bytes:
        want = min(WINDOW, size - pos)
        if want <= 0:
            return b""
        data = os.pread(fd, want, base + pos)
        while len(data) < want:
            more = os.pread(fd, want - len(data), base + pos + len(data))
            if not more:
                break
            data += more
        return data

    index = _Scanner(refill, None, None).scan(size)
    index.size = size
    return index


def index_headers(refill: Callable[[int], bytes]) -> LayerIndex:
    """Index an uncompressed tar of which only what lies between payloads is at hand.

    ``refill`` gives the bytes from an offset to the next payload, or nothing behind the tar's end. Payloads are
    neither read nor missed, so that ``crcs`` and ``size`` are left to the caller.

    Raises:
        TarError: a header that is not one.
    """
    return _Scanner(refill, None, None, small=-1).scan(None)


def index_stream(stream: BinaryIO, wants: Wants | None = None, max_content: int = 16 << 20) -> LayerIndex:
    """Index an uncompressed tar that passes by once; reads to the end of ``stream``, padding included.

    Takes the SHA-256 of every regular file, and the content (at most ``max_content`` bytes) of those for
    whose path ``wants`` is true.

    Raises:
        TarError: as for :func:`index_file`.
    """

    def chunks() -> Iterator[memoryview]:
        while chunk := stream.read(1 << 20):
            yield memoryview(chunk)

    return index_chunks(chunks(), wants, max_content)


def index_chunks(
    chunks: Iterator[memoryview],
    wants: Wants | None = None,
    max_content: int = 16 << 20,
    *,
    seen: Seen | None = None,
) -> LayerIndex:
    """As :func:`index_stream`, of chunks that are valid only until the next one is asked for.

    With ``seen``, files of more than ``SMALL`` bytes get a BLAKE3 in ``prints``, and a digest where they were seen.
    """
    feed = _Feed(chunks, seen)
    index = _Scanner(feed.refill, feed, wants, max_content).scan(None)
    index.size = feed.drain()
    index.checks = "crc32-whole"
    return index


class _Feed:
    """A forward-only stream behind the scanner's window: chunks, each of them valid until the next is asked for."""

    def __init__(self, chunks: Iterator[memoryview], seen: Seen | None) -> None:
        self.chunks = chunks
        self.seen = seen
        if seen is not None:
            from blake3 import blake3

            self.blake3 = blake3
        self.pos = 0  # of the first byte of `rest`
        self.rest = b""
        self.chunk = memoryview(b"")  # what follows it, as far as it was read
        self.done = 0  # bytes that were read

    def more(self) -> int:
        """Go on to the next chunk; returns its length, 0 at the end."""
        self.chunk = next(self.chunks, memoryview(b""))
        self.done += len(self.chunk)
        return len(self.chunk)

    def skip(self, size: int) -> bool:
        """Pass over ``size`` bytes behind the window; false where there are fewer."""
        while size > len(self.chunk):
            size -= len(self.chunk)
            if not self.more():
                return False
        self.chunk = self.chunk[size:]
        return True

    def refill(self, pos: int) -> bytes:
        """The window at ``pos``, which is at or after the last one's start."""
        skip = pos - self.pos
        kept = self.rest[skip:]
        if skip > len(self.rest) and not self.skip(skip - len(self.rest)):
            self.pos, self.rest = pos, b""
            return b""
        while True:
            piece = self.chunk[:_COPIED]
            kept += piece
            self.chunk = self.chunk[len(piece) :]
            if len(kept) >= WINDOW or not self.more():
                break
        self.pos, self.rest = pos, kept
        return kept

    def take(self, pos: int, size: int, consume: Callable[[memoryview], object]) -> int:
        """Pass ``size`` bytes from ``pos`` to ``consume`` in pieces; returns how many there were."""
        start = pos - self.pos
        first = memoryview(self.rest)[start : start + size]
        consume(first)
        left = size - len(first)
        while left and (len(self.chunk) or self.more()):
            piece = self.chunk[:left]
            consume(piece)
            self.chunk = self.chunk[len(piece) :]
            left -= len(piece)
        done = size - left
        if done > len(self.rest) - start:
            self.pos, self.rest = pos + done, b""
        return done

    def drain(self) -> int:
        """Read to the end; returns how many bytes the stream had."""
        while self.more():
            pass
        self.rest = b""
        return self.done


@dataclass(slots=True)
class Extension:
    """What extension headers say about the next entry."""

    start: int
    name: bytes | None = None
    link: bytes | None = None
    records: dict[bytes, bytes] = field(default_factory=dict)
    sparse_pairs: list[bytes] = field(default_factory=list)


class _Scanner:
    """One pass over one tar."""

    def __init__(
        self,
        refill: Callable[[int], bytes],
        feed: _Feed | None,
        wants: Wants | None,
        max_content: int = 0,
        small: int = SMALL,
    ) -> None:
        self.refill = refill
        self.feed = feed
        self.wants = wants
        self.max_content = max_content
        self.small = small
        """Largest payload that gets a CRC-32; -1 where payloads are not at hand."""
        self.index = LayerIndex()
        self.window = b""
        self.start = 0
        self.owner_ids: dict[bytes, int] = {}
        self.owner_rows: dict[tuple[int, int, int], int] = {}

    def scan(self, total: int | None) -> LayerIndex:
        """The loop. Locals and inlined parsing: it runs once for each of up to millions of entries."""
        index = self.index
        add_path, add_type = index.paths.append, index.types.append
        add_size, add_offset, add_start = index.sizes.append, index.offsets.append, index.starts.append
        add_owner, add_mtime, add_crc = index.owners.append, index.mtimes.append, index.crcs.append
        owner_ids, types, refill, feed = self.owner_ids, _TYPES, self.refill, self.feed
        unpack = _HEADER.unpack_from
        adler32, sha256 = zlib.adler32, hashlib.sha256
        window, view, start, length = b"", memoryview(b""), 0, 0
        mtimes: dict[bytes, float] = {}
        checksums: dict[bytes, int] = {}
        odd = _ODD
        small = self.small
        extension: Extension | None = None
        pos = 0
        while True:
            off = pos - start
            if off + BLOCK > length:
                window = refill(pos)
                view = memoryview(window)
                start, off, length = pos, 0, len(window)
                if length < BLOCK:
                    if length == 0 and (total is None or pos >= total) and extension is None:
                        break  # no end-of-archive blocks: as good as an end
                    raise TarError("the tar ends in the middle of a header", pos)
            name, owner_field, size_field, raw_time, checksum, flag, prefixed = unpack(window, off)
            if name[0] == 0 and not any(window[off : off + BLOCK]):
                if extension is not None:
                    raise TarError("an extension header without an entry", pos)
                break
            # Sum of the header's bytes with the checksum field as spaces (POSIX), by way of Adler-32's low
            # half, which is 1 + that sum modulo 65,521: two C calls instead of 512 additions.
            expected = checksums.get(checksum)
            if expected is None:
                expected = checksums[checksum] = self._checksum(checksum, pos)
            if ((adler32(view[off : off + BLOCK]) & 0xFFFF) - expected) % 65521:
                self._check_signed(window[off : off + BLOCK], pos)

            try:
                size = int(size_field[:11], 8)
                if size_field[11] > 0x20:
                    size = number_field(size_field, pos)
            except ValueError:
                size = number_field(size_field, pos)
            if size < 0:
                raise TarError("a negative size", pos)
            kind = types.get(flag)
            entry_start = pos
            payload = pos + BLOCK
            if kind is None or extension is not None:
                if flag in b"xXgLKS" or extension is not None:
                    self.window, self.start = window, start
                    if flag in b"xXgLK":
                        body, window, start = self._body(payload, size, pos)
                        view, length = memoryview(window), len(window)
                        if extension is None:
                            extension = Extension(pos)
                        self._extend(extension, flag, body, pos)
                        if flag == 0x67 and not (extension.records or extension.name or extension.link):
                            extension = None
                        pos = payload + (size + 511 & ~511)
                        continue
                    pos = self._complex(window[off : off + BLOCK], flag, size, payload, extension)
                    window, view, start, length = (
                        self.window,
                        memoryview(self.window),
                        self.start,
                        len(self.window),
                    )
                    extension = None
                    continue
                kind = 0  # POSIX: unknown types are treated as regular files

            name = name.partition(b"\0")[0]
            if prefixed and window[off + 257 : off + 263] == b"ustar\0":
                name = window[off + 345 : off + 500].partition(b"\0")[0] + b"/" + name
            elif name[:2] == b"./" and name[2:3] != b".":
                name = name[2:]  # GNU tar's names of what lies in the current directory
            path = "/" + str(name, "utf-8", "surrogateescape")
            if path[-1] == "/":
                path = path[:-1]
                if flag == 0:
                    kind = 1  # v7: a trailing slash makes a directory
            if ("/." in path or "//" in path or not path) and (not path or odd(path)):
                path, kind = self._normal(name, kind)
            owner = owner_ids.get(owner_field)
            if owner is None:
                owner = self._owner(owner_field, pos)
            mtime = mtimes.get(raw_time)
            if mtime is None:
                mtime = mtimes[raw_time] = float(number_field(raw_time, pos))

            crc = 0
            if kind == 0:
                if size:
                    end = off + BLOCK + size
                    if end > length and size <= small:
                        window = refill(pos)
                        view = memoryview(window)
                        start, off, length = pos, 0, len(window)
                        end = BLOCK + size
                        if end > length:
                            raise TarError("the tar ends in the middle of a file", payload)
                    if end <= length:
                        piece = view[end - size : end]
                        if size <= small or feed is not None:
                            crc = crc32(piece)
                        if feed is not None:
                            row = len(index.paths)
                            if size > SMALL and feed.seen is not None:
                                index.prints[row] = feed.blake3(piece).digest()
                            if size <= SMALL or feed.seen is None or feed.seen(size):
                                index.digests[row] = sha256(piece).digest()
                            if self.wants is not None and self.wants(path):
                                index.contents[row] = bytes(piece[: self.max_content])
                    elif feed is not None:
                        crc = self._pass(payload, size, path)
                        window, view, start, length = b"", memoryview(b""), payload + size, 0
                        if feed.rest and feed.pos <= payload + size:
                            window, start = feed.rest, feed.pos
                            view, length = memoryview(window), len(window)
                    elif total is not None and payload + size > total:
                        raise TarError("the tar ends in the middle of a file", payload)
                elif self.wants is not None and self.wants(path):
                    index.contents[len(index.paths)] = b""
                stored_size = size
            else:
                # Links, devices and directories carry no payload, whatever their size field says (POSIX); GNU
                # tar and tarfile agree for links and devices written by old tars.
                stored_size = size if kind >= _WHITEOUT else 0
                if stored_size and total is not None and payload + stored_size > total:
                    raise TarError("the tar ends in the middle of a file", payload)
                size = 0
                if kind in (_SYMLINK, _HARDLINK):
                    self._link(window[off + 157 : off + 257].partition(b"\0")[0], kind)
                elif kind in (_CHAR, _BLOCK):
                    index.devices[len(index.paths)] = (
                        number_field(window[off + 329 : off + 337], pos),
                        number_field(window[off + 337 : off + 345], pos),
                    )
            add_path(path)
            add_type(kind)
            add_size(size)
            add_offset(payload)
            add_start(entry_start)
            add_owner(owner)
            add_mtime(mtime)
            add_crc(crc)
            pos = payload + (stored_size + 511 & ~511)
        index.end = pos
        if len(index.paths) > MAX_ENTRIES:
            raise TarError(f"more than {MAX_ENTRIES} entries", pos)
        return index

    # -- the rarer paths ---------------------------------------------------------------------------------

    @staticmethod
    def _checksum(field_bytes: bytes, pos: int) -> int:
        """What Adler-32's low half must be, modulo 65,521, if the header's checksum field is right."""
        try:
            expected = int(field_bytes.strip(b" \0") or b"0", 8)
        except ValueError:
            raise TarError("a header that is not one" if pos else "no tar header", pos) from None
        return 1 + expected - 8 * 0x20 + sum(field_bytes)

    @staticmethod
    def _check_signed(header: bytes, pos: int) -> None:
        """Some historic tars summed signed bytes; both sums are valid (POSIX rationale)."""
        signed = sum(byte - 256 if byte > 127 else byte for byte in header[:148] + header[156:]) + 256
        if signed != int(header[148:156].strip(b" \0") or b"0", 8):
            raise TarError("a header whose checksum is wrong" if pos else "no tar header", pos)

    def _body(self, payload: int, size: int, pos: int) -> tuple[bytes, bytes, int]:
        """The payload of an extension header, and the window to go on with."""
        if size > MAX_EXTENSION:
            raise TarError(f"an extension header of {size} bytes", pos)
        off = payload - self.start
        if off + size <= len(self.window):
            return self.window[off : off + size], self.window, self.start
        parts: list[bytes] = []
        have, at = 0, payload
        window, start = self.window, self.start
        while have < size:
            window, start = self.refill(at), at
            piece = window[: size - have]
            if not piece:
                raise TarError("the tar ends in the middle of an extension header", pos)
            parts.append(piece)
            have += len(piece)
            at += len(piece)
        return b"".join(parts), window, start

    def _extend(self, extension: Extension, flag: int, body: bytes, pos: int) -> None:
        if flag == 0x4C:  # L
            extension.name = body.partition(b"\0")[0]
        elif flag == 0x4B:  # K
            extension.link = body.partition(b"\0")[0]
        elif flag != 0x67:  # x, X; a global header (g) is ignored, as by the engines
            parse_pax(body, extension, pos)

    def _complex(self, header: bytes, flag: int, size: int, payload: int, extension: Extension | None) -> int:
        """An entry with extension headers, or an old GNU sparse file; returns where the next one starts."""
        pos = payload - BLOCK
        index = self.index
        ext = extension or Extension(pos)
        records = ext.records
        if b"size" in records:
            size = _decimal(records[b"size"], pos)
        kind = _TYPES.get(flag, 0)
        name = ext.name
        if name is None:
            name = header[0:100].partition(b"\0")[0]
            if header[345] and header[257:263] == b"ustar\0":
                name = header[345:500].partition(b"\0")[0] + b"/" + name
        link = ext.link if ext.link is not None else header[157:257].partition(b"\0")[0]
        name = records.get(b"path", name)
        link = records.get(b"linkpath", link)

        stored = size
        pieces: list[tuple[int, int]] | None = None
        real = size
        if flag == 0x53:
            pieces, real, payload = self._old_sparse(header, payload)
        elif b"GNU.sparse.major" in records or b"GNU.sparse.map" in records or ext.sparse_pairs:
            name = records.get(b"GNU.sparse.name", name)
            pieces, real, consumed = self._pax_sparse(ext, size, payload, pos)
            payload += consumed
            stored -= consumed
        if pieces is not None:
            self._check_sparse(pieces, real, stored, pos)

        if flag == 0 and name.endswith(b"/"):
            kind = _DIR
        path, kind = self._normal(name, kind)
        if kind != _FILE and kind < _WHITEOUT:
            stored = 0
        row = len(index.paths)
        if kind in (_SYMLINK, _HARDLINK):
            self._link(link, kind)
        elif kind in (_CHAR, _BLOCK):
            index.devices[row] = (number_field(header[329:337], pos), number_field(header[337:345], pos))
        xattrs = {
            key[13:].decode("utf-8", "surrogateescape"): value
            for key, value in records.items()
            if key.startswith(b"SCHILY.xattr.")
        }
        if xattrs:
            index.xattrs[row] = xattrs
        mode = number_field(header[100:108], pos) & 0o7777
        uid = _decimal(records[b"uid"], pos) if b"uid" in records else number_field(header[108:116], pos)
        gid = _decimal(records[b"gid"], pos) if b"gid" in records else number_field(header[116:124], pos)
        mtime = float(number_field(header[136:148], pos))
        if b"mtime" in records:
            try:
                mtime = float(records[b"mtime"])
            except ValueError:
                raise TarError("a pax time that is not a number", pos) from None
        crc = self._payload(payload, stored, path, kind, pieces, real)
        index.paths.append(path)
        index.types.append(kind)
        index.sizes.append(real if kind == _FILE else 0)
        index.offsets.append(payload)
        index.starts.append(ext.start)
        index.owners.append(self._owner_row(mode, uid, gid))
        index.mtimes.append(mtime)
        index.crcs.append(crc)
        if pieces is not None:
            index.sparse[row] = pieces
        return payload + (stored + 511 & ~511)

    def _payload(
        self,
        payload: int,
        stored: int,
        path: str,
        kind: int,
        pieces: list[tuple[int, int]] | None,
        real: int,
    ) -> int:
        """Fingerprint a complex entry's payload and leave the window where reading goes on; its CRC-32."""
        if kind != _FILE:
            if stored and self.feed is None and self.small >= 0:
                self._must_exist(payload, stored)
            return 0
        if self.feed is not None:
            if pieces is None:
                return self._pass(payload, stored, path)
            return self._pass_sparse(payload, stored, pieces, real)
        if not stored or self.small < 0:
            return 0
        self._must_exist(payload, stored)
        if pieces is not None or stored > SMALL:
            return 0
        off = payload - self.start
        if off < 0 or off + stored > len(self.window):
            self.window, self.start = self.refill(payload), payload
            off = 0
        if off + stored > len(self.window):
            raise TarError("the tar ends in the middle of a file", payload)
        return crc32(memoryview(self.window)[off : off + stored])

    def _must_exist(self, payload: int, stored: int) -> None:
        last = payload + stored - 1
        if self.start <= last < self.start + len(self.window):
            return
        if not self.refill(last):
            raise TarError("the tar ends in the middle of a file", payload)

    def _pass(self, payload: int, size: int, path: str) -> int:
        """Stream a payload by: CRC-32, SHA-256 or BLAKE3 or both, content if wanted."""
        feed = self.feed
        assert feed is not None
        row = len(self.index.paths)
        wanted = self.wants is not None and self.wants(path)
        if payload < feed.pos or payload > feed.pos + len(feed.rest):
            feed.refill(payload)
        print_ = feed.blake3() if size > SMALL and feed.seen is not None else None
        digest = hashlib.sha256() if size <= SMALL or feed.seen is None or feed.seen(size) else None
        kept: list[bytes] = []
        room = self.max_content if wanted else 0
        crc = 0

        def consume(piece: memoryview) -> None:
            nonlocal room, crc
            crc = crc32(piece, crc)
            if digest is not None:
                digest.update(piece)
            if print_ is not None:
                print_.update(piece)
            if room > 0:
                kept.append(bytes(piece[:room]))
                room -= len(piece)

        if feed.take(payload, size, consume) < size:
            raise TarError("the tar ends in the middle of a file", payload)
        if size and digest is not None:
            self.index.digests[row] = digest.digest()
        if print_ is not None:
            self.index.prints[row] = print_.digest()
        if wanted:
            self.index.contents[row] = b"".join(kept)
        self.window, self.start = feed.rest, feed.pos
        return crc

    def _pass_sparse(self, payload: int, stored: int, pieces: list[tuple[int, int]], real: int) -> int:
        """SHA-256 and CRC-32 of a sparse file as a reader sees it: holes are zeros."""
        assert self.feed is not None
        if real - sum(length for _, length in pieces) > MAX_HOLES:
            return 0
        row = len(self.index.paths)
        digest = hashlib.sha256()
        zeros = memoryview(bytes(1 << 16))
        crc = 0

        def consume(piece: memoryview) -> None:
            nonlocal crc
            digest.update(piece)
            crc = crc32(piece, crc)

        def hole(length: int) -> None:
            while length > 0:
                consume(zeros[:length])
                length -= len(zeros)

        at, source = 0, payload
        for offset, length in pieces:
            hole(offset - at)
            if source < self.feed.pos or source > self.feed.pos + len(self.feed.rest):
                self.feed.refill(source)
            if self.feed.take(source, length, consume) < length:
                raise TarError("the tar ends in the middle of a sparse file", payload)
            at, source = offset + length, source + length
        hole(real - at)
        self.index.digests[row] = digest.digest()
        self.window, self.start = self.feed.rest, self.feed.pos
        return crc

    def _old_sparse(self, header: bytes, payload: int) -> tuple[list[tuple[int, int]], int, int]:
        """GNU's old format: four pieces in the header, 21 in each extension block."""
        pos = payload - BLOCK
        pieces: list[tuple[int, int]] = []
        real = number_field(header[483:495], pos)

        def collect(block: bytes, count: int) -> None:
            for number in range(count):
                raw = block[24 * number : 24 * number + 24]
                if not raw.strip(b"\0"):
                    return
                offset, length = number_field(raw[:12], pos), number_field(raw[12:], pos)
                if length:
                    pieces.append((offset, length))

        collect(header[386:482], 4)
        more = header[482]
        while more:
            off = payload - self.start
            if off < 0 or off + BLOCK > len(self.window):
                self.window, self.start, off = self.refill(payload), payload, 0
            block = self.window[off : off + BLOCK]
            if len(block) < BLOCK or len(pieces) > 1_000_000:
                raise TarError("a broken sparse map", pos)
            collect(block, 21)
            more = block[504]
            payload += BLOCK
        return pieces, real, payload

    def _pax_sparse(
        self, ext: Extension, size: int, payload: int, pos: int
    ) -> tuple[list[tuple[int, int]], int, int]:
        """GNU.sparse 0.0 (repeated records), 0.1 (one record), 1.0 (map before the data)."""
        records = ext.records
        real = _decimal(records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size", b"")), pos)
        consumed = 0
        if records.get(b"GNU.sparse.major") == b"1":
            numbers: list[int] = []
            count: int | None = None
            text = b""
            while count is None or len(numbers) < 2 * count:
                head, newline, tail = text.partition(b"\n")
                if newline:
                    number = _decimal(head, pos)
                    if count is None:
                        count = number
                        if count > 1_000_000:
                            raise TarError("a broken sparse map", pos)
                    else:
                        numbers.append(number)
                    text = tail
                    continue
                if consumed + BLOCK > size or len(text) > 64:
                    raise TarError("a broken sparse map", pos)
                block, self.window, self.start = self._body(payload + consumed, BLOCK, pos)
                consumed += BLOCK
                text += block
        elif b"GNU.sparse.map" in records:
            numbers = [_decimal(word, pos) for word in records[b"GNU.sparse.map"].split(b",") if word]
        else:
            numbers = [_decimal(word, pos) for word in ext.sparse_pairs]
        if len(numbers) % 2:
            raise TarError("a broken sparse map", pos)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return [(offset, length) for offset, length in pairs if length], real, consumed

    @staticmethod
    def _check_sparse(pieces: list[tuple[int, int]], real: int, stored: int, pos: int) -> None:
        at = total = 0
        for offset, length in pieces:
            if offset < at or length < 0 or offset + length > real:
                raise TarError("a broken sparse map", pos)
            at, total = offset + length, total + length
        if total > stored or real < 0:
            raise TarError("a broken sparse map", pos)

    def _link(self, raw: bytes, kind: int) -> None:
        row = len(self.index.paths)
        if kind == _SYMLINK:
            self.index.links[row] = str(raw, "utf-8", "surrogateescape")
        else:
            self.index.links[row] = normal_path(str(raw, "utf-8", "surrogateescape"))[0]

    def _normal(self, name: bytes, kind: int) -> tuple[str, int]:
        """Absolute, normal path and the entry's type with whiteouts told apart (layer.md, "Whiteouts")."""
        text = str(name, "utf-8", "surrogateescape")
        path, escaped = normal_path(text)
        if escaped:
            self.index.escapes.append(text)
        if len(path) > MAX_PATH:
            raise TarError("a path of more than 4 MB", 0)
        parent, _, base = path.rpartition("/")
        if base.startswith(WHITEOUT_PREFIX):
            if base == OPAQUE_MARKER:
                return parent or "/", _OPAQUE
            hidden = base[len(WHITEOUT_PREFIX) :]
            # A bare ".wh." names nothing, and ".wh..wh.plnk" and its like are aufs's own notes, which engines
            # skip: both are markers that hide nothing, since no file of such a name can exist.
            if not hidden or hidden.startswith(WHITEOUT_PREFIX):
                return path, _WHITEOUT
            return f"{parent}/{hidden}", _WHITEOUT
        return path, kind

    def _owner(self, raw: bytes, pos: int) -> int:
        row = self._owner_row(
            number_field(raw[:8], pos) & 0o7777, number_field(raw[8:16], pos), number_field(raw[16:24], pos)
        )
        self.owner_ids[raw] = row
        return row

    def _owner_row(self, mode: int, uid: int, gid: int) -> int:
        key = (mode, uid, gid)
        row = self.owner_rows.get(key)
        if row is None:
            row = self.owner_rows[key] = len(self.index.owner_table)
            self.index.owner_table.append(key)
        return row


# -- fields ------------------------------------------------------------------------------------------------


def normal_path(name: str) -> tuple[str, bool]:
    """A tar name as an absolute, normal path, and whether ``..`` tried to leave the root (it is held)."""
    parts: list[str] = []
    escaped = False
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
            else:
                escaped = True
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts), escaped


def number_field(raw: bytes, pos: int) -> int:
    """A numeric header field: octal text (POSIX) or, with the high bit set, base-256 (GNU)."""
    if not raw:
        return 0
    first = raw[0]
    if first & 0x80:
        value = int.from_bytes(raw, "big")
        bits = 8 * len(raw)
        # GNU: 0x80 marks a positive number, 0xFF a negative one in two's complement.
        return value - (1 << bits) if first == 0xFF else value - (0x80 << (bits - 8))
    text = raw.partition(b"\0")[0].strip()
    if not text and any(raw):
        text = raw.strip(b"\0 ")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise TarError("a number that is not octal", pos) from None


def _decimal(raw: bytes, pos: int) -> int:
    try:
        value = int(raw)
    except ValueError:
        raise TarError("a pax number that is not decimal", pos) from None
    if value < 0 or len(raw) > 20:
        raise TarError("a pax number out of range", pos)
    return value


def parse_pax(body: bytes, extension: Extension, pos: int) -> None:
    """``length key=value\\n`` records (POSIX pax, "pax Extended Header")."""
    at = 0
    while at < len(body) and body[at]:
        space = body.find(b" ", at, at + 20)
        try:
            length = int(body[at:space]) if space > 0 else 0
        except ValueError:
            length = 0
        record = body[space + 1 : at + length]
        if length <= 0 or at + length > len(body) or record[-1:] != b"\n" or b"=" not in record:
            raise TarError("a broken pax record", pos)
        key, _, value = record[:-1].partition(b"=")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            extension.sparse_pairs.append(value)
        elif value or key.startswith(b"SCHILY.xattr."):
            extension.records[key] = value
        else:
            extension.records.pop(key, None)  # an empty value takes an earlier one back
        at += length
