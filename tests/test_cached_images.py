"""Images through the cache: the same report, byte for byte, and never another image's."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import imagekit
import pytest
from conftest import ROOT, CommandLine
from enginekit import KIT, FakeEngine, served

from layerlens import layers as layers_module
from layerlens import reported
from layerlens.api import Image, open_image
from layerlens.cache import Cache
from layerlens.errors import DigestMismatchError, LayerLensError
from layerlens.render import json as json_form
from layerlens.render import terminal

EXPORT = f"/images/{KIT.image_id}/get"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine that has the kit's image, and is the only one."""
    folder = Path(tempfile.mkdtemp(prefix="ll-", dir="/tmp"))
    with served(folder) as running:
        running.add(KIT, "kit:latest")
        monkeypatch.setenv("DOCKER_HOST", running.url)
        monkeypatch.setenv("CONTAINER_HOST", "unix:///nonexistent/podman.sock")
        yield running
    shutil.rmtree(folder)


def report(source: str, cache: Cache | bool, *, recommend: bool = True, files: bool = True) -> str:
    """The JSON of one run, as `inspect` prints it; without ``files``, of a remembered report where there is one."""
    with open_image(source, cache=cache) as image:
        return json_form.dumps(image.inspect(recommend=recommend, files=files))


def exports(engine: FakeEngine) -> int:
    """How often an image was exported since this was last asked."""
    count = sum(question.endswith("/get") for question in engine.asked)
    engine.asked.clear()
    return count


def holding(engine: FakeEngine, *built: imagekit.BuiltImage) -> None:
    """Let the engine have these images and export the last of them."""
    for image in built:
        engine.add(image, *image.tags)
    engine.archive = imagekit.tar_of(imagekit.docker_archive_old(built[-1]))


# --- the same report --------------------------------------------------------------------------------------


def test_an_image_of_an_engine_is_exported_once(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", False)
    assert exports(engine) == 1
    assert report("kit:latest", cache) == plain
    assert exports(engine) == 1
    for _ in range(2):
        assert report("kit:latest", Cache(cache.folder)) == plain
        assert exports(engine) == 0
    assert report("kit:latest", False) == plain
    assert exports(engine) == 1, "--no-cache takes nothing from it"


@pytest.mark.parametrize("way", imagekit.ways(), ids=lambda way: way.name)
def test_every_way_in_gives_the_same_report_through_one_cache(
    way: imagekit.Way,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All ways share one folder here, so that each finds what the others stored."""
    source = way.write(KIT, tmp_path)
    shared = Cache(tmp_path_factory.getbasetemp() / "shared-by-all-ways")
    texts = []
    for used in (False, shared, shared):
        with Path(source if way.stdin else os.devnull).open("rb") as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            texts.append(report("-" if way.stdin else source, used))
    assert texts[0] == texts[1] == texts[2]
    assert shared.diagnostics == []


def test_a_compressed_layer_is_not_inflated_twice(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(imagekit.write_folder(imagekit.oci_layout(KIT), tmp_path / "layout"))
    first = report(source, cache)
    monkeypatch.setattr(layers_module, "open_inflated", lambda *_, **__: pytest.fail("inflated again"))
    assert report(source, cache) == first


def test_the_commands_say_the_same(engine: FakeEngine, cli: CommandLine) -> None:
    cli.environment["DOCKER_HOST"] = engine.url
    for words in (
        ("inspect", "kit:latest", "--format", "json"),
        ("ls", "kit:latest", "--format", "json"),
        ("why", "kit:latest", "/app/main.py", "--format", "json"),
        ("recommend", "kit:latest", "--runtime", "scratch", "--format", "json"),
    ):
        plain = cli(*words, "--no-cache")
        assert plain.status == 0, plain.stderr
        assert exports(engine) == 1
        for _ in range(2):
            again = cli(*words)
            assert (again.status, again.stdout, again.stderr) == (0, plain.stdout, plain.stderr)
        assert exports(engine) <= 1
    assert not list((cli.folder / "home").glob("**/*")), "nothing outside the folder that was named"


def test_no_cache_keeps_nothing(engine: FakeEngine, cli: CommandLine) -> None:
    cli.environment["DOCKER_HOST"] = engine.url
    assert cli("inspect", "kit:latest", "--no-cache").status == 0
    assert not cli.cache.exists()


# --- whole reports -----------------------------------------------------------------------------------------


@pytest.fixture
def forbid_analysis(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, whoever analyses an image fails."""
    return lambda: monkeypatch.setattr(Image, "_inspect", lambda *_: pytest.fail("analysed again"))


@pytest.mark.parametrize("recommend", [True, False])
def test_a_report_is_made_once(
    engine: FakeEngine, cache: Cache, recommend: bool, forbid_analysis: Callable[[], None]
) -> None:
    """Names that are not UTF-8, and whatever else the kit's image has, come back as they were."""
    with open_image("kit:latest", cache=cache) as image:
        first = image.inspect(recommend=recommend)
    forbid_analysis()
    with open_image("kit:latest", cache=cache) as image:
        again = image.inspect(recommend=recommend, files=False)
    assert again.to_dict() == first.to_dict()
    assert [row.path for row in again.paths] == [row.path for row in first.paths]
    assert terminal.report(again, 160, True) == terminal.report(first, 160, True)
    assert tuple(again.instructions) == tuple(first.instructions)
    with pytest.raises(LayerLensError, match="has lost its files"):
        again.to_pandas("files")


def test_a_report_with_files_is_made_anew(engine: FakeEngine, cache: Cache) -> None:
    report("kit:latest", cache)
    with open_image("kit:latest", cache=cache) as image:
        assert len(list(image.inspect().file_rows())) == len(image.fs.live)


def test_no_report_is_remembered_of_what_nobody_vouches_for(
    cache: Cache, tmp_path: Path, forbid_analysis: Callable[[], None]
) -> None:
    source = str(imagekit.write_folder(imagekit.oci_layout(KIT), tmp_path / "layout"))
    report(source, cache)
    forbid_analysis()
    with pytest.raises(pytest.fail.Exception):
        report(source, cache, files=False)


def test_an_image_that_a_plan_may_stand_on_changes_the_report(engine: FakeEngine, cache: Cache) -> None:
    linked = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout
    files = ["/bin/true", *(word for word in linked.split() if word.startswith("/"))]
    members = {
        "/etc/os-release": b"ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n",
        **{name: Path(name).read_bytes() for name in files},
    }
    built = imagekit.image([imagekit.layer(members)], config={"Cmd": ["/bin/true"]}, tags=("tool",))
    holding(engine, built)
    with open_image("tool", cache=cache) as image:
        image.inspect()
        base = next(iter(image._base_images))
    assert report("tool", cache, files=False) == report("tool", False)
    stood_on = imagekit.other(base)
    engine.add(stood_on, base)
    engine.answers[f"/images/{stood_on.image_id}/get"] = (
        200,
        imagekit.tar_of(imagekit.docker_archive_old(stood_on)),
    )
    plain = report("tool", False)
    for is_remembered in (False, True):
        with open_image("tool", cache=cache) as image:
            assert json_form.dumps(image.inspect(files=False)) == plain
            assert ("fs" not in image.__dict__) is is_remembered


def test_another_program_makes_another_report(
    engine: FakeEngine, cache: Cache, monkeypatch: pytest.MonkeyPatch, forbid_analysis: Callable[[], None]
) -> None:
    report("kit:latest", cache)
    program = reported._program()
    assert any(path.endswith("categories.toml") for path, _, _ in program)
    monkeypatch.setattr(reported, "_program", lambda: [*program[:-1], (*program[-1][:2], 0)])
    forbid_analysis()
    with pytest.raises(pytest.fail.Exception):
        report("kit:latest", cache, files=False)


def test_another_ecosystem_has_its_say(
    engine: FakeEngine, cache: Cache, monkeypatch: pytest.MonkeyPatch, forbid_analysis: Callable[[], None]
) -> None:
    """What an ecosystem of another distribution finds is in no key, so that nothing is remembered beside one."""
    report("kit:latest", cache)
    monkeypatch.setattr("layerlens.api.others_added", lambda: True)
    forbid_analysis()
    with pytest.raises(pytest.fail.Exception):
        report("kit:latest", cache, files=False)


# --- what is not there ------------------------------------------------------------------------------------


def test_content_that_nobody_asked_for_before_is_exported_for(engine: FakeEngine, cache: Cache) -> None:
    report("kit:latest", cache)
    exports(engine)
    with open_image("kit:latest", cache=cache) as image:
        image.inspect()
        assert exports(engine) == 0
        assert image.fs.read("/bin/su") == b"su" * 500
        assert image.fs.read("/usr/include/stdio.h", 40) == (b"#pragma once\n" * 4)[:40]
        assert exports(engine) == 1, "once for all of it"
    with open_image("kit:latest", cache=cache) as image:
        assert image.fs.read("/bin/su") == b"su" * 500
        assert exports(engine) == 0, "and from then on it is there as well"


def test_a_child_process_exports_nothing(engine: FakeEngine, cache: Cache) -> None:
    """Duplicates are looked for in a forked child; what it lacks, its parent fetches."""
    built = imagekit.image(
        [imagekit.layer({f"/{number}": bytes([number % 3]) * 20_000 for number in range(9)})], tags=("dup",)
    )
    holding(engine, built)
    plain = report("dup", False, recommend=False)
    with open_image("dup", cache=cache) as image:
        image.layers  # noqa: B018 - indexed and stored, and nothing of it hashed yet
    exports(engine)
    assert report("dup", cache, recommend=False) == plain
    assert exports(engine) == 1
    assert report("dup", cache, recommend=False) == plain
    assert exports(engine) == 0


def test_only_the_top_layer_rebuilt(
    engine: FakeEngine, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    report("kit:latest", cache)
    top = imagekit.layer({"/app/main.py": b"print('again')\n"})
    rebuilt = imagekit.image([*KIT.layers[:-1], top], tags=("kit:next",))
    holding(engine, rebuilt)
    plain = report("kit:next", False)
    indexed: list[int] = []
    index_file = layers_module.index_file

    def counted(fd: int, base: int, size: int) -> object:
        indexed.append(size)
        return index_file(fd, base, size)

    monkeypatch.setattr(layers_module, "index_file", counted)
    assert report("kit:next", cache) == plain
    assert indexed == [len(top)], "the others are known"


def test_an_image_that_holds_a_layer_twice(engine: FakeEngine, cache: Cache) -> None:
    twice = imagekit.layer({"/etc/os-release": b"ID=debian\n", "/a": b"a" * 100, "/b": b"a" * 100})
    other = imagekit.layer({"/a": b"b" * 100})
    holding(engine, imagekit.image([twice, other, twice], tags=("twice",)))
    plain = report("twice", False)
    exports(engine)
    assert report("twice", cache) == plain
    assert report("twice", cache) == plain
    assert exports(engine) == 1


def test_verifying_reads_everything_again(engine: FakeEngine, cache: Cache) -> None:
    report("kit:latest", cache)
    exports(engine)
    with open_image("kit:latest", cache=cache, verify_digests=True) as image:
        image.inspect()
    assert exports(engine) == 1


def test_an_engine_that_says_otherwise_is_exported_anew(engine: FakeEngine, cache: Cache) -> None:
    """The same ID with other layers: whatever that engine is, what was stored is not what it means."""
    report("kit:latest", cache)
    other = imagekit.image([imagekit.layer({"/other": b"x"})], tags=("kit:latest",))
    engine.add(other, "kit:latest", Id=KIT.image_id)
    engine.archive = imagekit.tar_of(imagekit.docker_archive_old(other))
    with open_image("kit:latest", cache=cache) as image:
        assert sorted(image.fs.live) == ["/other"]


# --- lies -------------------------------------------------------------------------------------------------

HONEST = imagekit.image([imagekit.layer({"/secret": b"honest" * 50, "/same": b"s"})], tags=("honest",))
BODY = imagekit.layer({"/secret": b"forged" * 50, "/other": b"o"})
FORGED = replace(imagekit.image([BODY], tags=("forged",)), config=HONEST.config)
"""Another layer under the honest image's config, and so under its ID and its diff ID."""


def _lying_docker(built: imagekit.BuiltImage) -> imagekit.Tree:
    return imagekit.docker_archive_old(built)


def _lying_blobs(how: imagekit.Compression) -> Callable[[imagekit.BuiltImage], imagekit.Tree]:
    """An OCI layout of the honest image in which other bytes lie under its blobs' names."""

    def tree(built: imagekit.BuiltImage) -> imagekit.Tree:
        honest = imagekit.compress(HONEST.layers[0], how)
        lie = imagekit.compress(built.layers[0], how)
        lie += bytes(max(0, len(honest) - len(lie)))
        blob = f"blobs/sha256/{imagekit.hex_of(imagekit.sha256(honest))}"
        members = dict(imagekit.oci_layout(HONEST, compression=how))
        assert blob in members
        return sorted({**members, blob: lie}.items())

    return tree


LIES: dict[str, Callable[[imagekit.BuiltImage], imagekit.Tree]] = {
    "docker-archive": _lying_docker,
    "docker-archive 25": imagekit.docker_archive_25,
    "podman": imagekit.podman,
    "oci uncompressed": lambda built: imagekit.oci_layout(built, compression="none"),
    "oci gzip": lambda built: imagekit.oci_layout(built, compression="gzip"),
    "oci zstd": lambda built: imagekit.oci_layout(built, compression="zstd"),
    "oci with another blob": _lying_blobs("gzip"),
    "oci uncompressed with another blob": _lying_blobs("none"),
}


@pytest.fixture
def honest(engine: FakeEngine, cache: Cache, tmp_path: Path) -> str:
    """The honest image's report, which the cache then has by every name there is for it."""
    holding(engine, HONEST)
    text = report("honest", cache)
    for how in ("gzip", "zstd"):
        layout = imagekit.write_folder(imagekit.oci_layout(HONEST, compression=how), tmp_path / how)
        report(str(layout), cache)
    return text


@pytest.mark.parametrize("how", LIES)
@pytest.mark.parametrize("spooled", [False, True], ids=["in place", "spooled"])
def test_a_file_that_claims_another_images_digests_never_gets_its_report(
    how: str, spooled: bool, honest: str, engine: FakeEngine, cache: Cache, tmp_path: Path
) -> None:
    data = imagekit.tar_of(LIES[how](FORGED))
    archive = tmp_path / ("lie.tar.gz" if spooled else "lie.tar")
    archive.write_bytes(imagekit.compress(data, "gzip") if spooled else data)
    assert "honest" in honest
    for verify in (False, True, False):
        try:
            with open_image(str(archive), cache=cache, verify_digests=verify) as image:
                assert image.source.config == HONEST.config, "it claims to be the honest one"
                assert "/other" in image.fs.live and "/same" not in image.fs.live
                assert image.fs.read("/secret") == b"forged" * 50
                image.inspect()
        except DigestMismatchError:
            continue  # caught lying: what was read on the way was hashed
        assert not verify and not spooled, "who hashes must notice"
    exports(engine)
    assert report("honest", cache) == honest, "and the honest image's is as it was"
    assert exports(engine) == 0


@pytest.mark.parametrize("how", LIES)
def test_a_lying_file_that_comes_first_leaves_nothing(
    how: str, engine: FakeEngine, cache: Cache, tmp_path: Path
) -> None:
    holding(engine, HONEST)
    archive = tmp_path / "lie.tar"
    archive.write_bytes(imagekit.tar_of(LIES[how](FORGED)))
    for verify in (False, True):
        with (
            contextlib.suppress(DigestMismatchError),
            open_image(str(archive), cache=cache, verify_digests=verify) as image,
        ):
            image.inspect()
    assert cache.usage().files == 0
    assert report("honest", cache) == report("honest", False)


def test_an_algorithm_that_is_not_checked_vouches_for_nothing(cache: Cache, tmp_path: Path) -> None:
    """A diff ID in SHA-512, which no reader here checks, is what the file claims and no more."""
    config = json.loads(HONEST.config)
    config["rootfs"]["diff_ids"] = ["sha512:" + "0" * 128]
    built = replace(FORGED, config=imagekit.dumps(config))
    for tree in (imagekit.oci_layout(built), imagekit.docker_archive_old(built)):
        archive = tmp_path / "lie.tar.gz"
        archive.write_bytes(imagekit.compress(imagekit.tar_of(tree), "gzip"))
        report(str(archive), cache)
        assert cache.usage().files == 0


def test_a_users_file_that_was_hashed_and_read_is_not_stored(cache: Cache, tmp_path: Path) -> None:
    """Between hashing and reading, anybody who may write to it could have changed it."""
    archive = tmp_path / "kit.tar"
    archive.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(KIT)))
    with open_image(str(archive), cache=cache, verify_digests=True) as image:
        image.inspect()
    assert cache.usage().files == 0


def test_an_uncompressed_archive_does_not_even_look_for_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerlens.cache.default_folder", lambda: pytest.fail("looked for"))
    for number, tree in enumerate((imagekit.docker_archive_25(KIT), imagekit.docker_archive_old(KIT))):
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(imagekit.tar_of(tree))
        report(str(archive), True, recommend=False)


def test_bytes_that_an_engine_exports_later_are_hashed_against_the_index(
    engine: FakeEngine, cache: Cache
) -> None:
    holding(engine, HONEST)
    report("honest", cache)
    engine.archive = imagekit.tar_of(imagekit.docker_archive_old(FORGED))
    with open_image("honest", cache=cache) as image, pytest.raises(DigestMismatchError):
        image.fs.read("/same")


# --- damage -----------------------------------------------------------------------------------------------


def damages(seed: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Ways to spoil a file, by name."""
    rng = random.Random(seed)

    def flip(file: Path) -> None:
        data = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= rng.randint(1, 255)
        file.write_bytes(data)

    yield "a byte or some", flip
    yield "cut", lambda file: os.truncate(file, rng.randrange(file.stat().st_size))
    yield "empty", lambda file: os.truncate(file, 0)
    yield "garbage", lambda file: file.write_bytes(rng.randbytes(file.stat().st_size)) and None
    yield "zeros", lambda file: file.write_bytes(bytes(file.stat().st_size)) and None
    yield "gone", lambda file: file.unlink()


def test_a_damaged_entry_is_made_anew(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", cache)
    pristine = {file: file.read_bytes() for file in cache.folder.glob("*.entry")}
    assert {file.name.partition("-")[0] for file in pristine} == {"config", "layer", "reads", "report"}
    for number, file in enumerate(sorted(pristine)):
        for what, damage in damages(number):
            damage(file)
            assert report("kit:latest", cache, files=False) == plain, (file.name, what)
            if file.exists():
                damage(file)
            assert report("kit:latest", cache) == plain, (file.name, what)
            exports(engine)
            assert report("kit:latest", cache) == plain
            assert exports(engine) == 0, f"{file.name}: {what}: it was not made anew"


def test_everything_damaged_at_once(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", cache)
    for what, damage in damages(99):
        for file in cache.folder.glob("*.entry"):
            damage(file)
        assert report("kit:latest", cache) == plain, what


def test_entries_that_were_mixed_up(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", cache)
    files = sorted(cache.folder.glob("*.entry"))
    contents = [file.read_bytes() for file in files]
    for file, data in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(data)
    assert report("kit:latest", cache) == plain


def test_damage_while_it_is_read(engine: FakeEngine, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerlens.cache._HELD_BYTES", 0)
    plain = report("kit:latest", cache)
    exports(engine)
    with open_image("kit:latest", cache=cache) as image:
        image.layers  # noqa: B018 - opened now, damaged before it is used
        for file in cache.folder.glob("reads-*"):
            data = bytearray(file.read_bytes())
            data[200:] = bytes(len(data) - 200)
            file.write_bytes(data)
        assert json_form.dumps(image.inspect()) == plain
    assert report("kit:latest", cache) == plain


# --- a folder that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["a file", "below a file", "the kernel's", "everybody's"])
def test_an_unusable_folder_is_a_diagnostic(engine: FakeEngine, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    folder = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "cache",
        "the kernel's": Path("/proc/cache"),
        "everybody's": tmp_path / "shared",
    }[where]
    plain = json.loads(report("kit:latest", False))
    told = json.loads(report("kit:latest", Cache(folder)))
    said = [found for found in told["diagnostics"] if found not in plain["diagnostics"]]
    assert [(found["severity"], found["code"]) for found in said] == [("info", "cache-not-used")]
    assert {**told, "diagnostics": None} == {**plain, "diagnostics": None}
    assert list((tmp_path / "shared").iterdir()) == []


@pytest.mark.parametrize("room", [300, 20_000])
def test_a_full_disk_costs_nothing_but_the_cache(cli: CommandLine, tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands for the disk: an OCI folder needs no spool, only the cache writes."""
    members = {f"/{number:04}": random.Random(number).randbytes(300) for number in range(3000)}
    built = imagekit.image([imagekit.layer(members)])
    source = str(imagekit.write_folder(imagekit.oci_layout(built), tmp_path / "layout"))
    plain = cli("inspect", source, "--no-recommend", "--format", "json", "--no-cache")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    full = cli("inspect", source, "--no-recommend", "--format", "json", limit=limit)
    assert full.status == 0, full.stderr
    told, expected = json.loads(full.stdout), json.loads(plain.stdout)
    assert [found["code"] for found in told["diagnostics"]] == ["cache-not-used"]
    assert {**told, "diagnostics": []} == {**expected, "diagnostics": []}
    assert [path.name for path in cli.cache.iterdir()] == ["CACHEDIR.TAG"]


# --- processes --------------------------------------------------------------------------------------------

RUN = """
import sys
from layerlens.api import open_image
from layerlens.render import json
sys.stdin.readline()
with open_image("kit:latest") as image:
    text = json.dumps(image.inspect(recommend=False))
sys.stdout.write(text)
"""


def start(engine: FakeEngine, cache: Cache) -> subprocess.Popen[bytes]:
    """A process that waits for a line before it inspects the kit's image."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={
            **os.environ,
            "DOCKER_HOST": engine.url,
            "LAYERLENS_CACHE_DIR": str(cache.folder),
        },
    )


def test_two_at_once_and_one_is_killed(engine: FakeEngine, cache: Cache) -> None:
    """Fifty times, at a moment that a seed chooses: the cache is never wrong afterwards.

    Half of the rounds start without a cache, so that both processes write it; the longer variant, on a real image,
    is scripts/cache_torture.py.
    """
    plain = report("kit:latest", False, recommend=False)
    rng = random.Random(20)
    lasts_s = _duration(engine, cache)
    killed = 0
    for number in range(50):
        if number % 2 == 0:
            cache.clear()
        elif number % 4 == 1:
            victim = rng.choice(sorted(cache.folder.glob("*.entry")))
            victim.unlink()
        both = [start(engine, cache), start(engine, cache)]
        for process in both:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        time.sleep(rng.uniform(0.2, 1.0) * lasts_s)
        both[0].kill()
        killed += both[0].wait() == -9
        text, _ = both[1].communicate(timeout=60)
        both[0].communicate()
        assert text.decode() == plain, f"round {number}: the one that lived"
        for files in (False, True):
            assert report("kit:latest", cache, recommend=False, files=files) == plain, (
                f"round {number}: the one that came after"
            )
    assert killed >= 10, "the moments were well chosen"
    cache._grown = True
    cache.close()
    assert not list(cache.folder.glob(".new-*")), "what the killed ones left is swept up"


def _duration(engine: FakeEngine, cache: Cache) -> float:
    """Seconds that one of two processes needs from its line to its end, without a cache."""
    both = [start(engine, cache), start(engine, cache)]
    began_s = time.monotonic()
    for process in both:
        process.communicate(b"\n", timeout=60)
    cache.clear()
    return time.monotonic() - began_s


def test_many_writers_and_one_who_clears(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", False, recommend=False)
    running = [start(engine, cache) for _ in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    while any(process.poll() is None for process in running):
        cache.clear()
        time.sleep(0.003)
    for process in running:
        assert process.communicate()[0].decode() == plain
    assert report("kit:latest", cache, recommend=False) == plain


def test_threads_fetch_once(engine: FakeEngine, cache: Cache) -> None:
    """Digests are computed on two threads, both of which may find that the bytes are not at hand."""
    files = {f"/{number}": bytes([number % 5]) * 30_000 for number in range(40)}
    holding(engine, imagekit.image([imagekit.layer(files)], tags=("many",)))
    with open_image("many", cache=cache) as image:
        image.layers  # noqa: B018 - indexed and stored
    exports(engine)
    with open_image("many", cache=cache) as image:
        image.fs.hash_ahead([image.fs.live[path] for path in files])
        assert len(image.fs.learned_digests) == 40
    assert exports(engine) == 1


# --- closing ----------------------------------------------------------------------------------------------


def test_closing_twice_changes_nothing(engine: FakeEngine, cache: Cache) -> None:
    with open_image("kit:latest", cache=cache) as image:
        image.inspect()
    entries = {file: file.read_bytes() for file in cache.folder.glob("*.entry")}
    image.close()
    with open_image("kit:latest", cache=cache) as image:
        image.inspect()
        image.close()
    assert {file: file.read_bytes() for file in cache.folder.glob("*.entry")} == entries


def test_an_error_on_the_way_leaves_the_cache_right(engine: FakeEngine, cache: Cache) -> None:
    plain = report("kit:latest", False)
    engine.break_off_after = len(engine.archive) // 2
    with pytest.raises(LayerLensError):
        report("kit:latest", cache)
    assert cache.usage().files == 0
    engine.break_off_after = None
    assert report("kit:latest", cache) == plain
    assert report("kit:latest", cache) == plain


# --- real engines -----------------------------------------------------------------------------------------


@pytest.fixture
def loaded() -> Iterator[str]:
    """The kit's image in the real docker, under a tag of its own."""
    tag = f"layerlens-test/cached-{os.getpid()}:one"
    built = imagekit.sample((tag,))
    archive = imagekit.tar_of(imagekit.docker_archive_old(built))
    subprocess.run(["docker", "load", "-q"], input=archive, check=True, capture_output=True)
    yield tag
    subprocess.run(["docker", "rmi", "-f", tag], check=True, capture_output=True)


@pytest.mark.engine
@pytest.mark.parametrize("storage", ["off", "on"])
def test_an_image_of_a_real_engine_that_was_seen_before(loaded: str, cli: CommandLine, storage: str) -> None:
    """By way of its export, and out of its own storage where that can be read."""
    cli.environment.update(DOCKER_HOST=os.environ.get("DOCKER_HOST", ""), LAYERLENS_ENGINE_STORAGE=storage)
    words = ("inspect", loaded, "--format", "json")
    plain = cli(*words, "--no-cache")
    assert plain.status == 0, plain.stderr
    cold = cli(*words)
    assert cold.stdout == plain.stdout
    nowhere = {"TMPDIR": "/nonexistent"}  # where an export would have to go
    if storage == "off":
        assert cli(*words, "--no-cache", env=nowhere).status == 2
    warm = cli(*words, env=nowhere)
    assert (warm.status, warm.stdout) == (0, plain.stdout), warm.stderr
