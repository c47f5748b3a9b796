"""Hashing what passes by: which files get a digest, and that it is theirs; the tar's own, whatever its pieces."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from collections import Counter

import pytest
from imagekit import layer

from layerlens import passing
from layerlens.layers import open_layers
from layerlens.model import DiffId, Digest
from layerlens.passing import Firsts, Lane, Passed, TarHash, buffers
from layerlens.sources import SourceLayer
from layerlens.tarindex import SMALL, LayerIndex, index_chunks


def gzipped(tar: bytes) -> SourceLayer:
    blob = gzip.compress(tar, 1)
    return SourceLayer(
        diff_id=DiffId("sha256:" + hashlib.sha256(tar).hexdigest()),
        media_type="",
        compressed_bytes=len(blob),
        digest=Digest("sha256:" + hashlib.sha256(blob).hexdigest()),
        open=lambda: io.BytesIO(blob),
    )


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def indexed(tar: bytes, firsts: Firsts, size: int) -> tuple[LayerIndex, TarHash]:
    """The tar in pieces of ``size`` bytes, each hashed when the one after it was looked at."""
    hashing = TarHash(firsts)

    def pieces() -> list[memoryview]:
        return [memoryview(tar)[at : at + size] for at in range(0, len(tar), size)]

    def chunks():  # type: ignore[no-untyped-def]
        before = None
        for piece in pieces():
            yield piece
            if before is not None:
                hashing.update(before)
            before = piece
        if before is not None:
            hashing.update(before)

    index = index_chunks(chunks(), expect=hashing.expect)
    return index, hashing


@pytest.mark.parametrize("size", [SMALL * 4, SMALL * 4 + 7, 100_000, 1 << 20])
def test_large_files_have_a_digest_exactly_where_they_may_have_an_equal(size: int) -> None:
    big, same_size, alone = noise(1, 70_001), noise(2, 70_001), noise(3, 250_000)
    tars = [
        layer({"/a": big, "/small": b"x", "/b": big, "/alone": alone}),
        layer({"/c": same_size, "/d": noise(4, SMALL + 1), "/e": big, "/f": same_size}),
    ]
    firsts = Firsts()
    digests: dict[str, bytes] = {}
    contents: dict[str, bytes] = {}
    for tar in tars:
        index, hashing = indexed(tar, firsts, size)
        assert hashing.hexdigest() == hashlib.sha256(tar).hexdigest()
        for row, path in enumerate(index.paths):
            contents[path] = tar[index.offsets[row] : index.offsets[row] + index.sizes[row]]
        firsts.settle()
        digests |= {index.paths[row]: digest for row, digest in (index.digests | hashing.digests).items()}
    assert digests == {
        path: hashlib.sha256(contents[path]).digest() for path in ("/a", "/b", "/c", "/e", "/f", "/small")
    }


def test_a_first_file_that_has_no_equal_gets_no_digest() -> None:
    one, other = noise(1, 40_000), noise(2, 40_000)
    firsts = Firsts()
    index, hashing = indexed(layer({"/one": one, "/other": other}), firsts, SMALL * 4)
    firsts.settle()
    assert hashing.digests == {1: hashlib.sha256(other).digest()}
    assert index.crcs[0] != index.crcs[1]


def test_beyond_so_many_sizes_every_file_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "MAX_FIRSTS", 1)
    contents = {f"/{size}": noise(size, SMALL + size) for size in (1, 2, 3)}
    _, hashing = indexed(layer(contents), Firsts(), SMALL * 4)
    assert hashing.digests == {
        row: hashlib.sha256(data).digest() for row, data in enumerate(contents.values()) if row
    }


def test_a_file_that_is_announced_too_late_has_no_digest_and_the_tar_has_its_own() -> None:
    hashing = TarHash(Firsts())
    data = memoryview(noise(1, 3000))
    hashing.update(data[:1000])
    hashing.expect(0, 500, 1000)
    hashing.update(data[1000:])
    assert hashing.digests == {}
    assert hashing.hexdigest() == hashlib.sha256(data).hexdigest()


def test_equal_files_of_layers_that_pass_by_at_once_are_found() -> None:
    shared = {f"/shared/{size}": noise(size, size) for size in (SMALL + 1, 100_000, 600_000, 2_000_000)}
    tars = [
        layer({f"/{number}/own": noise(number, 300_000 + number)} | dict(shared.items()))
        for number in range(4)
    ]
    opened = open_layers([gzipped(tar) for tar in tars])
    found: Counter[bytes] = Counter()
    for one in opened:
        for row, digest in one.index.digests.items():
            data = one.pread(one.index.offsets[row], one.index.sizes[row])
            assert hashlib.sha256(data).digest() == digest
            found[digest] += 1
        one.close()
    assert found == {hashlib.sha256(data).digest(): 4 for data in shared.values()}


def test_what_is_read_through_is_consumed_in_order_and_counted() -> None:
    data, counted = noise(1, 1_000_003), []
    digest = hashlib.sha256()
    with Lane() as lane:
        stream = Passed(io.BytesIO(data), lane, digest.update, counted.append)
        taken = bytearray(333_333)
        assert stream.readinto(taken) and data.startswith(taken[: counted[0]])
        stream.drain()
    assert sum(counted) == len(data)
    assert digest.digest() == hashlib.sha256(data).digest()


def test_where_consuming_fails_buffers_still_come_back_and_the_error_is_raised() -> None:
    consumed = []

    def fail(piece: memoryview) -> None:
        consumed.append(len(piece))
        raise ValueError("no")

    pool = buffers(1, 10)
    lane = Lane()
    for _ in range(3):
        lane.put(fail, pool.get(), 10, pool)
    with pytest.raises(ValueError, match="no"):
        lane.join()
    assert consumed == [10]
