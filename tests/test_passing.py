"""Hashing what passes by: which files get a digest, and that it is theirs; whatever the pieces they come in."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from blake3 import blake3
from imagekit import layer

from layerlens.layers import open_layers
from layerlens.model import DiffId, Digest
from layerlens.passing import Inline, Lane, Passed, Sizes, buffers, settle
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


def indexed(tar: bytes, sizes: Sizes, length: int) -> LayerIndex:
    """The tar in pieces of ``length`` bytes, each in the buffer of the one before."""
    buffer = bytearray(length)

    def chunks() -> Iterator[memoryview]:
        for at in range(0, len(tar), length):
            piece = tar[at : at + length]
            buffer[:] = piece.ljust(length, b"?")
            yield memoryview(buffer)[: len(piece)]

    return index_chunks(chunks(), seen=sizes.seen)


@pytest.mark.parametrize("length", [SMALL * 4, SMALL * 4 + 7, 100_000, 1 << 20])
def test_large_files_have_a_digest_exactly_where_they_may_have_an_equal(length: int) -> None:
    big, same_size, alone = noise(1, 70_001), noise(2, 70_001), noise(3, 250_000)
    tars = [
        layer({"/a": big, "/small": b"x", "/b": big, "/alone": alone}),
        layer({"/c": same_size, "/d": noise(4, SMALL + 1), "/e": big, "/f": same_size}),
    ]
    sizes = Sizes()
    indexes = [indexed(tar, sizes, length) for tar in tars]
    settle(indexes)
    digests: dict[str, bytes] = {}
    contents: dict[str, bytes] = {}
    for tar, index in zip(tars, indexes, strict=True):
        assert index.prints == {}
        for row, path in enumerate(index.paths):
            contents[path] = tar[index.offsets[row] : index.offsets[row] + index.sizes[row]]
        digests |= {index.paths[row]: digest for row, digest in index.digests.items()}
    assert digests == {
        path: hashlib.sha256(contents[path]).digest() for path in ("/a", "/b", "/c", "/e", "/f", "/small")
    }


def test_a_first_file_that_has_no_equal_gets_no_digest() -> None:
    one, other = noise(1, 40_000), noise(2, 40_000)
    index = indexed(layer({"/one": one, "/other": other}), Sizes(), SMALL * 4)
    assert index.prints == {0: blake3(one).digest(), 1: blake3(other).digest()}
    settle([index])
    assert index.digests == {1: hashlib.sha256(other).digest()}
    assert index.crcs[0] != index.crcs[1]


def test_a_size_is_seen_once_it_was_asked_for() -> None:
    sizes = Sizes()
    assert [sizes.seen(size) for size in (5, 6, 5, 1 << 40, 6, 1 << 40)] == [False] * 2 + [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_and_its_parent_see_the_sizes_of_each_other() -> None:
    sizes = Sizes()
    sizes.seen(1)
    child = os.fork()
    if child == 0:
        os._exit(sizes.seen(1) and not sizes.seen(2) and not sizes.seen(3))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert [sizes.seen(size) for size in (1, 2, 4, 3)] == [True, True, False, True]


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


@pytest.mark.parametrize("kind", [Lane, Inline])
def test_what_is_read_through_is_consumed_in_order_and_counted(kind: type[Lane | Inline]) -> None:
    data, counted = noise(1, 1_000_003), []
    digest = hashlib.sha256()
    with kind() as lane:
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
