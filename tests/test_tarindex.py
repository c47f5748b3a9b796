"""tarindex against ``tarfile``, entry by entry, on archives that five different writers made."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from imagekit import (
    DIR,
    END,
    FIFO,
    MTIME,
    Device,
    Dir,
    Fifo,
    File,
    Hardlink,
    Member,
    Symlink,
    as_bytes,
    gnu_long,
    header,
    layer,
    member,
    padded,
    pax_header,
    pax_record,
)

from layerlens.errors import InvalidImageError
from layerlens.model import EntryType
from layerlens.tarindex import LayerIndex, TarError, index_file, index_stream

Row = dict[str, Any]

TYPES = {
    tarfile.REGTYPE: EntryType.FILE,
    tarfile.AREGTYPE: EntryType.FILE,
    tarfile.CONTTYPE: EntryType.FILE,
    tarfile.GNUTYPE_SPARSE: EntryType.FILE,
    tarfile.DIRTYPE: EntryType.DIR,
    tarfile.SYMTYPE: EntryType.SYMLINK,
    tarfile.LNKTYPE: EntryType.HARDLINK,
    tarfile.CHRTYPE: EntryType.CHAR,
    tarfile.BLKTYPE: EntryType.BLOCK,
    tarfile.FIFOTYPE: EntryType.FIFO,
}


def normal(name: str) -> str:
    """A member's name as an absolute path held inside the root."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


class GnuAware(tarfile.TarInfo):
    """``tarfile`` takes the times in a GNU header for a prefix of the name; engines do not."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Any:  # type: ignore[override]
        info = super().frombuf(buf, encoding, errors)
        if buf[257:265] == b"ustar  \0" and info.type not in tarfile.GNU_TYPES:
            info.name = buf[:100].partition(b"\0")[0].decode(encoding, errors)
        return info


def reference(data: bytes) -> list[Row]:
    """What ``tarfile`` says of every member."""
    rows = []
    with tarfile.open(
        fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape", tarinfo=GnuAware
    ) as tar:
        for info in tar:
            kind = TYPES[info.type]
            row: Row = {
                "path": normal(info.name),
                "type": kind,
                "size": info.size if kind == EntryType.FILE else 0,
                "mode": info.mode & 0o7777,
                "uid": info.uid,
                "gid": info.gid,
                "mtime": float(info.mtime),
                "start": info.offset,
                "link": None,
                "device": None,
                "xattrs": {
                    key.removeprefix("SCHILY.xattr."): as_bytes(value)
                    for key, value in info.pax_headers.items()
                    if key.startswith("SCHILY.xattr.")
                },
                "sha256": None,
            }
            if kind == EntryType.SYMLINK:
                row["link"] = info.linkname
            elif kind == EntryType.HARDLINK:
                row["link"] = normal(info.linkname)
            elif kind in (EntryType.CHAR, EntryType.BLOCK):
                row["device"] = (info.devmajor, info.devminor)
            elif kind == EntryType.FILE and info.size < 1 << 24:
                content = tar.extractfile(info)
                assert content is not None
                row["sha256"] = hashlib.sha256(content.read()).hexdigest()
            rows.append(row)
    return rows


def content(data: bytes, index: LayerIndex, row: int) -> bytes:
    """A regular file's content by the ranges of the index."""
    offset, size = index.offsets[row], index.sizes[row]
    if row not in index.sparse:
        return data[offset : offset + size]
    whole = bytearray(size)
    for at, length in index.sparse[row]:
        whole[at : at + length] = data[offset : offset + length]
        offset += length
    return bytes(whole)


def rows_of(index: LayerIndex, data: bytes) -> list[Row]:
    """The index's columns as rows like the reference's."""
    columns = (index.types, index.sizes, index.offsets, index.starts, index.owners, index.mtimes, index.crcs)
    assert {len(column) for column in columns} == {len(index.paths)} == {len(index)}
    rows = []
    for number, path in enumerate(index.paths):
        mode, uid, gid = index.owner_table[index.owners[number]]
        kind = EntryType(index.types[number])
        row: Row = {
            "path": path,
            "type": kind,
            "size": index.sizes[number],
            "mode": mode,
            "uid": uid,
            "gid": gid,
            "mtime": index.mtimes[number],
            "start": index.starts[number],
            "link": index.links.get(number),
            "device": index.devices.get(number),
            "xattrs": index.xattrs.get(number, {}),
            "sha256": None,
        }
        if kind == EntryType.FILE and index.sizes[number] < 1 << 24:
            row["sha256"] = hashlib.sha256(content(data, index, number)).hexdigest()
        rows.append(row)
    return rows


def from_file(data: bytes, before: bytes = b"") -> LayerIndex:
    """Indexed where it lies in a file, with something before and behind it."""
    with tempfile.TemporaryFile() as out:
        out.write(before + data + b"\xff" * 700)
        out.flush()
        return index_file(out.fileno(), len(before), len(data))


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.at, self.step = data, 0, step

    def read(self, size: int = -1) -> bytes:
        size = self.step if size < 0 else min(size, self.step)
        piece = self.data[self.at : self.at + size]
        self.at += len(piece)
        return piece


def check(data: bytes) -> LayerIndex:
    """Every way to index ``data`` agrees with the reference; the index, for what a test asks beyond."""
    wanted = reference(data)
    index = from_file(data, before=b"\xee" * 333)
    assert rows_of(index, data) == wanted
    for stream in (io.BytesIO(data), Dribble(data, 1000 + len(data) % 77)):
        streamed = index_stream(stream, lambda path: True)  # type: ignore[arg-type]
        assert rows_of(streamed, data) == wanted
        assert stream.read(1) == b"", "the stream is read to its end, so that digests see all of it"
        for number, row in enumerate(wanted):
            if row["type"] == EntryType.FILE and row["size"]:
                assert streamed.digests[number].hex() == row["sha256"]
            if row["type"] == EntryType.FILE and number not in streamed.sparse:
                assert streamed.contents[number] == content(data, index, number)
    return index


# --- generated archives -----------------------------------------------------------------------------------

NAME = st.one_of(
    st.text("abc", min_size=1, max_size=4),
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20),
    st.integers(90, 300).map(lambda size: "n" * size),
    st.binary(min_size=1, max_size=8)
    .map(lambda raw: os.fsdecode(raw.replace(b"/", b"x").replace(b"\0", b"y")))
    .filter(lambda name: name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") != ""),
).filter(lambda name: not name.startswith(".wh.") and name not in (".", ".."))

PATHS = st.lists(NAME, min_size=1, max_size=6).map("/".join)
NUMBERS = st.one_of(st.integers(0, 2000), st.integers(8**7 - 2, 2**31), st.just(0))
TIMES = st.one_of(st.integers(0, 2**31), st.integers(8**11 - 2, 8**11 + 5), st.integers(-(2**31), -1))
SIZES = st.one_of(st.integers(0, 1100), st.sampled_from([511, 512, 513, 4096, 130_000, 140_000]))
XATTRS = st.dictionaries(
    st.sampled_from(["user.one", "security.capability", "user.zwei"]), st.binary(max_size=40), max_size=2
)


@st.composite
def members(draw: st.DrawFn, xattrs: bool = True) -> Member:
    common: dict[str, Any] = {
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(NUMBERS),
        "gid": draw(NUMBERS),
        "mtime": draw(TIMES),
        "xattrs": draw(XATTRS) if xattrs else {},
    }
    kind = draw(st.sampled_from(["file", "file", "file", "dir", "symlink", "hardlink", "device", "fifo"]))
    match kind:
        case "file":
            size = draw(SIZES)
            return File(data=random.Random(size).randbytes(size), **common)
        case "dir":
            return Dir(**common)
        case "symlink":
            return Symlink(target=draw(PATHS), **common)
        case "hardlink":
            return Hardlink(target=draw(PATHS), **common)
        case "device":
            numbers = st.integers(0, 8**7 - 1)
            pick = draw(st.sampled_from(["char", "block"]))
            return Device(kind=pick, major=draw(numbers), minor=draw(numbers), **common)
        case _:
            return Fifo(**common)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(PATHS, members()), max_size=8),
    st.sampled_from(["pax", "gnu"]),
    st.sampled_from([END, b"", bytes(10240), END + b"trailing \xff data" * 99]),
)
@example([], "pax", END)
@example([("a", File(data=b"x" * 512)), ("a", DIR), ("a", File(data=b""))], "gnu", b"")
def test_generated(pairs: list[tuple[str, Member]], form: Any, end: bytes) -> None:
    if not pairs and end == b"":
        return  # no bytes at all: tarfile calls it unreadable
    check(layer(pairs, form=form, verbatim=True, end=end))


@settings(max_examples=100)
@given(
    st.lists(st.tuples(PATHS, members(xattrs=False)), min_size=1, max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_written_by_tarfile(pairs: list[tuple[str, Member]], form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for path, spec in pairs:
            info = tarfile.TarInfo(path)
            assert not isinstance(spec, bytes)
            info.mode, info.uid, info.gid = spec.mode or 0, spec.uid, spec.gid
            info.mtime = spec.mtime if spec.mtime >= 0 or form != tarfile.USTAR_FORMAT else 0
            if isinstance(spec, File):
                info.size = len(spec.data)
            elif isinstance(spec, Symlink | Hardlink):
                info.type = tarfile.SYMTYPE if isinstance(spec, Symlink) else tarfile.LNKTYPE
                info.linkname = os.fsdecode(as_bytes(spec.target))
            elif isinstance(spec, Device):
                info.type = tarfile.CHRTYPE if spec.kind == "char" else tarfile.BLKTYPE
                info.devmajor, info.devminor = spec.major, spec.minor
            else:
                info.type = tarfile.DIRTYPE if isinstance(spec, Dir) else tarfile.FIFOTYPE
            try:
                tar.addfile(info, io.BytesIO(spec.data) if isinstance(spec, File) else None)
            except ValueError:
                return  # does not fit ustar
    check(out.getvalue())


# --- the formats, one by one ------------------------------------------------------------------------------


def paths(data: bytes) -> list[str]:
    return check(data).paths


def test_ustar_prefix() -> None:
    long = "/".join(["directory"] * 20) + "/file"
    data = layer([(long, File(data=b"x"))], form="ustar", verbatim=True)
    assert data[345] != 0, "the writer used the prefix"
    assert paths(data) == ["/" + long]


def test_gnu_does_not_read_a_prefix() -> None:
    """GNU's magic is ``ustar  ``: bytes 345 on are times, no prefix."""
    block = header(b"name", gnu=True, prefix=b"12345670123\0")
    assert paths(block + END) == ["/name"]


def test_names_of_4096_characters() -> None:
    long = "/".join("d" * 255 for _ in range(16))[:4096]
    for form in ("gnu", "pax"):
        target = {"a": File(data=b"1"), long: Symlink(target=long), long + "x": Hardlink(target=long)}
        index = check(layer(target, form=form, verbatim=True))  # type: ignore[arg-type]
        assert index.paths[1] == "/" + long
        assert index.links == {1: long, 2: "/" + long}


def test_a_path_of_a_megabyte() -> None:
    long = "/".join(["d" * 200] * 5000)
    for form in ("gnu", "pax"):
        assert paths(layer({long: b"x"}, form=form, verbatim=True)) == ["/" + long]  # type: ignore[arg-type]


def test_pax_numbers_and_fractions() -> None:
    records = {
        "size": b"3",
        "uid": b"4000000000",
        "gid": b"99",
        "mtime": b"1234567890.25",
        "path": b"p/\xc3\xa9",
    }
    block = pax_header(records) + header(b"short", size=0) + padded(b"abc")
    index = check(block + END)
    assert index.paths == ["/p/é"]
    assert index.owner_table == [(0o644, 4_000_000_000, 99)]
    assert index.mtimes[0] == 1234567890.25


def test_an_empty_pax_value_takes_an_earlier_one_back() -> None:
    body = pax_record("path", b"first") + pax_record("path", b"")
    block = header(b"x", b"x", size=len(body)) + padded(body) + header(b"plain")
    assert from_file(block + END).paths == ["/plain"]


def test_pax_records_hold_any_bytes() -> None:
    value = b"\0=\n10 path=evil\n\xff"
    index = check(layer({"a": File(data=b"", xattrs={"user.x": value})}))
    assert index.xattrs == {0: {"user.x": value}}


def test_global_headers_are_ignored_as_by_engines() -> None:
    data = pax_header({"path": b"all", "comment": b"git"}, globally=True) + member(b"one", b"1") + END
    assert from_file(data).paths == ["/one"]
    assert index_stream(io.BytesIO(data)).paths == ["/one"]


@pytest.mark.parametrize("value", [8**7, 2**31, 2**55, -1, -(2**40)])
def test_base_256_numbers(value: int) -> None:
    mtime = value
    index = check(header(b"f", uid=max(value, 0), gid=7, mtime=mtime, gnu=True) + END)
    assert index.mtimes[0] == value


def test_signed_checksums_of_historic_tars() -> None:
    block = bytearray(header("ü".encode() * 3))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(byte - 256 if byte > 127 else byte for byte in block) & 0o777777)
    check(bytes(block) + END)


def test_old_tars_without_a_type() -> None:
    """v7: a NUL type is a file, and a directory where the name ends in a slash."""
    data = header(b"dir/", b"\0") + header(b"file", b"\0", size=1) + padded(b"x") + END
    assert check(data).types == bytes([EntryType.DIR, EntryType.FILE])


def test_unknown_types_are_files() -> None:
    data = header(b"odd", b"Z", size=3) + padded(b"abc") + member(b"next", b"n") + END
    index = from_file(data)
    assert (index.paths, list(index.sizes)) == (["/odd", "/next"], [3, 1])


def test_repeated_names_stay_in_order() -> None:
    data = layer([("a", File(data=b"1")), ("b", b"2"), ("a", File(data=b"333"))], verbatim=True)
    index = check(data)
    assert (index.paths, list(index.sizes)) == (["/a", "/b", "/a"], [1, 1, 3])


def test_names_are_normal_and_held_inside_the_root() -> None:
    names = ["./a", "/b", "c//d", "e/./f", "g/../h", "../../i", "j/", "./"]
    data = b"".join(member(name.encode(), DIR if name.endswith("/") else b"") for name in names) + END
    index = check(data)
    assert index.paths == ["/a", "/b", "/c/d", "/e/f", "/h", "/i", "/j", "/"]
    assert index.escapes == ["../../i"]


def test_whiteouts_are_told_apart() -> None:
    data = layer(whiteouts=["/a/gone", "/top"], opaque=["/a", "/"])
    index = from_file(data)
    assert list(zip(index.paths, map(EntryType, index.types), strict=True)) == [
        ("/a", EntryType.OPAQUE),
        ("/", EntryType.OPAQUE),
        ("/a/gone", EntryType.WHITEOUT),
        ("/top", EntryType.WHITEOUT),
    ]


def test_odd_markers_hide_no_real_path() -> None:
    """``.wh.`` bare, and names of aufs's own: nothing below can have such a name, so nothing is hidden."""
    data = layer([("d/.wh.", b""), ("d/.wh..wh..opqX", b""), ("d/.wh..wh.plnk", b"")], verbatim=True)
    index = from_file(data)
    assert all(kind == EntryType.WHITEOUT for kind in index.types)
    assert all(os.path.basename(path).startswith(".wh.") for path in index.paths)


def test_many_entries_cross_every_window_edge() -> None:
    """Payload sizes step so that headers and payloads fall on every offset modulo the window."""
    pairs = [
        (f"f{number}", File(data=bytes([number % 251]) * (number * 37 % 3000))) for number in range(2500)
    ]
    pairs.insert(1200, ("big", File(data=random.Random(1).randbytes(700_000))))
    pairs.insert(700, ("x" * 200, File(data=b"y", xattrs={"user.x": b"v" * 200_000})))
    data = layer(pairs, verbatim=True)
    index = check(data)
    assert len(index) == 2502
    assert index.end == len(data) - len(END)


# --- sparse files -----------------------------------------------------------------------------------------


def sparse_old() -> bytes:
    """GNU's old format with an extension block: 30 pieces of 512 bytes, 1,024 apart."""
    pieces = [(1024 * number, 512) for number in range(30)]
    real = 1024 * 30
    data = b"".join(bytes([65 + number % 26]) * 512 for number in range(30))
    block = bytearray(header(b"sparse", b"S", size=len(data), gnu=True))
    for number, (offset, size) in enumerate(pieces[:4]):
        block[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, size)
    block[482] = 1
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    rest, blocks = pieces[4:], b""
    while rest:
        part, rest = rest[:21], rest[21:]
        body = b"".join(b"%011o\0%011o\0" % piece for piece in part).ljust(504, b"\0")
        blocks += body + (b"\1" if rest else b"\0") + bytes(7)
    return bytes(block) + blocks + data


def sparse_pax(version: str) -> bytes:
    pieces, real = [(0, 3), (5000, 4), (9999, 0)], 10_000
    data = b"abcWXYZ"
    if version == "1.0":
        data = padded(b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)) + data
        records = {
            "GNU.sparse.major": b"1",
            "GNU.sparse.minor": b"0",
            "GNU.sparse.name": b"real/name",
            "GNU.sparse.realsize": b"%d" % real,
        }
        extra = pax_header(records)
    elif version == "0.1":
        records = {
            "GNU.sparse.size": b"%d" % real,
            "GNU.sparse.numblocks": b"3",
            "GNU.sparse.map": b",".join(b"%d,%d" % piece for piece in pieces),
            "GNU.sparse.name": b"real/name",
        }
        extra = pax_header(records)
    else:
        body = pax_record("GNU.sparse.size", b"%d" % real) + pax_record("GNU.sparse.numblocks", b"3")
        for offset, size in pieces:
            body += pax_record("GNU.sparse.offset", b"%d" % offset)
            body += pax_record("GNU.sparse.numbytes", b"%d" % size)
        extra = header(b"x", b"x", size=len(body)) + padded(body)
    return extra + header(b"GNUSparseFile.0/name", size=len(data)) + padded(data)


def test_sparse_old() -> None:
    index = check(sparse_old() + member(b"next", b"after") + END)
    assert (index.paths, list(index.sizes)) == (["/sparse", "/next"], [30 * 1024, 5])


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_pax(version: str) -> None:
    data = sparse_pax(version) + member(b"next", b"after") + END
    if version == "0.0":  # tarfile misreads repeated records up to Python 3.12: the map is checked by hand
        index = from_file(data)
        assert content(data, index, 0) == b"abc" + bytes(4997) + b"WXYZ" + bytes(4996)
        streamed = index_stream(io.BytesIO(data))
        assert streamed.digests[0] == hashlib.sha256(content(data, index, 0)).digest()
    else:
        index = check(data)
    assert list(index.sizes) == [10_000, 5]
    assert index.paths == ["/GNUSparseFile.0/name" if version == "0.0" else "/real/name", "/next"]


# --- archives of other writers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files of every kind that this user may make."""
    root = tmp_path_factory.mktemp("tree") / "t"
    root.mkdir()
    (root / "empty").write_bytes(b"")
    (root / "file").write_bytes(b"content" * 1000)
    (root / "program").write_bytes(b"#!/bin/sh\n")
    (root / "program").chmod(0o4755)
    os.link(root / "file", root / "hard")
    (root / "link").symlink_to("file")
    (root / "dangling").symlink_to("../" * 30 + "n" * 120)
    (root / "caf\u00e9").write_bytes(b"unicode")
    (root / os.fsdecode(b"raw\xff\xfe")).write_bytes(b"not utf-8")
    (root / "line\nbreak").write_bytes(b"newline")
    deep = root.joinpath(*[f"directory-{number:02}" for number in range(15)])
    deep.mkdir(parents=True)
    (deep / ("f" * 120)).write_bytes(b"deep")
    os.link(deep / ("f" * 120), root / "deep-hard")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as out:
        for number in range(40):
            out.seek(number * 65536)
            out.write(b"piece %d" % number)
        out.truncate(40 * 65536 + 12345)
    try:
        os.setxattr(root / "file", "user.note", b"\0binary\xff\n")
    except OSError:
        pass
    if os.geteuid() == 0:
        os.chown(root / "empty", 4_000_000, 3_000_000)
        try:
            os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
        except PermissionError:
            pass
    os.utime(root / "empty", (0, 0))
    os.utime(root / "file", ns=(1_234_567_890_250_000_000,) * 2)
    return root


def written_by(command: list[str], tree: Path) -> bytes:
    done = subprocess.run(command, cwd=tree, capture_output=True, check=False)
    # v7 and ustar cannot hold all: what does not fit is left out with a complaint
    assert len(done.stdout) > 10_000, done.stderr
    return done.stdout


GNU_TAR = [
    ["--format=v7"],
    ["--format=oldgnu"],
    ["--format=gnu"],
    ["--format=gnu", "--sparse"],
    ["--format=ustar"],
    ["--format=posix"],
    ["--format=posix", "--xattrs"],
    ["--format=posix", "--sparse", "--sparse-version=0.1"],
    ["--format=posix", "--sparse", "--sparse-version=1.0"],
    [
        "--format=posix",
        "--sparse",
        "--numeric-owner",
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,comment=hello",
    ],
]


@pytest.mark.parametrize("options", GNU_TAR, ids=" ".join)
def test_written_by_gnu_tar(tree: Path, options: list[str]) -> None:
    if "GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("tar is not GNU tar here")
    data = written_by(["tar", *options, "-cf", "-", "."], tree)
    index = check(data)
    assert "/program" in index.paths
    if "--sparse" in options:
        assert index.sparse, "the archive holds a sparse file"
        row = index.paths.index("/sparse")
        assert content(data, index, row) == (tree / "sparse").read_bytes()


def test_sparse_0_0_written_by_gnu_tar(tree: Path) -> None:
    if "GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("tar is not GNU tar here")
    options = ["--format=posix", "--sparse", "--sparse-version=0.0"]
    data = written_by(["tar", *options, "-cf", "-", "sparse", "file"], tree)
    index = from_file(data)
    assert index.paths == ["/sparse", "/file"]
    assert content(data, index, 0) == (tree / "sparse").read_bytes()
    assert content(data, index, 1) == (tree / "file").read_bytes()


@pytest.mark.parametrize("form", ["v7", "ustar", "pax", "gnutar"])
def test_written_by_bsdtar(tree: Path, form: str) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed (Debian: libarchive-tools)")
    data = written_by(["bsdtar", "--format", form, "-cf", "-", "."], tree)
    assert "/program" in check(data).paths


GO_PROGRAM = r"""
package main

import (
	"archive/tar"
	"os"
	"strings"
	"time"
)

func main() {
	w := tar.NewWriter(os.Stdout)
	put := func(h tar.Header, data string) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			return // this format cannot hold it
		}
		if _, err := w.Write([]byte(data)); err != nil {
			panic(err)
		}
		if err := w.Flush(); err != nil {
			panic(err)
		}
	}
	long := strings.Repeat("directory/", 30)
	then := time.Unix(1234567890, 123456789)
	for _, f := range []tar.Format{tar.FormatUnknown, tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		put(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0755, Format: f}, "")
		put(tar.Header{Name: "plain", Typeflag: tar.TypeReg, Mode: 0644, Format: f}, "hello")
		put(tar.Header{Name: "empty", Typeflag: tar.TypeReg, Mode: 0644, Format: f}, "")
		put(tar.Header{Name: long + "file", Typeflag: tar.TypeReg, Mode: 0600, Format: f}, "deep")
		put(tar.Header{Name: long + strings.Repeat("n", 200), Typeflag: tar.TypeReg, Format: f}, "deeper")
		put(tar.Header{Name: "caf\u00e9", Typeflag: tar.TypeReg, Mode: 0644, Format: f}, "unicode")
		put(tar.Header{Name: "raw\xff", Typeflag: tar.TypeReg, Mode: 0644, Format: f}, "bytes")
		put(tar.Header{Name: "link", Linkname: long + "file", Typeflag: tar.TypeSymlink, Format: f}, "")
		put(tar.Header{Name: "hard", Linkname: "plain", Typeflag: tar.TypeLink, Format: f}, "")
		put(tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Format: f}, "")
		put(tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 300, Format: f}, "")
		put(tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Format: f}, "")
		put(tar.Header{Name: "owner", Typeflag: tar.TypeReg, Uid: 3000000, Gid: 1 << 31, Format: f}, "o")
		put(tar.Header{Name: "early", Typeflag: tar.TypeReg, ModTime: time.Unix(-5, 0), Format: f}, "e")
		put(tar.Header{Name: "late", Typeflag: tar.TypeReg, ModTime: time.Unix(1<<40, 0), Format: f}, "l")
		put(tar.Header{Name: "times", Typeflag: tar.TypeReg, ModTime: then, AccessTime: then, Format: f}, "t")
		put(tar.Header{Name: "xattr", Typeflag: tar.TypeReg, Format: f, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\xff"}}, "x")
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
"""


def test_written_by_go(tmp_path: Path) -> None:
    """The library that every engine writes its layers with."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    (tmp_path / "main.go").write_text(GO_PROGRAM)
    env = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    done = subprocess.run(["go", "run", "main.go"], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    index = check(done.stdout)
    assert len(index) > 50
    assert index.xattrs[index.paths.index("/xattr")] == {"security.capability": b"\1\0\0\2\xff"}


# --- broken archives --------------------------------------------------------------------------------------

BROKEN = layer(
    {
        "/dir/": DIR,
        "/dir/file": File(data=b"f" * 1300),
        "/" + "long" * 60: File(data=b"l" * 70),
        "/x": File(data=b"", xattrs={"user.x": b"v" * 600}),
        "/fifo": FIFO,
        "/hard": Hardlink(target="/dir/file"),
        "/last": File(data=b"z" * 600),
    }
)


def outcome(data: bytes, stream: bool) -> list[Row] | type[Exception]:
    try:
        index = index_stream(io.BytesIO(data)) if stream else from_file(data)
    except InvalidImageError as error:
        assert error.hint
        return TarError
    return rows_of(index, data)


@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
def test_every_truncation_is_noticed(stream: bool) -> None:
    """Cut anywhere: an error, unless the cut falls between entries; never an entry too few in silence."""
    whole = reference(BROKEN)
    index = from_file(BROKEN)
    ends = [index.offsets[row] + index.sizes[row] for row in range(len(index))]
    starts = [*index.starts[1:], index.end]
    for cut in range(0, len(BROKEN) + 1, 1):
        if cut % 7 and cut % 512 and (cut + 1) % 512 and (cut - 1) % 512:
            continue
        got = outcome(BROKEN[:cut], stream)
        complete = sum(end <= cut for end in ends)
        in_padding = any(end <= cut <= start for end, start in zip(ends, starts, strict=True)) or cut == 0
        if in_padding or cut >= index.end:
            if got is TarError:
                assert cut not in starts and cut < len(BROKEN) - len(END) + 512, cut
            else:
                assert got == whole[:complete], cut
        else:
            assert got is TarError, f"cut at {cut} went unnoticed"


@settings(max_examples=300)
@given(st.data())
def test_corruption_ends_in_a_report_or_in_the_one_error(data: st.DataObject) -> None:
    damaged = bytearray(BROKEN)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # make every header's checksum right again, so that the lie is believed
        index = from_file(BROKEN)
        for at in {*index.starts, *(offset - 512 for offset in index.offsets)}:
            damaged[at + 148 : at + 156] = b" " * 8
            damaged[at + 148 : at + 156] = b"%06o\0 " % sum(damaged[at : at + 512])
    one, two = outcome(bytes(damaged), False), outcome(bytes(damaged), True)
    assert one == two


@settings(max_examples=200)
@given(st.binary(max_size=3000))
def test_random_bytes(data: bytes) -> None:
    assert outcome(data, False) == outcome(data, True)


def lying(size: int, *, form: str = "octal") -> bytes:
    if form == "pax":
        return pax_header({"size": b"%d" % size}) + header(b"liar") + padded(b"x" * 100) + END
    return header(b"liar", size=size, gnu=True) + padded(b"x" * 100) + END


HOSTILE = {
    "negative size, base-256": lying(-512),
    "most negative size": lying(-(2**87)),
    "negative size, pax": lying(-512, form="pax"),
    "huge size, octal": header(b"liar", size=8**11 - 1) + END,
    "huge size, base-256": lying(2**62),
    "size beyond 64 bits": lying(2**80),
    "huge size, pax": lying(2**63, form="pax"),
    "size of thousands of digits": pax_header({"size": b"9" * 6000}) + header(b"liar") + END,
    "size that is no number": pax_header({"size": b"many"}) + header(b"liar") + END,
    "uid beyond 64 bits": header(b"liar", uid=2**55 - 1, gnu=True)[:-12] + bytes(11),
    "pax header of a terabyte": header(b"x", b"x", size=2**40, gnu=True) + END,
    "long name of a terabyte": header(b"././@LongLink", b"L", size=2**40, gnu=True) + END,
    "pax record longer than its header": header(b"x", b"x", size=20) + padded(b"9999 path=x\n") + END,
    "pax record without a length": header(b"x", b"x", size=12) + padded(b"path=x\n") + END,
    "pax record of length zero": header(b"x", b"x", size=12) + padded(b"0 path=x\n\n\n\n") + END,
    "pax record without an equals sign": header(b"x", b"x", size=9) + padded(b"9 path+x\n") + END,
    "extension header at the end": pax_header({"path": b"x"}) + END,
    "checksum": header(b"a")[:100] + b"9999999\0" + header(b"a")[108:] + END,
    "sparse map that overlaps": sparse_pax("1.0").replace(b"0\n3\n5000\n4\n", b"0\n9\n0003\n4\n") + END,
    "sparse map with a million pieces": sparse_pax("1.0").replace(b"3\n0\n3", b"3000000000\n0\n3"),
    "sparse map beyond the size": sparse_pax("1.0").replace(b"5000\n4\n", b"50000000\n4\n") + END,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("stream", [False, True], ids=["file", "stream"])
def test_lies_are_refused(name: str, stream: bool) -> None:
    assert outcome(HOSTILE[name], stream) is TarError


def test_errors_say_where() -> None:
    good = member(b"good", b"x" * 1000)
    with pytest.raises(TarError) as caught:
        from_file(good + b"\x01" * 512)
    assert caught.value.offset == len(good)
    assert "1,536" in str(caught.value)


def test_a_gap_between_size_and_file_is_not_read() -> None:
    """The window never reads beyond the range it was given: what follows belongs to somebody else."""
    data = member(b"mine", b"x")
    with tempfile.TemporaryFile() as out:
        out.write(data + member(b"not-mine", b"y"))
        out.flush()
        assert index_file(out.fileno(), 0, len(data)).paths == ["/mine"]


def test_devices_and_times_survive() -> None:
    data = layer(
        {"/dev/a": Device(kind="block", major=259, minor=70000, mode=0o1660), "/f": Fifo(mtime=MTIME - 1)}
    )
    index = check(data)
    assert index.devices == {0: (259, 70000)}
    assert index.mtimes[1] == MTIME - 1


def test_long_names_of_both_kinds_for_one_entry() -> None:
    data = (
        gnu_long(b"t" * 300, b"K")
        + gnu_long(b"n" * 300, b"L")
        + header(b"n" * 100, b"2", linkname=b"t" * 100)
    )
    index = check(data + END)
    assert (index.paths, index.links) == (["/" + "n" * 300], {0: "t" * 300})


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b/é"], [b"\xff\xfe", "b"]])
def test_an_index_is_pickled_whole(names: list[str | bytes]) -> None:
    index = index_stream(io.BytesIO(layer(dict.fromkeys(names, b"x"))))
    assert pickle.loads(pickle.dumps(index)) == index


def test_an_index_of_forged_names_is_pickled_whole() -> None:
    """A name with a zero byte in it can come of a pax record alone."""
    index = index_stream(io.BytesIO(layer({"a": b"", "b": b""})))
    index.paths[0] = "/a\0/c"
    assert pickle.loads(pickle.dumps(index)) == index
