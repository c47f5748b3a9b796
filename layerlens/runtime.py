"""Which image the runtime stage stands on: found by what the program needs, from the table ``bases.toml``.

A base that can be opened is analysed like any other image. One that cannot comes from a catalogue of cited sizes
(``base_sizes.toml``), and whoever shows an estimate says so.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from layerlens.ecosystems import Installs, ecosystems, os_release
from layerlens.errors import UsageError
from layerlens.filesystem import Filesystem
from layerlens.model import ImageConfig, ImagePath, Package
from layerlens.sources import SourceLayer
from layerlens.sources.references import is_valid_name, parse

SCRATCH = "scratch"


@dataclass(frozen=True)
class Base:
    """A runtime image: opened, with its filesystem, or known by its size alone."""

    reference: str
    size_bytes: int
    """Sum of the payload bytes of its layers."""
    fs: Filesystem | None = field(default=None, repr=False)
    config: ImageConfig | None = field(default=None, repr=False)
    packages: tuple[Package, ...] = field(default=(), repr=False)
    source: str | None = None
    """Where ``size_bytes`` was read, for a base that was not opened."""
    libc: str | None = None
    """The C library that the catalogue says it has, for a base that was not opened."""
    layers: tuple[SourceLayer, ...] = field(default=(), repr=False)
    """Its layers as stored, base first, for an image that stands on them."""

    @property
    def opened(self) -> bool:
        """Whether its files are known."""
        return self.fs is not None

    @cached_property
    def os_packages(self) -> frozenset[str]:
        """Names of the OS packages it has."""
        return frozenset(package.name for package in self.packages if package.is_os)


@dataclass(frozen=True, slots=True)
class Choice:
    """What could stand below the program: names of images to try, best first, and why."""

    images: tuple[str, ...]
    musl: tuple[str, ...]
    """Images of the same family with musl."""
    tree: tuple[str, ...]
    """Patterns of paths that are the family's own."""
    reason: str
    derived: tuple[str, ...] = ()
    """Names of directories in the tree whose content the runtime image has of its own, or does without."""


@cache
def _table() -> dict[str, Any]:
    with (Path(__file__).parent / "bases.toml").open("rb") as file:
        return tomllib.load(file)


@cache
def _sizes() -> dict[str, Any]:
    with (Path(__file__).parent / "base_sizes.toml").open("rb") as file:
        return tomllib.load(file)


def catalogued(reference: str) -> Base | None:
    """The base as the catalogue knows it: a size, where it was read, and the C library.

    An official image is known under its short name, whatever it is called by (distribution-spec's reference grammar
    as Docker normalises it: ``docker.io/library/node:18-alpine``, ``node`` for ``node:latest``).
    """
    name = reference.removeprefix("docker://").removeprefix("docker.io/").removeprefix("library/")
    row = _sizes().get(name if ":" in name else f"{name}:latest")
    return None if row is None else Base(reference, row["size_bytes"], source=row["source"], libc=row["libc"])


def name_for_from(reference: str) -> tuple[str, bool]:
    """What a FROM line calls an image, and whether that is a name that it has.

    An image that was read from a file has none, unless the reference picks it by one: its file's name stands in.
    """
    try:
        found = parse(reference)
    except UsageError:
        return reference, True
    if found.kind in ("engine", "docker", "podman"):
        return found.value, True
    if found.selector is not None and is_valid_name(found.selector):
        return found.selector, True
    stem = re.sub(r"\.(tar|tgz|tar\.gz|tar\.zst)$", "", found.value.rstrip("/").rpartition("/")[2].lower())
    name = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")
    return f"{name or 'image'}:latest", False


def is_root(user: str | None) -> bool:
    """Whether a config's ``User`` is root, which it is where none is named (image-spec, "config": ``User``)."""
    return user in (None, "", "0", "root", "0:0", "root:root")


OpenBase = Callable[[str], Base | None]
"""From a reference to the image, opened or from the catalogue; None where it is neither."""


def opened_first(images: Iterable[str], open_base: OpenBase) -> Iterator[Base]:
    """Those of the images that there are, opened as they are asked for; those that only the catalogue knows last."""
    known = []
    for name in images:
        base = open_base(name)
        if base is not None and base.opened:
            yield base
        elif base is not None:
            known.append(base)
    yield from known


def choose(
    fs: Filesystem, config: ImageConfig, kept: Collection[ImagePath], os_owned: Collection[ImagePath]
) -> Choice:
    """The family whose interpreter is kept, else the distribution; no images where neither is known.

    ``os_owned`` are those of the kept paths that an OS package owns: Debian's own interpreters are packages to
    install, not a family.
    """
    env = dict(word.split("=", 1) for word in config.env if "=" in word)
    release = os_release(fs)
    for row in _table()["family"]:
        pattern = re.compile(re.escape(row["home"]).replace(r"\{n\}", r"(\d+)"))
        home = next((p for p in sorted(kept) if p not in os_owned and pattern.fullmatch(p)), None)
        if home is None:
            continue
        version = env.get(row["version"], "")
        numbers = re.findall(r"\d+", version.partition("+")[0])
        if not numbers:  # the path tells it: /usr/local/bin/python3.11, /usr/local/openjdk-17
            match = pattern.fullmatch(home)
            found = match.groups() if match else ()
            numbers = ["3", *found] if "python3." in row["home"] else list(found)
        words = _words(numbers, release)
        return Choice(
            images=tuple(_filled(row["slim"], words)),
            musl=tuple(_filled([row["musl"]] if "musl" in row else [], words)),
            tree=tuple(row["tree"]),
            derived=tuple(row.get("derived", ())),
            reason=f"the program needs {home}, which is {row['name']}'s own image's",
        )
    for row in _table()["distribution"]:
        if row["id"] == release.get("ID"):
            words = _words(re.findall(r"\d+", release.get("VERSION_ID", "")), release)
            return Choice(tuple(_filled(row["slim"], words)), (), (), f"its distribution is {row['id']}")
    return Choice((), (), (), "its distribution is not known")


def servers(fs: Filesystem) -> Choice:
    """Images of servers that hand out static sites, those of the builder's release and libc first."""
    release = os_release(fs)
    words = _words([], release)
    images: list[str] = []
    musl: list[str] = []
    for row in _table()["server"]:
        light = list(_filled([row["musl"]], words))
        usual = list(_filled(row["slim"], words))
        images += [*light, *usual] if release.get("ID") == "alpine" else usual
        musl += light
    return Choice(tuple(images), tuple(musl), (), "its command only hands out a built site")


def _words(numbers: Sequence[str], release: Mapping[str, str]) -> dict[str, str]:
    words = {"version": release.get("VERSION_ID", ""), "codename": release.get("VERSION_CODENAME", "")}
    if numbers:
        words["major"] = numbers[0]
        words["minor"] = ".".join(numbers[:2])
    return {key: value for key, value in words.items() if value}


def _filled(patterns: Sequence[str], words: Mapping[str, str]) -> Iterator[str]:
    for pattern in patterns:
        if set(re.findall(r"\{(\w+)\}", pattern)) <= words.keys():
            yield pattern.format(**words)


def in_tree(path: ImagePath, patterns: Sequence[str]) -> bool:
    """Whether a path is one of the patterns' or lies below one."""
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[: pattern.count("/") + 1]), pattern) for pattern in patterns)


def installer(fs: Filesystem, base: Base, ecosystem_name: str) -> Installs | None:
    """The ecosystem that can install packages of the image's release in the base, if there is one."""
    if base.fs is None:
        return None
    for found in ecosystems():
        if (
            found.name == ecosystem_name
            and isinstance(found, Installs)
            and found.same_distribution(fs, base.fs)
        ):
            return found
    return None
