"""A run and a contest on several worlds, from the config to the page."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer import Run
from eorinfer.contest.contest import run_contest
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.progress import Silent
from eorinfer.npe.posterior import Posterior
from eorinfer.report.write import write_report
from eorinfer.run.config import check_config
from eorinfer.run.worlds import score_worlds

WORLDS = [{"name": "gaussian"}, {"name": "pivot", "pivot": 0.8}, {"name": "lognormal", "kind": "lognormal-field"}]
CONTENT: dict[str, Any] = {
    "simulator": {"kind": "gaussian-field", "cells": 16, "box_length": 16.0, "worlds": WORLDS},
    "prior": {"log_amplitude": [-2.0, 0.5], "slope": [-3.0, -1.0]},
    "survey": {"kind": "white-noise", "sigma": 0.3},
    "observation": {"theta": {"log_amplitude": -0.5, "slope": -2.0}, "world": "lognormal"},
    "inference": {"rounds": [150], "samples": 200, "predictive": 0, "targets": ["world"]},
    "embedding": {"convolution": False},
    "training": {"steps": 30, "ensemble": 1},
    "validation": {"truths": 20, "world_truths": 20, "references": 0, "samples": 100},
    "contest": {
        "methods": ["npe-power", "npe-one-world", "npe-aligned", "npe-error-model", "npe-hedged"],
        "reference": "npe-power",
        "baseline": "npe-power",
        "truths": 20,
        "samples": 100,
        "held_out_world": "lognormal",
        "worlds_view": "npe-power",
        "alignments": [1.0],
    },
    "executor": {"workers": 1},
}


def config(folder: Path, **tables: Any) -> Any:
    content = {**CONTENT, **{name: CONTENT.get(name, {}) | table for name, table in tables.items()}}
    return check_config(folder / "worlds.toml", content)


@pytest.mark.job
def test_a_contest_asks_about_a_world_that_nothing_was_trained_on(tmp_path: Path) -> None:
    run = Run(config(tmp_path), tmp_path / "run", Silent())
    content = run_contest(run)
    assert set(content["methods"]) == set(CONTENT["contest"]["methods"])
    assert (
        "All methods are trained on gaussian, pivot; truths are of lognormal, which none has seen." in content["notes"]
    )
    facts = {
        name: json.loads((tmp_path / "run" / "contest" / name / "posterior" / "posterior.json").read_text())["facts"]
        for name in ("npe-power", "npe-one-world", "npe-aligned-1")
    }
    seen = run.bank.rows()
    prior_rows = seen[seen.round == 1]
    assert facts["npe-power"]["simulations"] == int((prior_rows.world != 2).sum())
    assert facts["npe-one-world"]["simulations"] == int((prior_rows.world == 0).sum())
    truths = seen[seen.round == 0]
    assert set(truths.world.tolist()) == {2}
    assert not set(truths.seed.tolist()) & set(prior_rows.seed.tolist())

    # The run itself is trained on all three, and says what it does on each.
    run.infer()
    with suppress(WorkError):  # sixty steps need not calibrate it; its files are written all the same
        run.validate()
    scores = json.loads((tmp_path / "run" / "validation.json").read_text())["worlds"]
    assert [score["name"] for score in scores] == ["gaussian", "pivot", "lognormal"]
    assert all(score["trained"] and score["truths"] == 20 for score in scores)
    assert all(np.isfinite(score["gain"]) and "1" in score["warned"] for score in scores)
    odds = json.loads((tmp_path / "run" / "validation.json").read_text())["world_odds"]
    assert (odds["names"], odds["truths"]) == (["gaussian", "pivot", "lognormal"], 60)
    assert odds["log_score"] > odds["log_score_of_chance"], "a lognormal field is skew"
    of_observation = json.loads((tmp_path / "run" / "chains" / "npe.json").read_text())["world_odds"]
    assert sum(of_observation.values()) == pytest.approx(1)
    page = write_report(tmp_path / "run", say=lambda line: None).read_text()
    assert "Which simulation it was trained on" in page
    assert "The posterior was trained on 3 model(s), or worlds: gaussian (" in page
    assert "Which world the observation is of" not in page, "summary.json is not written yet"
    run.plot()
    page = write_report(tmp_path / "run", say=lambda line: None).read_text()
    assert "Which world the observation is of" in page
    assert f"{max(of_observation.values()):.1%}" in page
    assert "On 60 truths the likeliest world is the right one for" in page

    # A posterior of targets is scored on the same truths, by what they are there.
    tables = {"inference": {"targets": ["slope"]}, "bank": {"path": str(tmp_path / "run" / "bank")}}
    of_target = Run(config(tmp_path, **tables), tmp_path / "targets", Silent())
    of_target.infer()
    posterior = Posterior.load(tmp_path / "targets" / "posterior")
    for score in score_worlds(of_target.context, posterior, of_target.training_rows(of_target.observe())):
        assert list(score.rms) == ["slope"]
        assert score.truths + score.left_out == 20
        assert score.gain > 0, "nats over the prior that the simulations give"


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        (
            {"observation": {"world": "other"}},
            r'\[observation\] world: "other" is no world: one of gaussian, pivot, logn',
        ),
        ({"validation": {"worlds": ["other"]}}, r'\[validation\] worlds: "other" is no world'),
        ({"contest": {"held_out_world": "other"}}, r'\[contest\] held_out_world: "other" is no world'),
        ({"contest": {"further_world": "lognormal"}}, r"\[contest\] further_world: is the world held out"),
        (
            {"contest": {"error_strengths": [1.0, 2.0]}},
            r"\[contest\] further_world: error_strengths are compared on it",
        ),
        ({"contest": {"alignments": [1.0, 2.0]}}, r"\[contest\] further_world: alignments are compared on it"),
        (
            {"contest": {"alignments": [1.0, 2.0], "further_world": "pivot"}},
            r"\[contest\] alignments: to compare them takes three worlds to train on, there are 2",
        ),
        (
            {"simulator": {"worlds": WORLDS[:2]}, "observation": {"world": None}},
            'held_out_world: "lognormal" is no world',
        ),
        (
            {"simulator": {"worlds": [{}, {"cells": "many"}]}},
            r"\[simulator\] worlds\[1\]\.cells: must be a whole number",
        ),
    ],
)
def test_worlds_that_there_are_not_are_refused(tmp_path: Path, tables: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        config(tmp_path, **tables)
