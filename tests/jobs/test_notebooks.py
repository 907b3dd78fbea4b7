"""Notebooks in examples/ run from top to bottom, and write into their run folders alone."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the command line, in this process before, has set it
    notebook = nbformat.read(file, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "kept without results"
    client = NotebookClient(notebook, timeout=3 * PATIENCE, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in shown)
    assert "parameter" in text
    assert "unlike the simulations" in text
    assert any("image/png" in output.get("data", {}) for output in shown), "the corner plot"
