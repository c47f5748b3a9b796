"""`docker layerlens …`: what the client asks and passes, and the link it finds us by."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imagekit
import pytest

import layerlens
from layerlens import cli, plugin
from layerlens.errors import LayerLensError, UsageError

SCRIPTS = Path(sys.executable).parent
needs_client = pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker client on PATH")
needs_script = pytest.mark.skipif(
    not (SCRIPTS / plugin.EXECUTABLE).exists(), reason="layerlens is not installed, only imported"
)


def test_metadata_is_what_the_client_wants() -> None:
    answer = json.loads(plugin.metadata())
    assert answer["SchemaVersion"] == "0.1.0"
    assert answer["Vendor"]
    assert answer["Version"] == f"v{layerlens.__version__}"
    assert answer["ShortDescription"]


@needs_script
def test_metadata_needs_no_heavy_import() -> None:
    command = (
        "import sys; sys.argv = ['docker-layerlens', 'docker-cli-plugin-metadata']\n"
        "from layerlens.__main__ import docker_plugin\n"
        "try: docker_plugin()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["SchemaVersion"] == "0.1.0"
    heavy = {
        "typer",
        "rich",
        "docker",
        "networkx",
        "humanize",
        "layerlens.cli",
        "layerlens.api",
        "subprocess",
    }
    assert heavy.isdisjoint(done.stderr.split())


@pytest.mark.parametrize(
    ("passed", "rest", "environment"),
    [
        (["layerlens", "inspect", "x"], ["inspect", "x"], {}),
        (["layerlens"], ["--help"], {}),
        ([], ["--help"], {}),
        (["help", "layerlens"], ["--help"], {}),
        (["help", "layerlens", "ls"], ["ls", "--help"], {}),
        (["layerlens", "inspect", "--debug", "-"], ["inspect", "--debug", "-"], {}),
        (["-H", "tcp://a", "layerlens", "ls"], ["ls"], {"DOCKER_HOST": "tcp://a"}),
        (["-Htcp://a", "layerlens", "ls"], ["ls"], {"DOCKER_HOST": "tcp://a"}),
        (["-H=tcp://a", "layerlens", "ls"], ["ls"], {"DOCKER_HOST": "tcp://a"}),
        (["--host=tcp://a", "layerlens", "ls"], ["ls"], {"DOCKER_HOST": "tcp://a"}),
        (["--context", "far", "layerlens", "ls"], ["ls"], {"DOCKER_CONTEXT": "far"}),
        (["-c", "far", "layerlens", "ls"], ["ls"], {"DOCKER_CONTEXT": "far"}),
        (["--config", "/c", "layerlens", "ls"], ["ls"], {"DOCKER_CONFIG": "/c"}),
        (["-D", "layerlens", "ls", "x"], ["--debug", "ls", "x"], {}),
        (["--debug=false", "layerlens", "ls", "x"], ["ls", "x"], {}),
        (["-l", "info", "layerlens", "ls"], ["ls"], {}),
        (["--tlsverify", "layerlens", "ls"], ["ls"], {"DOCKER_TLS_VERIFY": "1"}),
        (["--tls", "layerlens", "ls"], ["ls"], {"DOCKER_TLS_VERIFY": ""}),
        (
            [
                "--tlscacert",
                "/k/ca.pem",
                "--tlscert=/k/cert.pem",
                "--tlskey",
                "/k/key.pem",
                "layerlens",
                "ls",
            ],
            ["ls"],
            {"DOCKER_CERT_PATH": "/k"},
        ),
        (["layerlens", "--version"], ["--version"], {}),
    ],
)
def test_what_the_client_passes(passed: list[str], rest: list[str], environment: dict[str, str]) -> None:
    seen: dict[str, str] = {}
    assert plugin.strip_client_flags(passed, seen) == rest
    assert seen == environment


def test_a_flag_beats_a_variable() -> None:
    environment = {"DOCKER_HOST": "tcp://old", "DOCKER_CONTEXT": "old"}
    plugin.strip_client_flags(["--context", "new", "layerlens", "ls"], environment)
    assert environment == {"DOCKER_CONTEXT": "new"}
    environment = {"DOCKER_HOST": "tcp://old", "DOCKER_CONTEXT": "old"}
    plugin.strip_client_flags(["-H", "tcp://new", "layerlens", "ls"], environment)
    assert environment == {"DOCKER_HOST": "tcp://new"}


@pytest.mark.parametrize(
    "passed",
    [
        ["--nonsense", "layerlens", "ls"],
        ["-H"],
        ["-H", "tcp://a", "-c", "b", "layerlens", "ls"],
        ["--tlscacert", "/k/other.pem", "layerlens", "ls"],
        ["--tlscacert", "/k/ca.pem", "--tlskey", "/l/key.pem", "layerlens", "ls"],
    ],
)
def test_flags_that_cannot_be_honoured_are_refused(
    passed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        plugin.strip_client_flags(passed, {})
    assert caught.value.hint
    assert cli.run_as_plugin(passed) == cli.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: ")


# The link


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config" / "cli-plugins" / plugin.EXECUTABLE


def _program(folder: Path, name: str = plugin.EXECUTABLE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_where_the_client_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert plugin.link_path({}) == Path("/home/somebody/.docker/cli-plugins/docker-layerlens")
    assert plugin.link_path({"DOCKER_CONFIG": "/c"}) == Path("/c/cli-plugins/docker-layerlens")


def test_install_is_idempotent_and_remove_undoes_it(tmp_path: Path, link: Path) -> None:
    program = _program(tmp_path / "bin")
    for _ in range(2):
        assert plugin.install(program) == (link, program)
        assert link.readlink() == program
    assert os.listdir(link.parent) == [link.name]
    assert plugin.remove() == link
    assert not os.path.lexists(link)
    assert plugin.remove() is None


def test_install_replaces_its_own_old_link(tmp_path: Path, link: Path) -> None:
    old, new = _program(tmp_path / "old"), _program(tmp_path / "new")
    plugin.install(old)
    old.unlink()
    plugin.install(new)
    assert link.readlink() == new


def test_what_is_somebody_elses_stays(tmp_path: Path, link: Path) -> None:
    program = _program(tmp_path / "bin")
    link.parent.mkdir(parents=True)
    for make in (
        lambda: link.write_text("theirs"),
        lambda: link.symlink_to(_program(tmp_path / "bin", "other-tool")),
        lambda: link.mkdir(),
    ):
        make()
        before = link.lstat()
        for action in (lambda: plugin.install(program), plugin.remove):
            with pytest.raises(UsageError) as caught:
                action()
            assert caught.value.hint
            assert link.lstat().st_ino == before.st_ino
        if link.is_dir() and not link.is_symlink():
            link.rmdir()
        else:
            link.unlink()


def test_a_folder_that_cannot_be_made(tmp_path: Path, link: Path) -> None:
    (tmp_path / "config").write_text("a file where the folder should be")
    with pytest.raises(LayerLensError) as caught:
        plugin.install(_program(tmp_path / "bin"))
    assert "DOCKER_CONFIG" in caught.value.hint


def test_the_command_line(tmp_path: Path, link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link.parent.mkdir(parents=True)
    link.write_text("theirs")
    assert cli.run(["plugin", "install"]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert "hint: " in error
    link.unlink()
    assert cli.run(["plugin", "remove"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


# The real client


def _docker(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


@needs_client
@needs_script
def test_the_real_client_finds_and_runs_it(link: Path) -> None:
    assert cli.run(["plugin", "install"]) == 0
    assert "docker layerlens [OPTIONS] COMMAND" in _docker("layerlens", "--help").stdout
    assert "docker layerlens [OPTIONS] COMMAND" in _docker("help", "layerlens").stdout
    assert "layerlens*" in _docker("--help").stdout
    assert _docker("layerlens", "--version").stdout == f"layerlens {layerlens.__version__}\n"
    assert _docker("--host", "tcp://127.0.0.1:1", "layerlens", "--version").returncode == 0
    wrong = _docker("layerlens", "inspect", "--nonsense")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: No such option: --nonsense")
    assert "See `docker layerlens inspect --help`." in wrong.stderr
    assert cli.run(["plugin", "remove"]) == 0
    assert "layerlens" not in _docker("--help").stdout


@pytest.mark.engine
@needs_client
@needs_script
def test_the_real_client_inspects_an_image_of_its_engine(link: Path, tmp_path: Path) -> None:
    tag = f"layerlens-plugin-test:{os.getpid()}"
    name = f"layerlens-plugin-test-{os.getpid()}"
    archive = tmp_path / "image.tar"
    built = imagekit.image([imagekit.layer({"/etc/": imagekit.DIR, "/etc/motd": b"hello"})], tags=(tag,))
    archive.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(built)))
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    elsewhere = {"DOCKER_HOST": "unix:///nonexistent.sock"}
    assert cli.run(["plugin", "install"]) == 0
    try:
        loaded = _docker("load", "-i", str(archive))
        assert loaded.returncode == 0, loaded.stderr
        asked = _docker("layerlens", "inspect", tag, "--format", "json")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert json.loads(asked.stdout)["image"]["reference"] == tag
        by_flag = _docker("--host", host, "layerlens", "inspect", tag, "--format", "json", **elsewhere)
        assert (by_flag.returncode, by_flag.stderr) == (0, "")
        assert by_flag.stdout == asked.stdout
        made = _docker("context", "create", name, "--docker", f"host={host}")
        assert made.returncode == 0, made.stderr
        by_context = _docker("--context", name, "layerlens", "inspect", tag, "--format", "json", **elsewhere)
        assert (by_context.returncode, by_context.stderr) == (0, "")
        assert by_context.stdout == asked.stdout
        nowhere = _docker("layerlens", "inspect", tag, **elsewhere)
        assert nowhere.returncode == 2
    finally:
        _docker("rmi", "-f", tag)
