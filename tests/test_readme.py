"""What the README and the examples show works: the configs load, and the Python lines run as they stand."""

import re
import tomllib
from pathlib import Path

import pytest

from eorinfer.run.config import check_config, load_config
from tests.runs import config, quick_emulator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    load_config(path, "run" if "inference" in tomllib.loads(path.read_text()) else "separation")


def test_the_config_of_the_readme_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme.toml").write_text(block)
    assert load_config(tmp_path / "readme.toml").tables.inference.rounds == (600, 300)


@pytest.mark.job
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_emulator(monkeypatch)
    monkeypatch.chdir(tmp_path)
    config(tmp_path / "examples", "gaussian.toml", inference={"rounds": [48], "samples": 200, "predictive": 2})
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "corner.png").exists()
    assert (tmp_path / "runs/gaussian/chains/again.txt").exists()


def test_every_key_of_the_docs_exists() -> None:
    """`check_config` refuses unknown keys: the docs' tables are held against the real ones."""
    documented = (ROOT / "docs" / "reference" / "config.md").read_text()
    content = {
        "simulator": {"kind": "gaussian-field"},
        "observation": {"theta": {"log_amplitude": 0.0, "slope": -1.5}},
        "inference": {"rounds": [10]},
    }
    tables = check_config(Path("docs.toml"), content).tables
    for table in (
        "inference",
        "embedding",
        "flow",
        "training",
        "image_flow",
        "contest",
        "separation",
        "power_spectrum",
        "mcmc",
        "executor",
    ):
        for key in type(getattr(tables, table)).model_fields:
            assert re.search(rf"`(?:{table}\.)?{key}`", documented), f"[{table}] {key} is not in reference/config.md"
