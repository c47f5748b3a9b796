"""Ecosystems: one file for each kind of package, found by being there.

An ecosystem finds the packages of one package manager inside an image and the paths that each owns. The
module of an ecosystem holds one object named ``ecosystem`` that satisfies :class:`Ecosystem`; nothing else
names it. Three ways to add one, none with an edit elsewhere:

- a module in this folder;
- a module in another folder that is appended to this package's ``__path__``;
- a distribution with an entry point in the group ``layerlens.ecosystems`` that names such an object
  (PyPA entry points specification).

An ecosystem may do more than find packages. Each ability is a protocol of its own, found by its method:
:class:`Explores` (what files and command lines need), :class:`Installs` (packages in a runtime stage),
:class:`Reduces` (its database, cut to the kept packages), :class:`Improves` (the builder stage),
:class:`Lacks` (what is not there and should be), :class:`Serves` (static files, which another server may hand
out), :class:`Hosts` (such a server).

Broken package data is a :class:`~layerlens.model.Diagnostic`, never an exception: see :func:`bounded_read`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from layerlens.errors import LayerLensError
from layerlens.model import (
    Certainty,
    Command,
    Diagnostic,
    Edge,
    EntryType,
    ImageConfig,
    ImagePath,
    Improvement,
    Package,
    Severity,
    StaticSite,
)

if TYPE_CHECKING:
    from layerlens.filesystem import Filesystem

ENTRY_POINT_GROUP = "layerlens.ecosystems"

READ_LIMIT = 16 * 1024 * 1024
"""No package database or metadata file is read beyond this many bytes; longer ones are cut, with a word."""


@runtime_checkable
class Ecosystem(Protocol):
    """What every kind of package provides."""

    name: str
    """Short lower-case name, as shown in reports: ``dpkg``, ``python``, ``node``."""

    def wants(self, path: ImagePath) -> bool:
        """Whether :meth:`packages` may read the content of ``path``, so that a streamed layer keeps it.

        Called once for every path of every layer: it looks at the path only. An ecosystem may have an attribute
        ``endings``, a tuple of strings of which every path that it wants ends in one; it is asked of no others then.
        """

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """The packages installed in the image, in a stable order; trouble goes to ``diagnostics``."""


class WithoutPackages:
    """What an ecosystem inherits that only says what files and command lines need."""

    def wants(self, path: ImagePath) -> bool:
        """Nothing, since there are no packages to read of."""
        return False

    def packages(
        self, fs: Filesystem, config: ImageConfig, diagnostics: list[Diagnostic]
    ) -> Iterable[Package]:
        """None."""
        return ()


def any_wants(among: Iterable[Ecosystem]) -> Callable[[ImagePath], bool]:
    """Whether one of these ecosystems wants the content of a path, with few of them being asked."""
    endings: set[str] = set()
    by_ending: list[Callable[[ImagePath], bool]] = []
    always: list[Callable[[ImagePath], bool]] = []
    for ecosystem in among:
        ends: tuple[str, ...] | None = getattr(ecosystem, "endings", None)
        if ends is not None:
            endings.update(ends)
            by_ending.append(ecosystem.wants)
        elif getattr(type(ecosystem), "wants", None) is not WithoutPackages.wants:
            always.append(ecosystem.wants)
    ending = tuple(sorted(endings))

    def wants(path: ImagePath) -> bool:
        for one in always:
            if one(path):
                return True
        return path.endswith(ending) and any(one(path) for one in by_ending)

    return wants


UNNEEDED_CATEGORIES = frozenset(
    [
        "secrets",
        "vcs",
        "package-cache",
        "logs-temp",
        "dev-dependencies",
        "compilers",
        "headers",
        "static-libs",
        "debug",
        "docs",
        "locale",
        "tests",
    ]
)
"""What a file is for where no program needs it at run time, unless something names the very file."""


@dataclass(slots=True)
class ImageView:
    """An image as explorers see it: the squash, what owns and classifies its files, and a place for trouble."""

    fs: Filesystem
    config: ImageConfig
    packages: Sequence[Package]
    owner_of: Callable[[ImagePath], Package | None]
    """The package that owns a live path."""
    category_of: Callable[[ImagePath], str | None]
    """The category of a live regular file; of a directory, that of most of its bytes."""
    env: Mapping[str, str]
    """The image's ENV."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _heads: dict[ImagePath, bytes] = field(default_factory=dict, repr=False)

    HEAD_BYTES = 256

    def head(self, path: ImagePath) -> bytes:
        """The first 256 bytes of a regular file, links followed; empty where there is none to read."""
        found = self._heads.get(path)
        if found is None:
            try:
                found = self.fs.read(path, self.HEAD_BYTES)
            except (LayerLensError, OSError):
                found = b""
            self._heads[path] = found
        return found

    def diagnose(
        self, code: str, message: str, path: ImagePath | None = None, severity: Severity = "warning"
    ) -> None:
        """Note trouble that does not stop the work; the same once."""
        diagnostic = Diagnostic(severity, code, message, path)
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def tree(
        self,
        source: ImagePath,
        directory: ImagePath,
        kind: str,
        evidence: str,
        certainty: Certainty,
        *,
        without: Set[str] = UNNEEDED_CATEGORIES,
        skip: Collection[str] = (),
    ) -> Iterator[Edge]:
        """An edge to ``directory`` and one to everything below it that is worth keeping.

        Left out are files of the categories in ``without`` and the subdirectories whose name is in ``skip``.
        """
        fs = self.fs
        real = fs.follow(directory)
        if real is None:
            return
        yield Edge(source, directory, kind, evidence, certainty)
        stack = [real]
        while stack:
            folder = stack.pop()
            for name in fs.listdir(folder):
                path = f"{'' if folder == '/' else folder}/{name}"
                if fs.type_of(path) == EntryType.DIR:
                    if name not in skip:
                        stack.append(path)
                elif self.category_of(path) not in without:
                    yield Edge(source, path, kind, evidence, certainty)


class Explorer:
    """What one ecosystem knows of needs, for one image; made once, asked for each file and command line.

    Every method yields :class:`Edge` for a file or directory that is needed and :class:`Command` for a command line
    that is run. Targets need not be canonical: symbolic links on the way are followed and kept. Trouble goes to
    ``image.diagnose``. Nothing is yielded for a path that the image does not have.
    """

    def __init__(self, image: ImageView) -> None:
        self.image = image

    def command(self, command: Command, program: ImagePath) -> Iterable[Edge | Command]:
        """What a command line needs beyond its program, which is kept already.

        ``command.argv[0]`` is the absolute path under which the program was found (``/bin/sh``) and ``program`` the
        canonical one (``/usr/bin/dash``). Scripts with a ``#!`` line arrive a second time, as the command line of
        their interpreter.
        """
        return ()

    def edges(self, path: ImagePath) -> Iterable[Edge | Command]:
        """What a kept regular file needs; ``path`` is canonical and each is asked for once."""
        return ()

    def finish(self, kept: Mapping[ImagePath, Edge]) -> Iterable[Edge | Command]:
        """What the kept files need together; asked whenever there is nothing else to do, until nobody adds anything.

        ``kept`` has every kept path, canonical and links alike, with the first edge that reached it.
        """
        return ()


@runtime_checkable
class Explores(Protocol):
    """An ecosystem that knows what files and command lines need."""

    def explorer(self, image: ImageView) -> Explorer:
        """The explorer of one image."""


@runtime_checkable
class Installs(Protocol):
    """An ecosystem whose packages a runtime stage can install from its distribution."""

    def install_lines(self, names: Sequence[str]) -> str:
        """The RUN instruction that installs packages and leaves no cache behind."""

    def closure(
        self, names: Iterable[str], packages: Sequence[Package], present: Collection[str]
    ) -> list[Package]:
        """What installing ``names`` brings: themselves and what they depend on, without what is ``present``.

        ``packages`` are those of the builder's image, in which every dependency was met; recommended packages are not
        followed.
        """

    def same_distribution(self, one: Filesystem, other: Filesystem) -> bool:
        """Whether packages of the first image's release can be installed in the second."""


@runtime_checkable
class Unpacks(Protocol):
    """An ecosystem that knows what installing a package writes besides, or instead of, the files that it lists."""

    def generated_by(self, fs: Filesystem, path: ImagePath) -> str | None:
        """The package whose maintainer scripts make a path that no package lists; None where no rule knows."""

    def would_unpack(self, base: Filesystem, path: ImagePath) -> bool:
        """Whether installing in this base writes a path that a package lists (dpkg.cfg(5), path-exclude)."""

    def overhead_bytes(self, fs: Filesystem, base: Filesystem, packages: Sequence[Package]) -> int:
        """What the package manager itself leaves in the layer: its database, logs and caches.

        ``fs`` is the image in which the packages are installed already, ``base`` the one that they are installed in.
        """


@runtime_checkable
class Reduces(Protocol):
    """An ecosystem whose package database can be cut down to the packages that are kept."""

    def reduced(self, fs: Filesystem, kept: Sequence[Package]) -> Mapping[ImagePath, bytes]:
        """The database files as they are to be, by path; those that are not listed go as they are kept."""


@runtime_checkable
class Extends(Protocol):
    """An ecosystem whose package database takes packages that were copied from another image."""

    def extended(
        self, base: Filesystem, fs: Filesystem, added: Sequence[Package]
    ) -> Mapping[ImagePath, bytes]:
        """The database files of ``base`` with ``added``, which are packages of ``fs``, by path."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The C library that a file is built for, and what proves it."""

    libc: str
    """``glibc`` or ``musl``."""
    evidence: str


@runtime_checkable
class BindsLibc(Protocol):
    """An ecosystem that can tell which C library a file is bound to."""

    def binding(self, fs: Filesystem, path: ImagePath) -> Binding | None:
        """The libc of one regular file; None for a file that would run with any."""

    def libc(self, fs: Filesystem) -> str | None:
        """The libc that an image has, told by its dynamic loader; None without one."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a kept file counts on and the image does not have."""

    path: ImagePath
    """The file that asks."""
    evidence: str
    """``line 3: require "express" finds nothing``."""
    wanted: str
    """Its name, as seen from the file's directory."""
    above: bool
    """Whether it may be in any directory above as well."""
    made_by: Callable[[str], bool]
    """Whether a line for the shell, run in a directory, proves that ``wanted`` is in it afterwards."""


@runtime_checkable
class Lacks(Protocol):
    """An ecosystem that knows what kept files count on and where it would be looked for."""

    def lacks(self, image: ImageView) -> Iterable[Lack]:
        """What is not there; asked when the search is over, so that ``image.diagnostics`` say what was missed."""


@runtime_checkable
class Improves(Protocol):
    """An ecosystem that can make the builder stage leave less behind."""

    def improvements(self, image: ImageView) -> Iterable[Improvement]:
        """Lines for the end of the builder stage, where what they do is certain."""


@runtime_checkable
class Serves(Protocol):
    """An ecosystem that knows servers of static files, which another server may replace."""

    def static_site(self, image: ImageView) -> StaticSite | None:
        """The site that the image's command serves; None where it does more than that, or something else."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """How the server of an image hands out a static site."""

    folder: ImagePath
    """Where the site goes."""
    files: Mapping[ImagePath, str]
    """Configuration that is written, lines of text by path."""
    command: tuple[str, ...]
    """What starts it, in the foreground."""


@runtime_checkable
class Hosts(Protocol):
    """An ecosystem whose server hands out static sites."""

    def hosting(
        self, server: Filesystem | None, site: StaticSite, extensions: Collection[str], has_error_page: bool
    ) -> Hosting | None:
        """How the server of an image would serve ``site``; None where the image has none, or no place for it.

        ``server`` is None for an official image that could not be opened. ``extensions`` are those of the site's
        files, without dots; ``has_error_page`` says whether there is a ``404.html`` at the top.
        """


def explorers_of(found: Iterable[Ecosystem], image: ImageView) -> tuple[list[Explorer], list[Explorer]]:
    """The explorers of one image: those that know what a word means, and those that take any word for a path.

    The first edge that leads to a file is the one that is told, and the more specific one says more, so that the
    second kind is asked last of all.
    """
    able = [one for one in found if isinstance(one, Explores)]
    any_word = [one for one in able if getattr(one, "takes_any_word", False)]
    return [one.explorer(image) for one in able if one not in any_word], [
        one.explorer(image) for one in any_word
    ]


_found: dict[tuple[str, ...], tuple[Ecosystem, ...]] = {}


def ecosystems() -> tuple[Ecosystem, ...]:
    """Every ecosystem there is, sorted by name; imported at the first call and whenever a folder is added.

    A name that is taken twice goes to the module in the earlier folder, entry points last.
    """
    key = tuple(__path__)
    if key not in _found:
        by_name: dict[str, Ecosystem] = {}
        for found in (*_from_folders(key), *_from_entry_points()):
            by_name.setdefault(found.name, found)
        _found[key] = tuple(by_name[name] for name in sorted(by_name))
    return _found[key]


def _from_folders(folders: Iterable[str]) -> Iterator[Ecosystem]:
    for folder in folders:
        try:
            with os.scandir(folder) as listing:
                names = [entry.name for entry in listing]
        except OSError:  # a zipped package has no folder to list
            names = list(_zipped_names(folder))
        for name in sorted(names):
            stem, dot, suffix = name.partition(".")
            if suffix == "py" and dot and not stem.startswith("_"):
                module = importlib.import_module(f"{__name__}.{stem}")
                found = getattr(module, "ecosystem", None)
                if isinstance(found, Ecosystem):
                    yield found


def _zipped_names(folder: str) -> Iterator[str]:
    import pkgutil

    for module in pkgutil.iter_modules([folder]):
        yield f"{module.name}.py"


def _from_entry_points() -> Iterator[Ecosystem]:
    """Objects that installed distributions offer.

    ``importlib.metadata`` costs 45 ms to import, so that it is asked only where some distribution's
    ``entry_points.txt`` has the group at all, which reading those files tells in about one.
    """
    if not _is_offered():
        return
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        loaded = point.load()
        if isinstance(loaded, type):
            loaded = loaded()
        yield cast(Ecosystem, loaded)


def others_added() -> bool:
    """Whether there are, or may be, other ecosystems than those that this program comes with."""
    return len(__path__) > 1 or _is_offered()


def _is_offered() -> bool:
    return any(_names_group(folder) for folder in sys.path)


def _names_group(folder: str) -> bool:
    wanted = f"[{ENTRY_POINT_GROUP}]".encode()
    try:
        with os.scandir(folder or ".") as listing:
            metadata = [entry.path for entry in listing if entry.name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return False
    for path in metadata:
        try:
            with open(f"{path}/entry_points.txt", "rb") as stream:  # noqa: PTH123 - pathlib costs as much again
                if wanted in stream.read():
                    return True
        except OSError:
            continue
    return False


def bounded_read(
    fs: Filesystem, path: ImagePath, diagnostics: list[Diagnostic], limit: int = READ_LIMIT
) -> str | None:
    """The text of a metadata file, at most ``limit`` bytes; None with a diagnostic where it cannot be read.

    Bytes that are not UTF-8 become surrogate escapes, as in paths, so that owned paths still match.
    """
    try:
        raw: bytes = fs.read(path, limit + 1)
    except (LayerLensError, OSError) as error:
        diagnostics.append(Diagnostic("warning", "unreadable-metadata", f"cannot be read: {error}", path))
        return None
    if len(raw) > limit:
        diagnostics.append(
            Diagnostic("warning", "oversized-metadata", f"only its first {limit} bytes were read", path)
        )
        raw = raw[:limit]
    text = raw.decode("utf-8", "surrogateescape")
    return text[1:] if text.startswith("\ufeff") else text


def os_release(fs: Filesystem) -> dict[str, str]:
    """The fields of /etc/os-release (os-release(5)) that have a value, quotes taken off; empty without one."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        real = fs.follow(path)
        if real is not None and fs.type_of(real) == EntryType.FILE:
            text = bounded_read(fs, real, [], limit=64 * 1024) or ""
            pairs = (line.partition("=") for line in text.split("\n") if not line.startswith("#"))
            return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if value}
    return {}
