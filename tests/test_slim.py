"""Slim images from literals, read back with ``tarfile`` and with layerlens itself."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import treekit
from imagekit import (
    DIR,
    FIFO,
    Device,
    Dir,
    File,
    Hardlink,
    Symlink,
    docker_archive_old,
    header,
    image,
    layer,
    member,
    padded,
    pax_header,
    tar_of,
)
from squashkit import listing, squash

import layerlens
from layerlens import destinations
from layerlens.destinations import DockerArchive, write_image
from layerlens.errors import LayerLensError, OutputError, PathNotFoundError, UsageError
from layerlens.filesystem import Filesystem
from layerlens.loadercache import Cache, CacheEntry, encode_cache, loader_cache, parse_cache
from layerlens.slim import BaseImage, SlimImage, SlimSpec, plan_slim

CONFIG: dict[str, Any] = {
    "os": "linux",
    "architecture": "amd64",
    "created": "2024-02-03T04:05:06.789Z",
    "config": {
        "Cmd": ["/app/run"],
        "Labels": {"a": "b"},
        "User": "7",
        "Healthcheck": {"Test": ["CMD", "/x"]},
    },
    "container_config": {"Hostname": "builder"},
    "history": [{"created_by": "old"}],
    "rootfs": {"type": "layers", "diff_ids": []},
}


def group(path: str) -> int:
    return 2 if path.startswith("/app") else 1 if "/site-packages" in path else 0


def planned(
    fs: Filesystem, keep: Collection[str], rewrites: Mapping[str, bytes] | None = None, **config: Any
) -> SlimImage:
    return plan_slim(fs, SlimSpec(keep, group, {**CONFIG, **config}, rewrites or {}))


def tars(slim: SlimImage) -> list[bytes]:
    found = [b"".join(each.chunks()) for each in slim.layers]
    assert [len(data) for data in found] == [each.size_bytes for each in slim.layers]
    return found


def again(slim: SlimImage) -> Filesystem:
    return squash(*tars(slim))


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        infos = tar.getmembers()
    names = [info.name for info in infos]
    assert len(set(names)) == len(names)
    return {"/" + info.name: info for info in infos}


TRICKY = layer(
    {
        "/etc/": Dir(mode=0o751, uid=3, gid=4, mtime=1_600_000_000),
        "/etc/motd": File(data=b"hello", mode=0o640, uid=11, gid=12, mtime=1_600_000_001.25),
        "/bin/sudo": File(
            data=b"\x7fELF", mode=0o4755, xattrs={"security.capability": b"\1\0\0\2" + bytes(16)}
        ),
        "/bin/a": b"payload",
        "/bin/z": Hardlink(target="/bin/a"),
        "/bin/m": Hardlink(target="/bin/a"),
        "/dev-null": Device(kind="char", major=1, minor=3, mode=0o666),
        "/loop": Device(kind="block", major=7, minor=0),
        "/pipe": FIFO,
        "/tmp/": Dir(mode=0o1777),
        "/lnk": Symlink(target="etc/motd"),
        "/big-uid": File(data=b"x", uid=3_000_000_000, gid=4_000_000_000),
        "/caf\xe9": b"latin",
        "/" + "d" * 90 + "/" + "f" * 120: b"long",
        "/far": Symlink(target="/" + "t" * 150),
        "/implied/below": b"1",
    }
)
NON_UTF8 = layer([(b"odd-\xff\xfe", File(data=b"bytes"))], verbatim=True)


def test_every_kind_of_entry_survives_as_it_was() -> None:
    fs = squash(TRICKY, NON_UTF8)
    keep = [path for path in fs.live if path != "/"]
    slim = again(planned(fs, keep))
    before, after = listing(fs), listing(slim)
    assert before == after
    for path in keep:
        old, new = fs.entry(path), slim.entry(path)
        assert old.xattrs == new.xattrs
        if fs.live[path] >= 0:
            assert old.mtime == new.mtime


def test_a_subset_takes_parents_with_their_attributes_and_nothing_else() -> None:
    fs = squash(TRICKY)
    slim = planned(fs, ["/etc/motd", "/implied/below"])
    (data,) = tars(slim)
    found = members(data)
    assert list(found) == ["/etc", "/etc/motd", "/implied", "/implied/below"]
    assert (found["/etc"].mode, found["/etc"].uid, found["/etc"].gid) == (0o751, 3, 4)
    assert (found["/implied"].mode, found["/implied"].uid) == (0o755, 0)
    assert found["/etc/motd"].mtime == 1_600_000_001.25
    assert slim.payload_bytes == 6


def test_unchanged_entries_are_the_very_bytes_of_their_layer() -> None:
    fs = squash(TRICKY)
    (data,) = tars(planned(fs, ["/bin/sudo"]))
    index = fs.indexes[0]
    row = index.paths.index("/bin/sudo")
    assert TRICKY[index.starts[row] : index.offsets[row] + 4] in data


def test_hard_links_whose_first_name_goes_keep_one_payload() -> None:
    fs = squash(TRICKY)
    (data,) = tars(planned(fs, ["/bin/z", "/bin/m"]))
    found = members(data)
    assert found["/bin/m"].isreg() and found["/bin/m"].size == 7
    assert found["/bin/z"].islnk() and found["/bin/z"].linkname == "bin/m"
    assert squash(data).read("/bin/z") == b"payload"


def test_hard_links_across_groups_go_into_one_layer() -> None:
    fs = squash(layer({"/app/a": File(data=b"x" * 5, mode=0o600), "/usr/b": Hardlink(target="/app/a")}))
    slim = planned(fs, ["/app/a", "/usr/b"])
    (data,) = tars(slim)
    assert slim.new_layers[0].title == "OS and runtime"
    assert squash(data).groups and members(data)["/usr/b"].mode == 0o600


def test_a_hard_link_to_a_symlink_stays_one() -> None:
    fs = squash(layer({"/a": Symlink(target="x"), "/b": Hardlink(target="/a"), "/c": Hardlink(target="/a")}))
    slim = again(planned(fs, ["/b", "/c"]))
    assert listing(slim)["/b"][:2] == listing(fs)["/b"][:2]
    assert slim.groups and slim.entry("/c").link_target == "/b"


def test_three_layers_with_a_shared_directory_in_each() -> None:
    fs = squash(
        layer(
            {
                "/app/": Dir(mode=0o700, uid=5),
                "/app/run": b"1",
                "/usr/": Dir(mode=0o711),
                "/usr/lib.so": b"2",
                "/usr/site-packages/": DIR,
                "/usr/site-packages/x.py": b"3",
                "/usr/empty/": Dir(mode=0o1777),
            }
        )
    )
    slim = planned(fs, ["/app/run", "/usr/lib.so", "/usr/site-packages/x.py", "/usr/empty"])
    assert [each.title for each in slim.new_layers] == ["OS and runtime", "dependencies", "application"]
    first, second, third = map(members, tars(slim))
    assert list(first) == ["/usr", "/usr/empty", "/usr/lib.so"]
    assert list(second) == ["/usr", "/usr/site-packages", "/usr/site-packages/x.py"]
    assert list(third) == ["/app", "/app/run"]
    assert first["/usr"].mode == second["/usr"].mode == 0o711
    assert listing(again(slim)) == listing(fs)


def test_names_as_tools_write_them_become_plain_ones() -> None:
    raw = layer(
        [
            ("./", DIR),
            ("./a/", Dir(mode=0o711)),
            ("./a/b", File(data=b"1", xattrs={"user.x": b"y"})),
            ("/c", b"2"),
        ],
        verbatim=True,
    )
    (data,) = tars(planned(squash(raw), ["/a/b", "/c"]))
    assert list(members(data)) == ["/a", "/a/b", "/c"]
    assert squash(data).entry("/a/b").xattrs == {"user.x": b"y"}


def test_an_entry_placed_through_its_layers_own_link_gets_its_real_name() -> None:
    raw = layer(
        [("usr/lib/", DIR), ("lib", Symlink(target="usr/lib")), ("lib/x", File(data=b"1"))], verbatim=True
    )
    fs = squash(raw)
    assert "/usr/lib/x" in fs.live
    (data,) = tars(planned(fs, ["/lib", "/lib/x"]))
    assert list(members(data)) == ["/lib", "/usr", "/usr/lib", "/usr/lib/x"]


@pytest.mark.parametrize("name", ["hole", "n" * 130])
def test_sparse_files_stay_sparse(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 20)
        file.seek(512 << 10)
        file.write(b"data" * 100)
    for form in ("--format=gnu", "--format=posix"):
        raw = subprocess.run(
            ["tar", "-C", tmp_path, "-cS", form, "--transform=s,^,./,", name], capture_output=True, check=True
        ).stdout
        fs = squash(raw)
        slim = planned(fs, [f"/{name}"])
        assert slim.size_bytes < 32 << 10
        assert again(slim).read(f"/{name}") == (tmp_path / name).read_bytes()


def test_a_global_header_between_is_left_out() -> None:
    raw = (
        pax_header({"SCHILY.xattr.user.a": b"1"})
        + pax_header({"comment": b"x"}, globally=True)
        + member(b"f", File(data=b"1"), "ustar")
        + header(b"last", size=1)
        + padded(b"2")
        + bytes(1024)
    )
    (data,) = tars(planned(squash(raw), ["/f", "/last"]))
    assert b"comment" not in data and members(data)["/f"].pax_headers["SCHILY.xattr.user.a"] == "1"


def test_rewritten_files_keep_their_attributes() -> None:
    fs = squash(TRICKY)
    slim = again(
        planned(fs, ["/etc/motd", "/bin/z"], {"/etc/motd": b"other", "/bin/a": b"new", "/var/new": b"n"})
    )
    assert slim.read("/etc/motd") == b"other" and slim.entry("/etc/motd").uid == 11
    assert slim.read("/bin/z") == slim.read("/bin/a") == b"new"
    assert slim.read("/var/new") == b"n" and slim.entry("/var/new").mode == 0o644


def test_what_is_not_there_and_what_is_nothing() -> None:
    fs = squash(TRICKY)
    with pytest.raises(PathNotFoundError, match="/nowhere"):
        planned(fs, ["/nowhere"])
    with pytest.raises(UsageError, match="nothing is kept"):
        planned(fs, [])


def test_the_config_is_carried_over() -> None:
    slim = planned(squash(TRICKY), ["/etc/motd"])
    config = json.loads(slim.config(["sha256:" + "0" * 64]))
    assert config["config"] == CONFIG["config"] and config["created"] == CONFIG["created"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + "0" * 64]
    assert "container_config" not in config
    assert [entry["created_by"] for entry in config["history"]] == ["layerlens slim: OS and runtime"]


def test_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    slim = planned(squash(TRICKY), ["/implied/below"])
    assert json.loads(slim.config([]))["created"] == "1970-01-02T00:00:00Z"
    assert members(tars(slim)[0])["/implied"].mtime == 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="soon"):
        planned(squash(TRICKY), ["/etc/motd"])


# --- where it goes ----------------------------------------------------------------------------------------------


@pytest.fixture
def slim() -> SlimImage:
    fs = squash(TRICKY, layer({"/app/run": b"program" * 50_000}))
    return planned(fs, ["/etc/motd", "/bin/z", "/app/run"])


def forms(slim: SlimImage, folder: Path) -> Iterator[tuple[Path, destinations.Written]]:
    yield folder / "a.tar", write_image(slim, folder / "a.tar", tag="me/app:1")
    yield folder / "o.tar", write_image(slim, folder / "o.tar", "oci", tag="me/app:1", compression="zstd")
    yield folder / "plain", write_image(slim, folder / "plain", "oci", compression="none")
    yield folder / "layout", write_image(slim, folder / "layout", "oci", tag="app")


def test_every_form_is_read_back_as_the_same_image(slim: SlimImage, tmp_path: Path) -> None:
    expected = listing(again(slim))
    for path, written in forms(slim, tmp_path):
        with layerlens.open_image(str(path), verify_digests=True) as opened:
            assert opened.config.diff_ids == written.diff_ids
            assert hashlib.sha256(opened.source.config).hexdigest() == written.image_id.removeprefix(
                "sha256:"
            )
            assert listing(opened.fs) == expected
            assert [line.text for line in opened.instructions][-1].endswith("application")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "layout", "o.tar", "plain"]


def test_two_runs_give_the_same_bytes(slim: SlimImage, tmp_path: Path) -> None:
    sums = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        found = {}
        for path, _ in forms(slim, tmp_path / number):
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            for file in files:
                found[str(file.relative_to(tmp_path / number))] = hashlib.sha256(
                    file.read_bytes()
                ).hexdigest()
        sums.append(found)
    assert sums[0] == sums[1]


def test_gzip_has_no_time_in_it(slim: SlimImage, tmp_path: Path) -> None:
    write_image(slim, tmp_path / "layout", "oci")
    blobs = [p.read_bytes() for p in (tmp_path / "layout/blobs/sha256").iterdir()]
    packed = [blob for blob in blobs if blob.startswith(b"\x1f\x8b")]
    assert len(packed) == 2 and all(blob[4:8] == bytes(4) for blob in packed)
    assert sorted(map(gzip.decompress, packed)) == sorted(tars(slim))


def test_a_docker_archive_without_a_tag_has_no_name(slim: SlimImage) -> None:
    data = b"".join(DockerArchive(slim).chunks())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"] is None


def test_a_base_is_carried_over_as_stored(tmp_path: Path) -> None:
    base = image([layer({"/base": b"b"})], history=["RUN me"])
    (tmp_path / "base.tar").write_bytes(tar_of(docker_archive_old(base)))
    with layerlens.open_image(str(tmp_path / "base.tar")) as opened:
        below = BaseImage(opened.source.layers, opened.config.raw)
        slim = plan_slim(squash(TRICKY), SlimSpec(["/etc/motd"], group, CONFIG), below)
        for path, written in forms(slim, tmp_path):
            assert written.diff_ids[0] == base.diff_ids[0] and len(written.diff_ids) == 2
            with layerlens.open_image(str(path)) as made:
                assert {"/base", "/etc/motd"} <= set(made.fs.live)


def test_what_is_there_stays_when_writing_fails(
    slim: SlimImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(slim, tmp_path / "layout", "oci")
    before = sorted(p.name for p in (tmp_path / "layout/blobs/sha256").iterdir())
    (tmp_path / "a.tar").write_bytes(b"old")

    def full(*_: object) -> Iterator[bytes]:
        yield b"x" * 100
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("layerlens.slim.SlimLayer.chunks", full)
    for target, form in (
        (tmp_path / "a.tar", "docker-archive"),
        (tmp_path / "layout", "oci"),
        (tmp_path / "n", "oci"),
    ):
        with pytest.raises(OutputError, match="no space left") as caught:
            write_image(slim, target, form)  # type: ignore[arg-type]
        assert "bytes" in caught.value.hint
    assert (tmp_path / "a.tar").read_bytes() == b"old"
    assert sorted(p.name for p in (tmp_path / "layout/blobs/sha256").iterdir()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "layout"]


def test_without_nameless_files_it_works_as_well(
    slim: SlimImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    write_image(slim, tmp_path / "a.tar")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_somebody_elses_folder_is_left_alone(slim: SlimImage, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious")
    with pytest.raises(OutputError, match="no OCI layout"):
        write_image(slim, tmp_path / "mine", "oci")
    with pytest.raises(OutputError, match="is a folder"):
        write_image(slim, tmp_path / "mine")
    with pytest.raises(OutputError, match="no such file"):
        write_image(slim, tmp_path / "no/where.tar")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["file"]


@pytest.mark.skipif(not (shutil.which("skopeo") and shutil.which("umoci")), reason="needs skopeo and umoci")
def test_skopeo_and_umoci_accept_the_layout(slim: SlimImage, tmp_path: Path) -> None:
    ways = {"a.tar": "docker-archive", "o.tar": "oci-archive", "plain": "oci", "layout": "oci"}
    for path, _ in forms(slim, tmp_path):
        target = f"dir:{tmp_path / ('copy-' + path.name)}"
        done = subprocess.run(
            ["skopeo", "--insecure-policy", "copy", f"{ways[path.name]}:{path}", target],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    bundle = tmp_path / "bundle"
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout'}:latest", bundle],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (bundle / "rootfs/etc/motd").read_bytes() == b"hello"


# --- the loader's table ---------------------------------------------------------------------------------------------

CACHE = Cache(
    "<",
    2,
    (
        CacheEntry(0x303, b"libz.so.1", b"/lib/libz.so.1", 0, 0),
        CacheEntry(0x303, b"libc.so.6", b"/usr/lib/glibc-hwcaps/v3/libc.so.6", 0, 1 << 62),
        CacheEntry(0x303, b"libc.so.6", b"/usr/lib/libc.so.6", 0, 0),
    ),
    (b"v3",),
)


def cached(raw: bytes) -> Filesystem:
    return treekit.fs(
        {
            "/etc/ld.so.cache": raw,
            "/lib": Symlink(target="usr/lib"),
            "/usr/lib/libz.so.1": Symlink(target="libz.so.1.2"),
            "/usr/lib/libz.so.1.2": b"",
            "/usr/lib/libc.so.6": b"",
            "/usr/lib/glibc-hwcaps/v3/libc.so.6": b"",
        }
    )


def read_again(fs: Filesystem, kept: set[str]) -> Cache:
    """What the loader would read of the table that names ``kept`` alone."""
    cache = loader_cache(fs, kept)
    assert cache is not None
    return parse_cache(encode_cache(cache))


def test_the_loaders_table_names_what_is_kept() -> None:
    fs = cached(encode_cache(CACHE))
    everything = {"/usr/lib/libz.so.1", "/usr/lib/libz.so.1.2", "/usr/lib/libc.so.6"}
    hwcaps = "/usr/lib/glibc-hwcaps/v3/libc.so.6"
    assert read_again(fs, everything | {hwcaps}) == CACHE
    without = read_again(fs, everything)
    assert [entry.path for entry in without.entries] == [b"/lib/libz.so.1", b"/usr/lib/libc.so.6"]
    assert without.hwcaps == ()
    assert read_again(fs, {"/usr/lib/libz.so.1"}).entries == ()


def test_the_older_format_in_front_is_passed_over() -> None:
    old = b"ld.so-1.7.0\0" + (1).to_bytes(4, "little") + bytes(12)
    assert parse_cache(old + bytes(-len(old) % 8) + encode_cache(CACHE)) == CACHE
    big = Cache(">", 3, CACHE.entries, CACHE.hwcaps)
    assert parse_cache(encode_cache(big)) == big


def test_broken_tables_are_none() -> None:
    good = encode_cache(CACHE)
    for cut in range(0, len(good), 7):
        try:
            loader_cache(cached(good[:cut]), set())
        except LayerLensError as error:  # pragma: no cover
            pytest.fail(str(error))
    assert loader_cache(cached(b"musl has none"), set()) is None
    assert loader_cache(treekit.fs({"/x": b""}), set()) is None


@pytest.mark.skipif(
    not Path("/sbin/ldconfig").exists() or not Path("/etc/ld.so.cache").exists(),
    reason="needs glibc's ldconfig",
)
def test_ldconfig_reads_what_is_written(tmp_path: Path) -> None:
    def printed(file: Path) -> list[str]:
        done = subprocess.run(
            ["/sbin/ldconfig", "-p", "-C", file], capture_output=True, text=True, check=True
        )
        return [line for line in done.stdout.splitlines() if line.startswith("\t")]

    own = Path("/etc/ld.so.cache")
    cache = parse_cache(own.read_bytes())
    (tmp_path / "all").write_bytes(encode_cache(cache))
    assert printed(tmp_path / "all") == printed(own)
    half = Cache(cache.order, cache.flags, cache.entries[::2], cache.hwcaps)
    (tmp_path / "half").write_bytes(encode_cache(half))
    assert printed(tmp_path / "half") == printed(own)[::2]
