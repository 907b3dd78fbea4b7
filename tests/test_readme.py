"""What the README and the examples show works: the configs load, and the Python lines run as they stand."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eorinfer
from eorinfer.core.files import read_json
from eorinfer.run.config import load_config
from tests.runs import config, quick_emulator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    load_config(path, "run" if "inference" in tomllib.loads(path.read_text()) else "separation")


def test_the_config_of_the_readme_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme.toml").write_text(block)
    assert load_config(tmp_path / "readme.toml").tables.inference.rounds == (600, 300)


@pytest.mark.job
def test_the_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_emulator(monkeypatch)
    monkeypatch.chdir(tmp_path)
    config(tmp_path / "examples", "gaussian.toml", inference={"rounds": [48], "samples": 200, "predictive": 2})
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/reference/python.md").read_text(), re.DOTALL)
    exec(compile(block, "python.md", "exec"), {})
    assert (tmp_path / "corner.png").exists()
    assert (tmp_path / "runs/gaussian/chains/again.txt").exists()


def test_the_readme_is_short() -> None:
    """At most 700 words: what has a letter or a digit, not the bars of tables."""
    assert sum(bool(re.search(r"\w", word)) for word in README.split()) <= 700


def test_one_version_is_told_everywhere() -> None:
    assert f"\nversion: {eorinfer.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == eorinfer.__version__  # type: ignore[index]


def test_figures_of_the_readme_are_measured() -> None:
    """Every number in the table of trust stands in the file of results that its row names."""
    rows = re.findall(r"^\| (.*?) \| (.*?) \| `(\w+)` \|$", README.partition("## Can I trust it?")[2], re.MULTILINE)
    assert 1 <= len(rows) <= 6
    for _, said, name in rows:
        numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", said)
        measured = list(_numbers(read_json(RESULTS / f"{name}.json")["figures"]))
        assert numbers, f"{name}: no figure"
        for text in numbers:
            number = text.replace(",", "")
            digits = len(number.partition(".")[2])
            assert any(f"{abs(value):.{digits}f}" == number for value in measured), f"{name}.json has no {text}"


def test_what_the_readme_prints_is_what_the_example_printed() -> None:
    for label, figures in read_json(RESULTS / "one_minute.json")["figures"].items():
        numbers = [rf"{figures[n]:.2f} ± {figures[f'{n}_std']:.2f}" for n in ("log_density", "log_flux")]
        assert re.search(rf"{label} +{numbers[0]} +{numbers[1]}", README), label


def _numbers(value: Any) -> Iterator[float]:
    """Yield all numbers of nested figures, and those in their names and texts."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(name)
            yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, str):
        yield from map(float, re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, int | float):
        yield float(value)
