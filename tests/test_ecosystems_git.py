"""Which programs of Git a command line starts, and which come without one."""

from __future__ import annotations

import pytest
from imagekit import Member, Symlink
from needskit import kept_files, needs, program

CORE = "/usr/lib/git-core"
STATUS = (
    b"Package: git\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.39.5\n"
    b"Maintainer: x\nDescription: x\n\n"
)
LISTED = (
    "/usr/bin/git",
    f"{CORE}/git",
    f"{CORE}/git-daemon",
    f"{CORE}/git-remote-http",
    f"{CORE}/git-submodule",
)


def image(script: bytes) -> dict[str, Member]:
    elf = b"\x7fELF" + bytes(60)
    return {
        "/usr/bin/sh": program(),
        "/usr/bin/git": program(elf),
        f"{CORE}/git": Symlink(target="../../bin/git"),
        f"{CORE}/git-log": Symlink(target="git"),
        f"{CORE}/git-daemon": program(elf),
        f"{CORE}/git-remote-http": program(elf),
        f"{CORE}/git-submodule": program(b"#!/usr/bin/sh\nsed p\n"),
        "/usr/bin/sed": program(elf),
        "/run.sh": program(b"#!/usr/bin/sh\n" + script),
        "/var/lib/dpkg/status": STATUS,
        "/var/lib/dpkg/info/git.list": "\n".join(LISTED).encode(),
    }


@pytest.mark.parametrize(
    ("script", "started"),
    [
        (b"git log -1\n", set()),
        (b"git -C /srv -c a.b=c daemon --export-all\n", {f"{CORE}/git-daemon"}),
        (b"git --git-dir=/srv/x.git daemon\n", {f"{CORE}/git-daemon"}),
        (b"/usr/lib/git-core/git-daemon --inetd\n", {f"{CORE}/git-daemon"}),
    ],
)
def test_what_a_command_line_starts(script: bytes, started: set[str]) -> None:
    files = kept_files(needs(image(script), entrypoint=["/run.sh"], env={"PATH": "/usr/bin"}))
    assert files & {f"{CORE}/git-daemon"} == started
    assert (f"{CORE}/git-remote-http" in files) == ("/usr/bin/git" in files)


def test_a_subcommand_in_the_shell_is_read_as_a_script() -> None:
    files = kept_files(
        needs(image(b"git submodule init\n"), entrypoint=["/run.sh"], env={"PATH": "/usr/bin"})
    )
    assert {f"{CORE}/git-submodule", "/usr/bin/sed"} <= files


@pytest.mark.parametrize("words", [[], ["--version"], ["-C"], ["a/b"], ["no-such"], ["\0"]])
def test_other_words_start_nothing(words: list[str]) -> None:
    found = needs(image(b""), entrypoint=["/usr/bin/git", *words], env={"PATH": "/usr/bin"})
    assert f"{CORE}/git-daemon" not in found.kept
