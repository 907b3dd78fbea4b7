"""The measuring scripts: the README lists each one, and each one imports."""

import importlib
import os
import re
from pathlib import Path

import pytest

from benchmarks import record
from eorinfer.core.files import read_json

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(".".join(path.relative_to(BENCHMARKS).with_suffix("").parts) for path in BENCHMARKS.glob("**/*.py"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts set the number of threads before torch is imported; the other tests keep theirs."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_the_readme_lists_every_script() -> None:
    readme = (BENCHMARKS / "README.md").read_text()
    assert sorted(re.findall(r"^\| `([\w.]+)` \|", readme, re.MULTILINE)) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    if hasattr(module, "main"):
        assert f"python -m benchmarks.{name}" in module.__doc__, "its docstring shows how it is started"


def test_a_result_says_where_it_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    path = record.record("toy", {"gain_nats": 1.5}, seconds=2.4)
    content = read_json(path)
    assert content["figures"] == {"gain_nats": 1.5}
    assert content["seconds"] == 2
    assert {"format", "date", "commit", "machine", "command"} <= content.keys()


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_are_whole(path: Path) -> None:
    content = read_json(path)
    assert content["format"] == record.FORMAT
    assert content["figures"], "a result without figures says nothing"
    assert "python -m benchmarks." in content["command"], "nobody could make it again"
