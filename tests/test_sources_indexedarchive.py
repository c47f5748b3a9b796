"""Archives whose layers are indexed as they pass by, against the same archives in a file."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import imagekit
import pytest
from enginekit import ARCHIVE, KIT, FakeEngine, served

import layerlens
from layerlens.errors import DigestMismatchError, EngineError, InvalidImageError, LayerLensError
from layerlens.layers import open_layers
from layerlens.sources import Source
from layerlens.sources.docker_archive import open_archive
from layerlens.sources.docker_engine import open_engine
from layerlens.sources.indexedarchive import index_archive
from layerlens.sources.spool import SpoolWriter
from layerlens.tarindex import LayerIndex

BIG = random.Random(3).randbytes(700_000)
WANTED = "/etc/motd"
IMAGE = imagekit.image(
    [
        imagekit.layer({"/a": BIG, "/same": BIG[:30_000], WANTED: b"hello", "/dir/": b""}),
        imagekit.layer({"/b": BIG, "/other": BIG[1:30_001]}),
        imagekit.layer({}),
        imagekit.layer({"/same-again": BIG[:30_000], "/holes": bytes(600_000)}),
    ]
)
TREES: dict[str, Callable[[imagekit.BuiltImage], imagekit.Tree]] = {
    "old": imagekit.docker_archive_old,
    "25": imagekit.docker_archive_25,
    "containerd": imagekit.containerd_save,
    "podman": imagekit.podman,
    "oci": lambda built: imagekit.oci_layout(built, compression="none"),
}


def wants(path: str) -> bool:
    return path == WANTED


class Trickling(io.RawIOBase):
    """A stream that gives as much at a time as it likes."""

    def __init__(self, data: bytes, seed: int) -> None:
        super().__init__()
        self._data = memoryview(data)
        self._lengths = random.Random(seed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._lengths.choice([1, 511, 512, 40_000, 1 << 20])]
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def passed(data: bytes, seed: int = 0) -> Source:
    """The archive, let pass by."""
    told: list[int] = []
    with SpoolWriter("keeping", None) as writer:
        file = index_archive(Trickling(data, seed), wants, writer, told.append)
    assert told == sorted(told) and told[-1] == os.fstat(file.fileno()).st_size <= len(data)
    return open_archive(cast("io.BufferedReader", file), "passing", streamed=True)


def columns(index: LayerIndex) -> tuple[object, ...]:
    """All that an index says, but for how thoroughly it compares contents."""
    owners = [index.owner_table[row] for row in index.owners]
    positions = list(index.sizes), list(index.offsets), list(index.starts), list(index.mtimes)
    return index.paths, bytes(index.types), owners, *positions, index.links, index.xattrs, index.size


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("built", [KIT, IMAGE], ids=["kit", "large"])
def test_the_indexes_are_those_of_the_file(name: str, built: imagekit.BuiltImage) -> None:
    for seed in (0, 1, 2):
        data = imagekit.tar_of(imagekit.shuffled(TREES[name](built), seed))
        whole = open_archive(cast("io.BufferedReader", _file(data)), "whole")
        source = passed(data, seed)
        assert source.config == whole.config == built.config
        expected, found = open_layers(whole.layers), open_layers(source.layers, wants)
        assert [columns(one.index) for one in found] == [columns(one.index) for one in expected]
        for key in ("diff_id", "media_type", "digest", "compressed_bytes"):
            values = [[getattr(one.source, key) for one in layers] for layers in (found, expected)]
            assert values[0] == values[1], key
        if name != "containerd":  # whose layers are compressed, and kept
            with_entries = [any(tar) for tar in built.layers]
            assert [one.passed is not None for one in source.layers] == with_entries
            assert [one.stored_range() is None for one in source.layers] == with_entries
        for source_or_whole in (source, whole):
            source_or_whole.close()


def _file(data: bytes) -> object:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - taken over by the archive
    file.write(data)
    file.flush()
    return file


def test_contents_and_digests_are_taken_on_the_way() -> None:
    source = passed(imagekit.tar_of(imagekit.docker_archive_old(IMAGE)))
    layers = open_layers(source.layers)
    source.close()
    assert [list(one.index.contents.values()) for one in layers] == [[b"hello"], [], [], []]
    digest = {path: one.index.digests.get(row) for one in layers for row, path in enumerate(one.index.paths)}
    assert digest["/a"] == digest["/b"] == bytes.fromhex(imagekit.hex_of(imagekit.sha256(BIG)))
    same = bytes.fromhex(imagekit.hex_of(imagekit.sha256(BIG[:30_000])))
    assert digest["/same"] == digest["/same-again"] == same != digest["/other"]
    assert digest["/holes"] is None  # the only one of its size


def test_the_layers_are_not_kept() -> None:
    with SpoolWriter("keeping", None) as writer:
        data = imagekit.tar_of(imagekit.docker_archive_old(IMAGE))
        file = index_archive(io.BytesIO(data), wants, writer, lambda _: None)  # type: ignore[arg-type]
    with file:
        assert os.fstat(file.fileno()).st_size == len(data)
        assert os.fstat(file.fileno()).st_blocks * 512 < 300_000


def test_what_is_broken_is_refused_or_read_as_it_is() -> None:
    """Whatever became of an archive on its way: an error of ours, or what a reader of the whole of it finds."""
    data, chance = imagekit.tar_of(imagekit.docker_archive_old(KIT)), random.Random(11)
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    read = refused = 0
    for round_ in range(120):
        broken = bytearray(data[: chance.randrange(len(data))] if round_ % 4 == 0 else data)
        at = chance.choice(headers)
        if at + 512 <= len(broken) and round_ % 4:
            broken[at + 124 : at + 136] = b"%011o\0" % chance.choice([0, 5, 1024, 4096, 1 << 30])
            broken[at + 148 : at + 156] = b" " * 8
            broken[at + 148 : at + 156] = b"%06o\0 " % sum(broken[at : at + 512])
        try:
            source = passed(bytes(broken), round_)
            found = [columns(one.index) for one in open_layers(source.layers)]
            source.close()
        except LayerLensError:
            refused += 1
            continue
        whole = open_archive(cast("io.BufferedReader", _file(bytes(broken))), "whole", streamed=True)
        assert found == [columns(one.index) for one in open_layers(whole.layers)]
        whole.close()
        read += 1
    assert read > 5 and refused > 50


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"x" * 5000, ARCHIVE[:-1024], ARCHIVE[:3000]])
def test_what_has_no_end_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        passed(data)


# --- of an engine -----------------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """A docker that has ``kit:latest``."""
    folder = Path(tempfile.mkdtemp(prefix="ll-", dir="/tmp"))
    with served(folder) as fake:
        fake.add(KIT, "kit:latest")
        monkeypatch.setenv("DOCKER_HOST", fake.url)
        yield fake
    shutil.rmtree(folder)


def exports(engine: FakeEngine) -> int:
    return len([path for path in engine.asked if path.endswith("/get")])


def test_an_export_passes_by_once(engine: FakeEngine) -> None:
    told: list[tuple[str, int, int | None]] = []
    with open_engine("kit:latest", progress=lambda *said: told.append(said)) as source:
        source.pass_by(wants)
        source.pass_by(wants)  # twice is fine
        assert source.config == KIT.config
        layers = open_layers(source.layers, trusted=True)
        assert exports(engine) == 1
        assert [one.index.size for one in layers] == [len(data) for data in KIT.layers]
        assert told[0][1] == 0 and told[-1][1] == len(ARCHIVE)
        assert {what for what, _, _ in told} == {"exporting kit:latest from docker"}


def test_what_is_wanted_nevertheless_is_exported_once_more(engine: FakeEngine) -> None:
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        for layer, data in zip(open_layers(source.layers), KIT.layers, strict=True):
            assert layer.pread(0, len(data)) == data
        for one, data in zip(source.layers, KIT.layers, strict=True):
            with one.open() as stream:
                assert stream.read() == data
    assert exports(engine) == 2


def test_a_layer_that_is_another_is_told(engine: FakeEngine) -> None:
    lying = imagekit.image([*KIT.layers[:-1], imagekit.layer({"/another": b"one"})])
    engine.archive = ARCHIVE.replace(KIT.layers[-1], lying.layers[-1].ljust(len(KIT.layers[-1]), b"\0"))
    assert engine.archive != ARCHIVE
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        with pytest.raises(DigestMismatchError):
            open_layers(source.layers, trusted=True)


@pytest.mark.parametrize("after", [0, 1, 40_000, len(ARCHIVE) - 1])
def test_an_engine_that_goes_away_in_mid_export(engine: FakeEngine, after: int) -> None:
    """The export that is asked for then says what is wrong."""
    engine.break_off_after = after
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        with pytest.raises(EngineError, match="broke off after"):
            source.config  # noqa: B018


def test_an_error_at_the_end_of_an_export(engine: FakeEngine) -> None:
    engine.archive = (
        ARCHIVE[:20_000] + b'{"errorDetail":{"message":"no such file"},"error":"no such file"}\r\n'
    )
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        with pytest.raises(EngineError, match="no such file"):
            source.config  # noqa: B018


def test_an_engine_that_only_the_sdk_can_ask(engine: FakeEngine) -> None:
    engine.tells_version = False
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        assert source.config == KIT.config
        assert all(layer.stored_range() for layer in source.layers)


def test_an_export_that_is_refused(engine: FakeEngine) -> None:
    engine.answers[f"/images/{KIT.image_id}/get"] = (500, b'{"message": "no space left on device"}')
    with open_engine("kit:latest") as source:
        source.pass_by(wants)
        with pytest.raises(EngineError, match="no space left on device"):
            source.config  # noqa: B018


def test_the_report_is_the_same_without_contents(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for contents in (True, False):
        monkeypatch.setenv("LAYERLENS_CACHE_DIR", str(tmp_path / f"cache-{contents}"))
        for cache in (False, True, True):
            with layerlens.open_image("docker://kit:latest", cache=cache, contents=contents) as image:
                reports.append(image.inspect(recommend=False, files=False).to_dict())
    assert exports(engine) == 4  # what was seen before is not exported again
    assert all(report == reports[0] for report in reports)


def test_what_is_recommended_without_contents_is_the_same(engine: FakeEngine) -> None:
    plans = []
    for contents in (True, False):
        with layerlens.open_image("docker://kit:latest", cache=False, contents=contents) as image:
            image.inspect(recommend=False, files=False)
            plans.append(image.recommend("scratch").to_dict())
    assert plans[0] == plans[1]
