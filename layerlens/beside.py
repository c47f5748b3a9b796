"""A second core for pure Python: work done beside the caller, in a forked child.

Threads share one interpreter, and what this project does most of, indexing and attributing, holds it. A forked
child has all the caller's data without a copy, and sends back one pickled result. Where forking is not safe or
not possible (another system than Linux, other threads about, a single core), or the child fails, the caller does
the work itself, so that the result, errors included, is the same.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_PIPE_BYTES = 1 << 20
_TOLD_MS = 100
"""Between two calls of what is called while the child works."""
_WHOLE = b"\nthat was all of it"
"""Comes last: whoever has read it need not wait until the child is gone, which takes longer the more it shared."""
_leaving: list[int] = []
"""Children that have sent all, and are about to end."""


class Beside(Generic[Result]):
    """Starts ``work`` at once; :meth:`result` waits for it. ``work`` must not write anywhere."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._pid = 0
        self._pipe = -1
        reap()
        if not may_fork():
            return
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            return
        if pid == 0:
            os.close(reader)
            _child(work, writer)
        os.close(writer)
        self._pid, self._pipe = pid, reader

    def result(self, waiting: Callable[[], object] | None = None) -> Result:
        """What ``work`` returns; raises what it raises. ``waiting`` is called now and then until it is there."""
        if not self._pid:
            return self._work()
        if waiting is not None:
            ready = select.poll()
            ready.register(self._pipe, select.POLLIN)
            while not ready.poll(_TOLD_MS):
                waiting()
        chunks = []
        while chunk := os.read(self._pipe, _PIPE_BYTES):
            chunks.append(chunk)
        sent = b"".join(chunks)
        if not sent.endswith(_WHOLE):
            self.close()
            return self._work()
        _leaving.append(self._let_go())
        value: Any = pickle.loads(sent)  # noqa: S301 - written by our own child
        done: Result = value
        return done

    def close(self) -> None:
        """End the child if nobody asked for its result; calling it twice is fine."""
        if self._pid:
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(self._let_go(), 0)
        reap()

    def _let_go(self) -> int:
        pid, self._pid = self._pid, 0
        os.close(self._pipe)
        return pid


def reap() -> None:
    """Let go of the children that have ended by now."""
    for pid in list(_leaving):
        try:
            is_gone = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:  # somebody else has waited for it
            is_gone = True
        if is_gone:
            _leaving.remove(pid)


def may_fork() -> bool:
    """Whether another core can be had this way, now."""
    return (
        sys.platform.startswith("linux")
        and threading.active_count() == 1
        and len(os.sched_getaffinity(0)) > 1
    )


def _child(work: Callable[[], Any], writer: int) -> None:
    """Do the work, send the result, and leave without anything that the caller would do at its end."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for part in (pickle.dumps(work(), pickle.HIGHEST_PROTOCOL), _WHOLE):
            data = memoryview(part)
            while data:
                data = data[os.write(writer, data) :]
    finally:
        os._exit(0)  # whether all was sent is told by its end
