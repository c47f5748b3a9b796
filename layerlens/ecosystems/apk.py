"""Alpine's packages: the installed database of apk-tools.

``/lib/apk/db/installed`` (``/usr/lib/apk/db/installed`` since Alpine merged /usr): a stanza of one-letter
fields for each package, as Alpine's "Apk spec" describes them: ``P`` name, ``V`` version, ``L`` license,
``D`` depends, ``p`` provides, ``F`` a directory, ``R`` a file in the directory named last.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerlens.ecosystems import READ_LIMIT, ImageView, bounded_read
from layerlens.ecosystems._os_packages import (
    OsPackageExplorer,
    Relations,
    has_program,
    run_line,
    same_release,
    with_stanzas,
)
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

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

FOR_PACKAGE_SCRIPTS = frozenset(
    [
        # Packages without programs or libraries that no program reads which depends on them.
        "alpine-baselayout",  # the directories of the system and /etc/profile
        "alpine-keys",  # apk-keys: apk's own
        "alpine-release",  # os-release and apk's repositories
    ]
)

MADE_BY_SCRIPTS: dict[str, tuple[ImagePath, ...]] = {
    # What scripts of data packages make from their data, and no package lists.
    "ca-certificates": ("/etc/ssl/certs",),  # update-ca-certificates(8), its post-install and trigger
    "shared-mime-info": ("/usr/share/mime",),  # update-mime-database(1), its trigger
}

_VERSION = regex(r"\d+(?:\.\d+)*")
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

    endings: tuple[str, ...] = DATABASES

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

    def explorer(self, image: ImageView) -> OsPackageExplorer:
        """What Alpine's packages need of each other, and of their own data."""
        origins = _origins(image)
        return OsPackageExplorer(
            image,
            self.name,
            alternatives,
            ignored=FOR_PACKAGE_SCRIPTS,
            made_by_scripts=MADE_BY_SCRIPTS,
            family_of=lambda package: origins.get(package.name, package.name),
        )

    def install_lines(self, names: Sequence[str]) -> str:
        """``apk add`` without an index in the image (apk-add(8))."""
        return run_line([], "apk add --no-cache", names, [])

    def closure(
        self, names: Iterable[str], packages: Sequence[Package], present: Collection[str]
    ) -> list[Package]:
        """Dependencies on packages, libraries (``so:``), commands (``cmd:``) and modules; no ``install_if``."""
        found = [package for package in packages if package.ecosystem == self.name]
        return Relations(found, alternatives).closure(names, present)

    def same_distribution(self, one: Filesystem, other: Filesystem) -> bool:
        """One branch of Alpine (3.19.1 and 3.19.4 are of v3.19), and an apk in the second image."""
        return has_program(other, ["apk"]) and same_release(one, other, 2)

    def reduced(self, fs: Filesystem, kept: Sequence[Package]) -> Mapping[ImagePath, bytes]:
        """The installed database with the stanzas of the kept packages alone, each as it was."""
        names: dict[ImagePath, set[tuple[str, str]]] = {}
        for package in kept:
            if package.ecosystem == self.name:
                names.setdefault(package.location, set()).add((package.name, package.version))
        found: dict[ImagePath, bytes] = {}
        for database in DATABASES:
            real = fs.resolve_parent(database)
            if real not in found and fs.is_file(real):
                stanzas = fs.read(real, READ_LIMIT).split(b"\n\n")
                left = [stanza for stanza in stanzas if _name_and_version(stanza) in names.get(real, ())]
                found[real] = b"".join(stanza.strip(b"\n") + b"\n\n" for stanza in left)
        return found

    def extended(
        self, base: Filesystem, fs: Filesystem, added: Sequence[Package]
    ) -> Mapping[ImagePath, bytes]:
        """The base's database with the stanzas of the added packages, each as it was."""
        return with_stanzas(base, self.reduced(fs, added))


def alternatives(requirement: str) -> tuple[str, ...]:
    """The name of a dependency without its version (apk-package(5), "dependencies"); empty for a conflict.

    >>> alternatives("so:libssl.so.3>=3.1"), alternatives("musl~1.2"), alternatives("!uclibc-utils")
    (('so:libssl.so.3',), ('musl',), ())
    """
    name = re.split(r"[<>=~@]", requirement, maxsplit=1)[0]
    return (name,) if name and not name.startswith("!") else ()


def _name_and_version(stanza: bytes) -> tuple[str, str]:
    name = version = ""
    for line in stanza.decode("utf-8", "surrogateescape").split("\n"):
        if line[:2] == "P:":
            name = line[2:]
        elif line[:2] == "V:":
            version = line[2:]
    return name, version


def _origins(image: ImageView) -> dict[str, str]:
    """By package, the source package (``o``) it was built from."""
    found: dict[str, str] = {}
    ignored: list[Diagnostic] = []  # said when the packages were read
    for database in DATABASES:
        if not image.fs.is_file(database):
            continue
        name = ""
        for line in (bounded_read(image.fs, database, ignored) or "").split("\n"):
            if line[:2] == "P:":
                name = line[2:]
            elif line[:2] == "o:":
                found[name] = line[2:]
    return found


def _parse(
    text: str, location: ImagePath, fs: Filesystem, diagnostics: list[Diagnostic]
) -> Iterable[Package]:
    real: dict[str, str] = {}
    for number, stanza in enumerate(text.split("\n\n")):
        name = version = license_name = directory = ""
        requires: tuple[str, ...] = ()
        provides: tuple[str, ...] = ()
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
            elif kind == "p:":
                provides = tuple(name for word in line[2:].split() for name in alternatives(word))
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
                provides=provides,
            )
        elif stanza.strip():
            diagnostics.append(
                Diagnostic("warning", "broken-metadata", f"stanza {number} names no package", location)
            )


ecosystem = Apk()
