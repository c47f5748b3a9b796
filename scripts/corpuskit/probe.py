"""Run an image as its probe.toml says, ask it what the file asks, clean up whatever happens."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from corpuskit.cases import STATE, ExecCheck, HttpCheck, Probe
from corpuskit.engine import docker
from corpuskit.errors import CorpusError

REQUEST_TIMEOUT_S = 20
STOP_GRACE_S = 10
PROBE_LABEL = "layerlens-corpus.probe"
BODY_LIMIT = 1 << 22


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a probe: what was asked, whether the answer was right, and how it was wrong."""

    what: str
    passed: bool
    detail: str = ""


class Launcher(Protocol):
    """How a container is started; a trace starts it held back."""

    def options(self, image: str, args: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Options for `docker create` before the image's name, and the arguments after it."""

    def started(self, container: str) -> None:
        """Called once `docker start` came back."""

    def ended(self, container: str) -> None:
        """Called once the container has stopped, before it is removed."""


class Plain:
    """Just runs it."""

    def options(self, image: str, args: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Nothing more; the arguments as they are."""
        return [], list(args)

    def started(self, container: str) -> None:
        """Nothing to do."""

    def ended(self, container: str) -> None:
        """Nothing to do."""


def run_probe(image: str, probe: Probe, launcher: Launcher | None = None) -> list[Check]:
    """Every check of the probe, in order; raises `CorpusError` when the image cannot be asked at all."""
    launcher = launcher or Plain()
    checks = []
    if probe.http:
        with _container(image, probe, probe.args, (), launcher) as container:
            checks += _ask(container, probe)
            checks.append(_stop(container))
    for check in probe.execs:
        with _container(image, probe, check.command, check.env, launcher) as container:
            checks.append(_wait(container, check, probe.timeout_s))
    return checks


@contextmanager
def _container(
    image: str,
    probe: Probe,
    args: tuple[str, ...],
    env: tuple[tuple[str, str], ...],
    launcher: Launcher,
) -> Iterator[str]:
    with ExitStack() as held:
        for port in sorted({check.port for check in probe.http}):
            held.enter_context(alone_on(port))
            if _listening(port):
                raise CorpusError(
                    f"port {port} on 127.0.0.1 is taken; end what listens there, then probe again"
                )
        with _started(image, probe, args, env, launcher) as container:
            yield container


@contextmanager
def alone_on(port: int) -> Iterator[None]:
    """One probe at a time on a port: another run of scripts/corpus waits for this one."""
    folder = STATE / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / str(port)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _started(
    image: str,
    probe: Probe,
    args: tuple[str, ...],
    env: tuple[tuple[str, str], ...],
    launcher: Launcher,
) -> Iterator[str]:
    options, arguments = launcher.options(image, args)
    command = ["create", f"--network={probe.network}", f"--label={PROBE_LABEL}={os.getpid()}", "--memory=2g"]
    command += [part for name, value in (*probe.env, *env) for part in ("--env", f"{name}={value}")]
    container = docker(*command, *options, image, *arguments).stdout.strip()
    try:
        result = docker("start", container, check=False)
        if result.returncode == 0:
            launcher.started(container)
        else:
            raise CorpusError(f"{image} does not start: {result.stderr.strip()}")
        yield container
        if _state(container)["Running"]:
            docker("kill", container, check=False)
            docker("wait", container, check=False)
        launcher.ended(container)
    finally:
        docker("rm", "--force", "--volumes", container, check=False)


def _ask(container: str, probe: Probe) -> list[Check]:
    problem = _wait_until_answering(container, probe)
    if problem:
        return [Check(f"answers on port {probe.http[0].port}", False, problem)]
    checks = [_get(check) for check in probe.http]
    if not _state(container)["Running"]:
        checks.append(Check("still runs after the last request", False, _last_words(container)))
    return checks


def _wait_until_answering(container: str, probe: Probe) -> str:
    deadline = time.monotonic() + probe.timeout_s
    first = probe.http[0]
    while True:
        if not _state(container)["Running"]:
            return f"the container ended: {_last_words(container)}"
        try:
            _fetch(first.port, first.path, timeout=min(REQUEST_TIMEOUT_S, probe.timeout_s))
            return ""
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                return f"no answer within {probe.timeout_s:g} s ({error}): {_last_words(container)}"
        time.sleep(0.1)


def _get(check: HttpCheck) -> Check:
    what = f"GET :{check.port}{check.path}"
    try:
        status, body = _fetch(check.port, check.path, timeout=REQUEST_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        return Check(what, False, f"no answer: {error!r}")
    if status != check.status:
        return Check(what, False, f"status {status} instead of {check.status}: {body[:400]!r}")
    missing = [text for text in check.contains if text not in body]
    return Check(what, not missing, f"lacks {missing}: {body[:400]!r}" if missing else "")


def _fetch(port: int, path: str, *, timeout: float) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(BODY_LIMIT).decode(errors="replace")
    finally:
        connection.close()


def _stop(container: str) -> Check:
    """Stop it as an orchestrator does; a program that ignores SIGTERM is killed, and passes all the same."""
    docker("stop", f"--time={STOP_GRACE_S}", container, check=False)
    return Check("stops", not _state(container)["Running"])


def _wait(container: str, check: ExecCheck, timeout_s: float) -> Check:
    what = "run " + (" ".join(check.command) or "(the image's own command)")
    deadline = time.monotonic() + timeout_s
    while (state := _state(container))["Running"]:
        if time.monotonic() > deadline:
            return Check(what, False, f"still running after {timeout_s:g} s")
        time.sleep(0.05)
    result = docker("logs", container, check=False)
    output = result.stdout + result.stderr
    if state["ExitCode"] != check.exit_status:
        return Check(
            what, False, f"exit {state['ExitCode']} instead of {check.exit_status}: {output[-400:]!r}"
        )
    missing = [text for text in check.contains if text not in output]
    return Check(what, not missing, f"lacks {missing}: {output[-400:]!r}" if missing else "")


def _state(container: str) -> dict[str, object]:
    state: dict[str, object] = json.loads(docker("inspect", "--format", "{{json .State}}", container).stdout)
    return state


def _last_words(container: str) -> str:
    result = docker("logs", "--tail", "15", container, check=False)
    return (result.stdout + result.stderr).strip()[-1500:] or "it said nothing"


def _listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
