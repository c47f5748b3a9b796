"""The notebooks run from top to bottom on the demo image, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")
pytest.importorskip("plotly")

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def _outputs(notebook: Any, part: str) -> list[dict[str, Any]]:
    """Outputs of the cell whose source ends in `part`, as MIME bundles."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.endswith(part))
    return [output["data"] for output in cell.outputs if "data" in output]


def test_there_are_notebooks() -> None:
    assert "first-look.ipynb" in {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.fixture(scope="module")
def first_look() -> Any:
    path = next(path for path in NOTEBOOKS if path.name == "first-look.ipynb")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    return notebook


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
