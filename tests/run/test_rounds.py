"""Later rounds: NPE-C's proposals hold for their observation alone, and failed simulations are said."""

from pathlib import Path

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.campaign import plans
from eorinfer.core.files import read_json
from eorinfer.cubes.observation import Observation
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from eorinfer.run.run import Run
from tests.runs import call, config

#: A user's simulator that fails in a third of the box.
FAILING = """
import numpy as np
from simulators import GaussianField, SimulationError

class Failing(GaussianField):
    kind: str = "failing:Failing"

    @property
    def seconds_per_row(self) -> float:
        return 1e-3

    def simulate(self, theta, seed):
        if theta[1] > -1.0:
            raise SimulationError("the slope is too flat for this model")
        return super().simulate(theta, seed)
"""


def test_rounds_drawn_from_the_posterior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = config(tmp_path, inference={"proposal": "posterior", "atoms": 4, "predictive": 0}), tmp_path / "run"
    assert call("infer", path, "--out", out) == 0
    posterior = Posterior.load(out / "posterior")
    ours = Observation.read(out / "observation.h5", posterior.observable)
    assert posterior.regions == ()
    assert posterior.only_for == ours.digest
    first = Posterior.load(out / "rounds/01/posterior")
    assert first.only_for is None
    second = next(plan for plan in Bank.open(out / "bank").plans() if plan.number == 2)
    expected = first.sample(ours, 4000, 1)
    # Draws from the first posterior, which is not the prior.
    error = expected.std / np.sqrt(len(second))
    assert (np.abs(second.theta.mean(0) - expected.mean) < 4.5 * error).all()

    other = tmp_path / "other.h5"
    Observation.from_observable(posterior.observable, ours.values + 0.1).write(other)
    capsys.readouterr()
    arguments = ("infer", "--posterior", out / "posterior", "--observation", other, "--out", tmp_path / "again")
    assert call(*arguments) == 2
    error_line = capsys.readouterr().err
    assert "trained on draws from the posterior of another observation" in error_line
    assert "use the posterior of the first round" in error_line
    assert call("validate", path, "--out", out) == 2
    assert '[inference] proposal = "posterior" gives a posterior for one observation alone' in capsys.readouterr().err
    assert call("status", out) == 0
    said = capsys.readouterr().out
    assert "cannot be validated: [inference] proposal" in said
    assert "eorinfer validate" not in said, "it would be refused"


def test_fewer_simulations_than_planned_are_those_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign that was stopped has them anywhere in its plan; those at its front were simulated beside them."""
    monkeypatch.setattr(plans, "SHARD_ROWS", 8)
    bank, out = {"path": str(tmp_path / "bank")}, tmp_path / "run"
    every = config(tmp_path, "every.toml", inference={"rounds": [48], "predictive": 0}, bank=bank)
    assert call("simulate", every, "--out", tmp_path / "every") == 0
    there = Bank.open(tmp_path / "bank")
    (plan,) = there.plans()
    for shard in (0, 3):
        there.shard_path(plan, shard).unlink()
    few = config(tmp_path, "few.toml", inference={"rounds": [28], "predictive": 0}, bank=bank)
    capsys.readouterr()
    assert call("simulate", few, "--out", out, "--dry-run") == 0
    assert "0 of 28 simulations (the others are there)" in capsys.readouterr().out
    assert call("simulate", few, "--out", out) == 0
    assert "28 simulations in 1 round(s), all of them in the bank" in capsys.readouterr().out
    run = Run(load_config(few), out)
    rows = run.first_rows(run.observe())
    assert rows.seed.tolist() == plan.seed[[*range(8, 24), *range(32, 44)]].tolist()
    # They stay the same when the others come.
    assert call("simulate", every, "--out", tmp_path / "every") == 0
    assert there.missing(plan) == []
    again = Run(load_config(few), out)
    assert again.first_rows(again.observe()).seed.tolist() == rows.seed.tolist()


def test_failed_simulations_are_left_out_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    path = config(
        tmp_path,
        simulator={"kind": "failing:Failing"},
        inference={"rounds": [60], "predictive": 0},
        executor={"failure_share": 0.9},
    )
    out = tmp_path / "run"
    assert call("infer", path, "--out", out) == 0
    counts = Bank.open(out / "bank").rows().counts()
    text = capsys.readouterr().out
    assert f"{counts['failed']} failed simulations are left out" in text
    assert "the posterior is conditional on a valid simulation" in text
    facts = read_json(out / "posterior" / "posterior.json")["facts"]
    assert facts["left_out"] == {"failed": counts["failed"]}
    assert facts["training_rows"] + facts["validation_rows"] == counts["ok"]
    assert facts["conditional_on"] == "a valid simulation"


def test_a_round_whose_truncation_no_longer_falls_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds, out = {"rounds": [48, 24, 24], "predictive": 0}, tmp_path / "run"
    path = config(tmp_path, inference=rounds | {"stop_at": 1e-6})
    for _ in range(2):
        assert call("infer", path, "--out", out) == 0
        assert "round 3 and later ones are left out: the truncated prior has" in capsys.readouterr().out
        assert not (out / "rounds/03").exists()
        assert call("status", out) == 0
        assert "rounds: 2 of 3 trained (the others are left out by [inference] stop_at)" in capsys.readouterr().out
    assert Posterior.load(out / "posterior").facts["round"] == 2
    second = (out / "rounds/02/posterior/weights.safetensors").read_bytes()
    assert sum(Bank.open(out / "bank").rows().counts().values()) == 72
    assert call("infer", config(tmp_path, inference=rounds | {"stop_at": 1.0}), "--out", out) == 0
    assert "later ones are left out" not in capsys.readouterr().out
    assert call("status", out) == 0
    assert "rounds: 3 of 3 trained\n" in capsys.readouterr().out
    assert Posterior.load(out / "posterior").facts["round"] == 3
    assert (out / "rounds/02/posterior/weights.safetensors").read_bytes() == second
    volumes = [read_json(out / f"rounds/0{number}/round.json")["volume"] for number in (1, 2, 3)]
    assert volumes[0] == 1
    assert volumes[2] <= volumes[1] <= 1
