"""Rows whose summaries are computed once: they are those of observed cubes, and a training takes all their draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eorinfer.bank.rows import Plan
from eorinfer.bank.store import Bank
from eorinfer.core.prior import Prior
from eorinfer.npe import summarised
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.summarised import SummarisedTask, draws_of, summarised_rows
from eorinfer.npe.task import PosteriorTask
from eorinfer.npe.trainer import Trainer
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import VECTOR_BATCH, EmbeddingSettings, FlowSettings, TrainingSettings
from eorinfer.settings.survey import WhiteNoise
from eorinfer.survey import build_survey
from eorinfer.training.data import Tensors
from simulators import GaussianField
from tests.banks import write

FIELD = GaussianField(cells=8)
IMAGE, PRIOR = FIELD.observables[0], Prior(FIELD.parameters)
POWER = EmbeddingSettings(convolution=False, bins=3)


def task_of(sigma: float, embedding: EmbeddingSettings = POWER, atoms: int | None = None) -> PosteriorTask:
    torch.manual_seed(0)
    network = Architecture(embedding, FlowSettings(kind="none"), PowerSpectrumSettings()).build(PRIOR, IMAGE)
    survey = build_survey(WhiteNoise(sigma=sigma), IMAGE)
    task = PosteriorTask(network, survey, IMAGE.symmetry, atoms, None, PRIOR)
    network.embedding.fit_scaling(task.observe(rows(50).tensors[1], torch.Generator().manual_seed(0)))
    return task


class Named(Tensors):
    """Rows that know their names."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__(*tensors)
        self.tensors = tensors

    def row_names(self, indices: list[int]) -> list[str]:
        return [f"box {i}" for i in indices]


def rows(n: int) -> Named:
    theta = PRIOR.sample(n, np.random.default_rng(1))
    cubes = np.stack([FIELD.simulate(t, seed)[IMAGE.name] for seed, t in enumerate(theta)])
    return Named(torch.from_numpy(theta), torch.from_numpy(cubes))


@pytest.mark.parametrize("atoms", [None, 3])
def test_losses_are_those_of_observed_cubes(atoms: int | None, tmp_path: Path) -> None:
    task, some = task_of(1e-6, atoms=atoms), rows(70)
    made = summarised_rows(task, some, 2, file=tmp_path / "a" / "rows.safetensors", seed=1, title="")
    learner = SummarisedTask(task.network, task.survey, task.symmetry, atoms, None, PRIOR)
    every = list(range(70))
    theta, summaries = made.__getitems__(every)
    assert summaries.shape == (70, 2, 3)
    losses = [
        one.losses(batch, torch.Generator().manual_seed(2))
        for one, batch in ((task, some.__getitems__(every)), (learner, (theta, summaries)))
    ]
    if atoms is None:  # the atoms are drawn from what the generator gives next
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    assert losses[1].isfinite().all()
    assert made.row_names([4, 2]) == ["box 4", "box 2"]


def test_draws_of_noise_differ_and_are_all_used(tmp_path: Path) -> None:
    task, some = task_of(1.0), rows(5)
    made = summarised_rows(task, some, 3, file=tmp_path / "rows.safetensors", seed=1, title="")
    values = made.summaries
    assert not torch.allclose(values[:, 0], values[:, 1], rtol=1e-2)
    learner = SummarisedTask(task.network, task.survey, task.symmetry)
    found = {tuple(learner.features(values[:1], torch.Generator().manual_seed(seed))[0].tolist()) for seed in range(30)}
    assert found == {tuple(task.network.embedding.of_summaries(values[0, i][None])[0].tolist()) for i in range(3)}


def test_a_training_goes_on_with_the_same_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, some, file = task_of(1.0), rows(5), tmp_path / "rows.safetensors"
    first = summarised_rows(task, some, 3, file=file, seed=1, title="")
    seen: list[Any] = []
    observe = PosteriorTask.observe
    monkeypatch.setattr(PosteriorTask, "observe", lambda *arguments: seen.append(1) or observe(*arguments))
    kept = summarised_rows(task, some, 3, file=file, seed=1, title="")
    assert not seen
    assert torch.equal(kept.summaries, first.summaries)
    file.write_bytes(b"damaged")
    assert torch.equal(summarised_rows(task, some, 3, file=file, seed=1, title="").summaries, first.summaries)
    assert seen
    assert torch.equal(summarised_rows(task, some, 3, file=file, seed=1, title="").theta, first.theta)


def test_rows_are_observed_as_often_as_a_training_passes_over_them() -> None:
    assert draws_of(1000, 7) == 7
    assert draws_of(1000, 500) == 131
    assert draws_of(131_072, 18) == 1
    assert draws_of(200_000, 18) == 1


@pytest.mark.parametrize(
    ("settings", "alone"),
    [
        (POWER, True),
        (EmbeddingSettings(convolution=False, summaries=("power", "scattering"), bins=3), True),
        (EmbeddingSettings(bins=3, width=4), False),
    ],
)
def test_an_embedding_knows_whether_it_reads_summaries_alone(settings: EmbeddingSettings, alone: bool) -> None:
    assert task_of(1.0, settings).network.embedding.learns_from_summaries is alone


@pytest.mark.job
@pytest.mark.parametrize("emulate", ["never", "vectors"])
def test_networks_of_power_are_trained_on_summaries(
    emulate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.create(tmp_path / "bank", FIELD)
    theta = PRIOR.sample(40, np.random.default_rng(1))
    plan = bank.add(Plan("01-abc", 1, PRIOR.hash(), 64, theta, np.arange(40, dtype=np.uint64)))
    write(bank, plan, 0, FIELD)
    made: list[tuple[str, int, int]] = []
    once = summarised.summarised_rows

    def watched(task: Any, part: Any, draws: int, **named: Any) -> Any:
        made.append((named["file"].name, len(part), draws))
        return once(task, part, draws, **named)

    monkeypatch.setattr("eorinfer.npe.trainer.summarised_rows", watched)
    noise = WhiteNoise(sigma=0.3)
    settings = TrainingSettings(steps=6, batch_size=8, ensemble=1, emulate=emulate)  # type: ignore[arg-type]
    architecture = Architecture(POWER, FlowSettings(transforms=1, hidden=(8,)), PowerSpectrumSettings())
    trainer = Trainer(PRIOR, IMAGE, noise, build_survey(noise, IMAGE), architecture, settings)
    posterior = trainer.train(bank, bank.rows().ok, folder=tmp_path / "checkpoints", seed=1)
    training, chosen = made[0][1], made[1][1]
    assert training + chosen < 40, "half of the rows that are held out judge, and are not read here"
    both = [("simulations.safetensors", training, 2), ("held-out-rows.safetensors", chosen, 4)]
    emulated = [("emulated-rows.safetensors", 3 * 6 * VECTOR_BATCH, 1), both[1]]
    assert made == 2 * both + emulated * (emulate == "vectors")
    assert posterior.sample(bank.read(IMAGE.name, bank.rows().ok[:1])[0], 100, seed=1).values.shape == (100, 2)
