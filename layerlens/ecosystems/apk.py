"""Alpine's packages: the installed database of apk-tools.

``/lib/apk/db/installed`` (``/usr/lib/apk/db/installed`` since Alpine merged /usr): a stanza of one-letter
fields for each package, as Alpine's "Apk spec" describes them: ``P`` name, ``V`` version, ``L`` license,
``D`` depends, ``F`` a directory, ``R`` a file in the directory named last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerlens.ecosystems import bounded_read
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")

CATEGORY_BY_NAME: dict[str, str] = {
    # What a package is for where its name says so; "#" stands for a version. Names are those of Alpine 3.18
    # to 3.22 (main, community); the description in the index decides. *-dev packages are left to their paths.
    "compilers": """
        gcc g++ gfortran gcc-gdc gcc-gnat gcc-go gcc-objc cpp build-base binutils binutils-gold clang clang#
        clang#-libs lld lld# llvm# llvm#-static llvm#-linker-tools make cmake samurai ninja ninja-build meson
        scons ccache autoconf automake libtool m# pkgconf bison flex gperf swig nasm yasm patch gettext
        patchelf abuild fakeroot isl# isl mpc# mpc mpfr# gdb valgrind strace ltrace protoc protobuf git
        git-perl git-init-template mercurial subversion subversion-libs go rust cargo ghc ocaml zig openjdk#
        openjdk#-jdk openjdk#-jmods maven gradle apache-ant npm yarn pnpm py#-pip py#-setuptools py#-wheel
        py#-virtualenv poetry composer ruby-bundler ruby-rake libasan libtsan libubsan
    """,
    "runtime": """
        python# python#-pyc python#-pycache-pyc# pyc perl nodejs nodejs-current nodejs-lts icu-data-full
        ruby ruby-libs php# php#-common php#-fpm php#-opcache openjdk#-jre openjdk#-jre-headless
        openjdk#-jre-base java-common java-cacerts lua# lua#-libs luajit guile tcl erlang mono
        dotnet#-runtime aspnetcore#-runtime
    """,
    "docs": "man-pages mandoc mdocml",
    "locale": "musl-locales musl-locales-lang",
}

CATEGORY_BY_SUFFIX: tuple[tuple[str, str], ...] = (
    # Subpackages by the suffixes of abuild's default functions (APKBUILD(5), "subpackages").
    ("-doc", "docs"),
    ("-dbg", "debug"),
    ("-lang", "locale"),
    ("-static", "static-libs"),
)

_VERSION = re.compile(r"\d+(?:\.\d+)*")
_EXACT = {name: category for category, names in CATEGORY_BY_NAME.items() for name in names.split()}


def category_of(name: str) -> str | None:
    """The category that the name of an Alpine package decides; None where its paths do."""
    for suffix, category in CATEGORY_BY_SUFFIX:
        if name.endswith(suffix):
            return category
    return _EXACT.get(_VERSION.sub("#", name))


class Apk:
    """Packages that apk installed."""

    name = "apk"

    def wants(self, path: ImagePath) -> bool:
        """The installed database."""
        return path in DATABASES

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Installed packages in the order of the database."""
        seen: set[str] = set()
        for database in DATABASES:
            real = fs.resolve_parent(database)
            if real not in seen and fs.exists(database):
                seen.add(real)
                text = bounded_read(fs, database, diagnostics)
                yield from _parse(text or "", real, fs, diagnostics)


def _parse(
    text: str, location: ImagePath, fs: Filesystem, diagnostics: list[Diagnostic]
) -> Iterable[Package]:
    real: dict[str, str] = {}
    for number, stanza in enumerate(text.split("\n\n")):
        name = version = license_name = directory = ""
        requires: tuple[str, ...] = ()
        paths: list[str] = []
        for line in stanza.split("\n"):
            kind = line[:2]
            if kind == "R:":
                paths.append(directory + line[2:])
            elif kind == "F:":
                listed = line[2:].strip("/")
                if listed not in real:
                    real[listed] = fs.resolve_parent(f"/{listed}/x" if listed else "/x")[:-1]
                directory = real[listed]
            elif kind == "P:":
                name = line[2:]
            elif kind == "V:":
                version = line[2:]
            elif kind == "L:":
                license_name = line[2:]
            elif kind == "D:":
                requires = tuple(line[2:].split())
        if name:
            yield Package(
                ecosystem="apk",
                name=name,
                version=version,
                location=location,
                paths=tuple(paths),
                category=category_of(name),
                is_os=True,
                license=license_name or None,
                requires=requires,
            )
        elif stanza.strip():
            diagnostics.append(
                Diagnostic("warning", "broken-metadata", f"stanza {number} names no package", location)
            )


ecosystem = Apk()
