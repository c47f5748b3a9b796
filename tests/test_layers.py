"""Opened layers: what is verified, what is read again, and what is told when it is wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from imagekit import DIR, compress, layer

from layerlens import layers
from layerlens.errors import DigestMismatchError, InvalidImageError
from layerlens.layers import Layer, open_layers
from layerlens.model import DiffId, Digest
from layerlens.sources import FileRange, SourceLayer

TAR = layer({"/etc/": DIR, "/etc/motd": b"hello", "/big": bytes(range(256)) * 4096})


def source(
    blob: bytes,
    *,
    tar: bytes = TAR,
    digest: str | None = None,
    file: Path | None = None,
    streamed: bool = False,
) -> SourceLayer:
    known = None
    if file is not None:
        file.write_bytes(b"front" + blob + b"back")
        known = FileRange(os.open(file, os.O_RDONLY), 5, len(blob))
    return SourceLayer(
        diff_id=DiffId("sha256:" + hashlib.sha256(tar).hexdigest()),
        media_type="",
        compressed_bytes=len(blob),
        digest=Digest(digest or "sha256:" + hashlib.sha256(blob).hexdigest()),
        open=lambda: io.BytesIO(blob),
        file_range=known,
        streamed=streamed,
    )


@pytest.mark.parametrize("how", ["none", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-chunked"])
def test_every_compression_gives_the_same_index_and_bytes(how: str) -> None:
    (plain,) = open_layers([source(TAR)])
    (opened,) = open_layers([source(compress(TAR, how))])  # type: ignore[arg-type]
    assert opened.index.paths == plain.index.paths
    assert opened.index.offsets == plain.index.offsets
    assert opened.pread(0, len(TAR)) == TAR
    row = opened.index.paths.index("/etc/motd")
    assert opened.index.digests[row] == hashlib.sha256(b"hello").digest()
    opened.close()


def test_wanted_contents_are_kept_while_inflating() -> None:
    (opened,) = open_layers([source(gzip.compress(TAR))], lambda path: path == "/etc/motd")
    assert list(opened.index.contents.values()) == [b"hello"]


def test_a_wrong_blob_digest_names_both() -> None:
    wrong = "sha256:" + "0" * 64
    blob = gzip.compress(TAR)
    with pytest.raises(DigestMismatchError) as caught:
        open_layers([source(blob, digest=wrong)])
    assert wrong in str(caught.value)
    assert hashlib.sha256(blob).hexdigest() in str(caught.value)


def test_a_wrong_diff_id_names_both() -> None:
    with pytest.raises(DigestMismatchError) as caught:
        open_layers([source(gzip.compress(TAR), tar=b"another")])
    assert hashlib.sha256(b"another").hexdigest() in str(caught.value)
    assert hashlib.sha256(TAR).hexdigest() in str(caught.value)


@pytest.mark.parametrize(("verify", "streamed"), [(True, False), (False, True)])
def test_uncompressed_layers_are_hashed_when_asked_or_streamed(
    tmp_path: Path, verify: bool, streamed: bool
) -> None:
    honest = source(TAR, file=tmp_path / "honest", streamed=streamed)
    assert len(open_layers([honest], verify=verify)[0].index) == 3
    lying = source(TAR, tar=b"another", file=tmp_path / "lying", streamed=streamed)
    with pytest.raises(DigestMismatchError):
        open_layers([lying], verify=verify)


def test_what_was_hashed_when_it_came_in_is_not_read_again(tmp_path: Path) -> None:
    honest = source(TAR, file=tmp_path / "honest", streamed=True)
    changed = source(TAR.replace(b"hello", b"jello"), tar=TAR, file=tmp_path / "changed", streamed=True)
    assert honest.file_range is not None and changed.file_range is not None
    proved = replace(changed, file_range=replace(changed.file_range, sha256=str(honest.diff_id)))
    opened = open_layers([proved, proved])
    assert opened[1].pread(0, 512) == TAR[:512]
    for said in (None, "sha256:" + "0" * 64):  # not hashed, or to something else: it is read
        unproved = replace(changed, file_range=replace(changed.file_range, sha256=said))
        with pytest.raises(DigestMismatchError) as caught:
            open_layers([proved, unproved])
        assert str(honest.diff_id) in str(caught.value)
        fine = replace(honest, file_range=replace(honest.file_range, sha256=said))
        assert len(open_layers([proved, fine])) == 2


def test_uncompressed_layers_are_hopped_over_otherwise(tmp_path: Path) -> None:
    lying = source(TAR, tar=b"another", file=tmp_path / "lying")
    (opened,) = open_layers([lying])
    assert not opened.index.digests
    assert opened.pread(0, 512) == TAR[:512]


@pytest.mark.parametrize("cut", [1, 600, 2000])
def test_a_truncated_layer_is_an_error_that_names_it(tmp_path: Path, cut: int) -> None:
    plain = source(TAR[:-1024][:-cut], file=tmp_path / "cut")
    compressed = source(gzip.compress(TAR)[:-cut])
    for broken in (plain, compressed):
        with pytest.raises(InvalidImageError) as caught:
            open_layers([broken])
        assert broken.diff_id[:19] in str(caught.value)
        assert caught.value.hint


def test_many_layers_come_back_in_order() -> None:
    tars = [layer({f"/{n}": b"x" * n * 1000}) for n in range(12)]
    opened = open_layers([source(gzip.compress(tar), tar=tar) for tar in tars])
    assert [one.index.paths for one in opened] == [[f"/{n}"] for n in range(12)]


def _streams() -> list[bytes]:
    """Tars of several layers with files in common, large and small ones."""
    shared = {f"/shared/{size}": random.Random(size).randbytes(size) for size in (9, 40_000, 700_000)}
    own = [{f"/own/{number}": random.Random(number).randbytes(300_000 + 7 * number)} for number in range(6)]
    return [layer({**shared, **files, "/etc/motd": b"hello"}) for files in own]


def _seen(opened: list[Layer]) -> list[tuple[list[str], dict[int, bytes], list[int]]]:
    return [(one.index.paths, one.index.contents, list(one.index.crcs)) for one in opened]


def test_a_forked_child_and_threads_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tars = _streams()
    sources = [source(gzip.compress(tar, 1), tar=tar) for tar in tars]
    monkeypatch.setattr(layers, "_STREAMS_WORTH_A_FORK", 0)
    forked: list[int] = []
    monkeypatch.setattr(os, "fork", lambda fork=os.fork: forked.append(0) or fork())
    results = []
    for may_fork in (True, False):
        monkeypatch.setattr(layers, "may_fork", lambda may=may_fork: may)
        opened = open_layers(sources, lambda path: path == "/etc/motd")
        results.append(_seen(opened))
        for one, tar in zip(opened, tars, strict=True):
            digests = {path: one.index.digests.get(row) for row, path in enumerate(one.index.paths)}
            for path in ("/shared/9", "/shared/40000", "/shared/700000"):
                row = one.index.paths.index(path)
                content = tar[one.index.offsets[row] : one.index.offsets[row] + one.index.sizes[row]]
                assert digests[path] == hashlib.sha256(content).digest()
    assert results[0] == results[1]
    assert len(forked) == (1 if threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1 else 0)


@pytest.mark.parametrize("broken", [(0,), (5,), (2, 4), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("how", ["cut", "blob", "diff_id", "tar"])
def test_the_first_broken_layer_is_told_of_whoever_read_it(
    monkeypatch: pytest.MonkeyPatch, broken: tuple[int, ...], how: str
) -> None:
    sources = []
    for number, tar in enumerate(_streams()):
        blob = gzip.compress(tar, 1)
        if number not in broken:
            sources.append(source(blob, tar=tar))
        elif how == "cut":
            sources.append(source(blob[: -1000 - number], tar=tar))
        elif how == "blob":
            sources.append(source(blob, tar=tar, digest=f"sha256:{number:064}"))
        elif how == "diff_id":
            sources.append(source(blob, tar=b"%d" % number))
        else:
            sources.append(source(gzip.compress(tar[:-5000], 1), tar=tar[:-5000]))
    monkeypatch.setattr(layers, "_STREAMS_WORTH_A_FORK", 0)
    messages = []
    for may_fork in (True, False):
        monkeypatch.setattr(layers, "may_fork", lambda may=may_fork: may)
        with pytest.raises(InvalidImageError) as caught:
            open_layers(sources)
        messages.append((type(caught.value), str(caught.value)))
    assert messages[0] == messages[1]
    assert sources[broken[0]].diff_id[:19] in messages[0][1]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="forks on Linux only")
def test_what_a_child_does_not_bring_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    tars = _streams()
    monkeypatch.setattr(layers, "_STREAMS_WORTH_A_FORK", 0)
    monkeypatch.setattr(layers, "may_fork", lambda: True)
    home = os.getpid()
    read = layers.Passed.readinto

    def dying(self: layers.Passed, buffer: bytearray) -> int:
        if os.getpid() != home:
            os._exit(9)
        return read(self, buffer)

    monkeypatch.setattr(layers.Passed, "readinto", dying)
    opened = open_layers([source(gzip.compress(tar, 1), tar=tar) for tar in tars])
    assert [len(one.index) for one in opened] == [5] * len(tars)
