"""Whole processes, ours and others' in turn, so that whatever else the machine does slows both."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


class FailedCommandError(Exception):
    """A command that was to be measured did not do its work."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process, its children included."""

    seconds: float
    cpu_s: float
    """User and system time."""
    peak_bytes: int
    """Most memory that the process, or one of its children, had resident."""
    output: bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs in pairs: the n-th of ours was followed by the n-th of theirs."""

    ours: Sequence[Run]
    theirs: Sequence[Run]

    @property
    def ratios(self) -> list[float]:
        """Our wall time over theirs, by pair."""
        return [a.seconds / b.seconds for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def seconds(self) -> float:
        """Median of ours."""
        return statistics.median(run.seconds for run in self.ours)

    @property
    def their_seconds(self) -> float:
        """Median of theirs."""
        return statistics.median(run.seconds for run in self.theirs)

    @property
    def peak_bytes(self) -> int:
        """The most that any of ours had resident."""
        return max(run.peak_bytes for run in self.ours)


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; its standard output is read as it comes, its errors only where it fails.

    Raises:
        FailedCommandError: it ended with another status than 0; the message has the end of what it said.
    """
    with tempfile.TemporaryFile() as errors:
        reader, writer = os.pipe()
        started = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdout=writer, stderr=errors, env=env)
        finally:
            os.close(writer)
        chunks = []
        while chunk := os.read(reader, 1 << 20):
            chunks.append(chunk)
        os.close(reader)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            errors.seek(0)
            said = errors.read()[-2000:].decode("utf-8", "replace").strip()
            raise FailedCommandError(f"{' '.join(command[:4])} … ended with {process.returncode}: {said}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, b"".join(chunks))


def drained(command: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
    """As :func:`run`, for a command that writes gigabytes: they go nowhere."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise FailedCommandError(f"{' '.join(command[:4])} … ended with {process.returncode}")
    seconds = time.perf_counter() - started
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, b"")


def compare(
    ours: Callable[[], Run], theirs: Callable[[], Run], runs: int, *, warm_up: bool = True
) -> Comparison:
    """``runs`` pairs of processes in turn, after one of each that only warms caches of the system."""
    if warm_up:
        ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    return Comparison([a for a, _ in pairs], [b for _, b in pairs])


def without_core_files() -> None:
    """Let no measured process leave a core file, however it ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
