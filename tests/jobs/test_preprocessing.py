"""A run whose networks see separated lines, as a user would start it: separate train, run, infer with the bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.bank.store import Bank
from eorinfer.core.files import read_json
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.emulator import Emulator
from eorinfer.npe.posterior import Posterior
from eorinfer.run.config import load_config
from eorinfer.separation.model import Separator
from eorinfer.summaries.power import build_power_spectrum
from tests.mocks import SLAB
from tests.runs import call, config, quick_emulator

SURVEY = {"kind": "spherex", "sigma": None}
SEEN = {"model": "sep/separator", "keep": "both", "estimate": "both", "power_spectrum": "lines"}
MAPS = {"cells": None} | SLAB | {"rows_per_realisation": 4}


def lim_config(folder: Path, name: str, **tables: Any) -> Path:
    tables = {
        "simulator": MAPS,
        "prior": None,
        "survey": SURVEY,
        "observation": {"theta": {"A_HA": 0.1, "A_OIII": 0.0}},
        "inference": {"rounds": [48]},
        "bank": {"path": "bank"},
    } | tables
    return config(folder, name, **tables)


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a separator, and a run behind it in the same bank."""
    folder = tmp_path_factory.mktemp("preprocessing")
    settings = {"simulations": 32, "steps": 6, "width": 4, "widest": 8, "batch_size": 8, "flow_steps": 2}
    first = lim_config(folder, "separate.toml", separation=settings)
    assert call("separate", "train", first, "--out", folder / "sep") == 0
    path = lim_config(folder, "run.toml", preprocessing=SEEN)
    with pytest.MonkeyPatch.context() as patch:
        quick_emulator(patch)
        assert call("run", path, "--out", folder / "run") == 0
    return folder


def test_the_posterior_carries_its_separator(separated: Path) -> None:
    posterior = Posterior.load(separated / "run/posterior")
    assert posterior.preprocessing is not None
    assert posterior.preprocessing.keep == "both"
    assert posterior.networks[0].embedding.scaling.mean.shape[0] == 5
    own, kept = (Separator.load(separated / path) for path in ("sep/separator", "run/posterior/preprocessing"))
    for name, value in own.state_dict().items():
        np.testing.assert_array_equal(value, kept.state_dict()[name], err_msg=f"{name}: training changed it")
    observation = Observation.read(separated / "run/observation.h5", load_config(separated / "run.toml").observable)
    there = posterior.sample(observation, 50, 1).values
    posterior.save(separated / "copy")
    np.testing.assert_array_equal(Posterior.load(separated / "copy").sample(observation, 50, 1).values, there)
    # The networks look at what the separator gives, not past it.
    blind = posterior.preprocessing.separator
    blind.target_scaling.softening.mul_(2)
    assert not np.allclose(posterior.sample(observation, 50, 1).values, there)


def test_the_likelihood_sees_spectra_of_lines_and_of_their_sum(separated: Path) -> None:
    config = load_config(separated / "run.toml")
    bins = len(build_power_spectrum(config.observable, config.tables.power_spectrum).k)
    assert Emulator.load(separated / "run/emulator").bins == 3 * bins


def test_an_observation_is_separated_when_the_posterior_is_used_again(separated: Path) -> None:
    out, observation = separated / "again", separated / "run/observation.h5"
    assert call("infer", "--posterior", separated / "run/posterior", "--observation", observation, "--out", out) == 0
    first, again = (read_json(separated / name / "summary.json")["posteriors"]["npe"] for name in ("run", "again"))
    assert again["parameters"]["A_HA"]["mean"] == pytest.approx(first["parameters"]["A_HA"]["mean"], abs=0.03)


def test_no_realisation_is_seen_by_both(separated: Path) -> None:
    """The run shares the bank, but not the rows that the separator learned from."""
    facts = Separator.load(separated / "sep/separator").spec.facts["seeds"]
    known = {*facts["training"], *facts["validation"]}
    posterior = Posterior.load(separated / "run/posterior")
    assert posterior.facts["training_rows"] + posterior.facts["validation_rows"] == 48
    bank = Bank.open(separated / "bank")
    seeds = {int(seed) for plan in bank.plans() if plan.number == 1 for seed in plan.seed}
    assert len(seeds) == 12
    assert not seeds & known


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"preprocessing": {"model": "nowhere"}}, "nowhere: no separator here (separator.json is missing)"),
        ({"preprocessing": {}}, "[preprocessing] model: is missing; for example"),
        ({"preprocessing": {"model": "sep/separator", "keap": "both"}}, 'keap: unknown key, did you mean "keep"?'),
        ({"preprocessing": {"model": "sep/separator", "keep": "all"}}, "keep: must be 'lines' or 'both'"),
        ({"simulator": MAPS | {"pixel": 0.9}}, "was trained on maps with cell_size (0.9"),
        (
            {"simulator": MAPS | {"pixels": 16}},
            "with shape (1, 32, 32), the simulator's have (1, 16, 16)",
        ),
    ],
)
def test_separators_that_do_not_fit(
    separated: Path, capsys: pytest.CaptureFixture[str], tables: dict[str, Any], said: str
) -> None:
    tables = {"preprocessing": {"model": "sep/separator"}, "bank": None} | tables
    path = lim_config(separated, "wrong.toml", **tables)
    assert call("run", path, "--out", separated / "wrong") == 2
    assert said in capsys.readouterr().err
    assert not (separated / "wrong/config.toml").exists()
