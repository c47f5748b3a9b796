"""What is remembered of a layer: the index comes back as it was, and so does every byte that was asked for."""

from __future__ import annotations

import io
import random
from array import array
from pathlib import Path

import imagekit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerlens import remembered
from layerlens.cache import Cache
from layerlens.model import DiffId, Digest
from layerlens.remembered import LayerMemory, find_index, find_inflated, store_index, store_inflated
from layerlens.tarindex import LayerIndex, index_stream

DIFF_ID = DiffId("sha256:" + "1" * 64)
TAR = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def again(cache: Cache, index: LayerIndex) -> LayerIndex | None:
    store_index(cache, DIFF_ID, index)
    return find_index(cache, DIFF_ID)


def indexed(*members: object, **layer: object) -> LayerIndex:
    index = index_stream(io.BytesIO(imagekit.layer(*members, **layer)))  # type: ignore[arg-type]
    index.digests, index.contents = {}, {}
    return index


# --- the index --------------------------------------------------------------------------------------------


def test_an_index_comes_back_as_it_was(cache: Cache) -> None:
    """Every kind of entry, marker, extension and odd name that the kit knows."""
    for data in imagekit.sample().layers:
        index = index_stream(io.BytesIO(data))
        index.digests = {}
        assert again(cache, index) == index
    odd = indexed(
        {
            b"/caf\xe9 \xff": b"not utf-8",
            "/é\n\t": b"",
            "/link": imagekit.Symlink(target=b"caf\xe9"),
            "/up/../../above": b"x",
        },
        whiteouts=["/gone"],
        opaque=["/emptied"],
        verbatim=True,
    )
    assert odd.escapes and odd.paths
    assert again(cache, odd) == odd
    assert again(cache, LayerIndex()) == LayerIndex()
    one = indexed({"/": imagekit.DIR})
    assert again(cache, one) == one


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_characters="\0")), st.integers(0, 1 << 62)), max_size=8),
    st.dictionaries(st.integers(0, 9), st.text(max_size=4)),
)
def test_any_columns_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], links: dict[int, str]
) -> None:
    index = LayerIndex(
        paths=[path.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for path, _ in rows],
        types=bytearray(number % 9 for _, number in rows),
        sizes=array("q", [number for _, number in rows]),
        offsets=array("q", range(len(rows))),
        starts=array("q", range(len(rows))),
        owners=array("I", [0] * len(rows)),
        mtimes=array("d", [float(number) for _, number in rows]),
        crcs=array("I", [number & 0xFFFFFFFF for _, number in rows]),
        owner_table=[(0o755, 1 << 40, 0)],
        links=links,
        xattrs={row: {"user.x": bytes(range(256))} for row in links},
        sparse={row: [(0, 1 << 50)] for row in links},
    )
    assert again(Cache(tmp_path_factory.getbasetemp() / "any"), index) == index


def test_a_path_with_a_zero_byte_is_not_stored(cache: Cache) -> None:
    index = indexed({"/a": b"", "/b": b""})
    index.paths[0] = "/a\0c"
    assert again(cache, index) is None


@pytest.mark.parametrize("change", ["types", "owners", "rare"])
def test_columns_that_do_not_fit_together_are_no_index(cache: Cache, change: str) -> None:
    index = indexed({"/a": b"", "/b": b""})
    sections = remembered._packed(index)
    assert sections is not None
    sections[change] = {"types": b"\0", "owners": b"\xff" * 8, "rare": b'{"entries": 2}'}[change]
    cache.store("layer", DIFF_ID, {name: [data] for name, data in sections.items()})
    assert find_index(cache, DIFF_ID) is None
    assert cache.usage().files == 0, "it is gone"


def test_what_a_blob_inflates_to(cache: Cache) -> None:
    blob = Digest("sha256:" + "2" * 64)
    assert find_inflated(cache, blob) is None
    store_inflated(cache, blob, DIFF_ID)
    assert find_inflated(cache, blob) == DIFF_ID
    cache.store("blob", blob, {"other": [b""]})
    assert find_inflated(cache, blob) is None


# --- what was asked for -----------------------------------------------------------------------------------


def pread(offset: int, size: int) -> bytes:
    return TAR[offset : offset + size]


def remember(cache: Cache, *asked: tuple[int, int], digests: dict[int, bytes] | None = None) -> None:
    memory = LayerMemory(cache, DIFF_ID)
    for offset, size in asked:
        memory.note(offset, size)
    memory.store(digests or {}, pread)
    memory.close()


def test_what_was_asked_for_is_there_the_next_time(cache: Cache) -> None:
    remember(cache, (512, 100), (1_000_000, 700_000), (512, 40), (0, 0), digests={3: b"d" * 32})
    memory = LayerMemory(cache, DIFF_ID)
    assert memory.read(512, 100) == TAR[512:612]
    assert memory.read(550, 20) == TAR[550:570]
    assert memory.read(1_000_000, 700_000) == TAR[1_000_000:1_700_000]
    assert memory.read(1_262_000, 600) == TAR[1_262_000:1_262_600], "across two pieces"
    for offset, size in ((511, 2), (611, 2), (0, 1), (999_999, 2), (1_699_999, 2), (2_999_999, 1)):
        assert memory.read(offset, size) is None
    assert memory.digests == {3: b"d" * 32}
    memory.close()
    assert memory.read(512, 100) is None, "after it was closed"


def test_runs_add_to_each_other(cache: Cache) -> None:
    remember(cache, (100, 50), digests={1: b"a" * 32})
    remember(cache, (120, 100), (10, 10), digests={2: b"b" * 32})
    remember(cache, (0, 400))
    memory = LayerMemory(cache, DIFF_ID)
    assert memory.read(0, 400) == TAR[:400]
    assert memory.digests == {1: b"a" * 32, 2: b"b" * 32}


def test_two_images_with_one_layer_add_to_each_other(cache: Cache) -> None:
    """As an image and the runtime image that it stands on, which are open at the same time."""
    one, other = LayerMemory(cache, DIFF_ID), LayerMemory(cache, DIFF_ID)
    one.note(100, 50)
    other.note(2000, 50)
    one.store({1: b"a" * 32}, pread)
    other.store({2: b"b" * 32}, pread)
    memory = LayerMemory(cache, DIFF_ID)
    assert memory.read(100, 50) == TAR[100:150]
    assert memory.read(2000, 50) == TAR[2000:2050]
    assert memory.digests == {1: b"a" * 32, 2: b"b" * 32}


@given(st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=6), max_size=4))
def test_whatever_was_asked_for_is_there(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[int, int]]]
) -> None:
    cache = Cache(tmp_path_factory.getbasetemp() / "asked")
    cache.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "PIECE_BYTES", 7)
        known: set[int] = set()
        for run in runs:
            remember(cache, *run)
            known.update(at for offset, size in run for at in range(offset, offset + size))
        memory = LayerMemory(cache, DIFF_ID)
        for offset in range(95):
            for size in (1, 2, 9):
                there = set(range(offset, offset + size)) <= known
                assert memory.read(offset, size) == (TAR[offset : offset + size] if there else None)


def test_nothing_new_is_not_written_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(cache, (100, 50), digests={1: b"a" * 32})
    monkeypatch.setattr(cache, "store", lambda *_: pytest.fail("nothing is new"))
    remember(cache, (100, 50), (120, 10), digests={1: b"a" * 32})
    remember(cache)


def test_the_shortest_ranges_are_kept_where_there_is_no_room_for_all(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MAX_ASKED_BYTES", 1000)
    remember(cache, (0, 900), (2000, 300), (4000, 300), (6000, 300))
    memory = LayerMemory(cache, DIFF_ID)
    assert memory.read(0, 1) is None
    assert [memory.read(offset, 300) for offset in (2000, 4000, 6000)] == [
        TAR[offset : offset + 300] for offset in (2000, 4000, 6000)
    ]
    monkeypatch.setattr(cache, "store", lambda *_: pytest.fail("what does not fit is no reason to write"))
    remember(cache, (0, 900))


def test_a_source_that_is_gone_leaves_what_was_there(cache: Cache) -> None:
    remember(cache, (100, 50))
    memory = LayerMemory(cache, DIFF_ID)
    memory.note(5000, 10)

    def gone(offset: int, size: int) -> bytes:
        raise OSError("gone")

    memory.store({}, gone)
    assert LayerMemory(cache, DIFF_ID).read(100, 50) == TAR[100:150]


@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_piece_is_dropped_and_made_anew(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("layerlens.cache._HELD_BYTES", 0)
    remember(cache, (100, 50), (1000, 50), digests={1: b"a" * 32})
    (file,) = cache.folder.glob("reads-*")
    whole = bytearray(file.read_bytes())
    whole[whole.index(TAR[1000:1050]) + 7] ^= 4
    file.write_bytes(whole)
    memory = LayerMemory(cache, DIFF_ID)
    assert memory.read(100, 50) == TAR[100:150], "this one is intact"
    memory.note(1000, 50)
    assert memory.read(1000, 50) is None
    assert not file.exists()
    assert memory.digests == {1: b"a" * 32}
    memory.store({}, pread)
    assert LayerMemory(cache, DIFF_ID).read(1000, 50) == TAR[1000:1050]


def test_columns_that_do_not_fit_are_dropped_also_where_they_cannot_be_removed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(cache, (100, 50))
    monkeypatch.setattr(cache, "forget", lambda *_: None)
    for name, data in (("sizes", b""), ("starts", b"abc"), ("digests", b"x"), ("checksums", bytes(8))):
        entry = cache.find("reads", DIFF_ID)
        assert entry is not None
        sections = {
            section: [entry.section(section)]
            for section in ("starts", "sizes", "checksums", "pieces", "rows", "digests")
        }
        cache.store("reads", DIFF_ID, {**sections, name: [data]})
        memory = LayerMemory(cache, DIFF_ID)
        assert memory.read(100, 50) is None
        cache.store("reads", DIFF_ID, sections)
