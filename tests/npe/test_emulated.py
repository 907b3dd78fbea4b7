"""Rows of an emulator: their mean and their scatter are those of the simulations, and folds are of realisations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eorinfer.core.prior import Prior
from eorinfer.npe import emulated
from eorinfer.npe.emulated import FOLDS, MeanEmulator, MovableCubes, emulated_rows, fitted_emulator
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.data import Tensors
from simulators import Observable, Parameter, Symmetry

PRIOR = Prior((Parameter("a", "a", -2.0, 2.0, 0.0), Parameter("b", "b", 0.0, 1.0, 0.5)))
ROWS = 300
NONE = Symmetry(periodic=(False,), rotations="none")


class Network:
    @staticmethod
    def to_box(theta: torch.Tensor) -> torch.Tensor:
        return (theta - torch.tensor([0.0, 0.5])) * torch.tensor([0.5, 2.0]) * 3**0.5


class Simulations:
    """exp(mean(theta) + scatter), of three elements and one channel; or the exponent itself."""

    slow = False

    def __init__(self, positive: bool) -> None:
        rng = np.random.default_rng(1)
        self.theta = torch.from_numpy(PRIOR.sample(ROWS, np.random.default_rng(7)))
        shared = rng.standard_normal((ROWS, 1)) * 0.3 + 0.05 * rng.standard_normal((ROWS, 3))
        seen = mean(self.theta) + torch.from_numpy(shared)
        self.vectors = (seen.exp() if positive else seen).float()[:, None]

    def __len__(self) -> int:
        return ROWS

    def __getitems__(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.theta[rows], self.vectors[rows]


def mean(theta: torch.Tensor) -> torch.Tensor:
    a, b = theta.double().T
    return torch.stack([a, a * b + 3, torch.sin(a) - b], dim=1)


@pytest.mark.job
@pytest.mark.parametrize("positive", [True, False])
def test_rows_have_the_mean_and_the_scatter_of_the_simulations(
    positive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulated, "FORMS", tuple(replace(form, steps=300) for form in emulated.FORMS))
    simulations: Any = Simulations(positive)
    network: Any = Network()
    made = emulated_rows(
        simulations,
        np.arange(ROWS, dtype=np.uint64),
        np.ones(ROWS, bool),
        Observable("x", (1, 3), "", ("channel", "element"), (1.0,), (0.0,), NONE),
        network,
        PRIOR.sample,
        4000,
        folder=tmp_path,
        seed=1,
        title="emulator",
    )
    theta, vectors = made.__getitems__(list(range(4000)))
    assert vectors.shape == (4000, 1, 3)
    assert PRIOR.contains(theta.numpy()).all()
    assert not set(theta[:, 0].tolist()) & set(simulations.theta[:, 0].tolist()), "theta are new"
    seen = (vectors.log() if positive else vectors)[:, 0].double()
    left = seen - mean(theta)
    # Without the emulator they would scatter by 1.1; the simulations do by 0.3, together in all elements.
    assert left.mean(0).abs().max() < 0.06
    assert ((left.std(0) > 0.28) & (left.std(0) < 0.38)).all()
    assert np.corrcoef(left.T.numpy()).min() > 0.85


def test_a_moved_cube_has_the_spectrum_that_is_wanted_and_keeps_its_phases() -> None:
    cubes = torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    cubes[3] = 0
    observable = Observable("x", (2, 8, 8), "", ("channel", "x", "y"), (2.0, 2.0), (0.0, 1.0), NONE)
    of = MovableCubes(Tensors(cubes, cubes), observable)
    before = of.numbers
    shift = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    moved = of.moved(cubes, shift)
    full = [0, 1, 2, 4]
    after = MovableCubes(Tensors(moved, moved), observable).numbers
    torch.testing.assert_close(after[full], (before + shift)[full], rtol=1e-4, atol=1e-4)
    a, b = torch.fft.rfftn(cubes[full], dim=(2, 3)), torch.fft.rfftn(moved[full], dim=(2, 3))
    torch.testing.assert_close(b / b.abs(), a / a.abs(), rtol=1e-3, atol=1e-3)
    assert not moved[3].any(), "an empty cube stays empty"
    assert torch.isfinite(before).all()


def test_chunks_of_a_light_cone_are_moved_each_by_its_own_spectrum() -> None:
    cubes = torch.randn(4, 1, 4, 4, 13, generator=torch.Generator().manual_seed(1))
    redshifts = tuple(8 + 0.05 * i for i in range(13))
    cone = Observable("x", (1, 4, 4, 13), "", ("channel", "x", "y", "z"), (2.0,) * 3, (0.0,), NONE, redshifts)
    of = MovableCubes(Tensors(cubes, cubes), cone, chunks=3)
    shift = torch.zeros_like(of.numbers).unflatten(1, (3, -1))
    shift[:, 1] = 2.0
    moved = of.moved(cubes, shift.flatten(1))
    torch.testing.assert_close(moved[..., 4:8], cubes[..., 4:8] * np.e)
    for same in (slice(0, 4), slice(8, 13)):  # the last slice is in no chunk
        torch.testing.assert_close(moved[..., same], cubes[..., same])


def test_a_row_is_new_to_the_network_of_its_fold() -> None:
    torch.manual_seed(1)
    emulator = MeanEmulator(torch.rand(50, 3) + 1, 2, emulated.FORMS[0])
    batch = torch.randn(10, 2), torch.randn(10, 3), torch.full((10,), 2)
    generator = torch.Generator().manual_seed(1)
    emulator.train()
    emulator.losses(batch, generator).sum().backward()
    learns = [bool(emulator.linear.weight.grad[fold].any()) for fold in range(FOLDS)]  # type: ignore[index]
    assert learns == [True, True, False, True, True]
    emulator.zero_grad()
    emulator.eval()
    emulator.losses(batch, generator).sum().backward()
    learns = [bool(emulator.linear.weight.grad[fold].any()) for fold in range(FOLDS)]  # type: ignore[index]
    assert learns == [False, False, True, False, False], "validation is by the network that did not see it"


def test_validation_is_of_means_whatever_scatter_was_learned() -> None:
    """Else weights of the middle of a fit are kept, where the scatter is not yet that of rows learned by heart."""
    torch.manual_seed(1)
    emulator = MeanEmulator(torch.rand(50, 3) + 1, 2, emulated.FORMS[0])
    v, numbers, fold = torch.randn(10, 2), torch.randn(10, 3), torch.arange(10) % FOLDS
    emulator.eval()
    with torch.no_grad():
        emulator.log_scatter.fill_(-9.0)
        losses = emulator.losses((v, numbers, fold), torch.Generator())
        torch.testing.assert_close(losses, (numbers - emulator.of_folds(v, fold)).abs().mean(1))


def steep(v: torch.Tensor) -> torch.Tensor:
    """Four numbers that change by up to e^6 where a sum of the five parameters passes a threshold."""
    a = torch.sigmoid(v @ torch.tensor([4.0, 2.5, 1.5, -1.0, 0.5]))
    b = torch.sigmoid(v @ torch.tensor([0.8, -2.4, 2.0, 1.6, -1.2]) - 2 * a)
    return torch.stack([-6 * a + b, 2 * a * b - 3 * b, a - 4 * a * b**2, torch.log(0.02 + (a - b) ** 2)], dim=1)


@pytest.mark.job
def test_numbers_that_are_steep_in_sums_of_parameters_are_learned_from_few_simulations(tmp_path: Path) -> None:
    """Ionisation ends where a product of parameters is large enough; two wide layers were off by 0.11 here."""
    generator = torch.Generator().manual_seed(1)
    v = 3**0.5 * (2 * torch.rand(1400, 5, generator=generator) - 1)
    numbers = steep(v) + 0.05 * torch.randn(1400, 4, generator=generator)
    form = replace(emulated.FORMS[1], steps=1500)
    emulator = fitted_emulator(form, v[:400], numbers[:400], torch.arange(400) % FOLDS, tmp_path, 1)
    with torch.no_grad():
        left = emulator(v[400:]).mean(0) * emulator.spread + emulator.centre - steep(v[400:])
    assert left.square().mean().sqrt() < 0.06
    assert numbers.std(0).mean() > 1.4


@pytest.mark.job
@pytest.mark.parametrize("kind", ["smooth", "steep"])
def test_the_form_that_fits_is_known_by_rows_that_were_not_seen(kind: str, tmp_path: Path) -> None:
    """Where noise hides what a few layers leave, more layers only learn it."""
    generator = torch.Generator().manual_seed(1)
    v = 3**0.5 * (2 * torch.rand(300, 5, generator=generator) - 1)
    mean, noise = (steep(v), 0.05) if kind == "steep" else (v @ torch.randn(5, 4, generator=generator), 1.0)
    numbers, fold = mean + noise * torch.randn(300, 4, generator=generator), torch.arange(300) % FOLDS
    forms = [replace(form, steps=600) for form in emulated.FORMS]
    tried = [fitted_emulator(form, v, numbers, fold, tmp_path / form.name, 1) for form in forms]
    best = min(range(2), key=lambda i: tried[i].error(v, numbers, fold))
    assert forms[best].name == kind


def test_older_settings_have_no_such_key() -> None:
    assert "emulate" not in TrainingSettings().model_dump()
    assert TrainingSettings(emulate="never").model_dump()["emulate"] == "never"


def test_no_more_rows_are_made_than_a_training_sees() -> None:
    assert emulated.row_count(TrainingSettings(steps=10, batch_size=64)) == 640
    assert emulated.row_count(TrainingSettings(steps=9000, batch_size=256)) == emulated.ROWS
