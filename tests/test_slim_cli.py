"""`layerlens slim` and `layerlens verify` as a user runs them, and everything that can go wrong meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from imagekit import File, docker_archive_old, image, layer, tar_of
from serverkit import LABELLED, Images, containers_of, docker, image_id, images, program

from layerlens.cli import run

__all__ = ["images", "program"]


@pytest.fixture
def engine(cli: CommandLine) -> CommandLine:
    """The command line with the engine that the tests use."""
    for name in ("DOCKER_HOST", "CONTAINER_HOST"):
        cli.environment.pop(name, None)
        if name in os.environ:
            cli.environment[name] = os.environ[name]
    cli.environment.setdefault("DOCKER_HOST", "unix:///var/run/docker.sock")
    return cli


def said(stderr: str) -> tuple[str, str]:
    """The two lines of an error."""
    error, hint = stderr.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    return error, hint


# --- slim ----------------------------------------------------------------


def test_an_archive_in_and_an_archive_out(cli: CommandLine, images: Images, tmp_path: Path) -> None:
    source, output = images.archive(tmp_path), tmp_path / "slim.tar"
    done = cli("slim", source, "-o", output, "--keep", "/data")
    assert done.status == 0 and done.stderr == "" and done.left == ()
    for words in ("Slim image", "on scratch", "OS and runtime", "What is left to attack", "setuid programs"):
        assert words in done.text
    told = json.loads(cli("slim", source, "-o", output, "--keep", "/data", "--format", "json").text)
    assert list(told) == [
        "image", "runtime", "runtime_image", "id", "tag", "output", "output_format", "totals", "layers", "rewritten",
        "security", "verification", "rounds", "done_without", "observed", "warnings", "diagnostics",
    ]  # fmt: skip
    assert (
        told["verification"] is None and told["observed"] == [] and told["output_format"] == "docker-archive"
    )
    assert told["id"].removeprefix("sha256:")[:12] in done.text
    listed = cli("ls", output).text
    assert "/data/b" in listed and "/usr/share/doc/big" not in listed


def test_names_of_the_image_do_not_reach_the_terminal_as_they_are(cli: CommandLine, tmp_path: Path) -> None:
    evil = "/opt/\x1b[2J\nerror: no\u202e/bin"
    members: dict[str, Any] = {
        "/bin/app": File(data=b"\x7fPROGRAM", mode=0o755),
        **{f"{evil}/{name}": File(data=b"\x7f", mode=0o4755) for name in ("sh", "apt", "tool")},
    }
    built = image([layer(members)], config={"Entrypoint": ["/bin/app"]})
    (tmp_path / "a.tar").write_bytes(tar_of(docker_archive_old(built)))
    options = ("-o", tmp_path / "slim.tar", "--keep", "/opt")
    done = cli("slim", tmp_path / "a.tar", *options, env={"COLUMNS": "190"})
    assert done.status == 0 and done.stderr == ""
    assert not {"\x1b", "\u202e"} & set(done.text) and "\nerror" not in done.text and "sh" in done.text
    told = json.loads(cli("slim", tmp_path / "a.tar", *options, "--format", "json").text)
    assert told["security"]["after"]["shells"] == [f"{evil}/sh"]
    assert told["security"]["after"]["package_managers"] == [f"{evil}/apt"]
    assert len(told["security"]["after"]["setuid"]) == 3


@pytest.mark.skipif(not (shutil.which("skopeo") and shutil.which("umoci")), reason="needs skopeo and umoci")
def test_other_tools_take_the_layout_and_two_runs_are_one(
    cli: CommandLine, images: Images, tmp_path: Path
) -> None:
    source = images.archive(tmp_path)
    digests = set()
    for number, options in enumerate((["--compression", "zstd"], ["--compression", "zstd"], [])):
        layout = tmp_path / f"layout{number}"
        assert cli("slim", source, "-o", layout, "-t", "app:slim", "--keep", "/data", *options).status == 0
        inspected = subprocess.run(
            ["skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{layout}:slim"],
            capture_output=True,
            text=True,
        )
        assert inspected.returncode == 0, inspected.stderr
        digests.add(inspected.stdout)
        # The second run replaces what the first wrote.
        assert cli("slim", source, "-o", layout, "-t", "app:slim", "--keep", "/data", *options).status == 0
    assert len(digests) == 2, "one with zstd, one with gzip"
    done = subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path / 'layout2'}:slim", tmp_path / "bundle"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bundle/rootfs/data/a").read_bytes() == b"alpha"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing says where the slim image goes"),
        (["-t", "BAD NAME"], "cannot be the name"),
        (["-o", "x.tar", "--http", "80/"], "nothing is run"),
        (["-o", "x.tar", "--ignore", "x"], "nothing is compared"),
        (["-o", "x.tar", "--verify", "--http", "eighty"], "not PORT/PATH"),
        (["-o", "x.tar", "--verify", "--exec", "say 'x"], "not a command line"),
        (["-o", "x.tar", "--verify", "--probe", "none.toml"], "cannot read none.toml"),
        (["-o", "x.tar", "--verify", "--timeout", "0"], "timeout"),
        (["-o", "x.tar", "--keep", "/nowhere"], "no such path"),
        (["-o", "x.tar", "--verify"], "no engine can be used"),
        (["-t", "app:slim"], "no engine can be used"),
    ],
)
def test_what_makes_no_sense_is_said(
    images: Images,
    tmp_path: Path,
    options: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, "unix:///nonexistent.sock")
    monkeypatch.chdir(tmp_path)
    assert run(["slim", str(images.archive(tmp_path)), *options]) == 2
    out, err = capfd.readouterr()
    assert out == "" and words in said(err)[0]
    assert not (tmp_path / "x.tar").exists()


def test_no_space_leaves_what_was_there(
    cli: CommandLine, images: Images, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    small = small_disk("300k")
    (small / "app.tar").write_text("precious")
    source = images.archive(tmp_path)
    for options in (["-o", small / "app.tar"], ["-o", small / "layout", "--compression", "none"]):
        done = cli("slim", source, *options)
        assert done.status == 2 and "no space left" in said(done.stderr)[0]
        assert "needs" in said(done.stderr)[1]
    assert [path.name for path in small.iterdir()] == ["app.tar"]
    assert (small / "app.tar").read_text() == "precious"


@pytest.mark.engine
def test_a_name_that_is_taken_is_kept_until_it_passes(engine: CommandLine, images: Images) -> None:
    source, name = images.load(), images.load("taken", Env=["A=1"])
    taken, ids = image_id(name), images.ids()
    probe = ["--verify", "--http", f"{images.port}/a", "--http", f"{images.port}/b", "--timeout", "5"]
    done = engine("slim", source, "-t", name, "--keep", "/data", "--drop", "/data/b", *probe)
    assert done.status == 1 and "not made" in done.text and "FAIL" in done.text
    assert image_id(name) == taken and images.ids() == ids
    if os.geteuid() == 0:
        assert "/data/b" in done.text.partition("Missing")[2]
    else:
        assert "tracing needs root" in done.text
    done = engine("slim", source, "-t", name, "--keep", "/data", *probe, "--format", "json")
    assert done.status == 0 and json.loads(done.text)["id"] == image_id(name) != taken


@pytest.mark.engine
def test_a_port_in_use_another_machine_and_no_answer(engine: CommandLine, images: Images) -> None:
    name, slim = images.load(), images.tag("slim")
    asked = ["-t", slim, "--verify", "--http", f"{images.port}/a", "--keep", "/data", "--timeout", "1"]
    foreign = images.load("foreign", architecture="s390x")
    mute = images.load("mute", Cmd=["mute", str(images.port)])
    ids = images.ids()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", images.port))
        listener.listen()
        done = engine("slim", name, *asked)
        assert done.status == 2 and f"port {images.port} on 127.0.0.1 is taken" in said(done.stderr)[0]
    done = engine("slim", foreign, *asked)
    assert done.status == 2 and "is for linux/s390x" in said(done.stderr)[0]
    done = engine("slim", mute, *asked)
    assert done.status == 1 and "the original: no answer on port" in done.text
    assert images.ids() == ids and image_id(slim) is None


@pytest.mark.engine
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_undoes_all(
    engine: CommandLine, images: Images, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    name, ids = images.load(), images.ids()
    words = ("slim", name, "-o", str(tmp_path / "slim.tar"), "--verify", "--exec", "hang", "--timeout", "90")
    running = engine.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not containers_of(running.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(images.ids()) == len(ids) + 1, "the slim image visits the engine"
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out) == (status, b"")
    assert err.decode() == "interrupted: the slim image was not made, and nothing was changed\n"
    assert containers_of(running.pid) == [] and images.ids() == ids
    assert [path.name for path in tmp_path.iterdir() if path.name != "cli"] == []


# --- an engine that goes away ---------------------------------------------


class Proxy:
    """Stands before the engine's socket until it sees ``marker`` and ``after`` more bytes; then both are gone."""

    def __init__(self, folder: Path, marker: bytes, after: int = 0) -> None:
        self.path = folder / "engine.sock"
        self._marker, self._after = marker, after
        self._upstream = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._pairs: list[socket.socket] = []
        self.gone = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.gone.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            self._pairs += [client, server]
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, watched: bool) -> None:
        seen, since = b"", -1
        try:
            while data := source.recv(1 << 16):
                if watched:
                    seen = (seen + data)[-(1 << 17) :] if since < 0 else b""
                    if since >= 0:
                        since += len(data)
                    elif self._marker in seen:
                        since = len(seen) - seen.index(self._marker)
                    if since > self._after:
                        self.end()
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def end(self) -> None:
        self.gone.set()
        self.path.unlink(missing_ok=True)
        for one in (self._listener, *self._pairs):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """Short enough for a socket's name (unix(7): 108 bytes)."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ll-") as folder:
        yield Path(folder)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("marker", "after", "words"),
    [
        (b"/images/load", 300_000, "loading the image broke off: the connection ended"),
        (b"/containers/create", 0, "the connection ended"),
    ],
)
def test_an_engine_that_goes_away(
    engine: CommandLine, images: Images, socket_folder: Path, marker: bytes, after: int, words: str
) -> None:
    if not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://"):
        pytest.skip("the engine has no socket to stand before")
    name, slim = images.load(), images.tag("slim")
    ids = images.ids()
    proxy = Proxy(socket_folder, marker, after)
    try:
        arguments = ("slim", name, "-t", slim, "--keep", "/data", "--verify", "--http", f"{images.port}/a")
        done = engine(*arguments, env={"DOCKER_HOST": f"unix://{proxy.path}"}, timeout=60)
    finally:
        proxy.end()
    assert proxy.gone.is_set() and done.status == 2 and done.stdout == b""
    assert words in said(done.stderr)[0]
    assert image_id(slim) is None
    rest = images.ids() - ids
    if after:
        assert rest == set(), "what breaks off is not loaded"
    for left in rest:  # an engine that is gone cannot be told to remove what it has; it has no name there
        assert image_id(left) is not None
        docker("image", "rm", left)


@pytest.mark.podman
def test_podman_does_as_well(engine: CommandLine, images: Images, tmp_path: Path) -> None:
    """The original is loaded into it and removed again; the slim image has the name that podman would give it."""
    source, name = images.archive(tmp_path), f"{images.name}:slim"
    engine.environment["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    podman = ["podman", "--url", os.environ["CONTAINER_HOST"]]
    probe = ["--verify", "--http", f"{images.port}/a", "--exec", "cat /data/b"]
    try:
        done = engine("slim", source, "-t", name, "--keep", "/data", *probe)
        assert done.status == 0 and "Verified" in done.text
        labelled = f"label={LABELLED}={images.name}"
        for what, expected in (
            (["images", "--format", "{{.Repository}}:{{.Tag}}"], [f"localhost/{name}"]),
            (["ps", "--format", "{{.Image}}"], []),
        ):
            listed = subprocess.run(
                [*podman, *what, "--all", "--filter", labelled], capture_output=True, text=True, check=True
            )
            assert listed.stdout.split() == expected
    finally:
        subprocess.run([*podman, "rmi", "--force", f"localhost/{name}"], capture_output=True, check=False)


# --- verify ---------------------------------------------------------------


@pytest.mark.engine
def test_verify_takes_archives_and_names(engine: CommandLine, images: Images, tmp_path: Path) -> None:
    original = images.archive(tmp_path)
    for name, options in (("good", ["--keep", "/data"]), ("bad", ["--keep", "/data/a"])):
        assert engine("slim", original, "-o", tmp_path / f"{name}.tar", *options).status == 0
    (tmp_path / "probe.toml").write_text(f'[[http]]\nport = {images.port}\npath = "/a"\ncontains = "alpha"\n')
    probe = ["--probe", tmp_path / "probe.toml", "--exec", "cat /data/b"]
    done = engine("verify", original, tmp_path / "good.tar", *probe)
    assert done.status == 0 and done.stderr == "" and "Verified" in done.text
    done = engine("verify", images.load(), tmp_path / "bad.tar", *probe, "--format", "json")
    told: dict[str, Any] = json.loads(done.text)
    assert done.status == 1 and list(told) == ["passed", "checks", "missing", "untraced"]
    assert list(told["checks"][0]) == ["probe", "original", "slim", "same", "detail"]
    assert [check["probe"] for check in told["checks"] if not check["same"]] == ["run cat /data/b"]
    assert told["missing"] == (["/data/b"] if os.geteuid() == 0 else [])
    assert len(images.ids()) == 1


def test_verify_needs_two_images(cli: CommandLine, images: Images, tmp_path: Path) -> None:
    source = images.archive(tmp_path)
    for words, expected in (
        ((source, tmp_path / "none.tar"), "none.tar"),
        ((source, source), "no engine can be used"),
        ((source, source, "--ignore", "("), "not a regular expression"),
        ((source,), "Missing argument"),
    ):
        done = cli("verify", *words)
        assert done.status == 2 and expected in said(done.stderr)[0]
