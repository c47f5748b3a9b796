"""From a plan to the slim image: what it holds, where it goes, how it is proved, by an engine where it matters."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from imagekit import (
    Dir,
    File,
    Hardlink,
    Symlink,
    docker_archive_old,
    image,
    layer,
    oci_layout,
    tar_of,
    write_folder,
)
from serverkit import Images, docker, image_id, images, program

import layerlens
from layerlens import slimming
from layerlens.ecosystems.rpm import ecosystem as rpm
from layerlens.errors import OutputError, UnavailableError, UsageError
from layerlens.loadercache import Cache, CacheEntry, encode_cache, joined_cache, parse_cache
from layerlens.probing import ExecProbe, HttpProbe, Probe
from layerlens.slimming import Destination, Proof, Slimmed

__all__ = ["images", "program"]

STATUS = b"""Package: base-files
Status: install ok installed
Version: 12
Architecture: amd64
Description: b

Package: tool
Status: install ok installed
Version: 1.0
Architecture: amd64
Description: t

Package: other
Status: install ok installed
Version: 2.0
Architecture: amd64
Description: o

"""
CACHE = encode_cache(
    Cache(
        "<",
        0,
        (
            CacheEntry(3, b"libb.so.1", b"/usr/lib/libb.so.1", 0, 0),
            CacheEntry(3, b"liba.so.1", b"/usr/lib/liba.so.1", 0, 0),
        ),
    )
)
MEMBERS: dict[str, Any] = {
    "/bin/app": File(data=b"\x7fPROGRAM", mode=0o755),
    "/bin/sh": File(data=b"\x7fshell", mode=0o755),
    "/bin/dash": Hardlink(target="/bin/sh"),
    "/usr/bin/apt-get": File(data=b"\x7fapt", mode=0o755),
    "/usr/bin/su": File(data=b"\x7fsu", mode=0o4755),
    "/usr/bin/wall": File(data=b"\x7fwall", mode=0o2755),
    "/usr/bin/vi": File(data=b"\x7fvi", mode=0o4644),
    "/usr/bin/bash": Symlink(target="nowhere"),
    "/usr/share/sh": File(data=b"no program", mode=0o755),
    "/usr/lib/liba.so.1": b"a",
    "/usr/lib/libb.so.1": b"b",
    "/etc/ld.so.cache": CACHE,
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
    "/etc/group": b"root:x:0:\napp:x:1000:\n",
    "/tmp/": Dir(mode=0o1777),
    "/app/node_modules/left-pad/package.json": b'{"name": "left-pad", "version": "1.0.0"}',
    "/app/node_modules/left-pad/index.js": b"module.exports = 1",
    "/app/node_modules/.bin/left-pad": Symlink(target="../left-pad/index.js"),
    "/app/main.txt": b"text",
    "/var/lib/dpkg/status": STATUS,
    "/var/lib/dpkg/info/tool.list": b"/.\n/usr/lib\n/usr/lib/liba.so.1\n",
    "/var/lib/dpkg/info/other.list": b"/.\n/usr/lib\n/usr/lib/libb.so.1\n",
    "/var/lib/dpkg/info/base-files.list": b"/.\n/usr/share/sh\n",
}
KEEP = ("/usr/lib/liba.so.1", "/app", "/bin/sh")


def archive(folder: Path, members: dict[str, Any] = MEMBERS, name: str = "app.tar", **config: Any) -> Path:
    path = folder / name
    path.write_bytes(tar_of(docker_archive_old(image([layer(members)], config=config))))
    return path


def made(source: Path, **options: Any) -> Slimmed:
    with layerlens.open_image(str(source)) as opened:
        return opened.slim(**{"keep": KEEP, **options})


def live(path: Path) -> dict[str, Any]:
    with layerlens.open_image(str(path)) as opened:
        return {entry.path: entry for entry in opened.ls()}


def test_it_holds_what_is_needed_in_three_layers(tmp_path: Path) -> None:
    found = made(archive(tmp_path), output=tmp_path / "slim.tar")
    entries = live(tmp_path / "slim.tar")
    assert {"/bin/app", "/usr/lib/liba.so.1", "/bin/sh", "/app/main.txt", "/tmp"} <= set(entries)
    assert not {"/usr/lib/libb.so.1", "/usr/bin/su", "/usr/bin/apt-get"} & set(entries)
    assert [one.title for one in found.layers] == ["OS and runtime", "dependencies", "application"]
    assert entries["/app/node_modules/left-pad/index.js"].layer == 1
    assert entries["/app/node_modules/.bin/left-pad"].layer == 1, "a link lies where its target does"
    assert entries["/app/main.txt"].layer == 2 and entries["/bin/app"].layer == 0
    assert found.written is not None and found.passed and found.size_bytes == found.image.payload_bytes
    assert found.to_dict()["warnings"] == [], "what a Dockerfile would have to name does not matter here"
    with layerlens.open_image(str(tmp_path / "slim.tar")) as opened:
        assert [one.text for one in opened.instructions] == [
            f"layerlens slim: {title}" for title in ("OS and runtime", "dependencies", "application")
        ]
        assert opened.id == found.written.image_id


def test_loader_cache_and_package_database_say_what_is_there(tmp_path: Path) -> None:
    found = made(archive(tmp_path), output=tmp_path / "slim.tar")
    assert found.to_dict()["rewritten"] == ["/etc/ld.so.cache", "/var/lib/dpkg/status"]
    with layerlens.open_image(str(tmp_path / "slim.tar")) as opened:
        cache = parse_cache(opened.fs.read("/etc/ld.so.cache"))
        assert [entry.path for entry in cache.entries] == [b"/usr/lib/liba.so.1"]
        packages = {(package.ecosystem, package.name) for package in opened.attribution.packages}
    assert packages == {("dpkg", "tool"), ("node", "left-pad")}


def test_what_is_left_to_attack_is_counted(tmp_path: Path) -> None:
    told = made(archive(tmp_path), output=tmp_path / "slim.tar").to_dict()["security"]
    assert told["before"] == {
        "packages": 4,
        "packages_by_ecosystem": {"dpkg": 3, "node": 1},
        "setuid": ["/usr/bin/su", "/usr/bin/wall"],
        "shells": ["/bin/dash", "/bin/sh"],
        "package_managers": ["/usr/bin/apt-get"],
    }
    assert told["after"] == {
        "packages": 2,
        "packages_by_ecosystem": {"dpkg": 1, "node": 1},
        "setuid": [],
        "shells": ["/bin/sh"],
        "package_managers": [],
    }


def test_a_plan_is_an_image_not_yet_written(tmp_path: Path) -> None:
    with layerlens.open_image(str(archive(tmp_path))) as opened:
        planned = opened.recommend("scratch", keep=KEEP, exchange=False).image()
        assert planned.payload_bytes == opened.slim(output="/dev/null", keep=KEEP).size_bytes
        assert planned.rewritten == ["/etc/ld.so.cache", "/var/lib/dpkg/status"]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    source = archive(tmp_path)
    for form in ("docker-archive", "oci"):
        one, two = tmp_path / f"{form}-1.tar", tmp_path / f"{form}-2.tar"
        first = made(source, output=one, output_format=form)
        second = made(source, output=two, output_format=form)
        assert one.read_bytes() == two.read_bytes() and first.written == second.written


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing says where"),
        ({"tag": "No Name"}, "cannot be the name"),
        ({"tag": "app@sha256:" + "a" * 64}, "cannot be the name"),
        ({"tag": "a" * 64}, "cannot be the name"),
        ({"tag": "app", "form": "oci"}, "no output"),
        ({"tag": "app", "compression": "zstd"}, "no output"),
        ({"output": Path("-")}, "standard output"),
        ({"output": Path("app.tar.gz")}, "not compressed"),
        ({"output": Path("app.tar"), "compression": "gzip"}, "not compressed"),
        ({"output": Path("no/such/app.tar")}, "folder is not there"),
        ({"output": Path("/tmp"), "form": "docker-archive"}, "is a folder"),
    ],
)
def test_destinations_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, OutputError), match=words) as caught:
        Destination(**options).check()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("output", "form"), [("a.tar", "docker-archive"), ("folder", "oci"), ("/dev/null", "docker-archive")]
)
def test_the_output_says_its_form(output: str, form: str) -> None:
    assert Destination(output=Path(output)).output_format == form


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    found = made(archive(tmp_path), output="/dev/null")
    assert found.written is not None and not Path("/dev/null").is_file()
    with pytest.raises(OutputError, match="no space left"):
        made(archive(tmp_path), output="/dev/full")
    with pytest.raises(OutputError, match="no folder"):
        made(archive(tmp_path), output="/dev/null", output_format="oci")


# --- on a base -----------------------------------------------------------

BASE: dict[str, Any] = {
    "/bin/sh": File(data=b"\x7fshell", mode=0o755),
    "/usr/lib/liba.so.1": b"a",
    "/usr/lib/libz.so.1": b"z",
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh",
    "/etc/group": b"root:x:0:\n",
    "/tmp/": Dir(mode=0o1777),
    "/usr/bin/su": File(data=b"\x7fsu", mode=0o4755),
    "/etc/os-release": b"ID=debian\n",
    "/etc/ld.so.cache": encode_cache(
        Cache(
            "<",
            0,
            (
                CacheEntry(3, b"libz.so.1", b"/usr/lib/libz.so.1", 0, 0),
                CacheEntry(3, b"liba.so.1", b"/usr/lib/liba.so.1", 0, 0),
            ),
        )
    ),
    "/var/lib/dpkg/status": STATUS.partition(b"Package: tool")[0],
    "/var/lib/dpkg/info/base-files.list": b"/.\n/etc/os-release\n",
}


def test_joined_loader_caches_are_in_ldconfigs_order() -> None:
    raw = Path("/etc/ld.so.cache")
    if not raw.exists():
        pytest.skip("this machine has no loader cache")
    cache = parse_cache(raw.read_bytes())
    if any(entry.hwcap for entry in cache.entries):
        cache = Cache(cache.order, cache.flags, tuple(entry for entry in cache.entries if not entry.hwcap))
    halves = [Cache(cache.order, cache.flags, cache.entries[start::2]) for start in (0, 1)]
    assert len(cache.entries) > 20
    for one, two in (halves, halves[::-1]):
        assert [entry.name for entry in joined_cache(one, two).entries] == [e.name for e in cache.entries]
    assert joined_cache(cache, halves[0]).entries == cache.entries


def test_on_a_base_only_what_that_lacks_is_added(tmp_path: Path) -> None:
    source = archive(tmp_path, User="app")
    base = archive(tmp_path, BASE, "base.tar")
    for form in ("docker-archive", "oci"):
        output = tmp_path / f"slim-{form}.tar"
        found = made(source, runtime=str(base), output=output, output_format=form, keep=("/usr/lib",))
        with layerlens.open_image(str(output)) as opened:
            fs = opened.fs
            assert fs.layer_of("/usr/lib/liba.so.1") == 0 and fs.layer_of("/usr/lib/libb.so.1") == 1
            assert fs.read("/usr/lib/libz.so.1") == b"z"
            assert fs.read_text("/etc/passwd").splitlines()[-1] == "app:x:1000:1000::/srv:/bin/sh"
            assert fs.read_text("/etc/passwd").startswith("root:x:0:0:root:/root:/bin/sh\n")
            assert opened.config.user == "app"
            cache = parse_cache(fs.read("/etc/ld.so.cache"))
            assert [entry.name for entry in cache.entries] == [b"libz.so.1", b"libb.so.1", b"liba.so.1"]
            names = {package.name for package in opened.attribution.packages if package.is_os}
            assert names == {"base-files", "other"}, "the base's, and what was copied onto it"
        assert found.to_dict()["layers"][0]["title"] == "runtime image"
        assert "/usr/bin/su" in found.after.setuid
    shadowed = ("/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/var/lib/dpkg/status")
    assert found.to_dict()["rewritten"] == sorted(shadowed)
    visible = sum(entry.size_bytes for entry in live(output).values())
    assert found.size_bytes == visible + sum(len(BASE[path]) for path in shadowed)


def test_packages_that_no_database_can_take_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rpm's database is not text to which something could be added."""
    base = archive(tmp_path, BASE, "base.tar")
    found = made(archive(tmp_path), runtime=str(base), output="/dev/null", keep=("/usr/lib",))
    assert found.warnings == []
    monkeypatch.setattr(slimming, "ecosystems", lambda: [rpm])
    (warning,) = found.warnings
    assert warning.startswith("scanners do not see") and warning.endswith(": other")


def test_docker_archives_have_no_zstd(tmp_path: Path) -> None:
    """Docker reads it there since version 23 only; gzip every one does."""
    source = archive(tmp_path)
    for compression, magic in (("zstd", None), ("gzip", b"\x1f\x8b")):
        base = write_folder(
            oci_layout(image([layer(BASE)]), compression=compression), tmp_path / f"base-{compression}"
        )
        found = made(source, runtime=str(base), output=tmp_path / "slim.tar", keep=("/usr/lib",))
        with tarfile.open(tmp_path / "slim.tar") as written:
            stored = written.extractfile("layer-0.tar")
            assert stored is not None
            data = stored.read()
        assert data.startswith(magic or b"bin") and found.written is not None
        with layerlens.open_image(str(tmp_path / "slim.tar")) as opened:
            assert opened.fs.read("/usr/lib/libz.so.1") == b"z"
            assert found.written.stored_bytes == sum(
                one.compressed_bytes or 0 for one in opened.source.layers
            )


def test_a_base_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, "unix:///nonexistent.sock")
    source = archive(tmp_path)
    base = archive(tmp_path, {"/usr/lib64/x": b"", "/app": Symlink(target="usr/lib64"), **BASE}, "base.tar")
    for keep in (KEEP, ("/app/main.txt",)):
        with pytest.raises(UsageError, match=r"/app is a dir in the image and a symlink in .*do not fit"):
            made(source, runtime=str(base), output=tmp_path / "slim.tar", keep=keep)
    with pytest.raises(UsageError, match="cannot be opened"):
        made(source, runtime="debian:12-slim", output=tmp_path / "slim.tar")
    assert not (tmp_path / "slim.tar").exists()


# --- the proof -----------------------------------------------------------


def asking(images: Images, *paths: str, **options: Any) -> Probe:
    return Probe(tuple(HttpProbe(images.port, path) for path in paths), timeout_s=3, **options)


def checks(found: Slimmed) -> dict[str, Any]:
    assert found.verification is not None
    return {check.probe: check for check in found.verification.checks}


@pytest.mark.engine
def test_what_passes_gets_its_name(images: Images) -> None:
    name, slim = images.load(), images.tag("slim")
    with layerlens.open_image(f"docker://{name}") as opened:
        found = opened.slim(tag=slim, keep=("/data",), proof=Proof(asking(images, "/a", "/none")))
    assert found.passed and found.rounds == 0 and found.missed == () and found.written is not None
    assert image_id(slim) == found.written.image_id
    told = json.loads(json.dumps(found.to_dict()))
    assert told["verification"]["passed"] and told["id"] == image_id(slim) and told["tag"] == slim
    assert told["totals"]["slim_bytes"] < told["totals"]["original_bytes"]


@pytest.mark.engine
def test_what_static_analysis_misses_is_found_named_and_added(
    images: Images, watching: None, tmp_path: Path
) -> None:
    source = images.archive(tmp_path)
    with layerlens.open_image(str(source)) as opened:
        found = opened.slim(output=tmp_path / "slim.tar", proof=Proof(asking(images, "/a", "/is/flag")))
    assert found.passed and found.rounds == 2, "first what it opens, then what it only asks for"
    assert [(missed.path, missed.how) for missed in found.missed] == [
        ("/data/a", "the original opened it"),
        ("/etc/flag", "the original asked whether it is there"),
    ]
    assert [edge.kind for edge in found.plan.chain("/data/a")] == ["observed"]
    entries = live(tmp_path / "slim.tar")
    assert "/data/a" in entries and "/data/b" not in entries and "/usr/share/doc/big" not in entries
    assert images.ids() == set(), "both images were loaded and removed again"
    assert found.to_dict()["observed"][0]["category"] is not None


@pytest.mark.engine
def test_what_is_dropped_is_named_and_stays_dropped(images: Images, watching: None, tmp_path: Path) -> None:
    name, output = images.load(), tmp_path / "slim.tar"
    with layerlens.open_image(f"docker://{name}") as opened:
        found = opened.slim(
            output=output,
            keep=("/data",),
            drop=("/data/b",),
            proof=Proof(asking(images, "/a", "/b")),
        )
    assert not found.passed and found.verification is not None
    assert found.verification.missing == ("/data/b",) and found.rounds == 0
    told = checks(found)
    assert told[f"GET :{images.port}/a"].same and not told[f"GET :{images.port}/b"].same
    assert found.written is None and found.layers == [] and not output.exists()


@pytest.mark.engine
def test_observing_first_adds_what_is_used(images: Images, watching: None, tmp_path: Path) -> None:
    name = images.load()
    probe = Probe((HttpProbe(images.port, "/a"),), (ExecProbe(("cat", "/data/b")),), timeout_s=5)
    with layerlens.open_image(f"docker://{name}") as opened:
        found = opened.slim(output=tmp_path / "slim.tar", observe=probe)
    assert [missed.path for missed in found.missed] == ["/data/a", "/data/b"]
    assert found.verification is None and {"/data/a", "/data/b"} <= set(live(tmp_path / "slim.tar"))


@pytest.mark.engine
def test_where_nothing_can_be_watched_it_says_why(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    name = images.load()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with layerlens.open_image(f"docker://{name}") as opened:
        found = opened.slim(tag=images.tag("slim"), proof=Proof(asking(images, "/a")))
        assert not found.passed and found.verification is not None
        assert "tracing needs root" in found.verification.untraced and found.verification.missing == ()
        with pytest.raises(UnavailableError, match="root"):
            opened.slim(tag=images.tag("slim"), observe=Probe())


@pytest.mark.engine
def test_an_original_that_fails_proves_nothing(images: Images) -> None:
    name = images.load(Cmd=["die"])
    ids = images.ids()
    with layerlens.open_image(f"docker://{name}") as opened:
        found = opened.slim(tag=images.tag("slim"), keep=("/data",), proof=Proof(asking(images, "/a")))
    assert not found.passed and found.rounds == 0
    assert (
        "the original: the container ended (exit status 9)" in checks(found)[f"GET :{images.port}/a"].detail
    )
    assert images.ids() == ids and image_id(images.tag("slim")) is None


@pytest.mark.engine
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_ends_it_while_loading_leaves_no_image(
    images: Images, stop: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has the whole archive and has not answered yet when a signal comes."""
    from layerlens.sources.docker_engine import Engine

    name = images.load()
    ids = images.ids()
    load: Callable[..., str] = Engine.load

    def interrupted(self: Engine, chunks: Any) -> str:
        load(self, chunks)
        raise stop

    monkeypatch.setattr(Engine, "load", interrupted)
    with layerlens.open_image(f"docker://{name}") as opened, pytest.raises(stop):
        opened.slim(tag=images.tag("slim"), keep=("/data",))
    assert images.ids() == ids


@pytest.mark.engine
def test_an_image_that_was_there_or_got_a_name_stays(images: Images) -> None:
    from layerlens.destinations import DockerArchive
    from layerlens.loading import CarriedImage, loaded
    from layerlens.sources.docker_engine import connect

    name = images.load()
    engine = connect(("docker",))
    with layerlens.open_image(f"docker://{name}") as opened:
        with loaded(engine, DockerArchive(CarriedImage(opened.source))) as guest:
            assert guest.was_there and guest.image.image_id == image_id(name) == opened.id
        assert image_id(name) == opened.id
        made = opened.slim(output="/dev/null", keep=("/data",))
        with loaded(engine, DockerArchive(made.image)) as guest:
            with loaded(engine, DockerArchive(made.image)) as again:
                assert again.was_there and not guest.was_there
            assert made.written is not None and image_id(made.written.image_id) is not None
        assert image_id(made.written.image_id) is None
        with loaded(engine, DockerArchive(made.image)) as guest:
            docker("tag", guest.image.image_id, images.tag("somebody's".replace("'", "-")))
        assert image_id(made.written.image_id) is not None
    engine.close()
