"""The command line: what goes to stdout, to stderr and to the shell."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import imagekit
import pytest

import layerlens
from layerlens import cli
from layerlens.render import terminal

LAYERLENS = [sys.executable, "-m", "layerlens"]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample image as `docker save` writes it."""
    path = tmp_path_factory.mktemp("cli") / "sample.tar"
    path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(imagekit.sample())))
    return str(path)


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with more files than a pipe holds lines."""
    layer = imagekit.layer({f"/files/{n:05d}-{'x' * 60}": b"" for n in range(8_000)})
    path = tmp_path_factory.mktemp("cli") / "crowded.tar"
    path.write_bytes(imagekit.tar_of(imagekit.docker_archive_25(imagekit.image([layer]))))
    return str(path)


def start(*arguments: str, **more: object) -> subprocess.Popen[bytes]:
    options: dict[str, object] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    return subprocess.Popen([*LAYERLENS, *arguments], **{**options, **more})  # type: ignore[call-overload, no-any-return]


def run(*arguments: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    options: dict[str, object] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 60}
    return subprocess.run([*LAYERLENS, *arguments], **{**options, **more})  # type: ignore[call-overload, no-any-return]


def two_lines(stderr: bytes) -> tuple[str, str]:
    """What happened and what to do, and nothing else."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert all(line.isprintable() for line in lines)
    return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")


# Reports


def test_inspect_json(archive: str) -> None:
    done = run("inspect", archive, "--no-recommend", "--format", "json")
    assert (done.returncode, done.stderr) == (0, b"")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["image"]["reference"].endswith("sample.tar") or document["image"]["reference"]
    assert document["totals"]["layer_bytes"] == (
        document["totals"]["live_bytes"] + document["totals"]["shadowed_bytes"]
    )
    assert document["recommendation"] is None
    assert run("inspect", archive, "--no-recommend", "--format", "json").stdout == done.stdout


def test_inspect_verifies_digests_on_request(archive: str) -> None:
    assert run("inspect", archive, "--verify-digests", "--format", "json").returncode == 0


def test_inspect_table_in_a_pipe(archive: str) -> None:
    done = run("inspect", archive, env={**os.environ, "COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for section in ("Layers", "Categories", "Packages", "Waste"):
        assert f"\n{section}  " in text


def test_inspect_markdown(archive: str) -> None:
    done = run("inspect", archive, "--format", "markdown")
    assert done.returncode == 0
    assert done.stdout.decode().startswith("# Image ")


def test_stdin(archive: str) -> None:
    with open(archive, "rb") as stdin:
        done = run("inspect", "-", "--format", "json", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (
        json.loads(done.stdout)["totals"]
        == json.loads(run("inspect", archive, "--format", "json").stdout)["totals"]
    )


def test_ls(archive: str) -> None:
    lines = run("ls", archive).stdout.decode().splitlines()
    assert lines[0].split() == ["MODE", "UID:GID", "SIZE", "LAYER", "PATH"]
    assert any(line.endswith("  /lib → usr/lib") for line in lines)
    records = [json.loads(line) for line in run("ls", archive, "--format", "json").stdout.splitlines()]
    assert len(records) == len(lines) - 1
    assert [record["path"] for record in records] == sorted(record["path"] for record in records)
    assert {record["type"] for record in records} >= {
        "file",
        "dir",
        "symlink",
        "hardlink",
        "char",
        "block",
        "fifo",
    }
    su = next(record for record in records if record["path"] == "/bin/su")
    assert (su["mode"], su["gid"], su["size_bytes"], su["layer"]) == ("4755", 42, 1000, 0)


def test_ls_below_a_path_and_of_a_layer(archive: str) -> None:
    below = [
        json.loads(line)["path"]
        for line in run("ls", archive, "/app", "--format", "json").stdout.splitlines()
    ]
    assert below
    assert all(path == "/app" or path.startswith("/app/") for path in below)
    own = [
        json.loads(line)
        for line in run("ls", archive, "--layer", "0", "--format", "json").stdout.splitlines()
    ]
    assert own
    assert {record["layer"] for record in own} == {0}


def test_why(archive: str) -> None:
    document = json.loads(run("why", archive, "/usr/bin/hello", "--format", "json").stdout)
    assert document["path"] == "/usr/bin/hello"
    assert document["layer"] == 0
    assert document["package"] == "dpkg:hello 2.10-3"
    text = run("why", archive, "/usr/bin/hello").stdout.decode()
    assert "dpkg:hello 2.10-3" in text


# Where the report goes


def test_output_file(archive: str, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    done = run("inspect", archive, "--format", "json", "-o", str(target), umask=0o027)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(target.read_text())["schema_version"] == 1
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["report.json"]


def test_output_keeps_the_mode_and_the_link(archive: str, tmp_path: Path) -> None:
    target, link = tmp_path / "report.md", tmp_path / "link.md"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target.name)
    assert run("inspect", archive, "--format", "markdown", "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert target.read_text().startswith("# Image")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_output_to_stdout_and_devices(archive: str) -> None:
    plain = run("inspect", archive, "--format", "json").stdout
    assert run("inspect", archive, "--format", "json", "-o", "-").stdout == plain
    assert run("inspect", archive, "--format", "json", "-o", "/dev/stdout").stdout == plain
    assert run("inspect", archive, "-o", "/dev/null").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_output_that_cannot_be(archive: str, tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "missing" / "report.json", Path("/dev/full")):
        done = run("inspect", archive, "--format", "json", "-o", str(target))
        assert done.returncode == 2
        assert str(target) in two_lines(done.stderr)[0]
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(layerlens.errors.LayerLensError, match="No space left"):
        cli.deliver("new", target, as_utf8=True)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_full_stdout(archive: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run("ls", archive, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "standard output" in two_lines(done.stderr)[0]


def test_help_to_a_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        done = run("--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "No space left" in two_lines(done.stderr)[0]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_closed_streams(archive: str, closed: str) -> None:
    command = f"exec {sys.executable} -m layerlens ls {archive} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
    if closed == ">&-":
        assert done.returncode == 2
        assert two_lines(done.stderr)[0] == "standard output is closed"
    else:
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.endswith(b"\n")


def test_a_reader_that_leaves_early(crowded: str) -> None:
    for arguments in (["ls", crowded], ["ls", crowded, "--format", "json"], ["inspect", crowded]):
        process = start(*arguments)
        assert process.stdout is not None and process.stderr is not None
        if arguments[0] == "ls":
            assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
        process.stderr.close()


def test_tables_where_unicode_cannot_be_shown(archive: str) -> None:
    done = run("inspect", archive, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"#" in done.stdout
    done = run(
        "ls", archive, "--format", "json", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 0


# On a terminal


def on_a_terminal(*arguments: str, columns: int, **environment: str) -> str:
    """What the command prints on a terminal of `columns`, stdout and stderr alike."""
    main, child = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = start(
            *arguments, stdin=child, stdout=child, stderr=child, env={**clean, "TERM": "xterm", **environment}
        )
        os.close(child)
        output = b""
        while True:
            try:
                block = os.read(main, 65536)
            except OSError:  # Linux says EIO when the last writer closes
                break
            if not block:
                break
            output += block
        assert process.wait(60) == 0
    finally:
        os.close(main)
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 160])
def test_terminal_has_colour_and_its_width(archive: str, columns: int) -> None:
    text = on_a_terminal("inspect", archive, columns=columns)
    assert "\x1b[1m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    assert columns * 0.8 < max(len(line) for line in plain.splitlines()) <= columns
    assert "\x1b" not in on_a_terminal("inspect", archive, columns=columns, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("inspect", archive, columns=columns, TERM="dumb")


def test_progress_shows_what_is_done_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "60")
    clock = iter([0.0, 0.1, 1.0, 1.01, 2.0])
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))
    line = cli.ProgressLine()
    line("export \x1b[31mx", 10, 100)
    assert screen.getvalue() == ""  # too early to bother anybody
    line("export \x1b[31mx", 50_000_000, 100_000_000)
    shown = screen.getvalue()
    assert "export \\x1b[31mx  50.0 MB of 100 MB (50.0 %)" in shown
    assert "MB/s" in shown
    line("export \x1b[31mx", 60_000_000, 100_000_000)
    assert screen.getvalue() == shown  # too soon
    line("export \x1b[31mx", 70_000_000, None)
    line.clear()
    assert screen.getvalue().endswith("\r\x1b[K")
    assert all(len(part) <= 60 for part in re.sub(r"\x1b\[K", "", screen.getvalue()).split("\r"))


def test_no_progress_where_stderr_is_no_terminal(archive: str) -> None:
    with open(archive, "rb") as stdin:
        assert run("inspect", "-", stdin=stdin).stderr == b""


# Errors


def test_no_such_file() -> None:
    done = run("inspect", "./nowhere/x.tar")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "nowhere/x.tar" in two_lines(done.stderr)[0]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(2000)], ids=["empty", "png"])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    done = run("inspect", str(tmp_path / "x.tar"))
    assert (done.returncode, done.stdout) == (2, b"")
    two_lines(done.stderr)


def test_no_such_path(archive: str) -> None:
    for command in ("ls", "why"):
        done = run(command, archive, "/no/such")
        assert (done.returncode, done.stdout) == (2, b"")
        assert "/no/such" in two_lines(done.stderr)[0]


def test_names_in_errors_are_escaped(archive: str) -> None:
    done = run("why", archive, "/\x1b[31m\u202e\nx")
    assert done.returncode == 2
    two_lines(done.stderr)
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part", "help_of"),
    [
        (["nonsense"], "No such command 'nonsense'", "layerlens"),
        (["inspect"], "Missing argument 'SOURCE'", "layerlens inspect"),
        (["inspect", "x", "--nonsense"], "No such option: --nonsense", "layerlens inspect"),
        (
            ["inspect", "x", "--format", "html"],
            "'html' is not one of 'table', 'json', 'markdown'",
            "layerlens inspect",
        ),
        (["ls", "x", "--layer", "-1"], "-1 is not in the range", "layerlens ls"),
        (["why", "x"], "Missing argument 'PATH'", "layerlens why"),
        (["plugin", "nonsense"], "No such command 'nonsense'", "layerlens plugin"),
    ],
)
def test_wrong_usage(
    arguments: list[str], part: str, help_of: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert cli.run(arguments) == 2
    captured = capfdbinary.readouterr()
    assert captured.out == b""
    said, hint = two_lines(captured.err)
    assert part in said
    assert hint == f"See `{help_of} --help`."


def test_without_arguments_the_help_is_on_stderr(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.run([]) == 2
    captured = capfdbinary.readouterr()
    assert captured.out == b""
    assert captured.err.startswith(b"Usage: layerlens")


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_a_traceback(place: str) -> None:
    arguments = ["inspect", "./nowhere.tar"]
    arguments = ["--debug", *arguments] if place == "before" else [*arguments, "--debug"]
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(b"Traceback")
    two_lines(b"\n".join(done.stderr.splitlines()[-2:]))


def test_what_nobody_foresaw_is_two_lines_too(
    monkeypatch: pytest.MonkeyPatch, archive: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    import layerlens.api

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a\nb")

    monkeypatch.setattr(layerlens.api, "open_image", broken)
    assert cli.run(["inspect", archive]) == 2
    said, hint = two_lines(capfdbinary.readouterr().err)
    assert "RuntimeError" in said
    assert "report it" in hint


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["interrupt", "terminate"]
)
def test_interrupted_while_reading(archive: str, tmp_path: Path, number: int, status: int) -> None:
    process = start("inspect", "-", stdin=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    half = Path(archive).read_bytes()[:4096]
    process.stdin.write(half)
    process.stdin.flush()
    _wait_until_it_waits(process.pid)
    process.send_signal(number)
    try:
        assert process.wait(30) == status
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
        assert os.listdir(tmp_path) == []
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass


def _wait_until_it_waits(pid: int) -> None:
    """Until the process has read what there was of its input and sleeps for more (or five seconds)."""
    for _ in range(100):
        time.sleep(0.05)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, ticks = fields[0], int(fields[11])
        if state == "S" and ticks >= 5:
            break
    time.sleep(0.2)


# Help, version, start


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capfd.readouterr().out == f"layerlens {layerlens.__version__}\n"
    assert cli.run(["--help"]) == 0
    text = capfd.readouterr().out
    for command in ("inspect", "ls", "why", "recommend", "slim", "verify", "plugin"):
        assert f"  {command} " in text
    for command in ("inspect", "ls", "why"):
        assert cli.run([command, "-h"]) == 0
        text = capfd.readouterr().out
        assert "--platform" in text
        assert "--format" in text


def test_commands_that_do_not_exist_yet_are_not_promised(capfd: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    text = capfd.readouterr().out
    for command in ("explore", "diff"):
        assert f"  {command} " not in text


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_json_costs_no_layout(archive: str) -> None:
    loaded = _modules_after(
        f"from layerlens import cli\nassert cli.run(['inspect', {archive!r}, '--format', 'json']) == 0"
    )
    assert loaded.isdisjoint({"rich", "humanize", "docker", "networkx", "pandas", "requests", "markdown_it"})


def test_help_loads_neither_the_analysis_nor_layout() -> None:
    loaded = _modules_after("from layerlens import cli\nassert cli.run(['--help']) == 0")
    assert loaded.isdisjoint({"rich", "humanize", "docker", "networkx", "layerlens.api", "layerlens.sources"})


def test_import_is_light() -> None:
    loaded = _modules_after("import layerlens")
    assert loaded.isdisjoint({"docker", "networkx", "rich", "typer", "humanize", "pandas"})


def test_help_is_quick() -> None:
    best_s = min(_cpu_s([*LAYERLENS, "--help"]) for _ in range(5))
    assert best_s <= 0.2


def _cpu_s(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_plain_ascii_is_what_the_renderer_says() -> None:
    assert terminal.plain_ascii("█▎ → …") == "#- -> ~"
