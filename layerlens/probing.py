"""A probe: what a program is asked, and what it answered.

A probe comes from the command line (``--http PORT/PATH``, ``--exec CMD``), from a ``probe.toml``, or is the least
that can be asked of any image: does it start, and how does it go on. The image's HEALTHCHECK belongs to every one of
them. Asking it gives :class:`Answers`, plain values that say nothing of right or wrong; ``verify`` compares two.

``[[http]]`` entries and the health check share one container; each ``[[exec]]`` has a fresh one, in which its words
stand where ``docker run IMAGE words…`` puts them: in place of CMD, after ENTRYPOINT. Nothing of it needs a shell, so
that an image which holds nothing but the program can be probed.
"""

from __future__ import annotations

import http.client
import shlex
import socket
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from layerlens.errors import UsageError, VerifyError
from layerlens.model import ImageConfig
from layerlens.sources.containers import Container, ContainerSpec, container
from layerlens.sources.docker_engine import Engine

DEFAULT_TIMEOUT_S = 30.0
STOP_GRACE_S = 10
"""What orchestrators give a program between SIGTERM and SIGKILL (docker stop's default)."""
STAYS_UP_S = 3.0
"""How long a program that nobody asks anything is watched."""

_REQUEST_TIMEOUT_S = 20.0
_BODY_BYTES = 4 << 20
_PAUSE_S = 0.05
_RUN_KEYS = {"env": dict, "args": list, "network": str}
_NETWORKS = ("host", "none", "bridge")


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """One GET request to the program on this machine's loopback address."""

    port: int
    path: str
    status: int | None = None
    """The status it must have; None: any, as long as both images agree."""
    contains: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """How it is called in a report."""
        return f"GET :{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class ExecProbe:
    """One run of the image with these words instead of CMD; without any, with its own."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    exit_status: int | None = None
    contains: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """How it is called in a report."""
        return "run " + (shlex.join(self.command) if self.command else "(the image's own command)")


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that is asked of one image."""

    http: tuple[HttpProbe, ...] = ()
    execs: tuple[ExecProbe, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    network: str = "host"
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Until the first request gets any answer, a command ends, the health check is content."""

    def with_more(
        self, http: Sequence[HttpProbe] = (), execs: Sequence[ExecProbe] = (), timeout_s: float | None = None
    ) -> Probe:
        """The same with more to ask, and another patience where given."""
        return replace(
            self,
            http=(*self.http, *http),
            execs=(*self.execs, *execs),
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
        )


def http_probe(text: str) -> HttpProbe:
    """``PORT/PATH`` as on the command line: ``8080/health?full=1``. UsageError where it is not of that form."""
    port, slash, path = text.strip().partition("/")
    port = port.removeprefix(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"not PORT/PATH: {text!r}", "Write it as 8080/health.")
    return HttpProbe(int(port), _path(slash + path or "/", text))


def exec_probe(text: str) -> ExecProbe:
    """A command line as a person types it. UsageError for quotes that are never closed."""
    try:
        return ExecProbe(tuple(shlex.split(text)))
    except ValueError as error:
        raise UsageError(f"not a command line: {text!r} ({error})", "Close its quotes.") from None


def _path(path: str, where: str) -> str:
    if not path.startswith("/") or any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in path):
        raise UsageError(
            f"not a path of a URL: {path!r} in {where}", "Start with / and percent-encode the rest."
        )
    return path


# --- probe.toml -------------------------------------------------------------------------------------------------


def load_probe(file: Path) -> Probe:
    """Read a ``probe.toml`` (DESIGN, section 6).

    Raises:
        UsageError: it cannot be read, or holds something that a probe does not have.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}", "Name a probe.toml.") from error
    except ValueError as error:
        raise UsageError(f"{file} is not TOML: {error}", "See the README for the format.") from error
    return _Reader(str(file)).probe(table)


class _Reader:
    """Checks what a probe.toml says, and says where it is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name

    def probe(self, table: dict[str, Any]) -> Probe:
        self._only(table, {"run", "wait", "http", "exec"}, "")
        run = self._table(table.get("run", {}), "[run]")
        self._only(run, set(_RUN_KEYS), "[run]")
        network = run.get("network", "host")
        if network not in _NETWORKS:
            raise self._wrong(f"[run] network is {network!r}", f"Write one of {', '.join(_NETWORKS)}.")
        wait = self._table(table.get("wait", {}), "[wait]")
        self._only(wait, {"timeout_s"}, "[wait]")
        timeout = wait.get("timeout_s", DEFAULT_TIMEOUT_S)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 3600:
            raise self._wrong(f"[wait] timeout_s is {timeout!r}", "Write seconds, at most 3600.")
        return Probe(
            http=tuple(self._http(entry) for entry in self._tables(table, "http")),
            execs=tuple(self._exec(entry) for entry in self._tables(table, "exec")),
            env=self._env(run.get("env", {}), "[run]"),
            args=self._strings(run.get("args", []), "[run] args"),
            network=network,
            timeout_s=float(timeout),
        )

    def _http(self, entry: dict[str, Any]) -> HttpProbe:
        self._only(entry, {"port", "path", "status", "contains"}, "[[http]]")
        port, status = entry.get("port"), entry.get("status", 200)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise self._wrong(f"[[http]] port is {port!r}", "Write a number from 1 to 65535.")
        if isinstance(status, bool) or not isinstance(status, int):
            raise self._wrong(f"[[http]] status is {status!r}", "Write a number.")
        path = entry.get("path", "/")
        if not isinstance(path, str):
            raise self._wrong(f"[[http]] path is {path!r}", "Write a string that starts with /.")
        contains = self._strings(entry.get("contains", []), "[[http]] contains")
        return HttpProbe(port, _path(path, self._name), status, contains)

    def _exec(self, entry: dict[str, Any]) -> ExecProbe:
        self._only(entry, {"command", "env", "exit_status", "contains"}, "[[exec]]")
        status = entry.get("exit_status", 0)
        if isinstance(status, bool) or not isinstance(status, int):
            raise self._wrong(f"[[exec]] exit_status is {status!r}", "Write a number.")
        return ExecProbe(
            self._strings(entry.get("command", []), "[[exec]] command", words=False),
            self._env(entry.get("env", {}), "[[exec]]"),
            status,
            self._strings(entry.get("contains", []), "[[exec]] contains"),
        )

    def _tables(self, table: dict[str, Any], key: str) -> list[dict[str, Any]]:
        entries = table.get(key, [])
        if not isinstance(entries, list):
            raise self._wrong(f"{key} is not a list of tables", f"Write [[{key}]].")
        return [self._table(entry, f"[[{key}]]") for entry in entries]

    def _table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(f"{where} is not a table", "See the README for the format.")
        return value

    def _env(self, value: Any, where: str) -> dict[str, str]:
        table = self._table(value, f"{where} env")
        if not all(isinstance(text, str) for text in table.values()):
            raise self._wrong(f"{where} env has a value that is no string", "Put it in quotes.")
        return table

    def _strings(self, value: Any, where: str, words: bool = True) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) and words else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise self._wrong(f"{where} is not a list of strings", 'Write it as ["…", "…"].')
        return tuple(values)

    def _only(self, table: dict[str, Any], known: set[str], where: str) -> None:
        unknown = sorted(set(table) - known)
        if unknown:
            raise self._wrong(
                f"{where or 'it'} has {', '.join(unknown)}", f"Known there: {', '.join(sorted(known))}."
            )

    def _wrong(self, what: str, hint: str) -> UsageError:
        return UsageError(f"{self._name}: {what}", hint)


# --- answers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question. ``failure`` says why there is no answer, in words; the rest is empty then."""

    status: int | None = None
    """HTTP status, or a command's exit status (128 + N where signal N ended it)."""
    content_type: str = ""
    body: bytes = b""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers of one image. What was not asked is None or empty."""

    http: Mapping[HttpProbe, Answer] = field(default_factory=dict)
    execs: tuple[Answer, ...] = ()
    health: Answer | None = None
    runs: Answer | None = None
    """How the program went on when nothing was asked of it: its exit, or no status where it was still up."""
    stopped: Answer | None = None
    startup_s: float | None = None
    """From the start of the container to its first answer."""
    memory_bytes: int | None = None
    hostnames: frozenset[str] = frozenset()
    """Names that the containers had by chance."""


class Launcher(Protocol):
    """Has a hand in how containers start: a trace holds them back until it watches."""

    def prepare(self, spec: ContainerSpec) -> ContainerSpec:
        """The container to make instead."""

    def made(self, made: Container) -> None:
        """Called before the start."""

    def started(self, made: Container) -> None:
        """Called after the start."""

    def ended(self, made: Container) -> None:
        """Called after the end, before the removal."""


class _Directly:
    """Just starts them."""

    def prepare(self, spec: ContainerSpec) -> ContainerSpec:
        return spec

    def made(self, made: Container) -> None:
        pass

    def started(self, made: Container) -> None:
        pass

    def ended(self, made: Container) -> None:
        pass


def ask(
    engine: Engine, image_id: str, config: ImageConfig, probe: Probe, launcher: Launcher | None = None
) -> Answers:
    """Run the image as the probe says and ask it everything; its containers are gone afterwards.

    Raises:
        VerifyError: it cannot be asked at all (a port that is taken, a container that cannot be made).
        EngineError: the engine went away.
    """
    return _Asking(engine, image_id, config, probe, launcher or _Directly()).answers()


def has_healthcheck(config: ImageConfig) -> bool:
    """Whether the image has a HEALTHCHECK that says something."""
    return bool(_health_command(config))


def _health_command(config: ImageConfig) -> list[str]:
    """The command of a HEALTHCHECK (image config, ``Healthcheck.Test``); empty where there is none."""
    test = (config.healthcheck or {}).get("Test")
    if not isinstance(test, list) or len(test) < 2 or not all(isinstance(word, str) for word in test):
        return []
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*(config.shell or ("/bin/sh", "-c")), test[1]]
    return []


class _Asking:
    """One round of questions to one image."""

    def __init__(
        self, engine: Engine, image_id: str, config: ImageConfig, probe: Probe, launcher: Launcher
    ) -> None:
        self._engine = engine
        self._image_id = image_id
        self._config = config
        self._probe = probe
        self._launcher = launcher
        self._hostnames: set[str] = set()

    def answers(self) -> Answers:
        probe = self._probe
        if probe.http and not self._engine.endpoint.is_local:
            raise VerifyError(
                f"{self._engine.endpoint} is another machine's engine: its loopback address is not this one's",
                "Run it on that machine, or ask with --exec.",
            )
        found = Answers()
        if probe.http or has_healthcheck(self._config) or not probe.execs:
            found = self._served()
        execs = tuple(self._run(entry) for entry in probe.execs)
        return replace(found, execs=execs, hostnames=frozenset(self._hostnames))

    @contextmanager
    def _started(self, command: tuple[str, ...], env: Mapping[str, str]) -> Iterator[Container]:
        ports = sorted({entry.port for entry in self._probe.http})
        network = self._probe.network
        if network == "host" and ports and sys.platform != "linux":
            network = "bridge"  # the engine runs in a virtual machine, whose loopback is not this one's
        if network == "host":
            for port in ports:
                _must_be_free(port)
        spec = ContainerSpec(
            self._image_id, command or None, None, {**self._probe.env, **env}, network, tuple(ports)
        )
        with container(self._engine, self._launcher.prepare(spec)) as made:
            self._hostnames.add(made.id[:12])
            self._launcher.made(made)
            made.start()
            try:
                self._launcher.started(made)
                yield made
                if made.state().running:
                    made.stop(0)
            finally:
                self._launcher.ended(made)

    # -- the container that serves ----------------------------------------------------------------------------

    def _served(self) -> Answers:
        probe = self._probe
        try:
            with self._started(probe.args, {}) as made:
                began = time.monotonic()
                return self._conversation(made, began)
        except VerifyError as error:
            if not error.message.startswith("it does not start"):
                raise
            failed = Answer(failure=error.message)
            return Answers(
                http=dict.fromkeys(probe.http, failed),
                health=failed if has_healthcheck(self._config) else None,
                runs=None if probe.http or has_healthcheck(self._config) else failed,
            )

    def _conversation(self, made: Container, began: float) -> Answers:
        probe = self._probe
        found: dict[HttpProbe, Answer] = {}
        startup: float | None = None
        if probe.http:
            problem = self._until_answering(made, probe.http[0])
            startup = time.monotonic() - began
            for entry in probe.http:
                found[entry] = Answer(failure=problem) if problem else self._get(made, entry)
                problem = problem and "not asked, since the first request had no answer"
        health = self._health(made, bool(probe.http)) if has_healthcheck(self._config) else None
        if health is not None and startup is None:
            startup = time.monotonic() - began
        runs = None
        if not found and health is None:
            runs = self._watched(made)
        memory = made.memory_bytes() if made.state().running else None
        return Answers(
            http=found,
            health=health,
            runs=runs,
            stopped=self._stop(made, runs),
            startup_s=startup,
            memory_bytes=memory,
        )

    def _address(self, made: Container, port: int) -> int:
        return (made.published(port) or port) if self._probe.network != "host" else port

    def _until_answering(self, made: Container, entry: HttpProbe) -> str:
        """Wait for any HTTP answer; why none came, or nothing."""
        deadline = time.monotonic() + self._probe.timeout_s
        while True:
            state = made.state()
            if not state.running:
                reason = "it ran out of memory" if state.out_of_memory else f"exit status {state.exit_status}"
                return f"the container ended ({reason}): {made.last_words()}"
            try:
                _fetch(
                    self._address(made, entry.port),
                    entry.path,
                    min(_REQUEST_TIMEOUT_S, self._probe.timeout_s),
                )
                return ""
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    return (
                        f"no answer on port {entry.port} within {self._probe.timeout_s:g} s "
                        f"({_said(error)}): {made.last_words()}"
                    )
            time.sleep(_PAUSE_S)

    def _get(self, made: Container, entry: HttpProbe) -> Answer:
        try:
            return _fetch(self._address(made, entry.port), entry.path, _REQUEST_TIMEOUT_S)
        except (OSError, http.client.HTTPException) as error:
            ended = "" if made.state().running else ", and the container has ended"
            return Answer(failure=f"no answer: {_said(error)}{ended}: {made.last_words()}")

    def _health(self, made: Container, serving: bool) -> Answer:
        """Run the health check until it is content; its last result otherwise."""
        command = _health_command(self._config)
        deadline = time.monotonic() + self._probe.timeout_s
        while True:
            if not made.state().running:
                return Answer(failure=f"the container ended: {made.last_words()}")
            try:
                status, output = made.run_inside(command)
            except VerifyError as error:
                return Answer(failure=error.message)
            if status == 0 or serving or time.monotonic() > deadline:
                # The output of a check is for people; what an orchestrator acts on is whether it is zero.
                return Answer(status=status, failure="" if status == 0 else f"exit status {status}: {output}")
            time.sleep(_PAUSE_S)

    def _watched(self, made: Container) -> Answer:
        ended = made.wait(min(STAYS_UP_S, self._probe.timeout_s))
        if ended is None:
            return Answer()
        return Answer(status=ended.exit_status, body=made.output())

    def _stop(self, made: Container, runs: Answer | None) -> Answer | None:
        """Stop it as an orchestrator does; a program that ignores SIGTERM is killed after the grace."""
        if not made.state().running:
            if runs is not None and runs.status is not None:
                return None
            return Answer(failure=f"it ended by itself: {made.last_words()}")
        took = made.stop(STOP_GRACE_S)
        killed = took >= STOP_GRACE_S
        return Answer(status=made.state().exit_status, body=b"killed" if killed else b"")

    # -- containers that run one command ---------------------------------------------------------------------

    def _run(self, entry: ExecProbe) -> Answer:
        try:
            with self._started(entry.command, entry.env) as made:
                ended = made.wait(self._probe.timeout_s)
                if ended is None:
                    return Answer(
                        failure=f"still running after {self._probe.timeout_s:g} s: {made.last_words()}"
                    )
                if ended.out_of_memory:
                    return Answer(failure=f"it ran out of memory: {made.last_words()}")
                return Answer(status=ended.exit_status, body=made.output())
        except VerifyError as error:
            if not error.message.startswith("it does not start"):
                raise
            return Answer(failure=error.message)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _must_be_free(port: int) -> None:
    """VerifyError where something on this machine listens on the port, or the port is not for this user."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection's remains are no listener
        try:
            trial.bind(("127.0.0.1", port))
        except PermissionError:
            return  # below 1024 without privileges: the engine may bind it all the same
        except OSError as error:
            raise VerifyError(
                f"port {port} on 127.0.0.1 is taken",
                f"End what listens there (`ss -ltnp 'sport = :{port}'`), or let the program use another port.",
            ) from error


def _fetch(port: int, path: str, timeout_s: float) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Connection": "close", "Accept": "*/*"})
        response = connection.getresponse()
        body = response.read(_BODY_BYTES)
        return Answer(response.status, response.getheader("Content-Type") or "", body)
    finally:
        connection.close()
