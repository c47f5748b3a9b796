"""Work beside the caller: the same result whether the child does it, cannot be had, or dies."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import pytest

from layerlens import beside as module
from layerlens.beside import Beside, reap


def children() -> list[str]:
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as listing:
        return listing.read().split()


def all_gone() -> bool:
    """Whether every child ends soon."""
    patience_s = time.monotonic() + 10
    while children() and time.monotonic() < patience_s:
        time.sleep(0.01)
        reap()
    return not children()


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_fork", lambda: True)


def test_the_child_does_it(forks: None) -> None:
    worker = Beside(lambda: (os.getpid(), b"x" * 3_000_000))
    pid, data = worker.result()
    assert pid != os.getpid()
    assert len(data) == 3_000_000
    worker.close()
    assert all_gone()


def test_a_child_that_says_half_is_made_up_for(forks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be killed while it sends; what has come by then looks like a result."""
    monkeypatch.setattr(module.pickle, "dumps", lambda *_: pytest.fail("killed"))
    assert Beside(os.getpid).result() == os.getpid()
    monkeypatch.undo()
    monkeypatch.setattr(module, "_child", lambda _, writer: (os.write(writer, pickle.dumps(1)), os._exit(0)))
    monkeypatch.setattr(module, "may_fork", lambda: True)
    assert Beside(os.getpid).result() == os.getpid()
    assert all_gone()


def test_an_error_is_raised_by_the_caller(forks: None) -> None:
    def work() -> None:
        raise ValueError(f"in {os.getpid()}")

    with pytest.raises(ValueError, match=f"in {os.getpid()}"):
        Beside(work).result()


def test_a_killed_child_is_made_up_for(forks: None) -> None:
    def work() -> int:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return 7

    parent = os.getpid()
    assert Beside(work).result() == 7


def test_closing_ends_a_child_that_nobody_waits_for(forks: None) -> None:
    worker = Beside(lambda: time.sleep(60))
    assert children()
    worker.close()
    worker.close()
    assert all_gone()


def test_no_fork_among_threads() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert Beside(os.getpid).result() == os.getpid()
    finally:
        stop.set()
        thread.join()
