"""The distributions of an image as needs see them: by path, by name, by entry point group, with what each requires.

PyPA specifications: "Core metadata" (Requires-Dist), "Dependency specifiers" (markers), "Entry points"; setuptools'
``requires.txt`` for eggs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerlens.errors import LayerLensError
from layerlens.model import EntryType, ImagePath, Package
from layerlens.patterns import regex

if TYPE_CHECKING:
    from layerlens.ecosystems import ImageView
    from layerlens.filesystem import Filesystem

_TEXT_LIMIT = 1 << 20
_REQUIREMENT = regex(r"\s*([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)")
_EXTRA = regex(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
_COMPARISON = regex(r"([a-z_]+)\s*(<=|>=|==|!=|<|>|not in|in)\s*['\"]([^'\"]*)['\"]")

_WORDS = """
    test tests testing dev develop development devel doc docs documentation lint linting typing types type mypy
    build release qa style format coverage cov ci benchmark benchmarks bench check checks tox nox cover
"""
DEVELOPERS_EXTRAS = frozenset(_WORDS.split())
"""Extras by which projects on the package index name what only their own developers install."""

SCRIPT_GROUPS = frozenset(["console_scripts", "gui_scripts"])
_TOOL_GROUPS = ("distutils.", "setuptools.", "pytest11", "egg_info.", "pipx.")
"""Entry point groups that installers, build tools and test runners read."""

MAX_FILES = 200_000
"""Files of one distribution that are looked at."""


@dataclass(slots=True, eq=False)
class Distribution:
    """One distribution of the image."""

    package: Package
    site: ImagePath
    location: ImagePath
    """Its metadata file, canonical."""
    is_tool: bool
    """Whether it builds, installs or tests: no program needs it but by an import that always runs."""
    tops: set[str] = field(default_factory=set)
    """Top-level names that it owns."""

    @property
    def told(self) -> str:
        """Name and version, as evidence shows them."""
        return f"{self.package.name} {self.package.version}".strip()


def normalized(name: str) -> str:
    """PyPA "Name normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Distributions:
    """Every distribution of one image, also those that an OS package ships."""

    def __init__(self, image: ImageView, packages: Iterable[Package], tools: frozenset[str]) -> None:
        self.fs: Filesystem = image.fs
        self.by_name: dict[str, list[Distribution]] = {}
        self.by_location: dict[ImagePath, Distribution] = {}
        self.sites: set[ImagePath] = set()
        """Folders into which installers put distributions, canonical."""
        self._by_path: dict[ImagePath, Distribution] = {}
        self._by_root: dict[ImagePath, Distribution] = {}
        self._groups: dict[str, list[tuple[Distribution, str]]] | None = None
        fs = self.fs
        for package in packages:
            location = fs.resolve_parent(package.location)
            folder = location.rpartition("/")[0]
            metadata = folder if location.endswith(("/METADATA", "/PKG-INFO")) else location
            if metadata.endswith("/EGG-INFO"):
                metadata = metadata.rpartition("/")[0]
            site = metadata.rpartition("/")[0]
            if package.category == "app" or not (package.paths or len(package.roots) > 1 or package.roots):
                continue  # the project's own sources
            name = normalized(package.name)
            found = Distribution(package, site, location, name in tools)
            self.by_name.setdefault(name, []).append(found)
            self.by_location[location] = found
            if location.endswith("/METADATA") or site.endswith(("/site-packages", "/dist-packages")):
                self.sites.add(site)
            for path in package.paths:
                self._by_path.setdefault(fs.resolve_parent(path), found)
                self._add_top(found, path)
            for root in package.roots:
                self._by_root.setdefault(fs.resolve_parent(root), found)
                self._add_top(found, root)

    @staticmethod
    def _add_top(found: Distribution, path: ImagePath) -> None:
        if path.startswith(f"{found.site}/"):
            found.tops.add(path[len(found.site) + 1 :].partition("/")[0].partition(".")[0])

    def of(self, path: ImagePath) -> Distribution | None:
        """The distribution that owns a canonical path."""
        found = self._by_path.get(path)
        while found is None and path:
            path = path.rpartition("/")[0]
            found = self._by_root.get(path)
        return found

    def files(
        self, found: Distribution, tag: str, without: frozenset[str], image: ImageView
    ) -> list[ImagePath]:
        """The files that are kept when it is reached: all but bytecode, other interpreters' and ``without``."""
        fs = self.fs
        listed: dict[ImagePath, None] = {}
        for root in found.package.roots:
            self._walk(fs.resolve_parent(root), listed)
        for path in found.package.paths:
            real = fs.resolve_parent(path)
            if fs.exists(real) and (path.startswith(f"{found.site}/") or not _is_script(path)):
                listed[real] = None
        metadata = found.location.rpartition("/")[0] + "/"
        kept = []
        for path in listed:
            name = path.rpartition("/")[2]
            if name.endswith((".pyc", ".pyo", ".po", ".pot")) or _is_foreign(name, tag):
                continue
            if image.category_of(path) not in without or (path.startswith(metadata) and name in _METADATA):
                kept.append(path)
        return kept

    def _walk(self, root: ImagePath, listed: dict[ImagePath, None]) -> None:
        """Adds the files below a directory, or the file; links to directories are walked too."""
        fs = self.fs
        stack, seen = [root], {root}
        while stack:
            path = stack.pop()
            if path not in fs.children:
                if fs.exists(path):
                    listed[path] = None
                continue
            for name in sorted(fs.children[path], reverse=True):
                child = f"{path}/{name}"
                if name == "__pycache__" or len(listed) > MAX_FILES:
                    continue
                if child in fs.children:
                    stack.append(child)
                elif fs.type_of(child) == EntryType.SYMLINK:
                    listed[child] = None
                    real = fs.follow(child)
                    if real in fs.children and real not in seen and _is_private(real):
                        seen.add(real)
                        stack.append(real)
                else:
                    listed[child] = None

    # -- what it requires --------------------------------------------------------------------------------------

    def requirements(
        self, found: Distribution, version: tuple[int, int]
    ) -> Iterator[tuple[str, str, str | None]]:
        """(normalised name, requirement as written, extra or None) of each that holds for this interpreter."""
        for requirement in (*found.package.requires, *self._egg_requires(found)):
            match = _REQUIREMENT.match(requirement)
            if match is None:
                continue
            marker = requirement.partition(";")[2]
            extra = _EXTRA.search(marker)
            if extra is not None and normalized(extra[1]) in DEVELOPERS_EXTRAS:
                continue
            if holds(marker, version):
                yield normalized(match[1]), requirement.strip(), extra[1] if extra else None

    def _egg_requires(self, found: Distribution) -> Iterator[str]:
        """setuptools' requires.txt: a section is ``[extra:marker]``."""
        if not found.location.endswith("/PKG-INFO"):
            return
        path = found.location[: -len("PKG-INFO")] + "requires.txt"
        marker = ""
        for line in self._text(path).splitlines():
            line = line.strip()
            if line.startswith("[") and line.endswith("]"):
                extra, _, condition = line[1:-1].partition(":")
                parts = [f"extra == '{extra}'"] if extra else []
                marker = " and ".join(parts + ([condition] if condition else []))
            elif line:
                yield f"{line}; {marker}" if marker else line

    def _text(self, path: ImagePath) -> str:
        if not self.fs.is_file(path):
            return ""
        try:
            return self.fs.read_text(path, _TEXT_LIMIT)
        except (LayerLensError, OSError):
            return ""

    # -- entry points ------------------------------------------------------------------------------------------

    def groups(self) -> dict[str, list[tuple[Distribution, str]]]:
        """Entry points by group, but for scripts and what only tools read: (distribution, ``name = module:attr``)."""
        if self._groups is None:
            self._groups = {}
            for location in sorted(self.by_location):
                found = self.by_location[location]
                for group, point in self._entry_points(found):
                    if group not in SCRIPT_GROUPS and not group.startswith(_TOOL_GROUPS):
                        self._groups.setdefault(group, []).append((found, point))
        return self._groups

    def _entry_points(self, found: Distribution) -> Iterator[tuple[str, str]]:
        group = ""
        for line in self._text(found.location.rpartition("/")[0] + "/entry_points.txt").splitlines():
            line = line.partition("#")[0].strip()
            if line.startswith("[") and line.endswith("]"):
                group = line[1:-1].strip()
            elif "=" in line and group:
                yield group, line


_METADATA = frozenset(["METADATA", "RECORD", "PKG-INFO", "entry_points.txt", "top_level.txt", "requires.txt"])


def holds(marker: str, version: tuple[int, int]) -> bool:
    """Whether an environment marker may hold for CPython of this version on Linux; what is not understood does."""
    if not marker.strip():
        return True
    return any(
        all(_compares(part, version) for part in re.split(r"\s+and\s+", option))
        for option in re.split(r"\s+or\s+", marker)
    )


def _compares(text: str, version: tuple[int, int]) -> bool:
    found = _COMPARISON.search(text)
    if found is None:
        return True
    name, operator, value = found.groups()
    if name in ("python_version", "python_full_version"):
        numbers = tuple(int(part) for part in re.findall(r"\d+", value)[:2])
        if len(numbers) < 2:
            return True
        return {
            "<": version < numbers,
            "<=": version <= numbers,
            ">": version > numbers or (name == "python_full_version" and version == numbers),
            ">=": version >= numbers,
            "==": version == numbers,
            "!=": version != numbers,
        }.get(operator, True)
    actual = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }.get(name)
    if actual is None:
        return True
    return {
        "==": actual == value,
        "!=": actual != value,
        "in": actual in value,
        "not in": actual not in value,
    }.get(operator, True)


_OTHER_TAG = regex(r"\.(cpython-\d+|pypy\d+-pp\d+|cp\d+)")


def _is_foreign(name: str, tag: str) -> bool:
    """Whether it is an extension module for another interpreter or another system."""
    if name.endswith((".pyd", ".dll", ".dylib")):
        return True
    found = _OTHER_TAG.search(name) if name.endswith(".so") else None
    return found is not None and found[1] != tag


def _is_script(path: ImagePath) -> bool:
    return "/bin/" in path or "/sbin/" in path or "/share/man/" in path or "/share/doc/" in path


def _is_private(path: ImagePath) -> bool:
    """Whether a linked directory is one package's own, not everybody's."""
    return path.count("/") >= 4


def point_module(point: str) -> str:
    """The module of ``name = module:attribute [extra]``."""
    return re.split(r"[:\s\[]", point.partition("=")[2].strip(), maxsplit=1)[0]


def pick(candidates: Sequence[Distribution], entries: Sequence[ImagePath]) -> Distribution | None:
    """The one of several of a name that comes first on a path."""
    for entry in entries:
        for found in candidates:
            if found.site == entry:
                return found
    return None
