"""What is remembered of a layer from one run to the next: its index, and the bytes that analysis asked for.

Both are named by the layer's diff ID, and only ever stored for bytes that hashed to it or that an engine vouches
for. An index is kept as its columns, each a section that becomes an array again without a loop over entries. What
was asked for (package databases, manifests, the heads of programs) is kept as disjoint pieces of the layer's tar
with a checksum each, and the digests of the files that were compared beside them: so that an image that was seen
before is analysed again without a byte of it at hand.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from layerlens.cache import DAMAGED, Cache, Entry, crc32
from layerlens.errors import LayerLensError
from layerlens.model import DiffId, Digest
from layerlens.tarindex import LayerIndex

PIECE_BYTES = 256 << 10
"""A piece is read and checked as a whole, so that large ones are cut."""
MAX_ASKED_BYTES = 128 << 20
"""Bytes that are kept of one layer, the shortest ranges first: databases and manifests before programs."""
_DIGEST_BYTES = 32
_COLUMNS = (
    ("sizes", "q"),
    ("offsets", "q"),
    ("starts", "q"),
    ("owners", "I"),
    ("mtimes", "d"),
    ("crcs", "I"),
)


# --- the index ------------------------------------------------------------------------------------------


def find_index(cache: Cache, diff_id: DiffId) -> LayerIndex | None:
    """The index that an earlier run stored for this diff ID; None where there is no intact one."""
    return cache.read("layer", diff_id, _unpacked)


def store_index(cache: Cache, diff_id: DiffId, index: LayerIndex) -> None:
    """Store a layer's index; the caller has verified that it is of this diff ID.

    A layer whose paths have zero bytes in them, as only a forged one has, is not stored.
    """
    sections = _packed(index)
    if sections is not None:
        cache.store("layer", diff_id, {name: [data] for name, data in sections.items()})


def _packed(index: LayerIndex) -> dict[str, bytes] | None:
    paths = "\0".join(index.paths)
    if paths.count("\0") != max(0, len(index.paths) - 1):
        return None
    rare = {
        "entries": len(index),
        "owner_table": index.owner_table,
        "links": [list(index.links), list(index.links.values())],
        "devices": list(index.devices.items()),
        "xattrs": [
            (row, [(name, value.decode("latin-1")) for name, value in named.items()])
            for row, named in index.xattrs.items()
        ],
        "sparse": list(index.sparse.items()),
        "escapes": index.escapes,
        "end": index.end,
        "size": index.size,
        "checks": index.checks,
    }
    sections = {name: getattr(index, name).tobytes() for name, _ in _COLUMNS}
    return {
        "paths": paths.encode("utf-8", "surrogateescape"),
        "types": bytes(index.types),
        **sections,
        "rare": json.dumps(rare).encode(),
    }


def _unpacked(entry: Entry) -> LayerIndex:
    rare = json.loads(entry.section("rare"))
    count = rare["entries"]
    paths = entry.section("paths").decode("utf-8", "surrogateescape").split("\0") if count else []
    columns: dict[str, Any] = {}
    for name, code in _COLUMNS:
        column: array[Any] = array(code)
        column.frombytes(entry.section(name))
        columns[name] = column
    types = bytearray(entry.section("types"))
    owner_table = [(mode, uid, gid) for mode, uid, gid in rare["owner_table"]]
    if {len(paths), len(types), *map(len, columns.values())} != {count}:
        raise ValueError("columns of different lengths")
    if count and max(columns["owners"]) >= len(owner_table):
        raise ValueError("an owner that is not in the table")
    return LayerIndex(
        paths=paths,
        types=types,
        **columns,
        owner_table=owner_table,
        links=dict(zip(*rare["links"], strict=True)),
        devices={row: (major, minor) for row, (major, minor) in rare["devices"]},
        xattrs={
            row: {name: value.encode("latin-1") for name, value in named} for row, named in rare["xattrs"]
        },
        sparse={row: [(start, size) for start, size in pieces] for row, pieces in rare["sparse"]},
        escapes=rare["escapes"],
        end=rare["end"],
        size=rare["size"],
        checks=rare["checks"],
    )


# --- blobs ----------------------------------------------------------------------------------------------


def find_inflated(cache: Cache, blob: Digest) -> DiffId | None:
    """The diff ID of the tar that a compressed blob of this digest inflates to, where that was seen."""
    return cache.read("blob", blob, lambda entry: DiffId(entry.section("diff_id").decode("ascii")))


def store_inflated(cache: Cache, blob: Digest, diff_id: DiffId) -> None:
    """Store what a blob inflates to; the caller has hashed both."""
    cache.store("blob", blob, {"diff_id": [diff_id.encode("ascii")]})


# --- what was asked for ---------------------------------------------------------------------------------


class _DamagedError(Exception):
    """A stored piece is not what it was."""


class _Pieces:
    """Pieces on their way to the disk, and the columns that say where they are."""

    def __init__(self) -> None:
        self._columns = {"starts": array("q"), "sizes": array("I"), "checksums": array("I")}

    def passing(self, pieces: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
        """Each piece, noted in the columns."""
        for start, piece in pieces:
            for column, value in zip(self._columns.values(), (start, len(piece), crc32(piece)), strict=True):
                column.append(value)
            yield piece

    def column(self, name: str) -> Iterator[bytes]:
        """A column, as it is once all pieces have passed."""
        yield self._columns[name].tobytes()


class LayerMemory:
    """The bytes of one layer that earlier runs asked for, and a note of what this one asks for."""

    def __init__(self, cache: Cache, diff_id: DiffId) -> None:
        self._cache = cache
        self._diff_id = diff_id
        self._asked: list[tuple[int, int]] = []
        self.digests: dict[int, bytes] = {}
        """SHA-256 of files, by row of the index."""
        self._entry: Entry | None = None
        self._find()

    def _find(self) -> None:
        """Read what is stored: the columns, not the pieces."""
        self._forget()
        entry = self._cache.find("reads", self._diff_id)
        if entry is not None:
            self._entry = entry
            try:
                self._load(entry)
            except DAMAGED:
                self._drop()

    def _forget(self) -> None:
        self.close()
        self._starts: array[int] = array("q")
        self._sizes: array[int] = array("I")
        self._checksums: array[int] = array("I")
        self._places: array[int] = array("q")
        """Where each piece lies in the section."""

    def _drop(self) -> None:
        """Forget pieces that are damaged, here and in the folder; what this run asks for takes their place."""
        self._cache.forget("reads", self._diff_id)
        self._forget()

    def _load(self, entry: Entry) -> None:
        columns = (("starts", self._starts), ("sizes", self._sizes), ("checksums", self._checksums))
        for name, column in columns:
            column.frombytes(entry.section(name))
        if not len(self._starts) == len(self._sizes) == len(self._checksums):
            raise ValueError("columns of different lengths")
        place = last = 0
        for start, size in zip(self._starts, self._sizes, strict=True):
            if start < last:
                raise ValueError("pieces that are not in order")
            self._places.append(place)
            place += size
            last = start + size
        rows: array[int] = array("I")
        rows.frombytes(entry.section("rows"))
        digests = entry.section("digests")
        if len(digests) != _DIGEST_BYTES * len(rows):
            raise ValueError("columns of different lengths")
        pieces = (digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))
        self.digests = dict(zip(rows, pieces, strict=True))

    def note(self, offset: int, size: int) -> None:
        """Remember for the next run that these bytes of the tar were asked for."""
        self._asked.append((offset, size))

    def read(self, offset: int, size: int) -> bytes | None:
        """Bytes of the tar, where all of them are remembered and intact."""
        if self._entry is None:
            return None
        number = bisect_right(self._starts, offset) - 1
        parts: list[bytes] = []
        at, end = offset, offset + size
        while at < end:
            if not 0 <= number < len(self._starts):
                return None
            start, length = self._starts[number], self._sizes[number]
            if not start <= at < start + length:
                return None
            try:
                piece = self._piece(self._entry, number)
            except DAMAGED:
                self._drop()
                return None
            parts.append(piece[at - start : end - start])
            at = min(end, start + length)
            number += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, entry: Entry, number: int) -> bytes:
        piece = entry.part("pieces", self._places[number], self._sizes[number])
        if crc32(piece) != self._checksums[number]:
            raise ValueError("a damaged piece")
        return piece

    # -- storing -------------------------------------------------------------------------------------------

    def store(self, digests: Mapping[int, bytes], content: Callable[[int, int], bytes]) -> None:
        """Store what was known and what this run asked for; nothing where that is the same.

        ``digests`` are by row of the index; ``content`` gives bytes of the tar that this run has asked for. The
        caller has verified that both are of this diff ID.
        """
        if not self._fitting() and digests.keys() <= self.digests.keys():
            return
        # Another image with this layer (a runtime image, say), or another process, may have stored more meanwhile.
        self._find()
        digests = {**self.digests, **digests}
        rows = sorted(digests)
        written = _Pieces()
        try:
            self._cache.store(
                "reads",
                self._diff_id,
                {
                    "pieces": written.passing(self._pieces(content)),
                    "starts": written.column("starts"),
                    "sizes": written.column("sizes"),
                    "checksums": written.column("checksums"),
                    "rows": [array("I", rows).tobytes()],
                    "digests": (digests[row] for row in rows),
                },
            )
        except _DamagedError:
            self._drop()
        except (LayerLensError, OSError, ValueError):
            return  # the source has gone away meanwhile
        self._find()

    def _pieces(self, content: Callable[[int, int], bytes]) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of all pieces in order: those that are stored, and those that were asked for."""
        spans = [
            (start, size, number)
            for number, (start, size) in enumerate(zip(self._starts, self._sizes, strict=True))
        ]
        for start, size in self._fitting():
            spans += [
                (at, min(PIECE_BYTES, start + size - at), -1)
                for at in range(start, start + size, PIECE_BYTES)
            ]
        for start, size, number in sorted(spans):
            if number < 0 or self._entry is None:
                yield start, content(start, size)
            else:
                try:
                    piece = self._piece(self._entry, number)
                except DAMAGED as error:
                    raise _DamagedError from error
                yield start, piece

    def _fitting(self) -> list[tuple[int, int]]:
        """What is missing as (offset, size), the shortest first, as far as there is room for it."""
        room = MAX_ASKED_BYTES - sum(self._sizes)
        fitting = []
        for offset, size in sorted(self._missing(), key=lambda span: (span[1], span[0])):
            room -= size
            if room < 0:
                break
            fitting.append((offset, size))
        return fitting

    def _missing(self) -> Iterator[tuple[int, int]]:
        """What was asked for as (offset, size), joined where it touches, without what is remembered already."""
        joined: list[list[int]] = []
        for offset, size in sorted(set(self._asked)):
            if joined and offset <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], offset + size)
            elif size > 0:
                joined.append([offset, offset + size])
        for at, end in joined:
            number = max(0, bisect_right(self._starts, at) - 1)
            while at < end:
                while number < len(self._starts) and self._starts[number] + self._sizes[number] <= at:
                    number += 1
                known = number < len(self._starts) and self._starts[number] < end
                until = self._starts[number] if known else end
                if at < until:
                    yield at, until - at
                at = max(at, self._starts[number] + self._sizes[number]) if known else end

    def close(self) -> None:
        """Close the entry's file; nothing is remembered any more then."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None
