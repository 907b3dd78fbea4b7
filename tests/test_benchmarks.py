"""The measuring scripts: the README lists each one, and each one imports."""

import importlib
import os
import re
from pathlib import Path

import pytest

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
