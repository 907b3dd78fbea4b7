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


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_kept_without_results(file: Path) -> None:
    cells = nbformat.read(file, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    assert not any(cell.get("outputs") for cell in cells)


def in_a_kernel(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bool]:
    """Run a notebook as a reader does; what it printed, and whether it drew."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the command line, in this process before, has set it
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=3 * PATIENCE, resources={"metadata": {"path": str(folder)}}).execute()
    assert [path.name for path in folder.iterdir()] == ["runs"]
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in shown), any("image/png" in o.get("data", {}) for o in shown)


def test_own_functions_are_written_to_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, drawn = in_a_kernel(EXAMPLES / "own_function.ipynb", tmp_path, monkeypatch)
    assert "parameter" in text
    assert "unlike the simulations" in text
    assert drawn, "the corner plot"


def test_posteriors_are_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, since anesthetic changes pandas."""
    text, _ = in_a_kernel(EXAMPLES / "reading.ipynb", tmp_path, monkeypatch)
    assert "n_s =" in text
    assert "(4000, 2)" in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("first_run", "log_amplitude"),
        ("own_cube", "masked"),
        ("separation", "(2, 16, 16) (4, 2, 16, 16)"),
        ("contest", "NPE on the image"),
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
