"""Ecosystems are found by being there: in the folder, in a folder that is added, behind an entry point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import treekit

from layerlens import ecosystems
from layerlens.ecosystems import Ecosystem, bounded_read

TOY = """
from layerlens.model import Package

class Toy:
    name = "{name}"

    def wants(self, path):
        return path.endswith("/toy.txt")

    def packages(self, fs, config, diagnostics):
        for path in fs.named("toy.txt"):
            yield Package(self.name, fs.read_text(path).strip(), "1", path, roots=(path.rpartition("/")[0],))

ecosystem = Toy()
"""


def test_the_four_that_come_along_are_found_sorted_by_name() -> None:
    names = [ecosystem.name for ecosystem in ecosystems.ecosystems()]
    assert names == sorted(names)
    assert {"apk", "dpkg", "node", "python"} <= set(names)
    assert all(isinstance(ecosystem, Ecosystem) for ecosystem in ecosystems.ecosystems())


def test_one_file_in_an_added_folder_is_an_ecosystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_folder.py").write_text(TOY.format(name="toy"))
    (tmp_path / "_private.py").write_text("raise AssertionError('not to be imported')")
    (tmp_path / "notes.txt").write_text("not a module")
    monkeypatch.setattr(ecosystems, "__path__", [*ecosystems.__path__, str(tmp_path)])
    found = {ecosystem.name: ecosystem for ecosystem in ecosystems.ecosystems()}
    assert "toy" in found and "dpkg" in found
    packages, _ = treekit.packages(found["toy"], treekit.fs({"/opt/a/toy.txt": b"apple\n"}))
    assert [(package.name, package.roots) for package in packages] == [("apple", ("/opt/a",))]
    monkeypatch.undo()
    assert "toy" not in {ecosystem.name for ecosystem in ecosystems.ecosystems()}


def test_a_name_taken_twice_goes_to_the_earlier_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_dpkg.py").write_text(TOY.format(name="dpkg"))
    monkeypatch.setattr(ecosystems, "__path__", [*ecosystems.__path__, str(tmp_path)])
    found = [ecosystem for ecosystem in ecosystems.ecosystems() if ecosystem.name == "dpkg"]
    assert [type(ecosystem).__name__ for ecosystem in found] == ["Dpkg"]


def test_an_entry_point_of_an_installed_distribution_is_an_ecosystem(tmp_path: Path) -> None:
    (tmp_path / "toy_plugin.py").write_text(TOY.format(name="toy"))
    info = tmp_path / "toy_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[layerlens.ecosystems]\ntoy = toy_plugin:Toy\n")
    code = "from layerlens.ecosystems import ecosystems; print([e.name for e in ecosystems()])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{Path(ecosystems.__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'toy'" in done.stdout


def test_asking_for_them_does_not_load_the_metadata_machinery() -> None:
    code = (
        "import sys; from layerlens.ecosystems import ecosystems; ecosystems(); "
        "print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reading_is_bounded_and_never_raises() -> None:
    filesystem = treekit.fs(
        {
            "/a": b"\xef\xbb\xbf0123456789",
            "/b": b"\xff\xfe",
            "/l": treekit_link("/l2"),
            "/l2": treekit_link("/l"),
        }
    )
    diagnostics: list[object] = []
    assert bounded_read(filesystem, "/a", diagnostics, limit=5) == "01"  # type: ignore[arg-type]
    assert bounded_read(filesystem, "/b", diagnostics) == "\udcff\udcfe"  # type: ignore[arg-type]
    assert bounded_read(filesystem, "/l", diagnostics) is None  # type: ignore[arg-type]
    assert bounded_read(filesystem, "/none", diagnostics) is None  # type: ignore[arg-type]
    assert [diagnostic.code for diagnostic in diagnostics] == [  # type: ignore[attr-defined]
        "oversized-metadata",
        "unreadable-metadata",
        "unreadable-metadata",
    ]


def treekit_link(target: str) -> object:
    from imagekit import Symlink

    return Symlink(target=target)
