"""Containers of a running engine: made, started, asked, and removed whatever happens.

Every container carries a label that names the process it belongs to. What a process leaves behind (killed
outright, or the machine went down) is removed by the next one that comes along on the same machine.
"""

from __future__ import annotations

import atexit
import io
import os
import platform
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerlens.errors import EngineError, VerifyError
from layerlens.sources.docker_engine import Engine, EngineRefusedError

LABEL = "layerlens.owner"
"""Label of every container that layerlens makes: machine/process/start of the process."""

_MEMORY_BYTES = 2 << 30
_PROCESSES = 4096
_LOG_BYTES = 4 << 20
_LAST_LINES = 15
_LAST_BYTES = 1500
_MISSING = (404, 409)
"""Statuses by which an engine says that a container is gone already, or going."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What an engine says of a container (``GET /containers/{id}/json``, State)."""

    running: bool
    exit_status: int
    pid: int
    error: str
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """How a container is made. ``command`` None: the image's own; ``entrypoint`` likewise."""

    image_id: str
    command: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    ports: Sequence[int] = ()
    """Ports to publish on 127.0.0.1, on whatever port is free there; for ``bridge`` alone."""


class Container:
    """One container. Every method raises EngineError where the engine does not do it."""

    def __init__(self, engine: Engine, container_id: str) -> None:
        self._engine = engine
        self.id = container_id

    def _ask(self, what: str, method: str, *arguments: Any, **options: Any) -> Any:
        return self._engine.ask(
            f"{what} container {self.id[:12]} failed", method, self.id, *arguments, **options
        )

    def put(self, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> None:
        """Put files into it, before or after it starts; their names count from its root."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for member, content in members:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        self._ask("putting files into", "put_archive", "/", stream.getvalue())

    def start(self) -> None:
        """Start it; VerifyError where its program cannot be executed at all."""
        try:
            self._ask("starting", "start")
        except EngineRefusedError as error:
            raise VerifyError(f"it does not start: {error.said}", error.hint) from error

    def inspect(self) -> dict[str, Any]:
        """All that the engine says of it."""
        found: dict[str, Any] = self._ask("asking for", "inspect_container")
        return found

    def state(self) -> ContainerState:
        """Whether it runs, and how it ended if not."""
        state = self.inspect().get("State") or {}
        return ContainerState(
            running=bool(state.get("Running")),
            exit_status=int(state.get("ExitCode") or 0),
            pid=int(state.get("Pid") or 0),
            error=str(state.get("Error") or ""),
            out_of_memory=bool(state.get("OOMKilled")),
        )

    def wait(self, timeout_s: float) -> ContainerState | None:
        """Its state once it has ended; None if it still runs after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        pause = 0.01
        while (state := self.state()).running:
            if time.monotonic() > deadline:
                return None
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        return state

    def output(self) -> bytes:
        """Standard output and error, at most four megabytes of them."""
        read = b""
        for piece in self._ask(
            "reading the output of", "logs", stdout=True, stderr=True, stream=True, follow=False
        ):
            read += piece
            if len(read) > _LOG_BYTES:
                break
        return read[:_LOG_BYTES]

    def last_words(self) -> str:
        """The last lines that it wrote."""
        words: bytes = self._ask("reading the output of", "logs", stdout=True, stderr=True, tail=_LAST_LINES)
        return words.decode("utf-8", "replace").strip()[-_LAST_BYTES:] or "it said nothing"

    def run_inside(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in it, as HEALTHCHECK does: exit status and output."""
        made = self._ask("running a command in", "exec_create", list(command))
        output: bytes = self._engine.ask("running a command in a container failed", "exec_start", made["Id"])
        ended = self._engine.ask("asking for a command failed", "exec_inspect", made["Id"])
        return int(ended.get("ExitCode") or 0), output.decode("utf-8", "replace").strip()[-_LAST_BYTES:]

    def memory_bytes(self) -> int | None:
        """Memory in use now, page cache not counted, as ``docker stats`` does; None where the engine cannot say."""
        try:
            stats = self._ask("measuring", "stats", stream=False, one_shot=True)
        except (EngineError, TypeError):
            return None
        memory = stats.get("memory_stats") or {}
        usage = memory.get("usage")
        if not isinstance(usage, int):
            return None
        details = memory.get("stats") or {}
        cache = int(details.get("total_inactive_file", details.get("inactive_file", 0)))
        return max(0, usage - cache)

    def stop(self, grace_s: int) -> float:
        """SIGTERM (or the image's STOPSIGNAL), SIGKILL after ``grace_s``; seconds that it took."""
        began = time.monotonic()
        self._ask("stopping", "stop", timeout=grace_s)
        return time.monotonic() - began

    def published(self, port: int) -> int | None:
        """The port of this machine at which a port of the container answers."""
        ports = (self.inspect().get("NetworkSettings") or {}).get("Ports") or {}
        for binding in ports.get(f"{port}/tcp") or ():
            return int(binding["HostPort"])
        return None

    def remove(self) -> None:
        """End and remove it, with its anonymous volumes; fine if it is gone already."""
        try:
            self._ask("removing", "remove_container", force=True, v=True)
        except EngineRefusedError as error:
            if error.status not in _MISSING:
                raise
        _OWN.pop(self.id, None)


_OWN: dict[str, Container] = {}
"""Containers of this process that were not removed yet."""


@atexit.register
def _remove_own() -> None:
    for container in list(_OWN.values()):
        try:
            container.remove()
        except EngineError:
            pass  # the next run removes it by its label


@contextmanager
def container(engine: Engine, spec: ContainerSpec) -> Iterator[Container]:
    """A container that was made and not started; removed at the end, whatever happened meanwhile."""
    made = _create(engine, spec)
    try:
        yield made
    finally:
        made.remove()


def _create(engine: Engine, spec: ContainerSpec) -> Container:
    remove_stale(engine)
    limits: dict[str, Any] = {
        "mem_limit": _MEMORY_BYTES,
        "pids_limit": _PROCESSES,
        "network_mode": spec.network,
    }
    if spec.network == "bridge":
        limits["port_bindings"] = dict.fromkeys(spec.ports, ("127.0.0.1", None))
    host_config = engine.ask("describing a container failed", "create_host_config", **limits)
    made = engine.ask(
        "making a container failed",
        "create_container",
        spec.image_id,
        command=None if spec.command is None else list(spec.command),
        entrypoint=None if spec.entrypoint is None else list(spec.entrypoint),
        environment=dict(spec.env),
        ports=list(spec.ports) if spec.network == "bridge" else None,
        labels={LABEL: _owner()},
        host_config=host_config,
        healthcheck={"test": ["NONE"]},  # asked for when a probe wants it, and not in between
    )
    container_ = Container(engine, made["Id"])
    _OWN[container_.id] = container_
    return container_


_swept: set[str] = set()
"""Engines that were asked for what dead processes left."""


def remove_stale(engine: Engine) -> None:
    """Remove what processes of this machine that have ended left on the engine; looks once a process."""
    if engine.endpoint.url in _swept:
        return
    _swept.add(engine.endpoint.url)
    listed = engine.ask("listing containers failed", "containers", all=True, filters={"label": LABEL})
    for found in listed:
        machine, _, rest = str((found.get("Labels") or {}).get(LABEL)).partition("/")
        process, _, started = rest.partition("/")
        if machine == platform.node() and process.isdigit() and _started(int(process)) != started:
            Container(engine, found["Id"]).remove()


def _owner() -> str:
    return f"{platform.node()}/{os.getpid()}/{_started(os.getpid())}"


def _started(process: int) -> str:
    """When a process started, in whatever unit: tells it from a later one with its number; empty if it has ended."""
    try:
        # proc_pid_stat(5): field 22; the second one, in parentheses, may hold anything.
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "?"
    return "?"
