"""Images read out of their engine's own storage: the same report as from its export, whatever lies there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagekit
import pytest
import storagekit
from enginekit import KIT, FakeEngine, served
from hypothesis import given
from hypothesis import strategies as st
from storagekit import ContainersStorage, Overlay2, Storage

from layerlens.api import Image, open_image
from layerlens.cache import Cache
from layerlens.errors import EngineError, ImageNotFoundError, InvalidImageError, LayerLensError, PlatformError
from layerlens.sources import beneath, containers_storage, engine_storage, tarsplit
from layerlens.sources.beneath import Beneath, StorageError
from layerlens.sources.docker_engine import EngineSource, open_engine
from layerlens.sources.tarsplit import SplitLayer
from layerlens.tarindex import LayerIndex

SWITCH = engine_storage.SWITCH


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: socket addresses end at 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="ll-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


class Engine:
    """A fake engine, its storage, and what becomes of the image in them."""

    def __init__(self, fake: FakeEngine, storage: Storage) -> None:
        self.fake = fake
        self.storage = storage

    def has(self, built: imagekit.BuiltImage) -> None:
        self.fake.add(built, "kit:latest")
        self.fake.archive = imagekit.tar_of(imagekit.docker_archive_old(built))
        self.storage.add(built)

    def tells(self, info: object) -> None:
        self.fake.answers["/info"] = (200, json.dumps(info).encode())

    @property
    def exports(self) -> int:
        return sum(asked.endswith("/get") for asked in self.fake.asked)

    def open(self, **options: Any) -> Image:
        options.setdefault("cache", False)
        return open_image(f"{self.storage.engine}://kit:latest", **options)

    def report(self, **options: Any) -> tuple[dict[str, Any], list[str]]:
        """The report, and the codes of its diagnostics, which are taken out of it."""
        with self.open(**options) as image:
            made = image.inspect(recommend=False).to_dict()
        return made, [found["code"] for found in made.pop("diagnostics")]

    def falls_back(self, damage: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch) -> None:
        """What is damaged in the storage leads to the export, once, to the same report, and is told once."""
        self.has(small())
        expected = self.exported(monkeypatch)
        damage(self.storage)
        made, codes = self.report()
        assert made == expected
        assert codes.count("engine-storage") == 1
        assert self.exports == 2

    def exported(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The report from the export."""
        with monkeypatch.context() as patch:
            patch.setenv(SWITCH, "off")
            before = self.exports
            made, codes = self.report()
            assert self.exports == before + 1
            assert "engine-storage" not in codes
            return made


@pytest.fixture(params=[Overlay2, ContainersStorage], ids=["overlay2", "containers"])
def engine(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """An engine without images, whose storage is in a temporary folder."""
    monkeypatch.delenv(SWITCH, raising=False)
    storage = request.param(tmp_path / "storage")
    with served(folder) as fake:
        for name in ("DOCKER_HOST", "CONTAINER_HOST"):
            monkeypatch.setenv(name, fake.url)
        made = Engine(fake, storage)
        made.tells(storage.info())
        yield made


TWINS = {"/srv/one": b"twin" * 700, "/srv/two": b"twin" * 700, "/srv/three": b"niwt" * 700}
LARGE = {"/srv/large": b"L" * 70_000, "/srv/large-too": b"L" * 70_000, "/srv/large-not": b"l" * 70_000}


@cache
def small() -> imagekit.BuiltImage:
    """Two layers: files of the same content, so that they are read, links, names that JSON escapes."""
    base = imagekit.layer(
        {
            "/etc/": imagekit.DIR,
            "/etc/motd": b"hello\n",
            "/etc/os-release": b"ID=debian\n",
            "/a<b>&c": b"escaped" * 10,
            "/bin/sh": b"#!" * 40_000,
            "/bin/ash": imagekit.Hardlink(target="/bin/sh"),
            "/lib": imagekit.Symlink(target="usr/lib"),
            **TWINS,
            **LARGE,
            "/empty": b"",
        }
    )
    deep = "/".join(["", *["d" * 60] * 12, "file"])
    top = imagekit.layer(
        [
            (deep, b"deep" * 100),
            (b"/not-utf8-\xff\xfe", b"raw" * 200),
            ("/etc/motd", b"bye\n"),
            ("/srv/four", b"twin" * 700),
            (
                "/srv/attributes",
                imagekit.File(data=b"x" * 3000, xattrs={"user.kit": b"1"}, mtime=1.5, uid=3_000_000),
            ),
        ],
        whiteouts=["/etc/os-release"],
        opaque=["/opaque"],
    )
    return imagekit.image([base, top])


# --- the same report ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [small(), KIT], ids=["small", "sample"])
@pytest.mark.parametrize("verify", [False, True])
def test_the_report_is_that_of_the_export(
    engine: Engine, built: imagekit.BuiltImage, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.has(built)
    made, codes = engine.report(verify_digests=verify)
    assert engine.exports == 0
    assert "engine-storage" not in codes
    assert made == engine.exported(monkeypatch)


def test_layers_are_indexed_on_two_cores_with_the_same_report(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerlens import layers

    engine.has(KIT)
    expected = engine.exported(monkeypatch)
    monkeypatch.setattr(layers, "_HEADERS_WORTH_A_FORK", 0)
    assert engine.report()[0] == expected
    shutil.rmtree(engine.storage.folder(KIT, 1))
    engine.storage.split(KIT, 2).write_bytes(b"")
    made, codes = engine.report()
    assert made == expected
    assert codes.count("engine-storage") == 1


def test_every_way_to_ask_for_a_layer(engine: Engine) -> None:
    built = small()
    engine.has(built)
    with open_engine("kit:latest", engines=(engine.storage.engine,)) as source:
        assert source.config == built.config
        assert [layer.diff_id for layer in source.layers] == built.diff_ids
        for layer, tar in zip(source.layers, built.layers, strict=True):
            with layer.open() as stream:
                assert stream.read() == tar
    assert engine.exports == 0


def test_the_tar_is_put_together_byte_for_byte(tmp_path: Path) -> None:
    forms = [
        imagekit.layer(TWINS, form="gnu"),
        imagekit.layer({"./x": b"1", "./y/": imagekit.DIR, "./y/z": b"22" * 600}, verbatim=True),
        imagekit.layer({"n" * 120: b"long" * 99, "m" * 150: imagekit.Symlink(target="t" * 130)}, form="gnu"),
        imagekit.layer({"/last": b"no padding behind"}, end=b""),
        imagekit.layer({"/x": b"y"}, end=bytes(10240)),
        *small().layers,
        *KIT.layers,
    ]
    for number, tar in enumerate(forms):
        place = tmp_path / str(number)
        storagekit.unpack(tar, place / "diff")
        (place / "split").write_bytes(storagekit.split(tar))
        layer = SplitLayer(place / "split", place / "diff")
        with layer.open() as stream:
            assert stream.read() == tar, number
        index = layer.index()
        assert index.size == len(tar)
        assert (
            b"".join(layer.pread(index, at, min(700, len(tar) - at)) for at in range(0, len(tar), 700)) == tar
        )
        with pytest.raises(StorageError):
            layer.pread(index, len(tar) - 1, 2)
        layer.close()


@given(st.data())
def test_any_range_is_that_of_the_tar(data: st.DataObject) -> None:
    tar = small().layers[1]
    layer, index = _shared()
    offset = data.draw(st.integers(0, len(tar)))
    size = data.draw(st.integers(0, len(tar) - offset))
    assert layer.pread(index, offset, size) == tar[offset : offset + size]


_SHARED: list[tuple[SplitLayer, LayerIndex, tempfile.TemporaryDirectory[str]]] = []


def _shared() -> tuple[SplitLayer, LayerIndex]:
    if not _SHARED:
        kept = tempfile.TemporaryDirectory()
        place = Path(kept.name)
        storagekit.unpack(small().layers[1], place / "diff")
        (place / "split").write_bytes(storagekit.split(small().layers[1]))
        layer = SplitLayer(place / "split", place / "diff")
        _SHARED.append((layer, layer.index(), kept))
    return _SHARED[0][:2]


def test_duplicates_are_found_whatever_their_layers_were_checked_with(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that the cache knows from an archive has other checks than one out of an engine's storage."""
    built = small()
    lower = imagekit.image(built.layers[:1])
    archive = tmp_path / "lower.tar"
    archive.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(lower)))
    engine.has(built)
    expected = engine.exported(monkeypatch)
    groups = [set(group["paths"]) for group in expected["waste"]["duplicates"]]
    assert {"/srv/one", "/srv/two", "/srv/four"} in groups
    cache = Cache(tmp_path / "cache")
    with open_image(f"docker-archive:{archive}", cache=cache, verify_digests=False) as image:
        assert {index.checks for index in image.fs.indexes} == {"crc32"}
        from layerlens.remembered import store_index

        store_index(cache, image.layers[0].source.diff_id, image.layers[0].index)
    with engine.open(cache=cache) as image:
        assert [index.checks for index in image.fs.indexes] == ["crc32", "crc64"]
        made = image.inspect(recommend=False).to_dict()
        del made["diagnostics"]
    assert made == expected
    assert engine.exports == 1  # that of `exported`


def test_only_a_rebuilt_layer_is_read_anew(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = small()
    engine.has(built)
    cache = tmp_path / "cache"
    engine.report(cache=Cache(cache))
    rebuilt = imagekit.image([built.layers[0], imagekit.layer({"/new": b"new" * 500, "/etc/motd": b"hey\n"})])
    engine.has(rebuilt)
    indexed = []
    index = SplitLayer.index
    monkeypatch.setattr(SplitLayer, "index", lambda self: indexed.append(self) or index(self))
    made, codes = engine.report(cache=Cache(cache))
    assert len(indexed) == 1
    assert engine.exports == 0
    assert "engine-storage" not in codes
    assert made == engine.exported(monkeypatch)
    asked = engine.fake.asked.count("/info")
    assert engine.report(cache=Cache(cache))[0] == made
    assert len(indexed) == 1
    assert engine.fake.asked.count("/info") == asked


# --- no storage here ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"Driver": "btrfs"},
        {"DriverStatus": [["Native Overlay Diff", "false"]]},
        {"DriverStatus": None},
        {"DockerRootDir": "/nonexistent"},
        {"DockerRootDir": "relative"},
        {"DockerRootDir": 7},
    ],
)
def test_a_storage_that_is_not_here_is_no_news(engine: Engine, more: dict[str, Any]) -> None:
    engine.has(small())
    engine.tells({**engine.storage.info(), **more})
    _, codes = engine.report()
    assert "engine-storage" not in codes
    assert engine.exports == 1


def test_an_engine_that_says_nothing_of_itself_exports(engine: Engine) -> None:
    engine.has(small())
    for answer in ((404, b"{}"), (200, b"[]"), (200, b"no JSON"), (500, b"null")):
        engine.fake.answers["/info"] = answer
        assert "engine-storage" not in engine.report()[1]
    assert engine.exports == 4


def test_a_storage_that_may_not_be_read(engine: Engine, folder: Path) -> None:
    """An engine of root's, seen by a user: its folders cannot be entered."""
    engine.has(small())
    engine.storage.config(small()).parent.chmod(0)
    folder.chmod(0o755)
    engine.fake.socket.chmod(0o777)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may enter every folder
    try:
        _, codes = engine.report()
    finally:
        os.seteuid(user)
        engine.storage.config(small()).parent.chmod(0o755)
    assert "engine-storage" not in codes
    assert engine.exports == 1


# --- a storage that is not as expected ------------------------------------------------------------------------


def _edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _edit_split(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Storage], None]:
    def edit(storage: Storage) -> None:
        lines = storagekit.entries(small().layers[0])
        change(lines)
        storage.split(small(), 0).write_bytes(storagekit.packed(lines))

    return edit


def _entry(lines: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(line for line in lines if line.get("name") == name)


def _swap_names(lines: list[dict[str, Any]]) -> None:
    one, other = _entry(lines, "srv/one"), _entry(lines, "srv/three")
    one["name"], other["name"] = other["name"], one["name"]


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


HOSTILE: dict[str, Callable[[Storage], object]] = {
    "headers missing": lambda at: at.split(small(), 0).unlink(),
    "headers empty": lambda at: at.split(small(), 0).write_bytes(b""),
    "headers no gzip": lambda at: at.split(small(), 0).write_bytes(b"{}" * 500),
    "headers cut": lambda at: os.truncate(at.split(small(), 0), 300),
    "headers a folder": lambda at: _replace(at.split(small(), 0), Path.mkdir),
    "headers a fifo": lambda at: _replace(at.split(small(), 0), os.mkfifo),
    "headers of another layer": lambda at: shutil.copy(at.split(small(), 1), at.split(small(), 0)),
    "no entries": _edit_split(lambda lines: lines.clear()),
    "an entry lost": _edit_split(lambda lines: lines.remove(_entry(lines, "srv/one"))),
    "a segment lost": _edit_split(lambda lines: lines.pop(0)),
    "names swapped": _edit_split(_swap_names),
    "a name that leaves": _edit_split(lambda lines: _entry(lines, "srv/one").update(name="../../x")),
    "a size too small": _edit_split(lambda lines: _entry(lines, "srv/one").update(size=5)),
    "a size below zero": _edit_split(lambda lines: _entry(lines, "srv/one").update(size=-1)),
    "an endless size": _edit_split(lambda lines: _entry(lines, "srv/one").update(size=1 << 80)),
    "a huge size": _edit_split(lambda lines: _entry(lines, "srv/one").update(size=1 << 59)),
    "no checksum": _edit_split(lambda lines: _entry(lines, "srv/one").update(payload=None)),
    "a checksum that is none": _edit_split(lambda lines: _entry(lines, "srv/one").update(payload="!" * 12)),
    "another kind": _edit_split(lambda lines: lines[0].update(type=3)),
    "a payload that is a number": _edit_split(lambda lines: lines[0].update(payload=3)),
    "not an object": _edit_split(lambda lines: lines.__setitem__(0, [])),
    "folder missing": lambda at: shutil.rmtree(at.folder(small(), 0)),
    "file missing": lambda at: (at.folder(small(), 0) / "srv/one").unlink(),
    "file shorter": lambda at: (at.folder(small(), 0) / "srv/one").write_bytes(b"twin"),
    "file longer": lambda at: (at.folder(small(), 0) / "srv/one").write_bytes(b"twin" * 701),
    "file a folder": lambda at: _replace(at.folder(small(), 0) / "srv/one", Path.mkdir),
    "file a fifo": lambda at: _replace(at.folder(small(), 0) / "srv/one", os.mkfifo),
    "file a link": lambda at: _replace(
        at.folder(small(), 0) / "srv/one", lambda path: path.symlink_to("three")
    ),
    "file a link outside": lambda at: _replace(
        at.folder(small(), 0) / "srv/one", lambda path: path.symlink_to(_outside(at) / "one")
    ),
    "folder of the file a link outside": lambda at: _replace(
        at.folder(small(), 0) / "srv", lambda path: path.symlink_to(_outside(at))
    ),
    "folder of the file a loop": lambda at: _replace(
        at.folder(small(), 0) / "srv", lambda path: path.symlink_to("srv")
    ),
}


def _outside(storage: Storage) -> Path:
    """A folder that is not the image's, with files of the sizes that the image has."""
    outside = storage.root.parent / "outside"
    outside.mkdir(exist_ok=True)
    for name, data in {**TWINS, **LARGE}.items():
        (outside / Path(name).name).write_bytes(b"S" * len(data))
    return outside


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_surprise_falls_back_to_the_export(
    engine: Engine, damage: Callable[[Storage], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.falls_back(damage, monkeypatch)


OVERLAY2: dict[str, Callable[[Overlay2], object]] = {
    "config of another": lambda at: at.config(small()).write_bytes(KIT.config),
    "layer missing": lambda at: shutil.rmtree(at.layer(small(), 1)),
    "another diff ID": lambda at: (at.layer(small(), 1) / "diff").write_text(KIT.diff_ids[0]),
    "a cache ID that leaves": lambda at: (at.layer(small(), 1) / "cache-id").write_text("../../outside"),
    "no cache ID": lambda at: (at.layer(small(), 1) / "cache-id").write_bytes(b"\xff\n"),
}
CONTAINERS: dict[str, Callable[[ContainersStorage], object]] = {
    "config of another": lambda at: at.config(small()).write_bytes(KIT.config),
    "no list of images": lambda at: (at.root / "overlay-images/images.json").unlink(),
    "an empty list": lambda at: (at.root / "overlay-images/images.json").write_text("[]"),
    "not a list": lambda at: (at.root / "overlay-layers/layers.json").write_text("{}"),
    "no JSON": lambda at: (at.root / "overlay-layers/layers.json").write_text("[" * 100_000),
    "a layer of another": lambda at: _edit_json(
        at.root / "overlay-layers/layers.json",
        lambda layers: [{**layer, "diff-digest": KIT.diff_ids[0]} for layer in layers],
    ),
    "a layer that is its own parent": lambda at: _edit_json(
        at.root / "overlay-layers/layers.json",
        lambda layers: [{**layer, "parent": layer["id"]} for layer in layers],
    ),
    "an ID that leaves": lambda at: _edit_json(
        at.root / "overlay-layers/layers.json",
        lambda layers: [{**layer, "id": "../" + layer["id"][3:]} for layer in layers],
    ),
}
DATABASES = [
    *((Overlay2, name, damage) for name, damage in OVERLAY2.items()),
    *((ContainersStorage, name, damage) for name, damage in CONTAINERS.items()),
]


@pytest.mark.parametrize(
    ("engine", "damage"),
    [(kind, damage) for kind, _, damage in DATABASES],
    indirect=["engine"],
    ids=[f"{kind.driver}: {name}" for kind, name, _ in DATABASES],
)
def test_a_database_that_is_damaged(
    engine: Engine, damage: Callable[[Storage], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.falls_back(damage, monkeypatch)


def test_nothing_outside_is_ever_read(engine: Engine) -> None:
    engine.has(small())
    _replace(
        engine.storage.folder(small(), 0) / "srv", lambda path: path.symlink_to(_outside(engine.storage))
    )
    with engine.open() as image:
        for name, data in {**TWINS, **LARGE}.items():
            assert image.fs.read(name) == data
    assert engine.exports == 1


def test_content_that_was_changed_is_found_where_digests_are_verified(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.has(small())
    expected = engine.exported(monkeypatch)
    path = engine.storage.folder(small(), 0) / "srv/three"
    path.write_bytes(b"X" * path.stat().st_size)
    made, codes = engine.report(verify_digests=True)
    assert made == expected
    assert "engine-storage" in codes


def test_a_file_that_is_not_this_users_is_no_damage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the storage of a rootless engine, where root's files belong to another of the user's IDs."""
    engine.has(small())

    def denied(self: Beneath, path: str) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Beneath, "_open", denied)
    with engine.open() as image:
        found = [one for one in image.inspect(recommend=False).diagnostics if one.code == "engine-storage"]
    assert [one.severity for one in found] == ["info"]
    assert engine.exports == 1


def test_a_stream_goes_on_from_the_export(engine: Engine) -> None:
    """Half of a layer comes from the folder; then a file is missing."""
    built = small()
    engine.has(built)
    (engine.storage.folder(built, 0) / "srv/large-too").unlink()
    with open_engine("kit:latest", engines=(engine.storage.engine,)) as source:
        with source.layers[0].open() as stream:
            assert stream.read() == built.layers[0]
        assert [found.code for found in source.diagnostics] == ["engine-storage"]


def test_an_export_that_fails_as_well_is_an_error(engine: Engine) -> None:
    engine.has(small())
    engine.storage.split(small(), 0).unlink()
    engine.fake.archive = b""
    with pytest.raises(EngineError):
        engine.report()


@pytest.mark.parametrize(
    "path", ["", "relative", "/..", "/../x", "/etc/../etc/motd", "/etc//motd", "/etc/.", "/"]
)
def test_names_that_no_file_has(tmp_path: Path, path: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_bytes(b"hello")
    files = Beneath(tmp_path)
    with pytest.raises(StorageError):
        files.read(path, 5, 0, 5)
    assert files.read("/etc/motd", 5, 1, 3) == b"ell"
    files.close()
    files.close()
    with pytest.raises(StorageError):
        files.read("/etc/motd", 5, 0, 5)


def test_few_folders_are_open_at_once(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(40):
        (tmp_path / str(number) / "in").mkdir(parents=True)
        (tmp_path / str(number) / "in" / "f").write_bytes(b"x")
    deep = "/d" * 400
    (tmp_path / deep[1:]).mkdir(parents=True)
    (tmp_path / deep[1:] / "f").write_bytes(b"y")
    layers = [Beneath(tmp_path) for _ in range(20)]
    for files in layers:
        for number in range(40):
            assert files.read(f"/{number}/in/f", 1, 0, 1) == b"x"
        assert files.read(f"{deep}/f", 1, 0, 1) == b"y"
        assert len(os.listdir("/proc/self/fd")) <= before + beneath._OPEN_FOLDERS
    for files in layers:
        files.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_headers_without_end_are_held_a_part_at_a_time(tmp_path: Path) -> None:
    tar = imagekit.layer({f"/{number}": imagekit.DIR for number in range(9000)})
    (tmp_path / "split").write_bytes(storagekit.split(tar))
    pieces = list(SplitLayer(tmp_path / "split", tmp_path)._pieces())
    assert len(pieces) > 1
    assert max(len(raw) for raw, *_ in pieces) <= tarsplit._HELD_BYTES
    assert b"".join(raw for raw, *_ in pieces) == tar


# --- Podman's and Buildah's storage with nobody to ask ----------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContainersStorage:
    """A user's storage with ``localhost/kit:latest``, in a home without any engine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CONTAINER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    config = tmp_path / "storage.conf"
    config.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{tmp_path}/graph"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    storage = ContainersStorage(tmp_path / "graph")
    storage.add(small())
    storage.images[0]["names"] = ["localhost/kit:latest"]
    (storage.root / "overlay-images/images.json").write_text(json.dumps(storage.images))
    return storage


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Any]:
    """The report on an archive of the same image."""
    archive = tmp_path / "archive.tar"
    archive.write_bytes(imagekit.tar_of(imagekit.docker_archive_old(small())))
    made, _ = _report(f"docker-archive:{archive}")
    return made


@pytest.mark.parametrize(
    "name", ["kit", "podman://kit:latest", "localhost/kit", "docker.io/library/ID", "ID", "ID12"]
)
def test_an_image_is_found_without_an_engine(
    alone: ContainersStorage, expected: dict[str, Any], name: str
) -> None:
    alone.images[0]["names"].append("docker.io/library/id:latest")
    (alone.root / "overlay-images/images.json").write_text(json.dumps(alone.images))
    identifier = imagekit.hex_of(small().image_id)
    name = {"ID": identifier, "ID12": identifier[:12], "docker.io/library/ID": "id"}.get(name, name)
    made, codes = _report(name)
    assert made["image"].pop("reference") == name
    expected["image"].pop("reference")
    assert made == expected
    assert "engine-storage" not in codes


@pytest.mark.parametrize("source", ["docker://kit", "other", "podman://kit:other", "deadbeef"])
def test_what_is_not_there_ends_as_without_the_storage(alone: ContainersStorage, source: str) -> None:
    with pytest.raises((EngineError, ImageNotFoundError)):
        _report(source)


def test_an_engine_that_is_named_is_the_one_that_is_asked(
    alone: ContainersStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_HOST", "unix:///nonexistent/podman.sock")
    with pytest.raises(EngineError):
        _report("kit")


def test_another_platform_without_an_engine(alone: ContainersStorage) -> None:
    with pytest.raises(PlatformError):
        open_image("podman://kit", platform="linux/s390x", cache=False)


STREAMED = ("no checksum", "a checksum that is none")
"""Damage to what the tar itself does not need: it is put together whole then, and hashed."""


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_surprise_without_an_export_is_an_error(
    alone: ContainersStorage, expected: dict[str, Any], damage: str
) -> None:
    HOSTILE[damage](alone)
    if damage in STREAMED:
        made, _ = _report("podman://kit")
        del made["image"]["reference"], expected["image"]["reference"]
        assert made == expected
        return
    with pytest.raises(LayerLensError) as caught:
        _report("podman://kit")
    assert "./app.tar" in caught.value.hint or "export" in caught.value.hint.lower()


def test_where_the_storage_is(tmp_path: Path) -> None:
    usual = Path("/home/me/.local/share/containers/storage")
    home = {"HOME": "/home/me", "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf")}
    assert containers_storage.roots(home, 1000) == [usual]
    assert containers_storage.roots({**home, "XDG_DATA_HOME": "/d"}, 1000) == [Path("/d/containers/storage")]
    assert containers_storage.roots(home, 0)[-1] == Path("/var/lib/containers/storage")
    for text in ("", "[storage]", "[storage", 'storage = "x"', '[storage]\ngraphroot = "relative"', "\xff"):
        (tmp_path / "storage.conf").write_text(text, encoding="latin-1")
        assert containers_storage.roots(home, 1000) == [usual]
    (tmp_path / "storage.conf").write_text('[storage]\ngraphroot = "/graph"\n')
    assert containers_storage.roots(home, 1000) == [Path("/graph"), usual]


# --- containerd's content store -------------------------------------------------------------------------------


def _containerd_info(root: Path) -> dict[str, Any]:
    status = [["driver-type", "io.containerd.snapshotter.v1"]]
    return {"DockerRootDir": str(root), "Driver": "overlayfs", "DriverStatus": status}


@pytest.fixture
def with_containerd(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FakeEngine, Path]]:
    """An engine with the containerd image store, and the root of its containerd."""
    monkeypatch.delenv(SWITCH, raising=False)
    with served(folder) as fake:
        monkeypatch.setenv("DOCKER_HOST", fake.url)
        fake.answers["/info"] = (200, json.dumps(_containerd_info(tmp_path)).encode())
        yield fake, tmp_path / "containerd/daemon"


def _report(name: str = "docker://kit:latest") -> tuple[dict[str, Any], list[str]]:
    with open_image(name, cache=False) as image:
        made = image.inspect(recommend=False).to_dict()
    return made, [found["code"] for found in made.pop("diagnostics")]


@pytest.mark.parametrize("api", ["1.44", "1.48"])
def test_containerds_content_store(
    with_containerd: tuple[FakeEngine, Path], api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, root = with_containerd
    digest = storagekit.content_store(KIT, root)
    kind = "application/vnd.oci.image.index.v1+json"
    more = {"Descriptor": {"digest": digest, "mediaType": kind}} if api == "1.48" else {}
    fake.api_version = api
    fake.add(KIT, "kit:latest", **more)
    fake.images["kit:latest"]["Id"] = digest
    fake.images[digest] = fake.images["kit:latest"]
    fake.archive = imagekit.tar_of(imagekit.containerd_save(KIT))
    made, codes = _report()
    assert not [asked for asked in fake.asked if asked.endswith("/get")]
    assert "engine-storage" not in codes
    monkeypatch.setenv(SWITCH, "off")
    expected, _ = _report()
    for layer in (*made["layers"], *expected["layers"]):
        assert layer.pop("digest", None)
    assert made == expected


@pytest.mark.parametrize("damage", ["config", "manifest", "layer", "other layers"])
def test_a_content_store_that_is_damaged(with_containerd: tuple[FakeEngine, Path], damage: str) -> None:
    fake, root = with_containerd
    digest = storagekit.content_store(KIT, root)
    fake.add(KIT, "kit:latest")
    known = fake.images["kit:latest"]
    known["Id"] = digest
    fake.images[digest] = known
    fake.archive = imagekit.tar_of(imagekit.containerd_save(KIT))
    blobs = root / "io.containerd.content.v1.content/blobs/sha256"
    if damage == "config":
        (blobs / imagekit.hex_of(KIT.image_id)).write_bytes(b"{}")
    elif damage == "manifest":
        (blobs / imagekit.hex_of(digest)).write_bytes(b"{}")
    elif damage == "layer":
        _a_layer(blobs).unlink()
    else:
        fake.add(imagekit.image(KIT.layers[:1]), "kit:latest")
        fake.images["kit:latest"]["Id"] = digest
        fake.images[digest] = fake.images["kit:latest"]
        fake.archive = imagekit.tar_of(imagekit.docker_archive_old(imagekit.image(KIT.layers[:1])))
    _, codes = _report()
    assert codes.count("engine-storage") == 1
    assert len([asked for asked in fake.asked if asked.endswith("/get")]) == 1


def test_a_blob_that_was_changed_is_an_error_as_in_the_export(
    with_containerd: tuple[FakeEngine, Path],
) -> None:
    fake, root = with_containerd
    digest = storagekit.content_store(KIT, root)
    fake.add(KIT, "kit:latest")
    fake.images["kit:latest"]["Id"] = digest
    blobs = root / "io.containerd.content.v1.content/blobs/sha256"
    path = _a_layer(blobs)
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 0xFF
    path.write_bytes(blob)
    with pytest.raises(InvalidImageError):
        _report()


def _a_layer(blobs: Path) -> Path:
    """The blob of the first layer, which is compressed."""
    return blobs / imagekit.hex_of(imagekit.sha256(imagekit.compress(KIT.layers[0], "gzip")))


# --- real engines ---------------------------------------------------------------------------------------------


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


def _storage_is_read(source: EngineSource) -> bool:
    """Whether this machine and user may read the engine's storage; a remote engine's nobody can."""
    place = source.engine.storage()
    return place is not None and os.geteuid() == 0 and place.root.is_dir()


def _same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "off")
    expected, _ = _report(name)
    monkeypatch.delenv(SWITCH)
    made, codes = _report(name)
    assert "engine-storage" not in codes
    for report in (made, expected):
        for layer in report["layers"]:
            del layer["digest"]
    assert made == expected


def _hashed(source: EngineSource) -> list[str]:
    digests = []
    for layer in source.layers:
        hasher = hashlib.sha256()
        with layer.open() as stream:
            while chunk := stream.read(1 << 20):
                hasher.update(chunk)
        digests.append("sha256:" + hasher.hexdigest())
    return digests


@pytest.fixture
def built_here(tmp_path: Path) -> Iterator[str]:
    """An image that the real engine built itself: whiteouts, links, owners, a file that only changes its mode."""
    tag = f"layerlens-test/storage-{os.getpid()}"
    tar = imagekit.layer(
        {
            "/etc/": imagekit.DIR,
            "/etc/motd": b"hello\n",
            "/gone": b"gone" * 100,
            "/link": imagekit.Symlink(target="etc/motd"),
            **TWINS,
            **LARGE,
        }
    )
    docker("import", "-", f"{tag}:base", stdin=tar)
    (tmp_path / "new").write_bytes(b"twin" * 700)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f<&>ile").write_bytes(os.urandom(3000))
    (tmp_path / "sub" / "again").symlink_to("f<&>ile")
    (tmp_path / "Dockerfile").write_text(
        f'FROM {tag}:base\nCOPY new /srv/new\nCOPY --chown=1000:1000 sub /app\nCMD ["/app"]\n'
    )
    docker("build", "-q", "-t", tag, str(tmp_path))
    try:
        yield tag
    finally:
        docker("rmi", "-f", tag, f"{tag}:base")


@pytest.mark.engine
def test_a_real_engine(built_here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with open_engine(built_here, engines=("docker",)) as source:
        if not _storage_is_read(source):
            pytest.skip("the engine's storage is not this user's to read")
        assert _hashed(source) == list(source.diff_ids)
        assert source._archive is None
    _same(f"docker://{built_here}", monkeypatch)


CASES = ("already-slim", "shell-tool", "go-static")


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES)
def test_corpus_images(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    name = f"layerlens-corpus/{case}:multistage"
    with subprocess.Popen(["docker", "image", "inspect", name], stdout=-3, stderr=-3) as asked:
        there = asked.wait() == 0
    if not there:
        return  # built by the corpus's own tests and scripts, not here
    with open_engine(name, engines=("docker",)) as source:
        if not _storage_is_read(source):
            pytest.skip("the engine's storage is not this user's to read")
        assert _hashed(source) == list(source.diff_ids)
    _same(f"docker://{name}", monkeypatch)


@pytest.mark.podman
def test_a_real_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_sources_engine import _podman, real

    monkeypatch.delenv(SWITCH, raising=False)
    name = f"localhost/layerlens-test-storage-{os.getpid()}:one"
    built = real(name)
    _podman("POST", "/images/load?quiet=1", imagekit.tar_of(imagekit.docker_archive_old(built)))
    try:
        with open_engine(name, engines=("podman",)) as source:
            place = source.engine.storage()
            if place is None or not _storage_is_read(source):
                pytest.skip("podman's storage is not this user's to read")
            assert source.config == built.config
            assert _hashed(source) == list(source.diff_ids) == built.diff_ids
            assert source._archive is None
        _same(f"podman://{name}", monkeypatch)
        found = containers_storage.open_named([place.root], name, name, None)
        assert found is not None and found.config == built.config
        for layer, tar in zip(found.layers, built.layers, strict=True):
            with layer.open() as stream:
                assert stream.read() == tar
        found.close()
    finally:
        _podman("DELETE", f"/images/{name}?force=1", None)


@pytest.mark.engine
def test_a_real_containerd(with_containerd: tuple[FakeEngine, Path], folder: Path) -> None:
    """What Debian's containerd imports is read where it puts it; the engine before it is a fake one."""
    if os.geteuid() != 0 or not shutil.which("ctr") or not shutil.which("containerd"):
        pytest.skip("there is no containerd here that could be run")
    fake, root = with_containerd
    address = folder / "containerd.sock"
    config = folder / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    archive = folder / "kit.tar"
    archive.write_bytes(imagekit.tar_of(imagekit.containerd_save(KIT, partial=False)))
    command = ["containerd", "-c", config, "--root", root, "--state", folder / "state", "--address", address]
    with subprocess.Popen(command, stdout=-3, stderr=-3) as daemon:
        try:
            ctr = ["ctr", "--address", str(address)]
            deadline_s = time.monotonic() + 60
            while subprocess.run([*ctr, "version"], capture_output=True).returncode != 0:
                assert daemon.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.1)
            subprocess.run(
                [*ctr, "image", "import", "--no-unpack", str(archive)], check=True, capture_output=True
            )
            listed = subprocess.run([*ctr, "image", "ls"], check=True, capture_output=True, text=True).stdout
        finally:
            daemon.terminate()
    digest = next(word for word in listed.split() if word.startswith("sha256:"))
    fake.add(KIT, "kit:latest")
    fake.images["kit:latest"]["Id"] = digest
    made, codes = _report()
    assert not [asked for asked in fake.asked if asked.endswith("/get")]
    assert "engine-storage" not in codes
    assert [layer["diff_id"] for layer in made["layers"]] == KIT.diff_ids
    assert made["totals"]["entries"] > 40
