"""The bench: its images are what they claim, its rows say what was measured, its plot is an SVG."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import bench
from benchkit import plot, table
from benchkit.images import Shape, write_archive
from benchkit.measure import Comparison, FailedCommandError, Run, compare, run


@pytest.mark.parametrize(
    "shape", [Shape(50), Shape(333, layers=7), Shape(40, layers=3, hole_bytes=400 << 20)]
)
def test_an_image_has_the_entries_and_bytes_of_its_shape(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / "made.tar"
    entries = write_archive(path, shape)
    assert shape.entries <= entries <= shape.entries + shape.layers * 9
    assert path.stat().st_blocks * 512 < 4 << 20, "the large contents are holes"
    listed = holes = 0
    sizes = set()
    with tarfile.open(path) as outer:
        layers = [member for member in outer if member.name.startswith("layer")]
        for member in layers:
            with tarfile.open(fileobj=outer.extractfile(member)) as layer:
                for inner in layer:
                    listed += 1
                    if inner.name.startswith("var/lib/data/"):
                        holes += inner.size
                        sizes.add(inner.size)
    assert (len(layers), listed) == (shape.layers, entries)
    assert abs(holes - shape.hole_bytes) < shape.layers


def test_layerlens_reads_it_as_tarfile_does(tmp_path: Path) -> None:
    path = tmp_path / "made.tar"
    entries = write_archive(path, Shape(200, layers=2))
    here = bench.Bench(tmp_path, runs=1, archive=path)
    assert int(here.tarfile(path).output) == entries
    done = here.inspect(path, "--no-cache")
    report = json.loads(done.output)
    assert report["totals"]["entries"] == entries
    assert report["waste"]["duplicates"], "some files are alike, as in every image"
    assert done.seconds > 0 < done.peak_bytes


def test_rows_of_an_archive_and_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made.tar"
    write_archive(path, Shape(100))
    monkeypatch.setattr(bench.Bench, "program", _nothing_installed)
    here = bench.Bench(tmp_path, runs=1, quick=True, archive=path)
    measured = {"corpus": [table.Row("made before", "", "")], "start": [table.Row("old", "", "")]}
    bench.measure(here, ["start", "archive", "gzip"], measured)
    *rows, last = bench.in_order(measured)
    assert last.work == "made before"
    panels = [plot.Panel("t", "u", [1], {})]
    bench.keep(tmp_path / "kept", measured, panels)
    assert bench.read_kept(tmp_path / "kept") == (measured, panels)
    assert [row.work for row in rows[1:]] == ["`layerlens --help`", "`import layerlens`"]
    assert "archive, 0 MB" in rows[0].work
    assert all(row.ours and row.theirs and row.ratio for row in rows)
    assert not (tmp_path / "layout").exists()


def _nothing_installed(self: bench.Bench, name: str) -> str:
    raise bench.UnavailableError(name)


def test_goals_are_held_against_medians() -> None:
    def taking(*times: float) -> list[Run]:
        return [Run(seconds, seconds, 100_000_000, b"") for seconds in times]

    found = Comparison(taking(1, 2, 9), taking(4, 4, 4))
    assert table.compared("x", "y", found, most_ratio=0.5).met is True
    assert table.compared("x", "y", found, most_ratio=0.49).met is False
    assert table.compared("x", "y", found, most_ratio=0.5, most_bytes=99_000_000).met is False
    row = table.compared("x", "y", found, most_seconds=1.9)
    assert row.cells() == ["x", "≤ 1.9 s (missed)", "2.00 s", "y", "4.00 s", "0.50 (0.25-2.25)", "100 MB"]
    assert table.compared("x", "y", found).met is None


def test_pairs_take_turns_and_failures_are_told() -> None:
    order: list[str] = []

    def one(name: str) -> Run:
        order.append(name)
        return Run(1.0, 1.0, 1, b"")

    compare(lambda: one("a"), lambda: one("b"), 2)
    assert order == ["a", "b"] * 3
    with pytest.raises(FailedCommandError, match="ended with 3: oh"):
        run([sys.executable, "-c", "import sys; print('oh', file=sys.stderr); sys.exit(3)"])


def test_the_table_goes_between_its_markers() -> None:
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.put_between(text, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="markers"):
        table.put_between("nothing", "new")
    assert table.BEGIN in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_plot_has_a_line_for_each(logarithmic: bool) -> None:
    panel = plot.Panel(
        "t", "u", [10, 100, 1000], {"layerlens": [0.1, 0.2, 1.5], "tarfile": [0.2, 1, 9]}, logarithmic
    )
    root = ElementTree.fromstring(plot.svg([panel, panel]))
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{space}polyline")
    assert len(lines) == 4
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert len(points) == 3
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        assert points[0][0] < points[1][0] < points[2][0]
        assert points[0][1] > points[1][1] > points[2][1], "slower is higher"
