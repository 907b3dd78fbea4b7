"""SKA-Low's cubes in units of their noise: white noise, kept modes, and a diffusion on them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import ImageFlow
from eorinfer.imageflow.whitening import Whitening, whitening_of
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.survey import SkaLow, WhiteNoise, build_survey
from simulators import GaussianField, Observable
from tests.imageflow.test_model import bank_of, trainer


class Coeval(GaussianField):
    """A Gaussian field as a coeval cube of brightness temperature."""

    @property
    def observables(self) -> tuple[Observable, ...]:
        (field,) = super().observables
        return (replace(field, unit="mK", axes=("redshift", "x", "y", "z"), channels=(8.0,)),)


SIMULATOR = Coeval(dimension=3, cells=12, box_length=240.0)
IMAGE = SIMULATOR.observables[0]
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (7.0, 10.0), "slope": (-2.5, -1.5)})


def clean(n: int) -> Tensor:
    theta = PRIOR.sample(n, np.random.default_rng(1))
    return torch.from_numpy(np.stack([SIMULATOR.simulate(t, i)["field"] for i, t in enumerate(theta)]))


def whitening(settings: SkaLow) -> tuple[Any, Whitening]:
    survey = build_survey(settings, IMAGE)
    made = whitening_of(survey)
    assert made is not None
    return survey, made


@pytest.mark.parametrize("wedge", [False, True])
def test_noise_is_white_and_what_is_not_measured_is_noise(wedge: bool) -> None:
    survey, made = whitening(SkaLow(wedge=wedge, wedge_angle=10.0, wedge_buffer=0.0, integration=300.0))
    generator = torch.Generator().manual_seed(1)
    noise = survey(torch.zeros(2000, *IMAGE.shape), generator)
    for kept in ((12, 12, 12), (8, 8, 4)):
        made.keep(kept)
        data = made.data(noise)
        assert data.shape == (2000, 1, *kept)
        modes = torch.fft.fftn(data, dim=(-3, -2, -1), norm="ortho").abs().square().mean(0)[0]
        inside = made.mask[0] > 0
        assert inside.any()
        assert not inside.all()
        torch.testing.assert_close(modes[inside].mean(), torch.tensor(1.0), rtol=0.02, atol=0)
        assert (modes[inside] - 1).abs().max() < 0.6
        # What is filled in is always the same: it tells nothing.
        rest = torch.fft.fftn(data, dim=(-3, -2, -1))[:, 0][:, ~inside]
        assert (rest - rest[:1]).abs().max() < 1e-3
    cubes = clean(3)
    seen = made.data(survey(cubes, torch.Generator().manual_seed(2)))
    alone = made.data(survey(torch.zeros_like(cubes), torch.Generator().manual_seed(2)))
    torch.testing.assert_close(seen - alone, made.signal(cubes), rtol=1e-3, atol=1e-3)


def test_back_to_cubes() -> None:
    survey, made = whitening(SkaLow(integration=300.0))
    observed = survey(clean(2), torch.Generator().manual_seed(2))
    white = torch.randn(2, *IMAGE.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(made.observed(made.data(observed), white), observed, rtol=1e-3, atol=1e-3)
    made.keep((8, 8, 4))
    again = made.data(made.observed(made.data(observed), white))
    torch.testing.assert_close(again, made.data(observed), rtol=1e-3, atol=1e-3)


def test_modes_with_signal_are_kept() -> None:
    _, made = whitening(SkaLow(integration=300.0))
    bright = made.enough(1e4 * clean(20))
    faint = made.enough(1e-4 * clean(20))
    assert bright == (12, 12, 12)
    assert faint == (4, 4, 4)


def test_other_noise_is_not_whitened() -> None:
    assert whitening_of(build_survey(WhiteNoise(sigma=1.0), IMAGE)) is None
    assert whitening_of(build_survey(SkaLow(taper="hann", integration=300.0), IMAGE)) is None


@pytest.mark.usefixtures("quick_diffusion")
@pytest.mark.job
def test_a_diffusion_of_ska_low(tmp_path: Path) -> None:
    bank, rows = bank_of(tmp_path / "bank", SIMULATOR, PRIOR, 60)
    settings = ImageFlowSettings(kind="diffusion", width=16, steps=6, hidden=(8,), k_knots=4)
    survey = SkaLow(integration=300.0)
    flow = trainer(settings, survey, SIMULATOR, PRIOR).train(bank, rows, folder=tmp_path / "fit", seed=1)
    assert isinstance(flow.network, DiffusionFlow)
    # In training a cube counts by its modes above the noise of its level, of which the first and last have none.
    power = flow.network.gauss.template * torch.tensor([1e-4, 1.0, 100.0, 100.0]).view(-1, 1, 1, 1, 1)
    worth = flow.network.worth(power, torch.tensor([1.0, 1.0, 1.0, 1e4]).view(-1, 1, 1, 1, 1)).tolist()
    assert sum(worth) == pytest.approx(4)
    assert max(worth[0], worth[3]) < 0.02 < 1 < worth[1] < worth[2]
    flow.save(tmp_path / "field")
    again = ImageFlow.load(tmp_path / "field")
    theta = np.array([[7.5, -2.0], [9.5, -2.0]])
    made = again.sample(theta.repeat(40, 0), seed=1)
    assert (made == flow.sample(theta.repeat(40, 0), seed=1)).all()
    real = np.concatenate(
        [
            build_survey(survey, IMAGE)(
                torch.from_numpy(np.stack([SIMULATOR.simulate(t, i)["field"] for i in range(40)])),
                torch.Generator().manual_seed(1),
            )
            for t in theta
        ]
    )
    for half in (slice(40), slice(40, None)):
        assert made[half].std() == pytest.approx(real[half].std(), rel=0.15)
    # The amplitude is found.
    right = 0
    for i in range(0, 80, 10):
        observation = Observation.from_observable(IMAGE, real[i])
        log_p = again.log_prob(observation, theta)
        right += int(np.argmax(log_p) == (i >= 40))
    assert right >= 7
