"""``/etc/ld.so.cache`` reduced to the libraries that are kept.

The loader looks a name up in this table before it tries its default directories, and tools that list libraries read
nothing else, so that a slim image's table must name what is there and only that. The entries are those of the
image's own table: which directories were configured, and which file wins, was decided when ldconfig(8) made it.

Format: glibc, sysdeps/generic/dl-cache.h (``struct cache_file_new``, ``struct file_entry_new``, the extension
directory of 2.33) and elf/cache.c. Tables of glibc before 2.32 start with one in an older format; the newer one
follows it, and is all that a loader since 2.2 reads.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass

from layerlens.errors import LayerLensError
from layerlens.filesystem import Filesystem
from layerlens.model import ImagePath

PATH = "/etc/ld.so.cache"

_MAX_BYTES = 64 << 20
_OLD_MAGIC = b"ld.so-1.7.0\0"
_OLD_ENTRY = 12
_MAGIC = b"glibc-ld.so.cache1.1"
_EXTENSION_MAGIC = 0xEAA42174
_HWCAP_EXTENSION = 1 << 62
"""DL_CACHE_HWCAP_EXTENSION: the entry is for a glibc-hwcaps folder, whose number is in the lower half."""
_TAG_GLIBC_HWCAPS = 1
"""cache_extension_tag_glibc_hwcaps: offsets of the names of these folders."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One library: the name that programs ask for and the path it is at."""

    flags: int
    name: bytes
    path: bytes
    os_version: int
    hwcap: int


@dataclass(frozen=True, slots=True)
class Cache:
    """A table, entries in its order (the loader's binary search relies on it)."""

    order: str
    """Byte order as :mod:`struct` writes it: ``<`` or ``>``."""
    flags: int
    entries: tuple[CacheEntry, ...]
    hwcaps: tuple[bytes, ...] = ()
    """Names of glibc-hwcaps folders, as ``x86-64-v3``, that entries refer to by number."""


def loader_cache(fs: Filesystem, kept: Collection[ImagePath]) -> Cache | None:
    """The image's table without the libraries that are not kept; None where it has none that glibc could read.

    ``kept`` holds canonical paths, links and files alike.
    """
    try:
        cache = parse_cache(fs.read(PATH, _MAX_BYTES))
    except (LayerLensError, ValueError):
        return None
    entries = tuple(entry for entry in cache.entries if _is_kept(fs, kept, entry.path))
    return Cache(cache.order, cache.flags, entries, cache.hwcaps)


def joined_cache(first: Cache, second: Cache) -> Cache:
    """Both tables in one, in the order that the loader's search relies on; of one library, the first's entry counts.

    Of the second's entries those for glibc-hwcaps folders are left out, since its numbers for them are others: the
    loader takes the library that every processor runs.
    """
    known = {(entry.name, entry.flags) for entry in first.entries}
    more = (
        entry
        for entry in second.entries
        if (entry.name, entry.flags) not in known and not entry.hwcap & _HWCAP_EXTENSION
    )
    # elf/cache.c, compare(): by name, then by flags, descending; what is left keeps its order.
    entries = sorted(
        [*first.entries, *more], key=lambda entry: (_order(entry.name), entry.flags), reverse=True
    )
    return Cache(first.order, first.flags, tuple(entries), first.hwcaps)


def _order(name: bytes) -> list[tuple[int, int, bytes]]:
    """What glibc compares of a name (sysdeps/generic/dl-cache.h, _dl_cache_libcmp): runs of digits as numbers."""
    found = []
    for run in re.findall(rb"[0-9]+|[^0-9]", name, re.DOTALL):
        if run.isdigit():
            digits = run.lstrip(b"0")
            found.append((1, len(digits), digits))
        else:
            found.append((0, run[0] - 256 if run[0] > 127 else run[0], b""))
    return found


def _is_kept(fs: Filesystem, kept: Collection[ImagePath], path: bytes) -> bool:
    named = fs.resolve_parent(path.decode("utf-8", "surrogateescape"))
    return named in kept and fs.follow(named) in kept


def parse_cache(raw: bytes) -> Cache:
    """Read a table. ValueError where it is not one in the newer format."""
    start = 0
    if raw.startswith(_OLD_MAGIC[:-1]):
        count = max(struct.unpack_from(order + "I", raw, len(_OLD_MAGIC))[0] for order in _orders(raw))
        start = len(_OLD_MAGIC) + 4 + count * _OLD_ENTRY
        start += -start % 8  # ALIGN_CACHE: struct cache_file_new is aligned as its 64-bit fields are
    raw = raw[start:]
    if not raw.startswith(_MAGIC) or len(raw) < 48:
        raise ValueError("not a loader cache")
    order = _orders(raw)[0]
    count, _, flags, extension = struct.unpack_from(order + "IIB3xI", raw, 20)
    if 48 + count * 24 > len(raw):
        raise ValueError("a loader cache that was cut short")
    entries = []
    for number in range(count):
        kind, key, value, os_version, hwcap = struct.unpack_from(order + "iIIIQ", raw, 48 + number * 24)
        entries.append(CacheEntry(kind, _string(raw, key), _string(raw, value), os_version, hwcap))
    return Cache(order, flags, tuple(entries), _hwcaps(raw, order, extension))


def _orders(raw: bytes) -> tuple[str, ...]:
    """The byte order that the table was written in: by its flag since 2.33, else the one that gives a sane count."""
    if raw.startswith(_MAGIC):
        if len(raw) > 28 and raw[28] & 3 in (2, 3):
            return ("<" if raw[28] & 3 == 2 else ">",)
        little = struct.unpack_from("<I", raw, 20)[0]
        return ("<",) if 48 + little * 24 <= len(raw) else (">",)
    little = struct.unpack_from("<I", raw, len(_OLD_MAGIC))[0]
    return ("<",) if little * _OLD_ENTRY <= len(raw) else (">",)


def _string(raw: bytes, offset: int) -> bytes:
    end = raw.find(b"\0", offset)
    if offset >= len(raw) or end < 0:
        raise ValueError("a loader cache with a string outside of it")
    return raw[offset:end]


def _hwcaps(raw: bytes, order: str, extension: int) -> tuple[bytes, ...]:
    """Names in the extension directory; none where there is none."""
    if not extension or extension + 8 > len(raw):
        return ()
    magic, count = struct.unpack_from(order + "II", raw, extension)
    if magic != _EXTENSION_MAGIC or extension + 8 + 16 * count > len(raw):
        return ()
    for number in range(count):
        tag, _, offset, size = struct.unpack_from(order + "IIII", raw, extension + 8 + 16 * number)
        if tag == _TAG_GLIBC_HWCAPS and offset + size <= len(raw):
            offsets = struct.unpack_from(f"{order}{size // 4}I", raw, offset)
            return tuple(_string(raw, at) for at in offsets)
    return ()


def encode_cache(cache: Cache) -> bytes:
    """Write a table in the newer format alone, as ldconfig does since 2.32."""
    order, entries = cache.order, cache.entries
    hwcaps = cache.hwcaps if any(entry.hwcap & _HWCAP_EXTENSION for entry in entries) else ()
    start = 48 + 24 * len(entries)
    strings = bytearray()
    places: dict[bytes, int] = {}

    def place(text: bytes) -> int:
        if text not in places:
            places[text] = start + len(strings)
            # A library's name is mostly the end of its path: glibc's stringtable shares such tails too.
            places.setdefault(text.rpartition(b"/")[2], start + len(strings) + text.rfind(b"/") + 1)
            strings.extend(text + b"\0")
        return places[text]

    for entry in entries:
        place(entry.path)

    body = b"".join(
        struct.pack(
            order + "iIIIQ", entry.flags, place(entry.name), place(entry.path), entry.os_version, entry.hwcap
        )
        for entry in entries
    )
    offsets = [place(name) for name in hwcaps]
    tail = b""
    extension = 0
    if hwcaps:
        end = start + len(strings)
        extension = end + -end % 4
        table = extension + 8 + 16
        tail = bytes(extension - end) + struct.pack(
            order + "IIIIII", _EXTENSION_MAGIC, 1, _TAG_GLIBC_HWCAPS, 0, table, 4 * len(offsets)
        )
        tail += struct.pack(f"{order}{len(offsets)}I", *offsets)
    head = _MAGIC + struct.pack(order + "IIB3xI12x", len(entries), len(strings), cache.flags, extension)
    return head + body + bytes(strings) + tail
