"""NPE and image flow combined in a contest, on a tiny Gaussian run."""

from pathlib import Path
from typing import Any

import pytest

from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from tests.runs import call, config

TABLES: dict[str, Any] = {
    "inference": {"rounds": [120], "samples": 300, "predictive": 0},
    "image_flow": {"kind": "diffusion", "width": 8, "steps": 9, "weighing": 10},
    "training": {"steps": 30, "batch_size": 32, "validation_fraction": 0.2, "ensemble": 1, "emulate": "never"},
    "contest": {
        "methods": ["npe-power", "combined"],
        "baseline": "npe-power",
        "truths": 30,
        "image_flow_truths": 20,
        "choice_truths": 0,
        "samples": 200,
    },
}


@pytest.mark.usefixtures("quick_diffusion")
def test_it_takes_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config(tmp_path, **TABLES), tmp_path / "run"
    assert call("contest", path, "--out", out) == 0
    content = read_json(out / "contest.json")
    assert content["methods"]["combined"]["truths"] == 20
    assert content["methods"]["combined"]["label"] == "NPE and image flow"
    assert Samples.read(out / "chains" / "npe-and-field-flow").weights.sum() == 300
    there = read_json(out / "contest" / "npe-and-field-flow" / "combined.json")
    assert there["facts"]["images"] == 10
    assert not (out / "combined.json").exists()
    answers = {file: file.stat().st_mtime_ns for file in out.glob("contest/*/answers/*.h5")}
    capsys.readouterr()
    assert call("contest", path, "--out", out) == 0
    assert "ln p counts" not in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in out.glob("contest/*/answers/*.h5")} == answers


@pytest.mark.parametrize(
    ("image_flow", "methods", "said"),
    [
        ({"kind": "isotropic"}, ["npe-power", "combined"], 'kind = "diffusion", weighing = 10 or more'),
        ({"kind": "diffusion", "weighing": 0}, ["npe-power", "combined"], "weighing = 10 or more"),
        (
            {"kind": "diffusion"},
            ["ps-full", "combined"],
            '"combined" starts from one of npe-both, npe-image, npe-',
        ),
        ({"kind": "diffusion", "condition": ["slope"]}, ["npe-power", "combined"], '"combined" is of whole images'),
    ],
)
def test_what_it_needs(
    image_flow: dict[str, Any], methods: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, image_flow=image_flow, contest={"methods": methods, "truths": 20})
    assert call("contest", path, "--out", tmp_path / "run") == 2
    assert said in capsys.readouterr().err
