"""Digests of an archive's members as it passes, against hashlib over what tarfile finds in it."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from typing import cast

import imagekit
import pytest

from layerlens.errors import DigestMismatchError
from layerlens.layers import close_layers, open_layers
from layerlens.sources import membersums
from layerlens.sources.docker_archive import open_archive
from layerlens.sources.membersums import Following, MemberDigests
from layerlens.sources.opening import open_source
from layerlens.sources.spool import Spool, spool

DATA = random.Random(5).randbytes(300_000)
GZIPPED = gzip.compress(DATA)
SIZES = [0, 1, 511, 512, 1023, 1024, 1025, 4096, 70_001, len(DATA)]


def archive(tar_format: int, name: str = "member") -> bytes:
    """A tar with files of ``SIZES``, a directory, links, and a file that is compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
        for number, size in enumerate(SIZES):
            member = tarfile.TarInfo(f"{name}-{number}")
            member.size = size
            tar.addfile(member, io.BytesIO(DATA[:size]))
            for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
                other = tarfile.TarInfo(f"{name}-{number}-{kind.decode()}")
                other.type = kind
                other.linkname = f"{name}-0" if kind != tarfile.DIRTYPE else ""
                tar.addfile(other)
        member = tarfile.TarInfo("compressed")
        member.size = len(GZIPPED)
        tar.addfile(member, io.BytesIO(GZIPPED))
        tar.addfile(_sized("last", 2000), io.BytesIO(DATA[:2000]))
    return file.getvalue()


def _sized(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def expected(data: bytes) -> dict[tuple[int, int], str]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = data[member.offset_data : member.offset_data + member.size]
            if member.isreg() and member.size >= 1024 and content != GZIPPED:
                digest = hashlib.sha256(content).hexdigest()
                found[member.offset_data, member.size] = f"sha256:{digest}"
    return found


def fed(data: bytes, lengths: random.Random | int) -> dict[tuple[int, int], str]:
    digests, at = MemberDigests(), 0
    while at < len(data):
        size = lengths if isinstance(lengths, int) else lengths.choice([1, 3, 100, 511, 512, 5000, 1 << 20])
        digests.feed(memoryview(data)[at : at + size])
        at += size
    return digests.found


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["member", "long/" * 18 + "name", "längere/" * 9 + "ü"])
@pytest.mark.parametrize("lengths", [1 << 20, 512, 7, None])
def test_they_are_those_of_tarfile_and_hashlib(tar_format: int, name: str, lengths: int | None) -> None:
    data = archive(tar_format, name)
    assert len(expected(data)) == 6
    found = fed(data, lengths or random.Random(len(name)))
    compressed = {at: digest for at, digest in found.items() if at[1] == len(GZIPPED)}
    if lengths is not None and lengths >= 512:
        assert compressed == {}  # it is hashed when it is inflated, and told by its first bytes
    assert {at: digest for at, digest in found.items() if at not in compressed} == expected(data)


def test_sizes_in_base_256() -> None:
    """GNU's way to write what eleven octal digits do not hold; smaller numbers may be written so too."""
    header = bytearray(_sized("big", 5000).tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + (5000).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + DATA[:5000] + bytes(120) + bytes(1024)
    assert fed(data, 999) == {(512, 5000): f"sha256:{hashlib.sha256(DATA[:5000]).hexdigest()}"}


@pytest.mark.parametrize("data", [b"", b"x", DATA, GZIPPED, bytes(5000), archive(tarfile.GNU_FORMAT)[100:]])
def test_what_is_no_archive_has_no_members(data: bytes) -> None:
    assert fed(data, 1000) == {}


def test_whatever_is_said_is_true() -> None:
    """Damage may hide members and make up others, but a digest is that of the bytes it names."""
    whole, lengths = archive(tarfile.PAX_FORMAT), random.Random(9)
    starts = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    said = 0
    for _ in range(150):
        data = bytearray(whole[: lengths.randrange(len(whole))] if lengths.random() < 0.2 else whole)
        start = lengths.choice(starts)
        if start + 512 <= len(data):
            data[start + 124 : start + 136] = b"%011o\0" % lengths.choice([0, 5, 1024, 4096, 1 << 30])
            data[start + 156] = lengths.choice(b"\x00012567gLxS")
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        for (offset, size), digest in fed(bytes(data), lengths).items():
            content = data[offset : offset + size]
            assert len(content) == size
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            said += 1
    assert said > 300


def test_the_number_of_headers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membersums, "_MOST_HEADERS", 33)
    data = archive(tarfile.USTAR_FORMAT)
    assert 0 < len(fed(data, 1 << 20)) < len(expected(data))


# --- spooled ----------------------------------------------------------------------------------------------


def test_a_spooled_archive_has_them() -> None:
    data = archive(tarfile.PAX_FORMAT) + bytes(9 << 20)
    with spool(io.BytesIO(data), following=Following()) as file:
        assert cast("Spool", file).digests == expected(data)
        assert file.read() == data
    with spool(io.BytesIO(data)) as file:
        assert cast("Spool", file).digests == {}


def test_more_than_the_buffers_hold() -> None:
    content = random.Random(1).randbytes(1 << 20) * 25
    data = imagekit.tar_of([("layer.tar", imagekit.File(data=content))])
    with spool(io.BytesIO(data), following=Following()) as file:
        found = cast("Spool", file).digests
        assert set(found.values()) == {f"sha256:{hashlib.sha256(content).hexdigest()}"}
        assert file.read() == data


def test_what_reading_raises_passes_and_the_thread_ends() -> None:
    class Breaking(io.RawIOBase):
        def readinto(self, _: object) -> int:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        spool(cast("io.BufferedReader", Breaking()), following=Following())
    import threading

    assert not [one for one in threading.enumerate() if one.name == "layerlens-members"]


def test_a_hash_that_fails_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(MemberDigests, "_hashed", fail)
    following = Following()
    for start in range(0, 40 << 20, 1 << 20):
        buffer = following.buffer()
        data = archive(tarfile.USTAR_FORMAT)[:1000] if start else archive(tarfile.USTAR_FORMAT)
        buffer[: len(data)] = data
        following.passed(buffer[: len(data)], buffer)
    assert following.finish() == {}


@pytest.mark.parametrize("make", [imagekit.docker_archive_old, imagekit.docker_archive_25])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_uncompressed_layers_of_a_stream_are_hashed_on_the_way(
    make: object, compression: imagekit.Compression
) -> None:
    kit = imagekit.sample()
    packed = imagekit.compress(imagekit.tar_of(make(kit)), compression)  # type: ignore[operator]
    source = open_source("-", stdin=io.BytesIO(packed))
    try:
        ranges = [layer.stored_range() for layer in source.layers]
        assert [at.sha256 for at in ranges if at is not None] == kit.diff_ids
        opened = open_layers(source.layers)
        for layer, tar in zip(opened, kit.layers, strict=True):
            assert layer.pread(0, len(tar)) == tar
        close_layers(opened)
    finally:
        source.close()


def test_a_stream_whose_layers_are_not_what_the_config_lists() -> None:
    kit = imagekit.image([imagekit.layer({"/a": b"first" * 300}), imagekit.layer({"/b": b"second" * 300})])
    data = imagekit.tar_of(imagekit.docker_archive_old(kit))
    assert data.count(b"second" * 300) == 1
    file = spool(io.BytesIO(data.replace(b"secondsecond", b"secondSecond", 1)), following=Following())
    source = open_archive(file, "-", streamed=True)
    try:
        with pytest.raises(DigestMismatchError) as caught:
            open_layers(source.layers)
        assert kit.diff_ids[-1] in str(caught.value)
    finally:
        source.close()
