"""Alpine's database, from the records of a real one (alpine-baselayout and musl of Alpine 3.19, cut short)."""

from __future__ import annotations

import needskit
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
    assert musl.provides == ("so:libc.musl-x86_64.so.1",)
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


INDEX = b"""\
P:musl
V:1
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1

P:icu-libs
V:1
o:icu
D:icu-data=1 so:libc.musl-x86_64.so.1 !icu-old
p:so:libicui18n.so.73=73
F:usr/lib
R:libicui18n.so.73

P:icu-data-en
V:1
o:icu
p:icu-data=1
F:usr/share/icu/73
R:icudt73l.dat

P:calendar
V:2
D:so:libicui18n.so.73 busybox>1
F:usr/bin
R:calendar

P:busybox
V:1
D:so:libc.musl-x86_64.so.1
F:bin
R:busybox
"""


def test_what_adding_brings() -> None:
    found, _ = treekit.packages(ecosystem, treekit.fs({"/lib/apk/db/installed": INDEX}))
    names = [package.name for package in ecosystem.closure(["calendar"], found, {"busybox", "musl"})]
    assert names == ["calendar", "icu-data-en", "icu-libs"]
    assert ecosystem.install_lines(["b", "a", "b"]) == "RUN apk add --no-cache a b"


def test_data_that_a_library_depends_on_is_kept() -> None:
    found = needskit.needs(
        {
            "/lib/apk/db/installed": INDEX,
            "/usr/lib/libicui18n.so.73": b"\x7fELF",
            "/usr/share/icu/73/icudt73l.dat": b"x",
            "/bin/busybox": needskit.program(),
            "/usr/bin/calendar": needskit.program("#!/usr/lib/libicui18n.so.73\n"),
        },
        entrypoint=["/usr/bin/calendar"],
    )
    assert "/usr/share/icu/73/icudt73l.dat" in found.kept and "/bin/busybox" not in found.kept
    edge = found.kept["/usr/share/icu/73/icudt73l.dat"]
    assert (edge.kind, edge.certainty) == ("depends", "assumed")
    assert edge.evidence == "icu-libs depends on icu-data-en"


def test_the_database_is_cut_to_the_kept_packages() -> None:
    filesystem = treekit.fs({"/lib": Symlink(target="usr/lib"), "/usr/lib/apk/db/installed": INDEX})
    found, _ = treekit.packages(ecosystem, filesystem)
    reduced = ecosystem.reduced(filesystem, [p for p in found if p.name in ("musl", "busybox")])
    assert reduced == {
        "/usr/lib/apk/db/installed": INDEX.split(b"\n\n")[0] + b"\n\n" + INDEX.split(b"\n\n")[4] + b"\n"
    }
    again, _ = treekit.packages(ecosystem, treekit.fs({"/lib": Symlink(target="usr/lib"), **reduced}))
    assert again == [p for p in found if p.name in ("musl", "busybox")]


def test_a_branch_is_two_numbers() -> None:
    def image(version: str, tool: str = "/sbin/apk") -> treekit.Filesystem:
        return treekit.fs({"/etc/os-release": f"ID=alpine\nVERSION_ID={version}\n".encode(), tool: b""})

    assert ecosystem.same_distribution(image("3.19.1"), image("3.19.4"))
    assert not ecosystem.same_distribution(image("3.19.1"), image("3.18.1"))
    assert not ecosystem.same_distribution(image("3.19.1"), image("3.19.1", "/sbin/other"))
    assert not ecosystem.same_distribution(treekit.fs({"/x": b""}), treekit.fs({"/sbin/apk": b""}))
