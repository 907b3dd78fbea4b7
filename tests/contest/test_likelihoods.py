"""The exact method on Gaussian fields with the spectra of 21cmEMU, whose likelihood is too slow for chains."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from scipy.special import logsumexp

pytest.importorskip("py21cmemu")

from eorinfer.contest.likelihoods import noise_power
from eorinfer.contest.method import ContestSetup, build_method
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.likelihood import spectrum_network
from eorinfer.likelihood.exact import emulated_log_likelihood, least_noise
from eorinfer.run.config import load_config
from eorinfer.run.run import Run
from eorinfer.settings.npe import TrainingSettings
from eorinfer.settings.survey import SkaLow
from eorinfer.survey import build_survey
from simulators.emulated import EmulatedField, log_k_nodes
from tests.runs import config

SIMULATOR = EmulatedField(cells=8, box_length=128.0, redshifts=(7.0,))
#: A part of the prior in which few spectra teach the network enough.
NARROW = {
    p.name: [max(p.low, p.fiducial - 0.1 * (p.high - p.low)), min(p.high, p.fiducial + 0.1 * (p.high - p.low))]
    for p in SIMULATOR.parameters
}
TABLES: dict[str, Any] = {
    "simulator": {"kind": "gaussian-21cmemu", "box_length": 128.0, "redshifts": [7.0]},
    "prior": None,
    "survey": {"kind": "white-noise", "sigma": 8.0},
    "observation": {"theta": {p.name: p.fiducial for p in SIMULATOR.parameters}},
    "inference": {"rounds": [40], "samples": 300, "predictive": 0},
    "mcmc": {"walkers": 20},
    "contest": {"methods": ["exact"], "reference": "exact", "sampled_truths": 20, "truths": 20, "samples": 300},
}


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContestSetup:
    monkeypatch.setattr(spectrum_network, "WIDTH", 48)
    monkeypatch.setattr(spectrum_network, "LAYERS", 1)
    monkeypatch.setattr(spectrum_network, "ROWS", 2048)
    monkeypatch.setattr(spectrum_network, "PIECE", 1024)
    monkeypatch.setattr(spectrum_network, "HELD_OUT", 256)
    fit = TrainingSettings(steps=200, epochs=1000, batch_size=512, learning_rate=2e-3, weight_decay=0.0)
    monkeypatch.setattr(spectrum_network, "FIT", fit)
    path = config(tmp_path, **TABLES)
    path.write_text(tomli_w.dumps(tomllib.loads(path.read_text()) | {"prior": NARROW}))
    run = Run(load_config(path), tmp_path / "run", Silent())
    rows = run.first_rows(run.observe())
    return ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))


def test_exact_posteriors_have_the_evidence_of_the_prior(setup: ContestSetup) -> None:
    """The density at the truth holds the evidence, which draws from the prior give too, where it is narrow."""
    method, prior = build_method(setup, "exact"), setup.context.config.prior
    simulator, survey = setup.context.config.simulator, setup.context.survey
    assert isinstance(simulator, EmulatedField)
    truths = prior.sample(2, np.random.default_rng(5))
    clean = [simulator.simulate(theta, 7)["brightness_temperature"] for theta in truths]
    observed = survey(torch.from_numpy(np.stack(clean)), torch.Generator().manual_seed(1))
    found = method.evaluate(observed, truths, 300, 3)
    assert found.good.all()
    draws = prior.sample(3000, np.random.default_rng(6))
    noise = noise_power(survey, simulator.observables[0])
    for i, (cube, theta) in enumerate(zip(observed.double().numpy(), truths, strict=True)):
        log_l = emulated_log_likelihood(simulator.power, simulator.box_length, noise, cube)
        value = log_l(draws)
        evidence = logsumexp(value) - np.log(len(value))
        assert np.exp(2 * logsumexp(value) - logsumexp(2 * value)) > 50, "the prior's draws can tell"
        assert found.at_truth[i] == pytest.approx(prior.log_density + log_l(theta[None])[0] - evidence, abs=0.4)
        shares = np.exp(value - logsumexp(value))
        mean, width = shares @ draws, np.sqrt(shares @ (draws - shares @ draws) ** 2)
        assert (np.abs(found.values[i].mean(0) - mean) / width).max() < 0.4
        assert width.min() < 0.9 * prior.std.max()
    kept = setup.folder("exact") / "spectra" / "spectra.json"
    before = kept.stat().st_mtime_ns
    assert build_method(setup, "exact").key == method.key
    assert kept.stat().st_mtime_ns == before, "spectra are learned once"


def test_the_likelihood_of_approximate_power_is_near_the_exact_one() -> None:
    """With the emulator's own spectra all that differs is that like modes are put together."""
    observable = SIMULATOR.observables[0]
    survey = build_survey(SkaLow(hours_per_day=1.0, integration=300.0), observable)
    noise, prior = noise_power(survey, observable), Prior(SIMULATOR.parameters)
    theta = prior.sample(200, np.random.default_rng(1))
    clean = torch.from_numpy(SIMULATOR.simulate(theta[0], 5)["brightness_temperature"][None])
    cube = survey(clean, torch.Generator().manual_seed(3))[0].double().numpy()

    exact, near = (
        emulated_log_likelihood(SIMULATOR.power, SIMULATOR.box_length, noise, cube, exact=exact)(theta)
        for exact in (True, False)
    )
    likely = exact > exact.max() - 20
    assert likely.sum() > 3
    assert np.ptp((near - exact)[likely]) < 1.0


def test_the_least_noise_is_that_of_the_modes_near_a_k() -> None:
    observable = SIMULATOR.observables[0]
    noise = noise_power(build_survey(SkaLow(hours_per_day=1.0, integration=300.0), observable), observable)
    log_k = log_k_nodes()
    least = least_noise(noise, SIMULATOR.box_length, log_k)
    assert least.shape == (1, len(log_k))
    assert np.isfinite(least).all()
    assert (np.diff(least[0]) >= 0).all(), "noise rises with k"
    white = np.full_like(noise, 3.0)
    assert least_noise(white, SIMULATOR.box_length, np.log([0.2]))[0, 0] < 3.0 * 0.2**3 / (2 * np.pi**2)
    assert (least_noise(np.zeros_like(noise), SIMULATOR.box_length, log_k) == 0).all()
