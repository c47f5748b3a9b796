"""Spools and inflated streams: whole, damaged, cut off, and without room."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import imagekit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlens.errors import InvalidImageError, SourceError, SpoolError
from layerlens.sources import spool as spool_module
from layerlens.sources.spool import compression_of, open_inflated, seekable_plain, spool, spool_folder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = bytes(random.Random(7).choices(b"abcd", k=3000))
CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
GZIP = gzip.compress(DATA, mtime=0)
ZSTD = zstd.compress(DATA, options=CHECKED)
SKIPPABLE = imagekit.skippable(b"table of contents")


def inflate(data: bytes) -> bytes:
    return open_inflated(io.BytesIO(data)).read()


# --- inflating --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "compression", "times"),
    [
        (DATA, "none", 1),
        (GZIP, "gzip", 1),
        (GZIP * 3, "gzip", 3),
        (GZIP + bytes(700), "gzip", 1),
        (gzip.compress(b"") + GZIP, "gzip", 1),
        (ZSTD, "zstd", 1),
        (ZSTD * 3, "zstd", 3),
        (SKIPPABLE + ZSTD, "zstd", 1),
        (ZSTD + SKIPPABLE + ZSTD + SKIPPABLE, "zstd", 2),
        (zstd.compress(b"") + ZSTD, "zstd", 1),
        (SKIPPABLE, "zstd", 0),
    ],
)
def test_what_was_compressed_comes_out(stream: bytes, compression: str, times: int) -> None:
    reader = cast("Any", open_inflated(io.BytesIO(stream)))
    assert reader.compression == compression
    assert reader.read() == DATA * times
    assert reader.position == len(DATA) * times
    assert reader.compressed_position == len(stream)
    assert reader.read() == b"" and reader.read(10) == b"" and reader.readinto(bytearray(4)) == 0


@pytest.mark.parametrize("how", ["none", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-chunked"])
def test_every_compression_of_layers(how: imagekit.Compression) -> None:
    data = random.Random(1).randbytes(70_000) + bytes(1_500_000)
    assert inflate(imagekit.compress(data, how)) == data


@given(
    data=st.binary(max_size=5000),
    how=st.sampled_from(["none", "gzip", "gzip-members", "zstd", "zstd-frames"]),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    pieces=st.integers(1, 700),
)
def test_reads_of_any_size_from_streams_in_pieces_of_any_size(
    data: bytes, how: imagekit.Compression, sizes: list[int], pieces: int
) -> None:
    if how == "none" and data[:4]:
        data = b"\0" + data  # not by chance a magic number
    reader = open_inflated(cast("BinaryIO", InPieces(imagekit.compress(data, how), pieces)))
    got = b""
    turn = 0
    while piece := reader.read(sizes[turn % len(sizes)]):
        assert len(piece) == sizes[turn % len(sizes)] or len(got) + len(piece) == len(data)
        got += piece
        turn += 1
    assert got == data


class InPieces:
    """A stream that has no readinto and never gives more than ``most`` bytes, as a pipe or a socket may."""

    def __init__(self, data: bytes, most: int) -> None:
        self.below = io.BytesIO(data)
        self.most = most

    def read(self, size: int = -1) -> bytes:
        return self.below.read(self.most if size < 0 else min(size, self.most))

    def close(self) -> None:
        self.below.close()


def lengths(stream: bytes) -> Iterator[bytes]:
    """``stream`` cut off at every byte behind its magic number."""
    return (stream[:length] for length in range(4, len(stream)))


@pytest.mark.parametrize("whole", [GZIP, ZSTD, SKIPPABLE], ids=["gzip", "zstd", "skippable"])
def test_a_stream_cut_off_anywhere_is_an_error(whole: bytes) -> None:
    for cut in lengths(whole):
        with pytest.raises(
            InvalidImageError, match=r"ends early, after byte [\d,]+|damaged near byte"
        ) as caught:
            inflate(cut)
        assert caught.value.hint


@pytest.mark.parametrize("whole", [GZIP, ZSTD], ids=["gzip", "zstd"])
def test_so_is_one_cut_off_in_its_second_part(whole: bytes) -> None:
    for length in range(1, len(whole)):
        with pytest.raises(InvalidImageError):
            inflate(whole + whole[:length])


@pytest.mark.parametrize("whole", [GZIP, ZSTD], ids=["gzip", "zstd"])
def test_no_flipped_bit_changes_what_comes_out(whole: bytes) -> None:
    """A few bits mean nothing (gzip's header, codes that are never used); all others are noticed."""
    noticed = 0
    for index in range(4, len(whole)):
        flipped = bytearray(whole)
        flipped[index] ^= 0x10
        try:
            got = inflate(bytes(flipped))
        except InvalidImageError:
            noticed += 1
        else:
            assert got == DATA
    assert noticed > 0.98 * len(whole)


@pytest.mark.parametrize("whole", [GZIP, ZSTD], ids=["gzip", "zstd"])
def test_something_else_behind_the_end_is_an_error(whole: bytes) -> None:
    for rest in (b"x", b"GARBAGE" * 9, random.Random(3).randbytes(5000)):
        with pytest.raises(InvalidImageError):
            inflate(whole + rest)


def test_the_offset_and_the_name_are_in_the_error() -> None:
    broken = bytearray(gzip.compress(random.Random(5).randbytes(5_000_000), mtime=0))
    broken[-6] ^= 1
    with pytest.raises(InvalidImageError, match=r"layer 3: gzip stream damaged near byte 5,\d\d\d,\d\d\d"):
        open_inflated(io.BytesIO(broken), what="layer 3").read()


@pytest.mark.parametrize(
    ("magic", "name"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0\0", "xz"), (b"LZIP\1", "lzip")]
)
def test_other_compressions_are_named(magic: bytes, name: str) -> None:
    with pytest.raises(InvalidImageError, match=rf"it: compressed with {name}"):
        open_inflated(io.BytesIO(magic), what="it")


def test_compression_is_told_by_content_alone() -> None:
    assert compression_of(b"") == "none"
    assert compression_of(b"\x1f\x8b") == "none"  # too short to be a gzip stream
    assert compression_of(b"\x5f\x2a\x4d\x18") == "zstd"
    assert compression_of(b"ustar") == "none"


def test_errors_of_the_stream_below_pass() -> None:
    class Broken(io.RawIOBase):
        first = True

        def readinto(self, view: Any) -> int:
            if not self.first:
                raise OSError(errno.EIO, "Input/output error")
            self.first = False
            view[:6] = GZIP[:6]
            return 6

    with pytest.raises(OSError, match="Input/output error"):
        open_inflated(cast("BinaryIO", Broken())).read()


def test_closing_closes_the_stream_below() -> None:
    below = io.BytesIO(GZIP)
    open_inflated(below).close()
    assert below.closed


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_bomb_is_inflated_within_bounded_memory(how: imagekit.Compression, tmp_path: Path) -> None:
    """A quarter of a gigabyte of zeros, spooled: neither memory nor disk is asked for it."""
    bomb = 256 * imagekit.compress(bytes(1 << 20), how)
    assert len(bomb) < 2_000_000
    (tmp_path / "bomb").write_bytes(bomb)
    program = (
        "import resource, os, sys\n"
        "from layerlens.sources.spool import seekable_plain\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"file = seekable_plain(open({str(tmp_path / 'bomb')!r}, 'rb'))\n"
        "state = os.fstat(file.fileno())\n"
        "print(state.st_size, state.st_blocks * 512, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    size, on_disk, grown_kib = map(int, done.stdout.split())
    assert size == 1 << 28
    assert on_disk < 1 << 20
    assert grown_kib < 40_000


# --- spooling ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("nameless", [True, False], ids=["O_TMPFILE", "unlinked"])
@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 1, 3_000_000])
def test_a_spool_holds_the_stream_and_has_no_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: int, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    with spool(io.BytesIO(data)) as file:
        assert file.tell() == 0
        assert file.read() == data
        assert os.fstat(file.fileno()).st_size == size
        assert os.pread(file.fileno(), 10, 0) == data[:10]
        assert os.fstat(file.fileno()).st_nlink == 0
        assert list(folder.iterdir()) == []


def test_filesystems_without_nameless_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    with spool(io.BytesIO(DATA)) as file:
        assert file.read() == DATA
    assert list(folder.iterdir()) == []


def test_progress_is_told(folder: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    data = bytes(2_500_000)
    spool(io.BytesIO(data), progress=lambda *said: told.append(said), expected=9, what="export").close()
    assert told[-1] == ("export", len(data), 9)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_nothing_is_left_of_a_killed_process(folder: Path) -> None:
    """SIGKILL in mid-spool: no handler runs, and still no file and no space is left."""
    program = (
        "import sys\n"
        "from layerlens.sources.spool import spool\n"
        "spool(sys.stdin.buffer, progress=lambda *_: (sys.stdout.write('x'), sys.stdout.flush()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(os.urandom(3 << 20))
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    process.stdin.close()
    process.stdout.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_when_interrupted(folder: Path, error: type[BaseException]) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def interrupt(*_: object) -> None:
        raise error

    with pytest.raises(error):
        spool(io.BytesIO(bytes(100)), progress=interrupt)
    assert list(folder.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_room_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real limit, in its own process: the kernel refuses the write as it would on a full disk."""
    program = (
        "import sys, io, resource, os\n"
        "from layerlens.errors import SpoolError\n"
        "from layerlens.sources.spool import spool\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "try:\n"
        "    spool(io.BytesIO(os.urandom(5_000_000)), expected=5_000_000, what='exporting app')\n"
        "except SpoolError as error:\n"
        "    print(error)\n"
        "    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, hint = done.stdout.splitlines()
    assert said.startswith(f"exporting app: cannot write to {folder}: ")
    assert "5,000,000 bytes needed" in said and "are free" in said
    assert "TMPDIR" in hint
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from the kernel itself, through the device that is always full."""
    monkeypatch.setattr(spool_module, "_nameless_file", lambda _folder: os.open("/dev/full", os.O_RDWR))
    with pytest.raises(SpoolError, match=r"no space left \(more than \d.* bytes needed"):
        spool(io.BytesIO(os.urandom(5000)))


@pytest.mark.parametrize(("number", "words"), [(errno.EROFS, "read-only"), (errno.EDQUOT, "quota")])
def test_read_only_folder_and_quota(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_args: Any, **_more: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SpoolError, match=words) as caught:
        spool(io.BytesIO(DATA))
    assert str(folder) in str(caught.value) and "TMPDIR" in caught.value.hint


def test_a_tmpdir_that_is_missing_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, words in (("missing", "does not exist"), ("file", "not a folder")):
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        with pytest.raises(SpoolError, match=words):
            spool(io.BytesIO(DATA))


def test_the_default_folder_is_not_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    assert spool_folder() == Path("/var/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert spool_folder() == Path(tempfile.gettempdir())


def test_what_reading_raises_passes(folder: Path) -> None:
    class Broken(io.RawIOBase):
        def readinto(self, _view: Any) -> int:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        spool(cast("BinaryIO", Broken()))
    assert list(folder.iterdir()) == []


# --- any stream as a plain file ---------------------------------------------------------------------------


def test_a_plain_file_is_used_as_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(DATA)
    stream = (tmp_path / "plain").open("rb", buffering=0)
    assert seekable_plain(cast("BinaryIO", stream)) is stream
    stream.close()


@pytest.mark.parametrize("packed", [GZIP, ZSTD, SKIPPABLE + ZSTD])
def test_a_compressed_file_is_inflated_into_a_spool(folder: Path, tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "packed").write_bytes(packed)
    told: list[tuple[str, int, int | None]] = []
    stream = (tmp_path / "packed").open("rb")
    with seekable_plain(stream, progress=lambda *said: told.append(said), what="reading it") as file:
        assert os.pread(file.fileno(), 10_000, 0) == DATA
    assert stream.closed
    assert told[-1] == ("reading it", len(packed), len(packed))


@pytest.mark.parametrize("sent", [DATA, GZIP, ZSTD, b""])
def test_a_pipe_is_spooled(folder: Path, sent: bytes) -> None:
    read_end, write_end = os.pipe()

    def send() -> None:
        os.write(write_end, sent)
        os.close(write_end)

    thread = threading.Thread(target=send)
    thread.start()
    with seekable_plain(os.fdopen(read_end, "rb", buffering=0)) as file:  # type: ignore[arg-type]
        assert os.pread(file.fileno(), 10_000, 0) == (DATA if sent else b"")
    thread.join()


def test_a_file_read_in_part_goes_on_where_it_stands(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"head" + GZIP)
    stream = (tmp_path / "file").open("rb", buffering=0)
    stream.read(4)
    with seekable_plain(cast("BinaryIO", stream)) as file:
        assert file.read() == DATA


def test_a_damaged_file_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(GZIP[:-9])
    stream = (tmp_path / "packed").open("rb")
    with pytest.raises(InvalidImageError, match=r"app\.tar\.gz: gzip stream ends early"):
        seekable_plain(stream, name="app.tar.gz")
    assert stream.closed
    assert list(folder.iterdir()) == []


def test_a_disk_that_fails_while_reading(folder: Path) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _view: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(SourceError, match="cannot read the pipe: Input/output error"):
        seekable_plain(cast("BinaryIO", Broken()), name="the pipe")


def test_memory_stays_bounded_while_spooling(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    class Endless(io.RawIOBase):
        left = 200 << 20

        def readinto(self, view: Any) -> int:
            count = min(len(view), self.left)
            view[:count] = b"\1" * count
            self.left -= count
            return count

    spool(cast("BinaryIO", Endless())).close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
