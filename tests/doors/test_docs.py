"""The examples of docs/guides/extend.md run as they stand."""

import re
from pathlib import Path

import pytest

from eorinfer.run import Run
from eorinfer.run.config import load_config
from tests.runs import config

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "extend.md").read_text()
TABLES = {
    "Survey": {"survey": {"kind": "mine:MySurvey", "sigma": 0.2}},
    "Summary": {"embedding": {"summaries": ["power", "mine:skewness"], "convolution": False, "width": None}},
    "Embedding network": {"embedding": {"network": "mine:MyNet", "options": {"width": 4}, "width": None}},
    "Flow": {"flow": {"kind": "mine:coarse_splines", "options": {"bins": 3}}},
}


@pytest.mark.job
@pytest.mark.parametrize("section", TABLES)
def test_the_example_trains(tmp_path: Path, section: str) -> None:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine.py").write_text(block)
    rounds = {"rounds": [24], "samples": 50, "predictive": 0}
    path = config(tmp_path, inference=rounds, training={"steps": 4}, **TABLES[section])
    assert Run(load_config(path), tmp_path / "out").infer().values.shape == (50, 2)
