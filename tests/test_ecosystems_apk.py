"""Alpine's database, from the records of a real one (alpine-baselayout and musl of Alpine 3.19, cut short)."""

from __future__ import annotations

import treekit
from imagekit import Symlink

from layerlens.ecosystems.apk import category_of, ecosystem

INSTALLED = b"""\
C:Q1rTMUI/bzY/MV2AVjINBGKGcTLaM=
P:musl
V:1.2.4_git20230717-r4
A:x86_64
S:407278
I:667648
T:the musl c library (libc) implementation
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo Teras <timo.teras@iki.fi>
t:1697461834
c:ca7f2ab5e88794e4e654b40776f8a92256f50639
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1PLvIYHoB+CjCFbgcEmjIgnIpSqA=
R:libc.musl-x86_64.so.1
a:0:0:777
Z:Q17yJ3JFNypA4mxhJJr0ou6CzsJVI=

C:Q1eHFdW4bEGnTSRPuT0ibZLpWdYjI=
P:gcc
V:13.2.1_git20231014-r0
A:x86_64
L:GPL-2.0-or-later LGPL-2.1-or-later
D:binutils=2.41-r0 so:libc.musl-x86_64.so.1 so:libgcc_s.so.1
F:usr
F:usr/bin
R:gcc
F:
R:top
"""


def test_the_database_of_alpine() -> None:
    filesystem = treekit.fs({"/lib/apk/db/installed": INSTALLED})
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert diagnostics == []
    musl, gcc = found
    assert (musl.name, musl.version, musl.license) == ("musl", "1.2.4_git20230717-r4", "MIT")
    assert musl.paths == ("/lib/ld-musl-x86_64.so.1", "/lib/libc.musl-x86_64.so.1")
    assert musl.category is None and musl.is_os and musl.location == "/lib/apk/db/installed"
    assert gcc.paths == ("/usr/bin/gcc", "/top")
    assert gcc.category == "compilers"
    assert gcc.requires == ("binutils=2.41-r0", "so:libc.musl-x86_64.so.1", "so:libgcc_s.so.1")


def test_a_merged_usr_is_read_once_and_resolved() -> None:
    filesystem = treekit.fs(
        {"/lib": Symlink(target="usr/lib"), "/usr/lib/apk/db/installed": INSTALLED, "/usr/lib/x": b""}
    )
    found, _ = treekit.packages(ecosystem, filesystem)
    assert [package.name for package in found] == ["musl", "gcc"]
    assert found[0].paths[0] == "/usr/lib/ld-musl-x86_64.so.1"
    assert found[0].location == "/usr/lib/apk/db/installed"


def test_a_broken_stanza_is_a_diagnostic() -> None:
    filesystem = treekit.fs({"/lib/apk/db/installed": b"\xff\x00garbage\n\nP:ok\nV:1\n\n\n"})
    found, diagnostics = treekit.packages(ecosystem, filesystem)
    assert [package.name for package in found] == ["ok"]
    assert [diagnostic.code for diagnostic in diagnostics] == ["broken-metadata"]


def test_what_a_package_is_for_by_its_name() -> None:
    named = {
        "gcc": "compilers",
        "musl-dev": None,
        "build-base": "compilers",
        "python3": "runtime",
        "curl-doc": "docs",
    }
    named |= {"openjdk17-jre-headless": "runtime", "openjdk17-jdk": "compilers", "zlib-static": "static-libs"}
    named |= {
        "musl-dbg": "debug",
        "libgcc": None,
        "busybox": None,
        "git": "compilers",
        "py3-pip": "compilers",
    }
    assert {name: category_of(name) for name in named} == named
    assert ecosystem.wants("/lib/apk/db/installed") and not ecosystem.wants("/lib/apk/db/scripts.tar")
