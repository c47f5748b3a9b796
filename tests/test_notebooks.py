"""The notebooks run from top to bottom, on stand-ins or on the corpus's image, and are kept without outputs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")
pytest.importorskip("plotly")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def _outputs(notebook: Any, part: str) -> list[dict[str, Any]]:
    """Outputs of the cell whose source ends in `part`, as MIME bundles."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.endswith(part))
    return [output["data"] for output in cell.outputs if "data" in output]


def test_there_are_notebooks() -> None:
    assert {"first-look.ipynb", "from-fat-to-slim.ipynb"} <= {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert not re.search(r"/(?:home|root|Users|work|var/tmp)/", path.read_text()), "a path of some machine"


def executed(name: str) -> Any:
    path = next(path for path in NOTEBOOKS if path.name == name)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    return notebook


@pytest.fixture(scope="module")
def first_look() -> Any:
    return executed("first-look.ipynb")


@pytest.mark.slow
def test_first_look_runs_and_shows_tables(first_look: Any) -> None:
    (image,) = _outputs(first_look, "\nimage")
    assert '<div class="layerlens">' in image["text/html"]
    assert "History" in image["text/html"]
    (report,) = _outputs(first_look, "\nreport")
    assert "Categories" in report["text/html"]
    assert "Efficiency" in report["text/html"]


@pytest.mark.slow
def test_first_look_shows_frames_and_a_map(first_look: Any) -> None:
    (waste,) = _outputs(first_look, ".head(10)")
    assert "deleted" in waste["text/html"]
    (why,) = _outputs(first_look, 'image.why(largest["path"])')
    assert "layer" in why["text/plain"]
    (treemap,) = _outputs(first_look, "height=420)")
    assert "application/vnd.plotly.v1+json" in treemap


def shows_the_way_from_fat_to_slim(notebook: Any) -> str:
    """What every run of it shows; the text that it prints."""
    (plan,) = _outputs(notebook, "\nplan")
    assert "Left behind" in plan["text/html"]
    for part in ("neighbourhood(kept)", "neighbourhood(dropped)"):
        (near,) = _outputs(notebook, part)
        assert "<svg " in near["text/html"]
    printed = "".join(
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert re.search(r"^/.*server\.js → /.*: line \d+: require ", printed, re.MULTILINE)
    assert "/typescript/lib/tsc.js: only its own package node:typescript needs it" in printed
    assert "COPY --from=" in printed
    return printed


@pytest.mark.slow
def test_from_fat_to_slim_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, "unix:///nonexistent/engine.sock")
    printed = shows_the_way_from_fat_to_slim(executed("from-fat-to-slim.ipynb"))
    assert re.search(r"^[\d,]+ → [\d,]+ bytes: 5\d% less$", printed, re.MULTILINE)
    assert "not run" in printed


@pytest.mark.slow
@pytest.mark.engine
def test_from_fat_to_slim_on_the_guides_example() -> None:
    if os.geteuid() != 0:
        pytest.skip("the corpus's private engine needs root")
    from corpuskit import build, cases

    build.build_case(cases.load_case("node-express"), print)
    printed = shows_the_way_from_fat_to_slim(executed("from-fat-to-slim.ipynb"))
    less = re.search(r"bytes: (\d+)% less", printed)
    assert less is not None
    assert int(less[1]) >= 80  # the guide's table
    assert "proved" in printed
