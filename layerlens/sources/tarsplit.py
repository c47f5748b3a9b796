"""A layer's tar, put together from its headers and a folder with its files.

Engines keep a layer unpacked, in a folder that containers can mount, and beside it what the unpacking lost: the
headers and the padding of the tar it came from, as a gzip stream of JSON lines (github.com/vbatts/tar-split,
tar/storage: ``{"type": 2, "payload": raw bytes}`` is a piece of the tar, ``{"type": 1, "name", "size", "payload":
CRC-64}`` the place of a file's content). Together they are the tar, byte for byte, that the engine exports and
whose digest is the diff ID. Here it is indexed by its headers alone, and read by range.

Only regular files are read from the folder, and only by names that the index knows: whiteouts, links and devices
lie in it in other forms, but all of them are headers in the tar.
"""

from __future__ import annotations

import io
import json
import os
import struct
import threading
from array import array
from binascii import Error as Base64Error
from binascii import a2b_base64
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from layerlens.errors import InvalidImageError, LayerLensError
from layerlens.model import EntryType
from layerlens.sources.beneath import Beneath, StorageError, open_file
from layerlens.sources.spool import Chunks, fill, open_inflated, spool
from layerlens.tarindex import MAX_ENTRIES, LayerIndex, index_headers, normal_path

_BLOCK = 1 << 20
MAX_LINE = 64 << 20
"""Largest line of a tar-split stream that is read; the padding behind a tar is one line."""
MAX_PIECES = 4 * MAX_ENTRIES
_HELD_BYTES = 4 << 20
"""Base64 of pieces of a tar that are joined, if no file with content comes; each holds whole headers."""
_FILE = int(EntryType.FILE)


_Piece = tuple[bytes, bytes, int, bytes]
"""Bytes of the tar, then the content of a file: its name, its size (0 where there is none), and its CRC-64 (ISO
3309) in base64, 12 characters. A plain tuple: there is one for each of up to millions of files."""


class SplitLayer:
    """One layer as headers and folder. Every method raises StorageError for what is not as expected."""

    def __init__(
        self, split: Path, folder: Path, fits: Callable[[LayerIndex], bool] = lambda _: True
    ) -> None:
        """``split`` is the tar-split stream, ``folder`` holds the layer's files; both are opened when wanted.

        ``fits`` says of an index whether it agrees with what the engine knows of the layer besides.
        """
        self.report: Callable[[StorageError], None] | None = None
        """Hears why the layer is not used any more, should that be so."""
        self._split = split
        self._fits = fits
        self._folder = folder
        self._lock = threading.RLock()
        self._files: Beneath | None = None
        self._headers: _Headers | None = None

    @property
    def stored_bytes(self) -> int:
        """Size of the tar-split stream: what indexing costs goes by it."""
        try:
            return self._split.stat().st_size
        except OSError as error:
            raise StorageError(f"{self._split}: {error.strerror or error}") from error

    def index(self) -> LayerIndex:
        """The layer's entries, read off its headers; no file is touched."""
        scan = _HeaderScan(self._pieces())
        try:
            index = index_headers(scan.refill)
        except StorageError:
            raise
        except LayerLensError as error:
            raise StorageError(f"{self._split}: {error}") from error
        scan.finish(index, str(self._split))
        if not self._fits(index):
            raise StorageError(f"{self._split} is of a layer with another size")
        return index

    def pread(self, index: LayerIndex, offset: int, size: int) -> bytes:
        """``size`` bytes of the tar at ``offset``; ``index`` is that of this layer, from whatever source."""
        if offset < 0 or offset + size > index.size:
            raise StorageError(f"{self._folder}: the layer has {index.size:,} bytes")
        parts = []
        while size > 0:
            row = bisect_right(index.offsets, offset) - 1
            inside = offset - index.offsets[row] if row >= 0 else 0
            left = index.sizes[row] - inside if row >= 0 and index.types[row] == _FILE else 0
            if row >= 0 and row in index.sparse:
                raise StorageError(f"{self._folder}{index.paths[row]} is sparse")
            if left > 0:
                piece = self._beneath.read(index.paths[row], index.sizes[row], inside, min(left, size))
            else:
                piece = self._between.read(offset, size)
            parts.append(piece)
            offset += len(piece)
            size -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def open(self) -> BinaryIO:
        """The whole tar as a stream, put together on the way; its reads raise StorageError as well."""
        return cast(BinaryIO, io.BufferedReader(Chunks(self.chunks()), _BLOCK))

    def chunks(self) -> Iterator[bytes]:
        """The whole tar in pieces, none of them empty."""
        for raw, name, size, _ in self._pieces():
            if raw:
                yield raw
            path = normal_path(_text(name))[0] if size else ""
            for at in range(0, size, _BLOCK):
                yield self._beneath.read(path, size, at, min(_BLOCK, size - at))

    def give_up(self, error: StorageError) -> None:
        """Note why the layer is not used any more."""
        if self.report is not None:
            self.report(error)

    def close(self) -> None:
        """Close what was opened; calling it twice is fine."""
        with self._lock:
            for opened in (self._files, self._headers):
                if opened is not None:
                    opened.close()
            self._files = self._headers = None

    @property
    def _beneath(self) -> Beneath:
        files = self._files
        if files is None:
            with self._lock:
                files = self._files = self._files or Beneath(self._folder)
        return files

    @property
    def _between(self) -> _Headers:
        """What lies between the files; the stream is read once more for it, when the first of it is wanted."""
        with self._lock:
            if self._headers is None:
                self._headers = _Headers(self._pieces())
            return self._headers

    def _pieces(self) -> Iterator[_Piece]:
        """The stream, joined so that most pieces end with a file that has content."""
        try:
            with os.fdopen(open_file(self._split), "rb") as stored:
                raw: list[bytes] = []
                held = 0
                for found in _entries(open_inflated(cast(BinaryIO, stored), what=str(self._split))):
                    for segment, name, size, check in found:
                        if segment:
                            raw.append(a2b_base64(segment))
                            held += len(segment)
                            if held < _HELD_BYTES:
                                continue
                            length = 0  # directories without end: what is at hand has a bound
                        else:
                            length = int(size or b"0")
                            if not length:
                                continue
                        yield raw[0] if len(raw) == 1 else b"".join(raw), name, length, check
                        raw, held = [], 0
                yield b"".join(raw), b"", 0, b""
        except (OSError, ValueError, Base64Error, InvalidImageError) as error:
            raise StorageError(f"{self._split}: {error}") from error


# --- the stream -----------------------------------------------------------------------------------------

_Found = list[tuple[bytes, bytes, bytes, bytes]]


def _entries(stream: BinaryIO) -> Iterator[_Found]:
    """Lines of a tar-split stream, a batch at a time: (base64 of a segment, name, size, base64 of a check).

    Almost every line has the form that Go's encoder gives it, which one expression reads; the others (names that
    it escapes or that are not UTF-8) are read as JSON.
    """
    import re

    usual = re.compile(
        rb'\{"type":(?:2,"payload":"([^"]*)"|1,"name":"([^"\\]*)"(?:,"size":([0-9]{1,18}))?,"payload":'
        rb'(?:null|"([^"]*)")),"position":[0-9]+\}\n'
    )
    rest = last = b""
    count = 0
    while True:
        buffer = bytearray(_BLOCK)
        filled = fill(cast(io.RawIOBase, stream), memoryview(buffer))
        block = rest + buffer[:filled]
        cut = block.rfind(b"\n") + 1
        if filled < _BLOCK:
            if block and cut != len(block):
                raise ValueError("the last line has no end")
        elif not cut and len(block) > MAX_LINE:
            raise ValueError("a line of more than 64 MB")
        lines, rest = block[:cut], block[cut:]
        found: _Found = usual.findall(lines)
        if len(found) != lines.count(b"\n"):
            found = [_entry(line) for line in lines.splitlines()]
        count += len(found)
        if count > MAX_PIECES:
            raise ValueError("too many lines")
        yield found
        if cut:
            last = lines[lines.rfind(b"\n", 0, cut - 1) + 1 :]
        if filled < _BLOCK:
            break
    if not count or json.loads(last).get("position") != count - 1:
        raise ValueError("lines are missing")


def _entry(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """One line as JSON; ValueError for what is no entry (tar/storage/entry.go)."""
    try:
        said = json.loads(line)
        payload = (said.get("payload") or "").encode("ascii")
        if said["type"] == 2:
            return payload, b"", b"", b""
        size = said.get("size") or 0
        if said["type"] != 1 or type(size) is not int or not 0 <= size < 1 << 60:
            raise ValueError("an entry of an unknown kind")
        name = said.get("name") or ""
        raw = (
            a2b_base64(said["name_raw"]) if said.get("name_raw") else name.encode("utf-8", "surrogateescape")
        )
        return b"", raw, b"%d" % size, payload
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a line that is no entry: {error}") from error


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


class _HeaderScan:
    """Hands the headers of a stream to the tar index as it asks for them, and notes where files must lie."""

    def __init__(self, pieces: Iterator[_Piece]) -> None:
        self._pieces = pieces
        self._raw = b""
        self._start = 0
        self._next = 0
        """Where the piece after this one starts: behind the content that follows it."""
        self._offsets: array[int] = array("q")
        self._sizes: array[int] = array("q")
        self._names: list[bytes] = []
        self._checks: list[bytes] = []

    def refill(self, pos: int) -> bytes:
        """The tar from ``pos`` to the next content; nothing behind its end. StorageError inside a content."""
        while pos >= self._start + len(self._raw):
            if pos < self._next:
                raise StorageError("a header where a file's content is")
            if not self._advance():
                return b""
        if pos < self._start:
            raise StorageError("headers that overlap")
        return self._raw[pos - self._start :]

    def _advance(self) -> bool:
        for raw, name, size, check in self._pieces:
            self._raw, self._start = raw, self._next
            self._next = end = self._start + len(raw)
            if size:
                self._offsets.append(end)
                self._sizes.append(size)
                self._names.append(name)
                self._checks.append(check)
                self._next = end + size
            return True
        return False

    def finish(self, index: LayerIndex, what: str) -> None:
        """Read to the end, and complete ``index``; StorageError where it is not of the files that were named."""
        while self._advance():
            pass
        index.size = self._next
        rows = [row for row, size in enumerate(index.sizes) if size]
        same = (
            not index.sparse
            and [index.offsets[row] for row in rows] == self._offsets.tolist()
            and [index.sizes[row] for row in rows] == self._sizes.tolist()
        )
        if not same:
            raise StorageError(f"{what}: the headers do not fit the files")
        names = _text(b"\n".join(self._names)).split("\n") if rows else []
        if len(names) != len(rows):
            names = [_text(name) for name in self._names]
        for row, name in zip(rows, names, strict=True):
            if index.paths[row] != "/" + name and index.paths[row] != normal_path(name)[0]:
                raise StorageError(f"{what}: {name!r} is another name than its header has")
        self._check(index, rows, what)

    def _check(self, index: LayerIndex, rows: list[int], what: str) -> None:
        """The lower half of each CRC-64, of which the stream has eight bytes, in base64."""
        if any(len(check) != 12 for check in self._checks):
            raise StorageError(f"{what}: a content without a checksum")
        try:
            halves = a2b_base64(b"".join(check[:8] for check in self._checks))
        except Base64Error as error:
            raise StorageError(f"{what}: {error}") from error
        if len(halves) != 6 * len(rows):
            raise StorageError(f"{what}: a broken checksum")
        for row, (half,) in zip(rows, struct.iter_unpack(">2xI", halves), strict=True):
            index.crcs[row] = half
        index.checks = "crc64"


class _Headers:
    """What lies between the contents of a tar, kept in a spool: read by offset in the tar."""

    def __init__(self, pieces: Iterator[_Piece]) -> None:
        self._starts: array[int] = array("q")
        self._places: array[int] = array("q")
        self._file = spool(cast(BinaryIO, Chunks(self._raw(pieces))), what="reading headers")

    def _raw(self, pieces: Iterator[_Piece]) -> Iterator[bytes]:
        at = place = 0
        for raw, _, size, _ in pieces:
            self._starts.append(at)
            self._places.append(place)
            place += len(raw)
            at += len(raw) + size
            if raw:
                yield raw
        self._places.append(place)

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on, up to the next content. StorageError where there are none."""
        number = bisect_right(self._starts, offset) - 1
        place = self._places[number] + offset - self._starts[number]
        data = os.pread(self._file.fileno(), min(size, max(0, self._places[number + 1] - place)), place)
        if not data:
            raise StorageError("a place in the tar that no header has")
        return data

    def close(self) -> None:
        """Drop the spool."""
        self._file.close()
