"""A round's training: which rows it learns from, and which it only validates on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.prior import Prior
from eorinfer.npe import trainer
from eorinfer.npe.posterior import Architecture
from eorinfer.npe.trainer import Trainer
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings, TrainingSettings
from eorinfer.settings.survey import WhiteNoise
from eorinfer.survey import build_survey
from simulators import GaussianField
from tests.banks import write


def test_no_realisation_is_on_both_sides_and_most_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    settings = TrainingSettings(steps=2, ensemble=1, validation_fraction=0.25)
    survey = build_survey(noise, observable)
    posterior = Trainer(prior, observable, noise, survey, architecture, settings).train(
        bank, rows, folder=tmp_path / "checkpoints", seed=1
    )
    ((training, validation),) = sides
    assert len(training) + len(validation) == len(rows) == 40
    assert len(training) > 2 * len(validation) > 0
    seed = {tuple(t): int(s) for t, s in zip(rows.theta, rows.seed, strict=True)}
    assert not {seed[tuple(t)] for t in training} & {seed[tuple(t)] for t in validation}
    assert posterior.facts["training_rows"] == len(training)
    assert posterior.facts["validation_rows"] == len(validation)
