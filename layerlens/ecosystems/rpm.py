"""Red Hat's and SUSE's packages: the SQLite database of rpm.

``rpmdb.sqlite`` has one table ``Packages`` with a header for each package (rpm.org, "Package format", "Header
structure", without the magic and reserved words that a package file has): two big-endian counts, of index entries
and of data bytes; the entries, each a tag, a type, an offset and a count; the data. The tags are those of rpmtag.h.

The older formats, Berkeley DB (``Packages``, to RHEL 8) and ndb (``Packages.db``, SUSE), are said and not read.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from layerlens.ecosystems import ImageView
from layerlens.ecosystems._os_packages import (
    OsPackageExplorer,
    Relations,
    has_program,
    run_line,
    same_release,
)
from layerlens.errors import LayerLensError
from layerlens.model import Diagnostic, ImageConfig, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    import sqlite3

    from layerlens.filesystem import Filesystem

FOLDERS = ("/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm")
"""Where distributions keep the database: rpm's default, Fedora since 36 and SUSE, rpm-ostree."""
DATABASE = "rpmdb.sqlite"
OTHER_FORMATS = {"Packages": "Berkeley DB", "Packages.db": "ndb"}
"""Databases that are not read, by file name (rpm's lib/backend)."""

DATABASE_LIMIT = 256 << 20
"""A larger database is not read: that of a whole Fedora workstation has 60 MB."""
MOST_STEPS = 20_000_000
"""Instructions of SQLite's machine for a database; a view or an expression that needs more is hostile."""
MOST_TAGS = 0xFFFF
"""Index entries of a header (rpm's ``hdrchkTags``)."""

NAME, VERSION, RELEASE, EPOCH, LICENSE = 1000, 1001, 1002, 1003, 1014
SOURCERPM, PROVIDENAME, REQUIRENAME = 1044, 1047, 1049
DIRINDEXES, BASENAMES, DIRNAMES = 1116, 1117, 1118
_WANTED = frozenset(
    (
        NAME,
        VERSION,
        RELEASE,
        EPOCH,
        LICENSE,
        SOURCERPM,
        PROVIDENAME,
        REQUIRENAME,
        DIRINDEXES,
        BASENAMES,
        DIRNAMES,
    )
)
_INT32, _STRING, _STRING_ARRAY, _I18N = 4, 6, 8, 9

INDEXES = (
    *(
        "Name",
        "Basenames",
        "Group",
        "Requirename",
        "Providename",
        "Conflictname",
        "Obsoletename",
        "Triggername",
    ),
    *("Dirnames", "Installtid", "Sigmd5", "Sha1header", "Filetriggername", "Transfiletriggername"),
    *("Recommendname", "Suggestname", "Supplementname", "Enhancename"),
)
"""Tables that find headers by one of their tags (rpm's lib/backend/sqlite.c and lib/rpmdb.c)."""
_BLOB_KEYS = frozenset(["Installtid", "Sigmd5"])
_WITHOUT_HNUM_INDEX = frozenset(["Name", "Group", "Installtid", "Sigmd5", "Sha1header"])

CATEGORY_BY_NAME: dict[str, str] = {
    # What a package is for where its name says so; "#" stands for a version, a final "*" for anything. Names are
    # those of Fedora 39 and UBI 9; the package's summary decides. *-devel packages are left to their paths.
    "compilers": """
        gcc gcc-* cpp libasan liblsan libtsan libubsan libstdc++-devel libstdc++-static binutils binutils-*
        clang clang-* lld llvm llvm-* make cmake cmake-* ninja-build meson autoconf automake libtool m# pkgconf
        pkgconf-* bison flex gperf swig nasm yasm patch patchutils patchelf gdb gdb-* valgrind strace ltrace
        rpm-build redhat-rpm-config elfutils git git-* perl-Git subversion mercurial golang golang-* go-srpm-macros
        rust rust-* cargo ghc maven maven-* gradle ant ant-* java-#-openjdk-devel java-latest-openjdk-devel
        dotnet-sdk-# npm nodejs-npm yarnpkg python#-pip python#-setuptools python#-wheel composer rubygem-bundler
    """,
    "runtime": """
        python# python#-libs python-unversioned-command perl perl-interpreter perl-libs nodejs nodejs-libs
        nodejs-full-i#n ruby ruby-libs php php-cli php-common php-fpm java-#-openjdk java-#-openjdk-headless
        java-latest-openjdk java-latest-openjdk-headless lua lua-libs tcl guile guile# erlang-erts dotnet-runtime-#
        aspnetcore-runtime-# dotnet-host
    """,
    "docs": "man-db man-pages man-pages-* info groff-base",
    "locale": "glibc-langpack-* glibc-all-langpacks langpacks-*",
}

CATEGORY_BY_SUFFIX: tuple[tuple[str, str], ...] = (
    # Fedora packaging guidelines: "Debuginfo packages", "Documentation", "Static libraries".
    ("-debuginfo", "debug"),
    ("-debugsource", "debug"),
    ("-doc", "docs"),
    ("-docs", "docs"),
    ("-langpack", "locale"),
    ("-static", "static-libs"),
)

FOR_PACKAGE_SCRIPTS = frozenset(
    [
        # Packages without programs or libraries that no program reads which depends on them.
        "filesystem",  # the directories of the system
        "setup",  # /etc/passwd and its like, which the graph keeps for itself
        "fedora-gpg-keys",  # rpm's own
        "redhat-release",  # os-release and the release's licence
        "fedora-release-common",
        "systemd-rpm-macros",  # read by rpmbuild
    ]
)

_VERSION = regex(r"\d+(?:\.\d+)*")
_EXACT: dict[str, str] = {}
_PREFIXES: list[tuple[str, str]] = []
for _category, _names in CATEGORY_BY_NAME.items():
    for _name in _names.split():
        if _name.endswith("*"):
            _PREFIXES.append((_name[:-1], _category))
        else:
            _EXACT[_name] = _category


def category_of(name: str) -> str | None:
    """The category that the name of an rpm package decides; None where its paths do."""
    plain = _VERSION.sub("#", name)
    if plain in _EXACT:
        return _EXACT[plain]
    for suffix, category in CATEGORY_BY_SUFFIX:
        if name.endswith(suffix):
            return category
    if not name.endswith("-devel"):
        for prefix, category in _PREFIXES:
            if plain.startswith(prefix):
                return category
    return None


class Rpm:
    """Packages that rpm installed."""

    name = "rpm"

    endings: tuple[str, ...] = (f"/{DATABASE}",)

    def wants(self, path: ImagePath) -> bool:
        """The database."""
        folder, _, file = path.rpartition("/")
        return file == DATABASE and folder in FOLDERS

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """Installed packages in the order of the database, without the keys that rpmkeys(8) stores among them."""
        found: list[Package] = []
        for database in _databases(fs):
            found += _read(fs, database, diagnostics)
        for folder in FOLDERS:
            for file, form in OTHER_FORMATS.items():
                path = fs.resolve_parent(f"{folder}/{file}")
                if path.startswith(f"{folder}/") and fs.is_file(path) and fs.size(path):
                    message = f"is rpm's database as {form}, which is not read: its packages are not known"
                    diagnostics.append(Diagnostic("warning", "unsupported-package-database", message, path))
        return _with_files_provided(fs, found)

    def explorer(self, image: ImageView) -> OsPackageExplorer:
        """What rpm packages need of each other, and of their own data."""
        sources = _sources(image)
        return OsPackageExplorer(
            image,
            self.name,
            alternatives,
            ignored=FOR_PACKAGE_SCRIPTS,
            family_of=lambda package: sources.get(package.name, package.name),
        )

    def install_lines(self, names: Sequence[str]) -> str:
        """``dnf install`` without weak dependencies, or what stands for dnf in the image (microdnf(8), dnf(8))."""
        tool = " || ".join(f"command -v {name}" for name in TOOLS)
        options = "-y --nodocs --setopt=install_weak_deps=0"
        return run_line([f"dnf=$({tool})"], f"$dnf install {options}", names, ["$dnf clean all"])

    def closure(
        self, names: Iterable[str], packages: Sequence[Package], present: Collection[str]
    ) -> list[Package]:
        """Requires, for packages, capabilities, files and boolean ones; no weak ones (rpm.org, "Dependencies")."""
        found = [package for package in packages if package.ecosystem == self.name]
        return Relations(found, alternatives).closure(names, present)

    def same_distribution(self, one: Filesystem, other: Filesystem) -> bool:
        """One major release (RHEL 9.3 and 9.4 go together), and a tool that installs in the second image."""
        return has_program(other, TOOLS) and same_release(one, other, 1)

    def reduced(self, fs: Filesystem, kept: Sequence[Package]) -> Mapping[ImagePath, bytes]:
        """The database made again from the headers of the kept packages, each as it was, and their index rows."""
        found: dict[ImagePath, bytes] = {}
        for database in _databases(fs):
            names = {(p.name, p.version) for p in kept if p.ecosystem == self.name and p.location == database}
            raw = _content(fs, database, [])
            made = _reduced(raw, names) if raw is not None else None
            if made is not None:
                found[database] = made
        return found


TOOLS = ("microdnf", "dnf", "yum")


def alternatives(requirement: str) -> tuple[str, ...]:
    """The names of which one meets a requirement; empty for what rpm itself provides.

    Of a boolean dependency (rpm.org, "Boolean Dependencies") both sides of an ``or``, else the first side: the
    condition of an ``if`` is no need, and ``with`` says more of the same package. ``and`` was taken apart before.

    >>> alternatives("libz.so.1()(64bit)"), alternatives("(tide-libs >= 2 or tide)"), alternatives("rpmlib(X)")
    (('libz.so.1()(64bit)',), ('tide-libs', 'tide'), ())
    """
    if not requirement.startswith("("):
        return () if requirement.startswith("rpmlib(") else (requirement,)
    parts = _OPERATOR.split(requirement[1:-1])
    sides = parts[::2] if "or" in parts[1::2] else parts[:1]
    return tuple(words[0] for side in sides if (words := side.strip(" ()").split()))


_OPERATOR = regex(r"\s(or|and|with|without|if|unless|else)\s")


def _conjuncts(requirement: str) -> list[str]:
    """The requirements that an ``and`` joins; else the one."""
    if requirement.startswith("("):
        parts = _OPERATOR.split(requirement[1:-1])
        if parts[1::2] and set(parts[1::2]) == {"and"}:
            return [words[0] for part in parts[::2] if (words := part.strip(" ()").split())]
    return [requirement]


# -- the database ------------------------------------------------------------------------------------------


def _databases(fs: Filesystem) -> list[ImagePath]:
    """The image's databases, each once: one folder is often a link to another."""
    found = [fs.resolve_parent(f"{folder}/{DATABASE}") for folder in FOLDERS]
    return [path for path in dict.fromkeys(found) if fs.is_file(path)]


def _content(fs: Filesystem, database: ImagePath, diagnostics: list[Diagnostic]) -> bytes | None:
    """The database's bytes, marked as having no write-ahead log (SQLite file format, 1.3.3); None with a word."""
    try:
        size = fs.size(database)
        raw: bytes = fs.read(database) if size <= DATABASE_LIMIT else b""
        log = f"{database}-wal"
        if fs.is_file(log) and fs.size(log):
            message = "has changes in a write-ahead log, which is not read: the last packages may be missing"
            diagnostics.append(Diagnostic("warning", "unmerged-database-log", message, log))
    except (LayerLensError, OSError) as error:
        diagnostics.append(Diagnostic("warning", "unreadable-metadata", f"cannot be read: {error}", database))
        return None
    if size > DATABASE_LIMIT:
        message = f"has {size} bytes, more than the {DATABASE_LIMIT} that are read of an rpm database"
        diagnostics.append(Diagnostic("warning", "oversized-metadata", message, database))
        return None
    return raw[:18] + b"\x01\x01" + raw[20:]


def _open(raw: bytes) -> sqlite3.Connection:
    """A database in memory that can neither run long nor grow large."""
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, DATABASE_LIMIT)
    connection.deserialize(raw)
    steps = MOST_STEPS // 10_000

    def stop() -> int:
        nonlocal steps
        steps -= 1
        return steps < 0

    connection.set_progress_handler(stop, 10_000)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _is_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? AND sql NOT LIKE 'CREATE VIRTUAL%'"
    return connection.execute(query, (name,)).fetchone() is not None


def _headers(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes]]:
    if not _is_table(connection, "Packages"):
        raise ValueError("it has no table of packages")
    for number, blob in connection.execute("SELECT hnum, blob FROM Packages ORDER BY hnum"):
        if isinstance(number, int) and isinstance(blob, bytes):
            yield number, blob


def _read(fs: Filesystem, database: ImagePath, diagnostics: list[Diagnostic]) -> list[Package]:
    import sqlite3

    raw = _content(fs, database, diagnostics)
    found: list[Package] = []
    if raw is None:
        return found
    broken = 0
    real: dict[str, str] = {}
    try:
        with closing(_open(raw)) as connection:
            for _, blob in _headers(connection):
                package = _package(fs, blob, database, real)
                if package is None:
                    broken += 1
                elif package.name != "gpg-pubkey":
                    found.append(package)
    except (sqlite3.Error, ValueError, OverflowError, MemoryError) as error:
        message = f"cannot be read as an rpm database: {error}"
        diagnostics.append(Diagnostic("warning", "broken-metadata", message, database))
    if broken:
        message = f"{broken} headers are broken: their packages are not known"
        diagnostics.append(Diagnostic("warning", "broken-metadata", message, database))
    return found


def _sources(image: ImageView) -> dict[str, str]:
    """By package, the source package it was built from; empty where a database cannot be read, which was said."""
    import sqlite3

    found: dict[str, str] = {}
    if not any(package.ecosystem == "rpm" for package in image.packages):
        return found
    for database in _databases(image.fs):
        raw = _content(image.fs, database, [])
        try:
            with closing(_open(raw or b"")) as connection:
                for _, blob in _headers(connection):
                    tags = read_header(blob)
                    found[_text(tags, NAME)] = _text(tags, SOURCERPM) or _text(tags, NAME)
        except (sqlite3.Error, ValueError, OverflowError, MemoryError):
            continue
    return found


def _package(fs: Filesystem, blob: bytes, database: ImagePath, real: dict[str, str]) -> Package | None:
    tags = read_header(blob)
    name, version = _text(tags, NAME), _nevr(tags)
    if not name or version is None:
        return None
    requires = [part for word in _texts(tags, REQUIRENAME) for part in _conjuncts(word)]
    provides = [word for word in _texts(tags, PROVIDENAME) if word != name]
    return Package(
        ecosystem="rpm",
        name=name,
        version=version,
        location=database,
        paths=_paths(fs, tags, real),
        category=category_of(name),
        is_os=True,
        license=_text(tags, LICENSE) or None,
        requires=tuple(dict.fromkeys(word for word in requires if not word.startswith("rpmlib("))),
        provides=tuple(dict.fromkeys(provides)),
    )


def _nevr(tags: Mapping[int, Sequence[str | int]]) -> str | None:
    """``epoch:version-release``, as rpm prints it; the epoch only where there is one."""
    version, release = _text(tags, VERSION), _text(tags, RELEASE)
    if not version:
        return None
    epoch = tags.get(EPOCH, ())
    return (f"{epoch[0]}:" if epoch else "") + version + (f"-{release}" if release else "")


def _paths(
    fs: Filesystem, tags: Mapping[int, Sequence[str | int]], real: dict[str, str]
) -> tuple[ImagePath, ...]:
    """The files, resolved up to the last component, without the directories that others lie in."""
    folders, names = _texts(tags, DIRNAMES), _texts(tags, BASENAMES)
    listed: list[str] = []
    for name, at in zip(names, tags.get(DIRINDEXES, ()), strict=False):
        if isinstance(at, int) and 0 <= at < len(folders) and name and folders[at].startswith("/"):
            folder = folders[at]
            if folder not in real:
                real[folder] = fs.resolve_parent(f"{folder.rstrip('/')}/x")[:-1]
            listed.append(real[folder] + name)
    parents = {path.rpartition("/")[0] for path in listed}
    return tuple(path for path in listed if path not in parents)


def _with_files_provided(fs: Filesystem, packages: list[Package]) -> list[Package]:
    """The packages, each providing those of its files that another requires by path (``/bin/sh``)."""
    wanted = sorted({word for package in packages for word in package.requires if word.startswith("/")})
    owner: dict[ImagePath, int] = {}
    for number, package in enumerate(packages):
        owner.update(dict.fromkeys(package.paths, number))
    extra: dict[int, list[str]] = {}
    for path in wanted:
        number = owner.get(fs.resolve_parent(path), -1)
        if number >= 0:
            extra.setdefault(number, []).append(path)
    return [
        replace(package, provides=(*package.provides, *extra[number])) if number in extra else package
        for number, package in enumerate(packages)
    ]


def read_header(blob: bytes) -> dict[int, tuple[str | int, ...]]:
    """The values of a header by tag, for the tags that are wanted here; a broken entry is left out.

    Counts and offsets are held against the header's size, so that no header costs more than its own bytes.
    """
    found: dict[int, tuple[str | int, ...]] = {}
    if len(blob) < 8:
        return found
    entries, data_bytes = struct.unpack_from(">II", blob)
    start = 8 + 16 * entries
    if entries > MOST_TAGS or start + data_bytes > len(blob):
        return found
    data = blob[start : start + data_bytes]
    for tag, kind, offset, count in struct.iter_unpack(">IIII", blob[8:start]):
        if tag in _WANTED and tag not in found and offset < data_bytes and count <= data_bytes:
            values = _values(data, kind, offset, count)
            if values is not None:
                found[tag] = values
    return found


def _values(data: bytes, kind: int, offset: int, count: int) -> tuple[str | int, ...] | None:
    if kind == _INT32:
        if offset + 4 * count > len(data):
            return None
        return struct.unpack_from(f">{count}I", data, offset)
    if kind not in (_STRING, _STRING_ARRAY, _I18N):
        return None
    strings = data[offset:].split(b"\0", 1 if kind == _STRING else count)[:-1]
    return tuple(string.decode("utf-8", "surrogateescape") for string in strings)


def _text(tags: Mapping[int, Sequence[str | int]], tag: int) -> str:
    return next(iter(_texts(tags, tag)), "")


def _texts(tags: Mapping[int, Sequence[str | int]], tag: int) -> list[str]:
    return [value for value in tags.get(tag, ()) if isinstance(value, str)]


# -- the database again ------------------------------------------------------------------------------------


def _reduced(raw: bytes, names: Collection[tuple[str, str]]) -> bytes | None:
    """A new database with the headers of some packages; None where the old one cannot be read."""
    import sqlite3

    try:
        with closing(_open(raw)) as old, closing(sqlite3.connect(":memory:")) as new:
            new.executescript(_SCHEMA)
            kept = []
            for number, blob in _headers(old):
                tags = read_header(blob)
                if (_text(tags, NAME), _nevr(tags)) in names:
                    new.execute("INSERT INTO Packages VALUES (?, ?)", (number, blob))
                    kept.append((number,))
            old.execute("PRAGMA query_only = OFF")
            old.execute("CREATE TEMP TABLE kept (hnum INTEGER PRIMARY KEY)")
            old.executemany("INSERT INTO temp.kept VALUES (?)", kept)
            for index in INDEXES:
                if _is_table(old, index):
                    rows = old.execute(
                        f"SELECT key, hnum, idx FROM main.'{index}' "  # noqa: S608 - a name of INDEXES
                        "WHERE hnum IN (SELECT hnum FROM temp.kept) ORDER BY rowid"
                    )
                    new.executemany(f"INSERT INTO '{index}' VALUES (?, ?, ?)", rows)  # noqa: S608
            new.commit()
            return new.serialize()
    except (sqlite3.Error, ValueError, OverflowError, MemoryError):
        return None


def _schema() -> str:
    """The tables as rpm makes them (lib/backend/sqlite.c)."""
    lines = ["CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);"]
    for index in INDEXES:
        key = "BLOB" if index in _BLOB_KEYS else "TEXT"
        lines.append(
            f"CREATE TABLE '{index}' (key '{key}' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL, "
            "FOREIGN KEY (hnum) REFERENCES 'Packages'(hnum));"
        )
        if index not in _BLOB_KEYS:
            lines.append(f"CREATE INDEX '{index}_key_idx' ON '{index}'(key ASC);")
        if index not in _WITHOUT_HNUM_INDEX:
            lines.append(f"CREATE INDEX '{index}_hnum_idx' ON '{index}'(hnum ASC);")
    return "\n".join(lines)


_SCHEMA = _schema()

ecosystem = Rpm()
