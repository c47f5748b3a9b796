"""What an attacker finds in an image, before and after: packages, setuid files, shells, package managers.

A summary of what is there, not a scan: nothing here knows of vulnerabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from layerlens.filesystem import Filesystem
from layerlens.model import EntryType, ImagePath, Package
from layerlens.report import display

_SETUID_OR_SETGID = 0o6000
_EXECUTABLE = 0o111
_FOLDERS = ("bin", "sbin")
"""Directories of programs (FHS 3.0, 3.4, 3.16, 4.4, 4.10), wherever they lie: /usr/local/bin, /opt/app/bin."""

_BY_SOURCE: tuple[tuple[str, str, str], ...] = (
    # (kind, names, source)
    ("shell", "sh", "POSIX.1-2017, XCU sh"),
    ("shell", "bash rbash dash", "/etc/shells of Debian 12 (shells(5))"),
    ("shell", "ash hush busybox", "BusyBox, shells and the program that is all of them"),
    (
        "shell",
        "zsh ksh mksh yash csh tcsh fish",
        "Debian 12, virtual package and alternatives of login shells",
    ),
    ("package manager", "dpkg apt apt-get aptitude", "Debian policy, dpkg(1), apt(8)"),
    ("package manager", "apk", "Alpine, apk(8)"),
    ("package manager", "rpm yum dnf dnf5 microdnf tdnf zypper", "rpm(8), dnf(8), zypper(8)"),
    ("package manager", "pacman opkg", "pacman(8), OpenWrt"),
    ("package manager", "pip pip3 pipx uv poetry conda mamba", "PyPA, tool recommendations"),
    ("package manager", "npm npx yarn yarnpkg pnpm corepack bun", "nodejs.org, package manager guide"),
    ("package manager", "gem bundle bundler", "rubygems.org guides"),
    ("package manager", "composer pecl pear", "getcomposer.org, php.net"),
    ("package manager", "cargo rustup", "doc.rust-lang.org"),
    ("package manager", "mvn gradle", "maven.apache.org, gradle.org"),
)
_KINDS = {name: kind for kind, names, _ in _BY_SOURCE for name in names.split()}


@dataclass(frozen=True, slots=True)
class Security:
    """One image, as far as this goes. Everything is sorted; paths are the image's own."""

    packages: tuple[tuple[str, str, str, ImagePath], ...]
    """(ecosystem, name, version, location) of each package of which something is there."""
    setuid: tuple[ImagePath, ...]
    """Programs that run as their owner or group whoever starts them (setuid and setgid, execve(2))."""
    shells: tuple[ImagePath, ...]
    package_managers: tuple[ImagePath, ...]

    @property
    def packages_by_ecosystem(self) -> dict[str, int]:
        """How many packages of each kind."""
        return dict(sorted(Counter(package[0] for package in self.packages).items()))

    def with_more(self, other: Security) -> Security:
        """What is there where both lie in one filesystem."""
        return Security(
            tuple(sorted({*self.packages, *other.packages})),
            tuple(sorted({*self.setuid, *other.setuid})),
            tuple(sorted({*self.shells, *other.shells})),
            tuple(sorted({*self.package_managers, *other.package_managers})),
        )

    def to_dict(self) -> dict[str, Any]:
        """As ``slim --format json`` prints it."""
        return {
            "packages": len(self.packages),
            "packages_by_ecosystem": self.packages_by_ecosystem,
            "setuid": [display(path) for path in self.setuid],
            "shells": [display(path) for path in self.shells],
            "package_managers": [display(path) for path in self.package_managers],
        }


def security_of(fs: Filesystem, paths: Collection[ImagePath], packages: Iterable[Package]) -> Security:
    """The summary of those ``paths`` of an image, and of the packages of which something is among them."""
    named = list(_programs(fs, paths))
    return Security(
        packages=tuple(sorted({(p.ecosystem, p.name, p.version, p.location) for p in packages})),
        setuid=tuple(sorted(_setuid(fs, paths))),
        shells=tuple(sorted(path for path, kind in named if kind == "shell")),
        package_managers=tuple(sorted(path for path, kind in named if kind == "package manager")),
    )


def _setuid(fs: Filesystem, paths: Iterable[ImagePath]) -> Iterator[ImagePath]:
    special = [
        {
            number
            for number, (mode, _, _) in enumerate(index.owner_table)
            if mode & _SETUID_OR_SETGID and mode & _EXECUTABLE
        }
        for index in fs.indexes
    ]
    for path in paths:
        gid = fs.payload_gid(path)
        if gid is None or gid < 0:
            continue
        layer, row = fs.locate(gid)
        index = fs.indexes[layer]
        if index.owners[row] in special[layer] and index.types[row] == EntryType.FILE:
            yield path


def _programs(fs: Filesystem, paths: Collection[ImagePath]) -> Iterator[tuple[ImagePath, str]]:
    for path in paths:
        folder, _, name = path.rpartition("/")
        kind = _KINDS.get(name)
        if kind is None or folder.rpartition("/")[2] not in _FOLDERS:
            continue
        real = fs.follow(path)
        if real is None or real not in paths or fs.type_of(real) != EntryType.FILE:
            continue
        if fs.entry(real).mode & _EXECUTABLE:
            yield path, kind
