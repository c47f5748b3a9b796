"""The cache's files: intact or not there, private, bounded; whatever happens to the folder costs speed alone."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CommandLine

from layerlens import cache as cache_module
from layerlens.cache import Cache, Usage, default_folder

SECTIONS = {"first": [b"one", b"", b"two"], "second": [], "third": [bytes(range(256)) * 20]}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "folder" / "cache")


def stored(cache: Cache, key: str = "sha256:1", kind: str = "layer") -> Path:
    """An entry that was written, and the file it is in."""
    before = set(cache.folder.glob("*")) if cache.folder.exists() else set()
    assert cache.store(kind, key, SECTIONS)
    (file,) = (path for path in set(cache.folder.glob("*.entry")) - before)
    return file


def content(cache: Cache, key: str = "sha256:1", kind: str = "layer") -> dict[str, bytes] | None:
    """Every section of an entry; None where it is not there or not intact."""
    entry = cache.find(kind, key)
    if entry is None:
        return None
    try:
        return {name: entry.section(name) for name in SECTIONS}
    except ValueError:
        return None
    finally:
        entry.close()


INTACT = {name: b"".join(pieces) for name, pieces in SECTIONS.items()}


def test_what_is_stored_is_found_by_its_kind_and_key(cache: Cache) -> None:
    assert cache.find("layer", "sha256:1") is None
    assert not cache.folder.exists(), "looking makes nothing"
    stored(cache)
    assert content(cache) == INTACT
    assert cache.find("layer", "sha256:2") is None
    assert cache.find("reads", "sha256:1") is None
    assert content(Cache(cache.folder)) == INTACT
    assert cache.diagnostics == []


def test_parts_of_a_section(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)
    for held_bytes in (0, 1 << 20):  # from the open file, and from memory
        monkeypatch.setattr(cache_module, "_HELD_BYTES", held_bytes)
        entry = cache.find("layer", "sha256:1")
        assert entry is not None
        assert entry.part("first", 2, 3) == b"etw"
        assert entry.part("third", 5120, 0) == b""
        for offset, size in ((-1, 2), (4, 3), (7, 0)):
            with pytest.raises(ValueError, match="end"):
                entry.part("first", offset, size)
        with pytest.raises(KeyError):
            entry.part("none", 0, 1)
        entry.close()


def test_an_entry_replaces_the_one_before(cache: Cache) -> None:
    file = stored(cache)
    old = cache.find("layer", "sha256:1")
    assert old is not None
    cache.store("layer", "sha256:1", {name: [b"new"] for name in SECTIONS})
    assert content(cache) == dict.fromkeys(SECTIONS, b"new")
    assert old.section("third") == INTACT["third"], "whoever reads the old one goes on reading it"
    assert list(cache.folder.glob("*.entry")) == [file]


# --- what is damaged is not there -------------------------------------------------------------------------


def test_every_damaged_byte_is_noticed(cache: Cache) -> None:
    file = stored(cache)
    whole = file.read_bytes()
    offsets = sorted({*range(300), *random.Random(7).sample(range(len(whole)), 300), len(whole) - 1})
    for offset in offsets:
        changed = bytearray(whole)
        changed[offset] ^= 1 << offset % 8
        file.write_bytes(changed)
        assert content(cache) is None, offset
    file.write_bytes(whole)
    assert content(cache) == INTACT


def test_every_cut_is_noticed(cache: Cache) -> None:
    file = stored(cache)
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        assert content(cache) is None, length
    file.write_bytes(whole + b"\0")
    assert content(cache) is None


@pytest.mark.parametrize("garbage", [b"", b"\0" * 5000, b"layerlens entry\n" + b"\xff" * 4000, b"x" * 20])
def test_garbage_is_no_entry(cache: Cache, garbage: bytes) -> None:
    file = stored(cache)
    file.write_bytes(garbage)
    assert content(cache) is None
    stored_again = cache.store("layer", "sha256:1", SECTIONS)
    assert stored_again
    assert content(cache) == INTACT


def test_an_entry_under_anothers_name_is_none(cache: Cache) -> None:
    one = stored(cache, "sha256:1")
    other = stored(cache, "sha256:2")
    one.rename(other)
    assert content(cache, "sha256:2") is None


def test_another_versions_entry_is_none(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stored(cache)
    monkeypatch.setattr(cache_module, "VERSION", "another")
    assert content(cache) is None
    assert cache.store("layer", "sha256:1", SECTIONS)
    assert content(cache) == INTACT
    assert list(cache.folder.glob("*.entry")) == [file], "it takes the old one's place"


def test_what_is_no_file_is_no_entry(cache: Cache, tmp_path: Path) -> None:
    file = stored(cache)
    elsewhere = file.rename(tmp_path / "elsewhere")
    whole = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    assert content(cache) is None, "a link, even to an intact entry"
    assert cache.store("layer", "sha256:1", {name: [b"new"] for name in SECTIONS})
    assert elsewhere.read_bytes() == whole, "and nothing is written through it"
    assert not file.is_symlink()
    file.unlink()
    os.mkfifo(file)
    assert content(cache) is None
    file.unlink()
    file.mkdir()
    assert content(cache) is None
    assert not cache.store("layer", "sha256:1", SECTIONS)
    assert [found.code for found in cache.diagnostics] == ["cache-not-used"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_another_users_entry_is_none(cache: Cache) -> None:
    file = stored(cache)
    os.chown(file, 65534, 65534)
    assert content(cache) is None


# --- room -------------------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first(cache: Cache) -> None:
    files = {}
    for number in range(6):
        files[number] = stored(cache, f"sha256:{number}")
        os.utime(files[number], (1_700_000_000 + number, 1_700_000_000 + number))
    assert content(cache, "sha256:0") == INTACT  # which is a use
    cache.max_bytes = 3 * files[0].stat().st_size
    cache.close()
    assert sorted(number for number in files if files[number].exists()) == [0, 4, 5]
    assert cache.usage().size_bytes <= cache.max_bytes


def test_nothing_is_removed_by_who_writes_nothing(cache: Cache) -> None:
    file = stored(cache)
    cache.close()
    reader = Cache(cache.folder, max_bytes=1)
    assert content(reader) == INTACT
    reader.close()
    assert file.exists()


def test_an_entry_that_would_push_out_all_others_is_not_stored(cache: Cache) -> None:
    cache.max_bytes = 2 * sum(map(len, INTACT.values())) - 2
    assert not cache.store("layer", "sha256:1", SECTIONS)
    assert cache.usage() == Usage(0, 0)


def test_what_killed_processes_left_is_removed(cache: Cache) -> None:
    stored(cache)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    of_the_dead = cache.folder / f".new-{gone.pid}-{'0' * 16}"
    of_the_living = cache.folder / f".new-{os.getpid()}-{'1' * 16}"
    old = cache.folder / f".new-{os.getpid()}-{'2' * 16}"
    foreign = cache.folder / ".new-or-so"
    for file in (of_the_dead, of_the_living, old, foreign):
        file.write_bytes(b"half")
    os.utime(old, (1_700_000_000, 1_700_000_000))
    assert cache.usage().files == 4
    cache.close()
    assert [file.exists() for file in (of_the_dead, of_the_living, old, foreign)] == [
        False,
        True,
        False,
        True,
    ]


def test_clear_removes_what_is_ours_and_nothing_else(cache: Cache) -> None:
    file = stored(cache)
    stored(cache, kind="reads")
    unfinished = cache.folder / f".new-{os.getpid()}-{'0' * 16}"
    for name in (unfinished.name, "notes.txt", "layer-x.entry", f"layer-{'0' * 39}.entry"):
        (cache.folder / name).write_text("mine")
    size = cache.usage().size_bytes
    assert cache.clear() == Usage(2, size - 4)
    assert sorted(path.name for path in cache.folder.iterdir()) == [
        unfinished.name,
        "CACHEDIR.TAG",
        f"layer-{'0' * 39}.entry",
        "layer-x.entry",
        "notes.txt",
    ]
    assert cache.clear() == Usage(0, 0)
    assert not file.exists()


# --- the folder -------------------------------------------------------------------------------------------


def test_the_folder_is_private(cache: Cache) -> None:
    before = os.umask(0)
    try:
        file = stored(cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (cache.folder / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f0688")


def test_a_folder_that_others_may_write_to_is_not_used(cache: Cache) -> None:
    stored(cache)
    cache.close()
    for mode in (0o770, 0o702):
        cache.folder.chmod(mode)
        again = Cache(cache.folder)
        assert content(again) is None
        assert not again.store("layer", "sha256:2", SECTIONS)
        (said,) = again.diagnostics
        assert said.code == "cache-not-used" and "others may write" in said.message
        assert said.severity == "info"
    cache.folder.chmod(0o755)
    assert content(Cache(cache.folder)) == INTACT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_not_used(cache: Cache, tmp_path: Path) -> None:
    stored(cache)
    cache.close()
    os.chown(cache.folder, 65534, 65534)
    again = Cache(cache.folder)
    assert content(again) is None
    assert not again.store("layer", "sha256:2", SECTIONS)
    assert "another user's" in again.diagnostics[0].message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
@pytest.mark.parametrize("where", ["link", "link/cache"])
def test_a_link_that_another_user_set_is_not_followed(tmp_path: Path, where: str) -> None:
    (tmp_path / "real" / "cache").mkdir(parents=True, mode=0o700)
    (tmp_path / "real").chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    assert Cache(tmp_path / where).store("layer", "sha256:1", SECTIONS), "one's own link is"
    Cache(tmp_path / where).clear()
    os.lchown(link, 65534, 65534)
    refused = Cache(tmp_path / where)
    assert not refused.store("layer", "sha256:1", SECTIONS)
    assert refused.find("layer", "sha256:1") is None
    assert "link" in refused.diagnostics[0].message
    assert list((tmp_path / "real").rglob("*.entry")) == []


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/layerlens-cache", "nul\0byte"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / where)
    assert cache.find("layer", "sha256:1") is None
    assert not cache.store("layer", "sha256:1", SECTIONS)
    assert not cache.store("layer", "sha256:2", SECTIONS)
    assert cache.usage() == cache.clear() == Usage(0, 0)
    cache.close()
    assert [found.code for found in cache.diagnostics] == ["cache-not-used"], "said once"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk(cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    stored(cache)
    rename = os.rename

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", refuse)
    assert not cache.store("layer", "sha256:2", SECTIONS)
    monkeypatch.setattr(os, "rename", rename)
    assert os.strerror(number).lower() in cache.diagnostics[0].message
    assert not list(cache.folder.glob(".new-*")), "nothing half is left"
    assert content(Cache(cache.folder)) == INTACT


def test_a_file_that_was_swept_up_by_another_is_no_trouble(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def swept(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.unlink(source, dir_fd=src_dir_fd)
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", swept)
    assert not cache.store("layer", "sha256:1", SECTIONS)
    monkeypatch.setattr(os, "rename", rename)
    assert cache.diagnostics == []
    stored(cache)


def test_a_folder_that_is_removed_meanwhile_is_no_trouble(cache: Cache) -> None:
    stored(cache)
    shutil.rmtree(cache.folder)
    assert content(cache) is None
    assert not cache.store("layer", "sha256:2", SECTIONS)
    assert cache.diagnostics == []


def test_what_cannot_be_made_is_not_written(cache: Cache) -> None:
    """An error of the one who makes the bytes is not the disk's: it passes, and the cache stays in use."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.EIO, "the source's disk")

    with pytest.raises(OSError, match="source's"):
        cache.store("layer", "sha256:1", {"first": broken()})
    assert [path.name for path in cache.folder.iterdir()] == ["CACHEDIR.TAG"]
    assert cache.diagnostics == []
    stored(cache)


def test_a_read_only_folder_still_serves(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(cache)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert content(Cache(cache.folder)) == INTACT


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERLENS_CACHE_DIR", str(tmp_path / "named"))
    assert default_folder() == tmp_path / "named"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERLENS_CACHE_DIR", "relative")
    assert default_folder() == tmp_path / "relative"
    monkeypatch.delenv("LAYERLENS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert default_folder() == tmp_path / "xdg" / "layerlens"


# --- the commands -----------------------------------------------------------------------------------------


def test_info_and_clear(cli: CommandLine) -> None:
    said = cli("cache", "info")
    assert said.status == 0 and said.stderr == ""
    assert said.text.splitlines() == [f"folder   {cli.cache}", "entries  0", "size     0 B of 2.15 GB"]
    assert not cli.cache.exists()
    with_one = Cache(cli.cache)
    stored(with_one)
    assert "entries  1\n" in cli("cache", "info").text
    cleared = cli("cache", "clear")
    assert cleared.status == 0 and cleared.text.startswith("removed 1 entry, ")
    assert with_one.usage() == Usage(0, 0)


def test_clearing_what_must_not_be_used_says_why(cli: CommandLine) -> None:
    cli.cache.mkdir()
    cli.cache.chmod(0o777)
    refused = cli("cache", "clear")
    assert refused.status == 2
    assert "others may write" in refused.stderr and "hint: " in refused.stderr
    assert "others may write" in cli("cache", "info").text
