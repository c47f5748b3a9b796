"""Whole trees, each with the owner and category of every file: ``cases/<ecosystem>/<case>/``.

``image.txt`` begins with what the case shows; then ``-- PATH --`` begins a file, whose lines follow, and
``-- PATH -> TARGET --`` is a symbolic link. ``expected.txt`` has a line for each package and one for each file.
To write it anew after a deliberate change: ``LAYERLENS_WRITE_CASES=1``, then read the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import treekit
from imagekit import Member, Symlink

from layerlens.attribution import Attribution
from layerlens.categories import CATEGORIES
from layerlens.ecosystems import WithoutPackages, any_wants, ecosystems
from layerlens.model import Diagnostic, Package

CASES = Path(__file__).parent / "cases"
MARK = re.compile(r"-- (/\S+)(?: -> (\S+))? --")


def tree_of(text: str) -> dict[str, Member]:
    tree: dict[str, Member] = {}
    lines: list[str] = []
    path = ""
    for line in [*text.splitlines(), "-- /end --"]:
        mark = MARK.fullmatch(line)
        if mark is None:
            lines.append(line)
            continue
        if path and path not in tree:
            tree[path] = "".join(f"{line}\n" for line in lines).encode()
        path, lines = mark[1], []
        if mark[2]:
            tree[path] = Symlink(target=mark[2])
    return tree


def told(tree: dict[str, Member]) -> str:
    filesystem = treekit.fs(tree)
    diagnostics: list[Diagnostic] = []
    packages: list[Package] = []
    for ecosystem in ecosystems():
        wanted = [path for path in tree if ecosystem.wants(path)]
        packages += ecosystem.packages(Seen(filesystem, wanted), treekit.CONFIG, diagnostics)  # type: ignore[arg-type]
    assert diagnostics == []
    attribution = Attribution(filesystem, packages)
    lines = ["# packages: ecosystem:name version, purpose, requires"]
    for package in sorted(attribution.packages, key=lambda package: (package.ecosystem, package.location)):
        purpose = package.category or "-"
        lines.append(f"{name(package)}  {purpose}  {'; '.join(package.requires)}".rstrip())
    lines.append("# files: path, category, owner")
    for path in sorted(filesystem.walk_files("/")):
        if filesystem.is_file(path) and not isinstance(tree[path], Symlink):
            owner = attribution.owner_of(path)
            category = attribution.category_of(path)
            assert category in CATEGORIES
            lines.append(f"{path}  {category}  {name(owner) if owner else '-'}")
    return "\n".join(lines) + "\n"


def name(package: Package) -> str:
    return f"{package.ecosystem}:{package.name} {package.version}"


class Seen:
    """The squash, with the rule of streamed layers: only what an ecosystem wants can be read."""

    def __init__(self, filesystem: object, wanted: list[str]) -> None:
        self._filesystem = filesystem
        self._wanted = wanted

    def __getattr__(self, attribute: str) -> object:
        return getattr(self._filesystem, attribute)

    def read(self, path: str, limit: int | None = None) -> bytes:
        real = self._filesystem.resolve(path)  # type: ignore[attr-defined]
        assert real in self._wanted, f"read without being wanted: {path}"
        data: bytes = self._filesystem.read(path, limit)  # type: ignore[attr-defined]
        return data


@pytest.mark.parametrize(
    "case", sorted(CASES.glob("*/*/image.txt")), ids=lambda path: "/".join(path.parent.parts[-2:])
)
def test_case(case: Path) -> None:
    found = told(tree_of(case.read_text()))
    expected = case.with_name("expected.txt")
    if os.environ.get("LAYERLENS_WRITE_CASES"):
        expected.write_text(found)
    assert found == expected.read_text()


def test_there_are_cases_for_package_ecosystems() -> None:
    with_cases = {path.parent.parent.name for path in CASES.glob("*/*/image.txt")}
    assert {"apk", "dpkg", "node", "python"} <= with_cases <= {ecosystem.name for ecosystem in ecosystems()}
    assert len(list(CASES.glob("*/*/image.txt"))) == len(list(CASES.glob("*/*/expected.txt"))) >= 7


def test_endings_keep_no_path_from_an_ecosystem() -> None:
    """What is asked by the ends of paths is what asking every ecosystem of every path says."""
    found = ecosystems()
    wants = any_wants(found)
    names = [
        "status",
        "x.list",
        "base",
        "installed",
        "release",
        "installed.json",
        "a.gemspec",
        "rpmdb.sqlite",
    ]
    names += [
        "package.json",
        ".package-lock.json",
        "METADATA",
        "RECORD",
        "x.egg-info",
        "top_level.txt",
        "x",
        "",
    ]
    folders = ["", "/a", "/var/lib/dpkg", "/var/lib/dpkg/info", "/var/lib/dpkg/status.d", "/lib/apk/db"]
    folders += [
        "/usr/lib/apk/db",
        "/g/specifications",
        "/vendor/composer",
        "/var/lib/rpm",
        "/usr/lib/sysimage/rpm",
    ]
    paths = [f"{folder}/{name}" for folder in folders for name in names]
    wanted = [path for path in paths if any(one.wants(path) for one in found)]
    assert [path for path in paths if wants(path)] == wanted
    assert len(wanted) > 50


def test_an_ecosystem_without_endings_is_asked_of_every_path() -> None:
    class Other(WithoutPackages):
        name = "other"

        def wants(self, path: str) -> bool:
            return path == "/odd"

    wants = any_wants([*ecosystems(), Other()])
    assert wants("/odd") and wants("/a/package.json") and not wants("/even")
