"""Start: ``layerlens``, ``python -m layerlens`` and ``docker-layerlens`` for the engine's client."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command `layerlens`."""
    _start(as_plugin=False)


def docker_plugin() -> NoReturn:
    """The command `docker-layerlens`, which the docker client runs for ``docker layerlens …``."""
    from layerlens import plugin

    if sys.argv[1:2] == [plugin.METADATA_COMMAND]:
        sys.stdout.write(plugin.metadata() + "\n")
        sys.exit(0)
    _start(as_plugin=True)


def _start(as_plugin: bool) -> NoReturn:
    # One command, then the process ends: looking for cycles among 300,000 entries is 6 % of the time.
    gc.disable()
    try:
        from layerlens import cli

        cli.stop_cleanly_when_terminated()
        status = cli.run_as_plugin(sys.argv[1:]) if as_plugin else cli.run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process as it is: to give back hundreds of thousands of objects one by one helps nobody any more."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (
            AttributeError,
            OSError,
            ValueError,
        ):  # closed, or whoever read it has left: `cli` has dealt with it
            pass
    os._exit(status)


if __name__ == "__main__":
    main()
