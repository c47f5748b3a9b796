"""From a SOURCE to an open source: paths, pipes, standard input, and what is none of these."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import imagekit
import pytest

from layerlens.errors import ImageNotFoundError, InvalidImageError, LayerLensError, SourceError
from layerlens.sources import Source
from layerlens.sources.opening import open_source

KIT = imagekit.sample()
TREE = imagekit.docker_archive_25(KIT)
ARCHIVE = imagekit.tar_of(TREE)
LAYOUT = imagekit.oci_layout(KIT, compression="none")
PACKED = {"plain": ARCHIVE, "gzip": gzip.compress(ARCHIVE, 1), "zstd": imagekit.compress(ARCHIVE, "zstd")}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for temporary files, and the working directory beside it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def same_as_kit(source: Source, reference: str) -> None:
    try:
        assert source.reference == reference
        assert source.config == KIT.config
        assert [layer.diff_id for layer in source.layers] == KIT.diff_ids
        for layer, data in zip(source.layers, KIT.layers, strict=True):
            assert layer.open().read() == data
    finally:
        source.close()


def failure(source: str, kind: type[LayerLensError], **more: object) -> LayerLensError:
    """The error that opening ``source`` ends in, which must say something and what to do, in a line each."""
    with pytest.raises(kind) as caught:
        open_source(source, **more)  # type: ignore[arg-type]
    error = caught.value
    assert str(error) and "\n" not in str(error)
    assert error.hint and "\n" not in error.hint
    return error


# --- what works -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACKED)
def test_archives_by_path(packed: str, temporary: Path) -> None:
    Path("app.tar").write_bytes(PACKED[packed])
    Path("no-suffix").write_bytes(PACKED[packed])
    for source in ("app.tar", "./app.tar", "./no-suffix", str(Path("app.tar").absolute())):
        same_as_kit(open_source(source), source)
    same_as_kit(open_source("docker-archive:no-suffix"), "docker-archive:no-suffix")
    same_as_kit(open_source("docker-archive:no-suffix:kit"), "docker-archive:no-suffix:kit")
    same_as_kit(open_source("oci-archive:no-suffix"), "oci-archive:no-suffix")
    assert list(temporary.iterdir()) == []


def test_a_layout_by_path() -> None:
    imagekit.write_folder(LAYOUT, Path("layout"))
    for source in ("./layout", "./layout/", "oci:layout"):
        same_as_kit(open_source(source), source)
    os.chdir("layout")
    same_as_kit(open_source("."), ".")


def test_a_path_with_colons_is_taken_whole() -> None:
    Path("a:b.tar").write_bytes(ARCHIVE)
    same_as_kit(open_source("a:b.tar"), "a:b.tar")
    assert "without a prefix (./a:b.tar)" in failure("docker-archive:a:b.tar", ImageNotFoundError).hint


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    Path("app").write_bytes(ARCHIVE)
    same_as_kit(open_source("~/app"), "~/app")


@pytest.mark.parametrize("packed", PACKED)
def test_a_stream_in_place_of_standard_input(packed: str) -> None:
    same_as_kit(open_source("-", stdin=io.BytesIO(PACKED[packed])), "-")


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("way", ["pipe", "file"])
def test_standard_input(packed: str, way: str, temporary: Path) -> None:
    program = (
        "from layerlens.sources.opening import open_source\n"
        "import hashlib, sys\n"
        "source = open_source('-')\n"
        "for layer in source.layers:\n"
        "    print('sha256:' + hashlib.sha256(layer.open().read()).hexdigest(), layer.streamed)\n"
        "source.close()\n"
    )
    Path("program.py").write_text(program)
    Path("sent").write_bytes(PACKED[packed])
    send = "cat sent | " if way == "pipe" else "< sent "
    done = subprocess.run(
        f"{send} {sys.executable} program.py", shell=True, capture_output=True, text=True, check=True
    )
    spooled = way == "pipe" or packed != "plain"
    assert done.stdout.splitlines() == [f"{diff_id} {spooled}" for diff_id in KIT.diff_ids]
    assert list(temporary.iterdir()) == []


def test_a_named_pipe_as_the_shell_makes_of_a_process() -> None:
    os.mkfifo("pipe")
    thread = threading.Thread(target=lambda: Path("pipe").write_bytes(PACKED["gzip"]))
    thread.start()
    same_as_kit(open_source("./pipe"), "./pipe")
    thread.join()


def test_progress_of_what_is_inflated() -> None:
    told: list[tuple[str, int, int | None]] = []
    Path("app.tar.gz").write_bytes(PACKED["gzip"])
    open_source("app.tar.gz", progress=lambda *said: told.append(said)).close()
    assert told[-1] == ("reading app.tar.gz", len(PACKED["gzip"]), len(PACKED["gzip"]))


# --- what fails -------------------------------------------------------------------------------------------


def test_missing_paths() -> None:
    Path("myapp.tar").write_bytes(ARCHIVE)
    error = failure("./myap.tar", ImageNotFoundError)
    assert str(error) == "./myap.tar does not exist" and "did you mean myapp.tar?" in error.hint
    assert "folder nowhere does not exist" in failure("./nowhere/app.tar", ImageNotFoundError).hint
    failure("./myapp.tar/inside", ImageNotFoundError)
    failure("/" + "x" * 5000, SourceError)
    failure("oci:nowhere", ImageNotFoundError)
    os.symlink("loop", "loop")
    failure("./loop", SourceError)


def test_unreadable_paths() -> None:
    Path("app.tar").write_bytes(ARCHIVE)
    Path("layout").mkdir()
    for name in ("app.tar", "layout"):
        os.chmod(name, 0)
    if os.geteuid() == 0:
        for folder in (Path.cwd(), *Path.cwd().parents[:3]):
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
        os.seteuid(65534)
    try:
        assert "permission denied" in str(failure("./app.tar", SourceError))
        assert "permission denied" in str(failure("./layout", SourceError))
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("inside", "hint"),
    [([], "docker save"), (["manifest.json"], "pack it again"), (["Dockerfile"], "docker build")],
)
def test_folders_that_are_no_layout(inside: list[str], hint: str) -> None:
    Path("folder").mkdir()
    for name in inside:
        Path("folder", name).write_bytes(b"[]")
    error = failure("./folder", InvalidImageError)
    assert "without an OCI layout" in str(error) and hint in error.hint
    failure("oci:folder", InvalidImageError)
    assert "oci:folder" in failure("docker-archive:folder", InvalidImageError).hint


def test_kinds_that_do_not_fit() -> None:
    Path("app.tar").write_bytes(ARCHIVE)
    assert "oci-archive:app.tar" in failure("oci:app.tar", InvalidImageError).hint


def test_devices_and_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert "not an image" in str(failure("./socket", InvalidImageError))
    assert "not an image" in str(failure("/dev/zero", InvalidImageError))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(2000),
        b"hello",
        gzip.compress(b"hello"),
        imagekit.layer({"/a": b"a"}),
    ],
    ids=["empty", "png", "text", "gzip", "tar"],
)
def test_what_is_no_image(content: bytes, temporary: Path) -> None:
    Path("thing").write_bytes(content)
    failure("./thing", InvalidImageError)
    failure("-", InvalidImageError, stdin=io.BytesIO(content))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_a_truncated_archive_is_named(packed: str, temporary: Path) -> None:
    Path("thing").write_bytes(PACKED[packed][:-100])
    assert str(failure("./thing", InvalidImageError)).startswith("./thing: ")
    Path("xz").write_bytes(b"\xfd7zXZ\x00" + bytes(100))
    assert "compressed with xz" in str(failure("./xz", InvalidImageError))
    assert list(temporary.iterdir()) == []


def run_without_input(setup: Callable[[], None]) -> str:
    program = (
        "from layerlens.errors import SourceError\n"
        "from layerlens.sources.opening import open_source\n"
        "try:\n"
        "    open_source('-')\n"
        "except SourceError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=setup)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_standard_input_that_is_closed_write_only_or_a_terminal() -> None:
    assert "closed" in run_without_input(lambda: os.close(0))
    assert "cannot read" in run_without_input(lambda: os.dup2(os.open("/dev/null", os.O_WRONLY), 0) and None)
    terminal, other = os.openpty()
    try:
        assert "terminal" in run_without_input(lambda: os.dup2(other, 0) and None)
    finally:
        os.close(terminal)
        os.close(other)
