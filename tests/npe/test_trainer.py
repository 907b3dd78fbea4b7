"""A round's training: which rows it learns from, and which it only validates on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.npe import trainer
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.emulated import FORMS
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.region import Region
from eorinfer.npe.trainer import Trainer
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings, TrainingSettings
from eorinfer.settings.survey import WhiteNoise
from eorinfer.survey import build_survey
from simulators import GaussianField
from tests.banks import write


@pytest.mark.job
def test_each_network_holds_out_another_fold_of_realisations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, noise = GaussianField(cells=8), WhiteNoise(sigma=0.3)
    prior, observable = Prior(simulator.parameters), simulator.observables[0]
    bank = Bank.create(tmp_path / "bank", simulator)
    theta = prior.sample(41, np.random.default_rng(1))
    # Two rows of each realisation.
    plan = bank.add(Plan("01-abc", 1, prior.hash(), 64, theta, np.arange(41, dtype=np.uint64) // 2))
    write(bank, plan, 0, simulator)
    rows = bank.rows().ok
    sides: list[Any] = []
    fit = trainer.fit

    def watched(task: Any, training: Any, validation: Any, *arguments: Any, **named: Any) -> Any:
        sides.append([cubes.theta.numpy() for cubes in (training, validation)])
        return fit(task, training, validation, *arguments, **named)

    monkeypatch.setattr(trainer, "fit", watched)
    architecture = Architecture(
        EmbeddingSettings(width=4, bins=2), FlowSettings(transforms=1, hidden=(8,)), PowerSpectrumSettings(bins=3)
    )
    settings = TrainingSettings(steps=2, ensemble=5, validation_fraction=0.25)
    survey = build_survey(noise, observable)
    posterior = Trainer(prior, observable, noise, survey, architecture, settings).train(
        bank, rows, folder=tmp_path / "checkpoints", seed=1
    )
    seed = {tuple(t): int(s) for t, s in zip(rows.theta, rows.seed, strict=True)}
    assert len(sides) == 10, "with the truncated normal alone, then with a flow"
    for before, after in zip(sides[::2], sides[1::2], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    sides = sides[::2]
    for training, validation in sides:
        assert len(rows) == 40
        assert len(training) > len(validation) > 0
        assert not {seed[tuple(t)] for t in training} & {seed[tuple(t)] for t in validation}
    assert posterior.facts["training_rows"] == len(sides[0][0])
    held_by_first = 40 - len(sides[0][0])
    assert posterior.facts["validation_rows"] == held_by_first
    # Four folds hold out each row once, the fifth network the first fold again.
    assert np.array_equal(sides[4][1], sides[0][1])
    folds = Posterior.load(saved(posterior, tmp_path)).folds(rows.seed)
    assert np.array_equal(np.sum([held for _, held in folds], axis=0), np.ones(40))
    chose = 0
    for (one, held), (training, validation), network in zip(folds, sides, posterior.networks, strict=False):
        assert np.array_equal(rows.theta[~held], training)
        held_seeds, choosing = ({seed[tuple(t)] for t in part} for part in (rows.theta[held], validation))
        assert choosing <= held_seeds
        assert len(choosing) == -(-len(held_seeds) // 2), "half of the realisations choose, the others judge"
        chose += len(validation)
        weights, of_member = one.networks[0].state_dict(), network.state_dict()
        assert all(torch.equal(value, of_member[name]) for name, value in weights.items())
    assert posterior.facts["held_out"]["rows"] == 40 - chose
    older = replace(posterior, facts={})
    ((whole, held),) = older.folds(rows.seed, 0.25)
    assert whole is older
    assert len(rows.theta[held]) == held_by_first


@pytest.mark.job
def test_in_later_rounds_rows_inside_the_regions_choose_and_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that learn from emulated rows know nothing of others: judged by these, they lost every later round."""
    simulator, noise = GaussianField(cells=8), WhiteNoise(sigma=0.3)
    prior, observable = Prior(simulator.parameters), simulator.observables[0]
    bank = Bank.create(tmp_path / "bank", simulator)
    theta = prior.sample(60, np.random.default_rng(1))
    write(bank, bank.add(Plan("01-abc", 1, prior.hash(), 64, theta, np.arange(60, dtype=np.uint64))), 0, simulator)
    middle = (prior.low[0] + prior.high[0]) / 2

    class Half:
        def log_density(self, theta: NDArray[np.float64], observation: Observation) -> NDArray[np.float64]:
            return theta[:, 0] - middle

        def save(self, folder: Path) -> None:
            raise NotImplementedError

    chose, moved = [], []
    fit, emulated = trainer.fit, trainer.emulated_rows

    def watched_fit(task: Any, training: Any, validation: Any, *arguments: Any, **named: Any) -> Any:
        chose.append(validation.theta[:, 0].numpy())
        return fit(task, training, validation, *arguments, **named)

    def watched_rows(*arguments: Any, **named: Any) -> Any:
        rows = emulated(*arguments, **named)
        moved.append(arguments[0].theta[rows._old][:, 0].numpy())
        moved.append(rows._theta[:, 0].numpy())
        return rows

    monkeypatch.setattr(trainer, "fit", watched_fit)
    monkeypatch.setattr(trainer, "emulated_rows", watched_rows)
    monkeypatch.setattr("eorinfer.npe.emulated.FORMS", tuple(replace(form, steps=2) for form in FORMS))
    architecture = Architecture(
        EmbeddingSettings(convolution=False, power_spectrum=True),
        FlowSettings(transforms=1, hidden=(8,)),
        PowerSpectrumSettings(bins=3),
    )
    settings = TrainingSettings(steps=2, ensemble=2, validation_fraction=0.25, emulate="always")
    seen = Observation.from_observable(observable, simulator.simulate(theta[0], 99)[observable.name], theta[0], 99)
    Trainer(prior, observable, noise, build_survey(noise, observable), architecture, settings).train(
        bank, bank.rows().ok, folder=tmp_path / "checkpoints", seed=1, regions=(Region(Half(), seen, 0.0, prior),)
    )
    assert (theta[:, 0] < middle).sum() > 20
    assert len(chose) == 6
    assert len(moved) == 4
    assert all(len(part) and (part > middle).all() for part in chose + moved)


def saved(posterior: Posterior, folder: Path) -> Path:
    posterior.save(folder / "posterior")
    return folder / "posterior"
