"""Notebooks in examples/ run from top to bottom, and write into their run folders alone."""

import contextlib
import io
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import PATIENCE, quick_emulator

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Whose functions are written to a module, for which a real kernel is needed.
OWN_FUNCTION = EXAMPLES / "own_function.ipynb"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_kept_without_results(file: Path) -> None:
    cells = nbformat.read(file, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    assert not any(cell.get("outputs") for cell in cells)


def test_it_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the command line, in this process before, has set it
    notebook = nbformat.read(OWN_FUNCTION, as_version=4)
    client = NotebookClient(notebook, timeout=3 * PATIENCE, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in shown)
    assert "parameter" in text
    assert "unlike the simulations" in text
    assert any("image/png" in output.get("data", {}) for output in shown), "the corner plot"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("first_run", "log_amplitude"),
        ("own_cube", "masked"),
        ("separation", "(2, 16, 16) (4, 2, 16, 16)"),
        ("contest", "NPE on the image"),
        ("reading", "n_s ="),
    ],
)
def test_it_runs(name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where torch is loaded already."""
    quick_emulator(monkeypatch)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as text:
        for number, cell in enumerate(nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4).cells):
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{name}, cell {number}", "exec"), names)
    assert says in text.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
