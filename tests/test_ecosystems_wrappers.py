"""Programs that run the command line after their own options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from imagekit import DIR, Member, Symlink
from needskit import needs, program

from layerlens.ecosystems.wrappers import SHELL_LINES, WRAPPERS, WrappersExplorer

BASE: dict[str, Member] = {
    **{f"/bin/{name}": program() for name in ("sh", "bash", "app", "other", "busybox", "tool")},
    **{
        f"/bin/{name}": program()
        for name in (*WRAPPERS, *SHELL_LINES, "find", "watch", "chroot", "awk", "run-parts")
    },
    "/bin/runsvdir": program(),
}


def ran(*words: str, more: dict[str, Member] | None = None) -> set[tuple[str, ...]]:
    """The command lines that are followed, their programs by name."""
    found = needs(BASE | (more or {}), cmd=list(words), env={"PATH": "/bin"})
    return {(key[1].rpartition("/")[2], *key[2]) for key in found._commands_seen}  # type: ignore[misc, attr-defined]


CASES: list[tuple[str, tuple[str, ...]]] = [
    ("env -i A=1 B=2 app x", ("app", "x")),
    ("env -u HOME -C / app", ("app",)),
    ("nohup app &", ("app", "&")),
    ("nice -n 5 app", ("app",)),
    ("timeout -s KILL 30 app", ("app",)),
    ("timeout --signal=KILL 30 app", ("app",)),
    ("stdbuf -oL app", ("app",)),
    ("ionice -c 3 app", ("app",)),
    ("taskset -c 0,1 app", ("app",)),
    ("chrt -f 10 app", ("app",)),
    ("sudo -E -u www A=1 app", ("app",)),
    ("gosu www:www app -v", ("app", "-v")),
    ("su-exec www app", ("app",)),
    ("setpriv --reuid=1 --clear-groups app", ("app",)),
    ("setpriv --reuid 1 --init-groups app", ("app",)),
    ("tini -g -- app", ("app",)),
    ("tini -s app", ("app",)),
    ("dumb-init --rewrite 15:3 -- app", ("app",)),
    ("chpst -u www app", ("app",)),
    ("s6-setuidgid www app", ("app",)),
    ("xargs -n 1 -0 app", ("app",)),
    ("flock -n /lock app x", ("app", "x")),
    ("chroot --userspec=1:1 / app", ("app",)),
    ("find / -name x -exec app {} ;", ("app", "{}")),
    ("dockerize -wait tcp://db:1 -timeout 60s app", ("app",)),
    ("time -f %e app", ("app",)),
    ("tool --flag -- app run", ("app", "run")),
    ("busybox env A=1 app", ("app",)),
    ("parallel -j 2 app x ::: 1 2", ("app", "x")),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_the_command_is_found(line: str, expected: tuple[str, ...]) -> None:
    assert expected in ran(*line.split())


def test_lines_that_a_shell_gets() -> None:
    assert ("app",) in ran("su", "-s", "/bin/sh", "www", "-c", "exec app")
    assert ("app", "x") in ran("flock", "/lock", "-c", "app x")
    assert ("app",) in ran("watch", "-n", "2", "app")
    assert ("app", "x") in ran("env", "-S", "A=1 app x")
    assert ("app",) in ran("busybox", "sh", "-c", "app")
    assert {("app",), ("other", "x")} <= ran("awk", 'BEGIN { system("app"); print 1 | "other x" }')


def test_what_is_no_command_is_not_run() -> None:
    assert ran("chroot", "/other", "app") == {("chroot", "/other", "app")}
    assert ran("sh", "-c", "tool -- app") == {("sh", "-c", "tool -- app"), ("tool", "--", "app")}


def test_folders_of_programs() -> None:
    more: dict[str, Member] = {
        "/etc/parts/10run": program(),
        "/etc/parts/README.txt": program(),
        "/etc/sv/web/run": program("#!/bin/sh\napp\n"),
        "/etc/sv/web/log/": DIR,
        "/etc/service": Symlink(target="/etc/sv"),
    }
    assert ran("run-parts", "/etc/parts", more=more) >= {("10run",)}
    assert ("README.txt",) not in ran("run-parts", "/etc/parts", more=more)
    assert ("app",) in ran("runsvdir", "/etc/service", more=more)


@pytest.mark.parametrize(
    "name", ["env", "nice", "timeout", "stdbuf", "xargs", "setsid", "nohup", "ionice", "taskset"]
)
def test_options_are_those_of_the_program_itself(name: str, tmp_path: Path) -> None:
    """Every option of the row takes a word: without one, the program complains."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here")
    for option in WRAPPERS[name].valued.split():
        if option in ("-I", "-a", "--arg-file"):  # they fail for reasons of their own
            continue
        done = subprocess.run([path, option], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode != 0, option
        assert "requires an argument" in done.stderr or "missing" in done.stderr, (option, done.stderr)


def test_every_row_names_its_source() -> None:
    assert all(row.source for row in WRAPPERS.values())
    assert WrappersExplorer.command.__doc__
