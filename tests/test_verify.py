"""Comparing answers, reading probes, and the real thing: a small server in two images of an engine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from imagekit import File, Symlink, docker_archive_old, image, layer, tar_of
from serverkit import containers_of, free_port
from squashkit import squash
from test_engine_oracle import docker

from layerlens.errors import ImageNotFoundError, PlatformError, UnavailableError, UsageError, VerifyError
from layerlens.history import parse_config
from layerlens.probing import (
    Answer,
    Answers,
    ExecProbe,
    HttpProbe,
    Probe,
    ask,
    exec_probe,
    http_probe,
    load_probe,
)
from layerlens.sources.endpoints import Endpoint
from layerlens.verify import MASKS, Comparison, Verification, compiled_masks, find_missing, verify

GET = HttpProbe(80, "/")


def compared(original: bytes, slim: bytes, again: bytes | None = None, ignore: tuple[str, ...] = ()) -> Any:
    def answers(body: bytes) -> Answers:
        return Answers(http={GET: Answer(200, "text/plain", body)})

    second = None if again is None else answers(again)
    comparison = Comparison(Probe((GET,)), compiled_masks(ignore), answers(original), second)
    (check,) = comparison.checks(answers(slim))
    return check


# --- comparing -----------------------------------------------------------


def test_equal_and_different_bodies() -> None:
    assert compared(b"hello", b"hello").same
    check = compared(b"hello world", b"hello there")
    assert not check.same and "at byte 6" in check.detail and "there" in check.detail


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("time", "2026-11-24T10:00:00Z", "2026-11-24 10:00:01.123456+01:00"),
        ("date", "Tue, 24 Nov 2026 10:00:00 GMT", "Wed, 25 Nov 2026 00:00:59 GMT"),
        ("log time", "24/Nov/2026:10:00:00 +0000", "25/Nov/2026 10:00:01"),
        ("uuid", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "00000000-0000-4000-8000-000000000000"),
        ("address", "0x7f3a2b1c4d5e", "0x55d0c0ffee00"),
    ],
)
def test_every_mask_hides_its_kind_alone(name: str, one: str, other: str) -> None:
    assert name in {mask for mask, _ in MASKS}
    assert compared(f"at {one}!".encode(), f"at {other}!".encode()).same
    assert not compared(f"at {one}!".encode(), f"on {other}!".encode()).same


def test_ignore_adds_masks() -> None:
    assert not compared(b"token=abc", b"token=xyz").same
    assert compared(b"token=abc", b"token=xyz", ignore=(r"token=\w+",)).same
    with pytest.raises(UsageError, match="regular expression"):
        compiled_masks(["("])


def test_what_the_original_itself_varies_in_is_left_out() -> None:
    check = compared(b"visit 17 of bob", b"visit 99 of bob", again=b"visit 18 of bob")
    assert check.same and "left out" in check.detail
    assert not compared(b"visit 17 of bob", b"visit 99 of eve", again=b"visit 18 of bob").same
    assert compared(b"<a>x y</a>", b"<a>p</a>", again=b"<a>q r s</a>").same
    assert not compared(b"<a>x y</a>", b"<b>p</b>", again=b"<a>q r s</a>").same


def test_members_of_json_objects_have_no_order() -> None:
    assert compared(b'{"a": 1, "b": [1, 2]}', b' {"b":[1,2],"a":1}').same
    assert not compared(b'{"a": [1, 2]}', b'{"a": [2, 1]}').same
    assert not compared(b'{"a": 1}', b'{"a": "1"}').same
    assert compared(b'{"up": 7, "os": "x"}', b'{"os": "x", "up": 9}', again=b'{"os": "x", "up": 8}').same
    assert not compared(b"[" * 100_000, b"[" * 99_999).same
    assert not compared(b'{"a": 1', b'{"a": 2').same


def test_status_and_content_type_count() -> None:
    probe = Probe((GET,))
    mine = Answers(http={GET: Answer(200, "text/html", b"")})
    for other in (Answer(500, "text/html", b""), Answer(200, "text/plain", b""), Answer(failure="no answer")):
        (check,) = Comparison(probe, [], mine).checks(Answers(http={GET: other}))
        assert not check.same and check.detail


def test_an_original_that_fails_proves_nothing() -> None:
    broken = Answers(http={GET: Answer(failure="the container ended")})
    (check,) = Comparison(Probe((GET,)), [], broken).checks(broken)
    assert not check.same and check.detail.startswith("the original: ")


def test_what_the_probe_asks_for_counts_for_both() -> None:
    entry = HttpProbe(80, "/", 200, ("Tokyo",))
    run = ExecProbe((), exit_status=3)
    probe = Probe((entry,), (run,))

    def answers(body: bytes, status: int) -> Answers:
        return Answers(http={entry: Answer(200, "", body)}, execs=(Answer(status),))

    good, bad = answers(b"in Tokyo", 3), answers(b"in Kyoto", 4)
    assert all(check.same for check in Comparison(probe, [], good).checks(good))
    assert not any(check.same for check in Comparison(probe, [], bad).checks(bad))


def test_stopping_is_compared() -> None:
    def answers(stopped: Answer) -> Answers:
        return Answers(runs=Answer(), stopped=stopped)

    clean, killed = Answer(0), Answer(137, body=b"killed")
    start, check = Comparison(Probe(), [], answers(clean)).checks(answers(killed))
    assert start.same and not check.same and "killed after the grace instead of exit 0" in check.detail
    _, check = Comparison(Probe(), [], answers(clean), answers(killed)).checks(answers(killed))
    assert check.same


def test_slowness_and_memory_have_tolerance() -> None:
    def same(**slim: float | int) -> list[bool]:
        original = Answers(startup_s=1.0, memory_bytes=100 << 20)
        return [c.same for c in Comparison(Probe(), [], original).checks(Answers(**slim))]  # type: ignore[arg-type]

    assert same(startup_s=3.0, memory_bytes=150 << 20) == [True, True]
    assert same(startup_s=6.0, memory_bytes=300 << 20) == [False, False]


def test_the_dictionary_is_designs() -> None:
    check = compared(b"a", b"b")
    told = Verification((check,), ("/etc/x",)).to_dict()
    assert list(told) == ["passed", "checks", "missing", "untraced"] and told["missing"] == ["/etc/x"]
    assert told["untraced"] is None
    assert list(told["checks"][0]) == ["probe", "original", "slim", "same", "detail"]


# --- probes -----------------------------------------------------------


def test_probes_from_the_command_line() -> None:
    assert http_probe("8080/a?b=c") == HttpProbe(8080, "/a?b=c")
    assert http_probe(":80") == HttpProbe(80, "/")
    assert exec_probe("sh -c 'a b'") == ExecProbe(("sh", "-c", "a b"))
    for text in ("x/y", "0/", "70000/", "80/ä", "80/a b\r\nX: y"):
        with pytest.raises(UsageError):
            http_probe(text)
    with pytest.raises(UsageError):
        exec_probe("'open")


def test_every_probe_of_the_corpus_can_be_read() -> None:
    files = sorted((ROOT / "tests/corpus").glob("*/probe.toml"))
    assert len(files) >= 10
    for file in files:
        probe = load_probe(file)
        assert probe.http or probe.execs


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "[run]\nnetwork = 'lan'",
        "[run]\nenv = {A = 1}",
        "[run]\nargs = 'x y'\nmore = 1",
        "[wait]\ntimeout_s = 0",
        "[[http]]\nport = 0",
        "[[http]]\nport = 80\npath = 'x'",
        "[[http]]\nport = 80\nstatus = '200'",
        "[[exec]]\ncommand = 'x'",
        "[[exec]]\nexit_status = true",
        "http = 3",
    ],
)
def test_a_broken_probe_says_where(tmp_path: Path, text: str) -> None:
    (tmp_path / "probe.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_probe(tmp_path / "probe.toml")
    assert "probe.toml" in caught.value.message and caught.value.hint


# --- in an engine -----------------------------------------------------------

SERVER = r"""
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
static void quit(int n) { (void)n; _exit(0); }
int main(int argc, char **argv) {
    char text[4096]; struct stat found;
    if (argc > 2 && !strcmp(argv[1], "cat")) {
        int file = open(argv[2], O_RDONLY);
        if (file < 0) { perror(argv[2]); return 4; }
        ssize_t size = read(file, text, sizeof text);
        write(1, text, size);
        return 0;
    }
    if (argc > 1 && !strcmp(argv[1], "hang")) for (;;) pause();
    if (argc > 1 && !strcmp(argv[1], "die")) { puts("dying words"); return 9; }
    signal(SIGTERM, quit);
    stat("/data/looked-at", &found);
    open("/var/run/made", O_CREAT | O_RDWR, 0600);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 8)) { perror("bind"); return 1; }
    for (;;) {
        int client = accept(listener, 0, 0);
        char name[512] = "/data", answer[8192];
        ssize_t size = read(client, text, sizeof text - 1);
        text[size > 0 ? size : 0] = 0;
        sscanf(text, "GET %400s", name + 5);
        int file = open(name, O_RDONLY);
        size = file < 0 ? 0 : read(file, text, sizeof text);
        if (file >= 0) close(file);
        int head = sprintf(answer, "HTTP/1.0 %s\r\nContent-Type: text/plain\r\n\r\n", file < 0 ? "404 No" : "200 OK");
        memcpy(answer + head, text, size);
        write(client, answer, head + size);
        close(client);
    }
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("program")
    (folder / "s.c").write_text(SERVER)
    subprocess.run(["gcc", "-static", "-Os", "-w", "-o", folder / "s", folder / "s.c"], check=True)
    return (folder / "s").read_bytes()


@pytest.fixture
def port() -> int:
    return free_port()


class Images:
    """Images of the program, removed from the engine at the end."""

    def __init__(self, program: bytes, port: int) -> None:
        self.program = program
        self.port = port
        self.tags: list[str] = []

    def make(self, files: dict[str, bytes], architecture: str = "amd64", **config: Any) -> str:
        tag = f"layerlens-test/verify-{self.port}-{len(self.tags)}:latest"
        members: dict[str, Any] = {"/app": File(data=self.program, mode=0o755)}
        members |= {f"/data/{name}": content for name, content in files.items()}
        made = image(
            [layer(members)],
            config={"Entrypoint": ["/app"], "Cmd": [str(self.port)], **config},
            platform=f"linux/{architecture}",
            tags=[tag],
        )
        docker("load", data=tar_of(docker_archive_old(made)))
        self.tags.append(tag)
        return tag


@pytest.fixture
def images(program: bytes, port: int) -> Iterator[Images]:
    found = Images(program, port)
    yield found
    subprocess.run(["docker", "image", "rm", "--force", *found.tags], capture_output=True, check=False)
    assert containers_of(os.getpid()) == []


def checks(found: Verification) -> dict[str, Any]:
    return {check.probe: check for check in found.checks}


FILES = {"a": b"alpha", "b": b"beta", "looked-at": b""}


@pytest.mark.engine
def test_the_same_program_passes(images: Images, port: int) -> None:
    one, two = images.make(FILES), images.make({**FILES, "more": b"1"})
    probe = Probe((HttpProbe(port, "/a"), HttpProbe(port, "/none")), (ExecProbe(("cat", "/data/b")),))
    found = verify(one, two, probe)
    assert found.passed, found
    told = checks(found)
    assert told[f"GET :{port}/a"].slim == "200 text/plain, 5 bytes"
    assert told[f"GET :{port}/none"].original.startswith("404")
    assert told["run cat /data/b"].slim == "exit 0, 4 bytes"
    assert told["SIGTERM"].slim == "exit 0"
    assert {"start-up time", "memory"} <= set(told)


@pytest.mark.engine
def test_a_missing_file_fails_its_checks_alone(images: Images, port: int) -> None:
    one, two = images.make(FILES), images.make({"a": b"alpha"})
    probe = Probe((HttpProbe(port, "/a"), HttpProbe(port, "/b")), (ExecProbe(("cat", "/data/b")),))
    told = checks(verify(one, two, probe))
    assert told[f"GET :{port}/a"].same
    assert not told[f"GET :{port}/b"].same and "404" in told[f"GET :{port}/b"].detail
    assert not told["run cat /data/b"].same and "No such file" in told["run cat /data/b"].detail


@pytest.mark.slow
@pytest.mark.engine
def test_an_image_that_ends_at_once_and_one_that_never_answers(images: Images, port: int) -> None:
    good = images.make(FILES)
    probe = Probe((HttpProbe(port, "/a"), HttpProbe(port, "/b")), timeout_s=2)
    died = checks(verify(good, images.make(FILES, Cmd=["die"]), probe))
    assert "exit status 9" in died[f"GET :{port}/a"].detail and "dying words" in died[f"GET :{port}/a"].detail
    mute = checks(verify(good, images.make(FILES, Cmd=["hang"]), probe))
    assert "within 2 s" in mute[f"GET :{port}/a"].detail
    assert "killed after the grace" in mute["SIGTERM"].detail
    gone = checks(verify(good, images.make(FILES, Entrypoint=["/nothing"]), probe))
    assert "does not start" in gone[f"GET :{port}/a"].detail
    stuck = checks(verify(good, good, Probe(execs=(ExecProbe(("hang",)),), timeout_s=1)))
    assert "still running" in stuck["run hang"].detail


@pytest.mark.slow
@pytest.mark.engine
def test_without_a_probe_it_must_start_alike(images: Images) -> None:
    good = images.make(FILES)
    assert checks(verify(good, good, Probe()))["start"].slim == "still running"
    bad = checks(verify(good, images.make(FILES, Cmd=["die"]), Probe()))["start"]
    assert not bad.same and bad.slim.startswith("exit 9")


@pytest.mark.engine
def test_the_health_check_is_asked(images: Images) -> None:
    health = {"Healthcheck": {"Test": ["CMD", "/app", "cat", "/data/b"], "Interval": 1_000_000_000}}
    one, two = images.make(FILES, **health), images.make({"a": b""}, **health)
    told = checks(verify(one, one, Probe()))
    assert told["HEALTHCHECK"].same and told["HEALTHCHECK"].slim == "healthy"
    bad = checks(verify(one, two, Probe(timeout_s=2)))["HEALTHCHECK"]
    assert not bad.same and "No such file" in bad.detail


@pytest.mark.engine
def test_a_port_that_is_taken_is_named(images: Images, port: int) -> None:
    one = images.make(FILES)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with pytest.raises(VerifyError, match=f"port {port} on 127.0.0.1 is taken"):
            verify(one, one, Probe((HttpProbe(port, "/a"),)))


@pytest.mark.engine
def test_other_platforms_and_unknown_names(images: Images) -> None:
    good = images.make(FILES)
    with pytest.raises(PlatformError, match="s390x"):
        verify(good, images.make(FILES, architecture="s390x"), Probe())
    with pytest.raises(ImageNotFoundError):
        verify(good, "layerlens-test/never-was:1", Probe())


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_container_outlives_the_process(images: Images, number: signal.Signals) -> None:
    tag = images.make(FILES)
    script = textwrap.dedent(
        f"""
        from layerlens.cli import stop_cleanly_when_terminated
        from layerlens.probing import ExecProbe, Probe
        from layerlens.verify import verify
        stop_cleanly_when_terminated()
        verify({tag!r}, {tag!r}, Probe(execs=(ExecProbe(("hang",)),), timeout_s=60))
        """
    )
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)

    deadline = time.monotonic() + 30
    while not containers_of(running.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert containers_of(running.pid)
    running.send_signal(number)
    running.wait(30)
    if number is signal.SIGKILL:  # the next process that comes along sweeps up
        script = script.replace('ExecProbe(("hang",))', 'ExecProbe(("cat", "/data/a"))')
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
    assert containers_of(running.pid) == []


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("unix:///var/run/docker.sock", True),
        ("npipe:////./pipe/docker_engine", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://[::1]:2375", True),
        ("tcp://build.example.com:2376", False),
        ("ssh://me@build.example.com", False),
    ],
)
def test_the_loopback_address_of_another_machine_is_not_asked(url: str, local: bool) -> None:
    endpoint = Endpoint("docker", url, "DOCKER_HOST")
    assert endpoint.is_local is local
    if not local:
        engine: Any = SimpleNamespace(endpoint=endpoint)
        config = parse_config(b'{"os": "linux", "architecture": "amd64"}')
        with pytest.raises(VerifyError, match="another machine's engine"):
            ask(engine, "sha256:0", config, Probe((GET,)))


# --- tracing -----------------------------------------------------------


def test_the_gate_is_what_the_assembler_makes_of_its_source(tmp_path: Path) -> None:
    from layerlens import trace

    if shutil.which("gcc") is None or shutil.which("readelf") is None:
        pytest.skip("needs gcc and readelf")
    source = Path(trace.__file__).read_text()
    lines = re.findall(r"^#   (.{40})", source, re.M)
    code = "\n".join(line.split("  AT_")[0] for line in lines if "x86-64" not in line)
    (tmp_path / "g.s").write_text(f".intel_syntax noprefix\n{code}\n")
    subprocess.run(["gcc", "-c", "-o", tmp_path / "g.o", tmp_path / "g.s"], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", tmp_path / "g.o", tmp_path / "g.bin"], check=True
    )
    assert (tmp_path / "g.bin").read_bytes() == trace._GATE_X86_64
    for machine, name in (("x86_64", "X86-64"), ("aarch64", "AArch64")):
        (tmp_path / machine).write_bytes(trace.gate(machine))
        read = subprocess.run(
            ["readelf", "-hl", tmp_path / machine], capture_output=True, text=True, check=True
        )
        assert name in read.stdout and not read.stderr and "LOAD" in read.stdout


def test_where_it_cannot_watch_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerlens import trace

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UnavailableError, match="root"):
        trace.check_available()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(UnavailableError, match="riscv64"):
        trace.check_available()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UnavailableError, match="Linux"):
        trace.check_available()


@pytest.mark.parametrize(("failure", "told"), [("", ""), ("no answer on port 80", "no answer on port 80")])
def test_an_original_that_is_silent_under_watch_proves_less(
    failure: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerlens.trace import Observed

    def watched(*asked: object) -> Observed:
        answers = Answers(http={GET: Answer(failure=failure) if failure else Answer(200)})
        return Observed(frozenset(["/lib/a", "/lib/b"]), frozenset(), frozenset(), frozenset(), answers)

    monkeypatch.setattr("layerlens.verify.trace", watched)
    here: Any = SimpleNamespace(image_id="sha256:1")
    missing, untraced, seen = find_missing(here, here, here, here, Probe((GET,)), {"/lib/a"})
    assert missing == ("/lib/b",) and seen is not None
    assert told in untraced and bool(untraced) == bool(failure)


def test_under_watch_there_is_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerlens import trace

    asked: list[Probe] = []

    def ask_it(engine: object, image_id: str, config: object, probe: Probe, launcher: object) -> Answers:
        asked.append(probe)
        return Answers()

    monkeypatch.setattr(trace, "check_available", lambda: None)
    monkeypatch.setattr(trace, "ask", ask_it)
    monkeypatch.setattr(trace, "_Gatekeeper", lambda *about: SimpleNamespace(records=(), close=lambda: None))
    here: Any = SimpleNamespace()
    trace.trace(here, "sha256:1", squash(layer({})), here, Probe(timeout_s=10))
    assert [probe.timeout_s for probe in asked] == [40]


@pytest.mark.engine
def test_what_is_opened_and_looked_at_is_observed(images: Images, port: int, watching: None) -> None:
    import layerlens
    from layerlens import trace
    from layerlens.sources.docker_engine import open_engine

    tag = images.make(
        {**FILES, "never": b"1", "../var/run/never": b""}, Entrypoint=["app"], Env=["PATH=/nowhere:/"]
    )
    probe = Probe((HttpProbe(port, "/a"),), (ExecProbe(("cat", "data/b")),))
    with layerlens.open_image(f"docker://{tag}") as opened, open_engine(tag) as source:
        observed = trace.trace(source.engine, source.image.image_id, opened.fs, opened.config, probe)
    assert observed.paths == {"/app", "/data/a", "/data/b"}
    assert observed.looked_at == {"/data/looked-at"}
    assert observed.folders == {"/var/run"}
    assert observed.answers.http[probe.http[0]].body == b"alpha"


def test_links_are_observed_where_only_the_file_events_tell() -> None:
    from layerlens.trace import observe

    raw = layer(
        {
            "/lib": Symlink(target="usr/lib"),
            "/usr/lib/libx.so.1": Symlink(target="libx.so.1.2"),
            "/usr/lib/libx.so.1.2": b"",
            "/usr/lib/liby.so.1": Symlink(target="liby.so.1.0"),
            "/usr/lib/liby.so.1.0": b"",
            "/usr/lib/y": Symlink(target="liby.so.1.0"),
        }
    )
    seen = observe(
        squash(raw), [b"O/usr/lib/libx.so.1.2", b"O/usr/lib/liby.so.1.0", b"F/usr/lib/liby.so.1"], Answers()
    )
    assert seen.walked == {"/lib", "/usr/lib/libx.so.1", "/usr/lib/liby.so.1"}
