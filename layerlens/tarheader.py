"""Tar headers written: an entry's own header under another name, size or type, or a new one.

What a layer stores of an entry is copied as it is wherever that is possible. Where it is not (a hard link whose
first name is not kept, a name written as ``./etc``, a rewritten file), only the fields in question change: mode,
owner, time, device numbers and every extended attribute stay as they were stored.

Formats: POSIX.1-2017 pax ("ustar Interchange Format", "pax Header Block"), the GNU tar manual ("Tar Internals").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layerlens.errors import InvalidImageError
from layerlens.model import EntryType
from layerlens.tarindex import BLOCK, Extension, number_field, parse_pax

END = bytes(2 * BLOCK)
"""The two blocks of zeros at the end of an archive."""

TYPEFLAGS = {
    EntryType.FILE: b"0",
    EntryType.HARDLINK: b"1",
    EntryType.SYMLINK: b"2",
    EntryType.CHAR: b"3",
    EntryType.BLOCK: b"4",
    EntryType.DIR: b"5",
    EntryType.FIFO: b"6",
}

_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_TYPEFLAG = slice(156, 157)
_LINKNAME = slice(157, 257)
_PREFIX = slice(345, 500)
_MAX_OCTAL_SIZE = 8**11
_OLD_SPARSE = 0x53
_NOT_OF_LINKS = (b"size", b"linkpath", b"path")


@dataclass(slots=True)
class Head:
    """The header blocks of one entry, taken apart: extensions, the 512 bytes of the header, a sparse map."""

    main: bytes
    name: bytes
    """The name in force, as stored: a pax record's before a GNU long name's before the header's."""
    link: bytes
    records: dict[bytes, bytes] = field(default_factory=dict)
    sparse_pairs: list[bytes] = field(default_factory=list)
    """Of GNU sparse 0.0: offset, length, offset, length …"""
    rest: bytes = b""
    """What stands between the header and the payload: the map of a sparse file."""
    plain: bool = True
    """False where blocks between the extensions belong to nobody (a pax global header)."""

    @property
    def typeflag(self) -> int:
        """The header's typeflag."""
        return self.main[156]

    @property
    def payload_size(self) -> int:
        """Stored bytes after the header blocks, by the header's word."""
        declared = self.records.get(b"size")
        size = number_field(self.main[_SIZE], 0) if declared is None else int(declared)
        return size if self.typeflag == _OLD_SPARSE else size - len(self.rest)


def parse_head(raw: bytes) -> Head:
    """Take apart what a layer stores from an entry's start to its payload.

    Raises:
        InvalidImageError: it holds no header; the index that named the range is not of this layer.
    """
    extension = Extension(0)
    plain = True
    at = 0
    while at + BLOCK <= len(raw):
        block = raw[at : at + BLOCK]
        flag = block[156]
        if flag not in b"xXgLK":
            return _head(block, extension, raw[at + BLOCK :], plain)
        size = number_field(block[_SIZE], at)
        body = raw[at + BLOCK : at + BLOCK + size]
        if flag == 0x4C:  # L
            extension.name = body.partition(b"\0")[0]
        elif flag == 0x4B:  # K
            extension.link = body.partition(b"\0")[0]
        elif flag == 0x67:  # g
            plain = False
        else:
            parse_pax(body, extension, at)
        at += BLOCK + (size + 511 & ~511)
    raise InvalidImageError("a layer changed while it was read", "Export the image again.")


def _head(block: bytes, extension: Extension, rest: bytes, plain: bool) -> Head:
    name = block[_NAME].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":
        name = block[_PREFIX].partition(b"\0")[0] + b"/" + name
    link = block[_LINKNAME].partition(b"\0")[0]
    records = extension.records
    name = extension.name if extension.name is not None else name
    link = extension.link if extension.link is not None else link
    return Head(
        main=block,
        name=records.get(b"GNU.sparse.name", records.get(b"path", name)),
        link=records.get(b"linkpath", link),
        records=records,
        sparse_pairs=extension.sparse_pairs,
        rest=rest,
        plain=plain,
    )


def renamed(head: Head, name: bytes, kind: EntryType) -> bytes:
    """The same entry under another name; ``kind`` is what it is read as, whatever its typeflag says."""
    records = {key: value for key, value in head.records.items() if key not in (b"path", b"linkpath")}
    main = bytearray(head.main)
    if head.typeflag != _OLD_SPARSE:
        main[_TYPEFLAG] = TYPEFLAGS[kind]
    if b"GNU.sparse.name" in records:
        records[b"GNU.sparse.name"] = name
    link = head.link if kind is EntryType.SYMLINK else None
    return _blocks(main, records, name, link, head.sparse_pairs) + head.rest


def linked(head: Head, name: bytes, target: bytes) -> bytes:
    """A hard link to ``target``, which has ``head``: owner, mode, time and attributes are the group's."""
    records = _without_sparse(head.records)
    main = bytearray(head.main)
    main[_TYPEFLAG] = TYPEFLAGS[EntryType.HARDLINK]
    main[_SIZE] = _octal(0, 12)
    return _blocks(main, records, name, target)


def resized(head: Head, name: bytes, size: int) -> bytes:
    """A regular file of ``size`` bytes with the attributes of ``head``."""
    records = _without_sparse(head.records)
    main = bytearray(head.main)
    main[_TYPEFLAG] = TYPEFLAGS[EntryType.FILE]
    main[_LINKNAME] = bytes(100)
    _set_size(main, records, size)
    return _blocks(main, records, name, None)


def made(
    name: bytes,
    kind: EntryType = EntryType.FILE,
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    always_pax: bool = False,
) -> bytes:
    """A new header in ustar format, after a pax header for what does not fit (``mtime`` in whole seconds).

    With ``always_pax`` the pax header is there anyhow, so that the length is known before size and name are.
    """
    main = bytearray(BLOCK)
    records: dict[bytes, bytes] = {}
    for field_, value in ((slice(100, 108), mode), (slice(108, 116), uid), (slice(116, 124), gid)):
        main[field_] = _octal(value, 8)
    main[slice(136, 148)] = _octal(max(0, mtime), 12)
    main[_TYPEFLAG] = TYPEFLAGS[kind]
    main[257:265] = b"ustar\x0000"
    _set_size(main, records, size)
    if always_pax:
        records[b"size"] = b"%d" % size
    return _blocks(main, records, name, None)


def _without_sparse(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {
        key: value
        for key, value in records.items()
        if key not in _NOT_OF_LINKS and not key.startswith(b"GNU.sparse.")
    }


def _set_size(main: bytearray, records: dict[bytes, bytes], size: int) -> None:
    if size >= _MAX_OCTAL_SIZE:
        records[b"size"] = b"%d" % size
        main[_SIZE] = _octal(0, 12)
    else:
        main[_SIZE] = _octal(size, 12)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _blocks(
    main: bytearray,
    records: dict[bytes, bytes],
    name: bytes,
    link: bytes | None,
    sparse_pairs: Sequence[bytes] = (),
) -> bytes:
    """Header with name and link in place, after a pax header for what the fields cannot hold."""
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if link is not None and (len(link) > 100 or not link.isascii()):
        records[b"linkpath"] = link
    main[_NAME] = name[:100].ljust(100, b"\0")
    if link is not None:
        main[_LINKNAME] = link[:100].ljust(100, b"\0")
    if main[257:263] == b"ustar\0":
        main[_PREFIX] = bytes(155)
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    for number, value in enumerate(sparse_pairs):
        body += _record(b"GNU.sparse.numbytes" if number % 2 else b"GNU.sparse.offset", value)
    return _pax(name, body) + _summed(main)


def _pax(name: bytes, body: bytes) -> bytes:
    if not body:
        return b""
    main = bytearray(BLOCK)
    label = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2][:80]
    main[_NAME] = label.ljust(100, b"\0")
    for field_ in (slice(100, 108), slice(108, 116), slice(116, 124)):
        main[field_] = _octal(0o644 if field_.start == 100 else 0, 8)
    main[_SIZE] = _octal(len(body), 12)
    main[slice(136, 148)] = _octal(0, 12)
    main[_TYPEFLAG] = b"x"
    main[257:265] = b"ustar\x0000"
    return _summed(main) + padded(body)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, the length counting itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def _summed(main: bytearray) -> bytes:
    main[_CHECKSUM] = b" " * 8
    main[_CHECKSUM] = b"%06o\0 " % sum(main)
    return bytes(main)


def padded(body: bytes) -> bytes:
    """``body`` filled up with zeros to whole blocks."""
    return body + bytes(-len(body) % BLOCK)
