"""What all tests share: the engine's rules, the command line run as a user runs it, hypothesis's profile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"

settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,  # the gate gives the same verdict on the same code
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.register_profile("search", settings.get_profile("gate"), derandomize=False, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERLENS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


# --- engines ----------------------------------------------------------------------------------------------


@cache
def docker_trouble() -> str | None:
    """Why no docker engine can be used, or None."""
    if shutil.which("docker") is None:
        return "no docker client"
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        return "the engine does not answer"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no engine"])[-1]


@cache
def podman_trouble() -> str | None:
    """Why podman's Docker-compatible socket cannot be used, or None."""
    host = os.environ.get("CONTAINER_HOST", "")
    if not host.startswith("unix://"):
        return "CONTAINER_HOST names no socket"
    import http.client
    import socket

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(20)
            self.sock.connect(host.removeprefix("unix://"))

    try:
        connection = Connection("localhost")
        connection.request("GET", "/_ping")
        answer = connection.getresponse()
    except OSError as error:
        return f"{host}: {error}"
    return None if answer.status == 200 else f"{host}: status {answer.status}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, trouble in (("engine", docker_trouble), ("podman", podman_trouble)):
        if item.get_closest_marker(marker) is not None and (why := trouble()) is not None:
            pytest.skip(f"needs {marker}: {why} (as root, `scripts/engine start` runs a private one)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that needs an engine may not be skipped, whoever skips it."""
    report = yield
    needs = [marker for marker in ("engine", "podman") if item.get_closest_marker(marker) is not None]
    if IN_CI and needs and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"CI must run what needs {' and '.join(needs)}, but it was skipped: {report.longrepr}"
        )
    return report


# --- the command line -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One run of the command: how it ended, what it said, what it left in its temporary folder."""

    args: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str
    left: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.stdout.decode()


@dataclass
class CommandLine:
    """Runs ``python -m layerlens`` as a user would: own process, own cache, no engine unless asked for."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.temporary = self.folder / "temporary"
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.cache = self.folder / "cache"

    def env(self, **more: str) -> dict[str, str]:
        inherited = {key: os.environ[key] for key in ("PATH", "LANG", "LD_LIBRARY_PATH") if key in os.environ}
        return {
            **inherited,
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.temporary),
            "LAYERLENS_CACHE_DIR": str(self.cache),
            "DOCKER_HOST": "unix:///nonexistent/docker.sock",
            "CONTAINER_HOST": "unix:///nonexistent/podman.sock",
            "COLUMNS": "80",
            **self.environment,
            **more,
        }

    def start(
        self, *args: str, limit: Callable[[], None] | None = None, **pipes: object
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "layerlens", *args],
            env=self.env(),
            cwd=ROOT,
            preexec_fn=limit,
            **pipes,  # type: ignore[call-overload]
        )

    def __call__(
        self,
        *args: str | Path,
        stdin: bytes | Path | None = None,
        limit: Callable[[], None] | None = None,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> Run:
        words = tuple(map(str, args))
        opened = stdin.open("rb") if isinstance(stdin, Path) else None
        try:
            done = subprocess.run(
                [sys.executable, "-m", "layerlens", *words],
                capture_output=True,
                env=self.env(**(env or {})),
                cwd=cwd,
                preexec_fn=limit,
                timeout=timeout,
                check=False,
                **({"stdin": opened} if opened else {"input": stdin or b""}),
            )
        finally:
            if opened:
                opened.close()
        left = tuple(sorted(str(path.relative_to(self.temporary)) for path in self.temporary.rglob("*")))
        return Run(words, done.returncode, done.stdout, done.stderr.decode(errors="replace"), left)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command line with a temporary folder and cache of its own."""
    return CommandLine(tmp_path / "cli")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``small_disk("1m")``: an empty filesystem of that size; where none can be mounted, the test is skipped."""
    with ExitStack() as stack:

        def mount(size: str) -> Path:
            if os.geteuid() != 0 or shutil.which("mount") is None:
                pytest.skip("needs root to mount a small filesystem")
            small = tmp_path / "small"
            small.mkdir()
            words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small]
            mounted = subprocess.run(words, capture_output=True)
            if mounted.returncode:
                pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", small], check=True)
            return small

        yield mount


@pytest.fixture
def watching() -> None:
    """Skips the test where containers cannot be watched."""
    from layerlens import trace
    from layerlens.errors import UnavailableError

    try:
        trace.check_available()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def time_limit() -> Iterator[Callable[[int], None]]:
    """``time_limit(seconds)``: the test fails instead of hanging."""

    def ring(_signal: int, _frame: object) -> None:
        raise TimeoutError("the test's own time limit")

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
