"""The quadratic through ln p of a diffusion: right near its posterior, and bounded where the two contradict."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eorinfer.combined.expansion import SPREAD, Expansion, bounded, expanded, monomials
from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import ImageFlow
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import WhiteNoise
from simulators import GaussianField

Array = NDArray[np.float64]
SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})
TRUTH = np.array([0.5, -1.5])
NOISE = 0.3


@pytest.fixture(scope="module")
def flow() -> ImageFlow:
    """A diffusion before its denoiser is trained, which is the Gaussian field that it was fitted to."""
    low, high = (torch.from_numpy(side) for side in (PRIOR.low, PRIOR.high))
    torch.manual_seed(0)
    network = DiffusionFlow((1, 8, 8), (1.0, 1.0), low, high, width=8, k_knots=6, hidden=(16,))
    network.set_noise(NOISE)
    theta = PRIOR.sample(600, np.random.default_rng(1))
    maps = np.stack([SIMULATOR.simulate(t, i)["field"] for i, t in enumerate(theta)])
    network.fit_start(torch.from_numpy(maps), torch.from_numpy(theta))
    settings = ImageFlowSettings(kind="diffusion", width=8)
    survey = WhiteNoise(kind="white-noise", sigma=NOISE)
    return ImageFlow(PRIOR, SIMULATOR.observables[0], survey, settings, network.eval(), 0.0)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    map_ = torch.from_numpy(SIMULATOR.simulate(TRUTH, 999)["field"])
    return (map_ + NOISE * torch.randn(map_.shape, generator=torch.Generator().manual_seed(1)))[None]


def draws(mean: Array, std: Array, n: int = 2000) -> Array:
    drawn = mean + std * np.random.default_rng(2).standard_normal((n, len(mean)))
    return drawn[PRIOR.contains(drawn)]


@torch.no_grad()
def test_it_is_ln_p_about_the_draws(flow: ImageFlow, image: torch.Tensor) -> None:
    drawn = draws(TRUTH, np.array([0.15, 0.1]))
    found = expanded(flow, image, drawn)
    some = drawn[:200]
    direct = flow.network.log_prob(image.expand(len(some), 1, 8, 8), torch.from_numpy(some)).numpy()
    off = (found(some) - direct) - (found(some) - direct).mean()
    assert direct.std() > 0.5
    assert off.std() < 0.1 * direct.std()
    assert found(found.mean[None])[0] == pytest.approx(0, abs=1e-9)


def test_points_beyond_the_prior_are_not_asked(flow: ImageFlow, image: torch.Tensor) -> None:
    asked: list[torch.Tensor] = []
    levels = flow.network.log_prob_levels
    assert isinstance(flow.network, DiffusionFlow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow.network, "log_prob_levels", lambda x, y: asked.append(y) or levels(x, y))
        expanded(flow, image, draws(PRIOR.low, np.array([0.8, 0.5])))
    assert PRIOR.contains(torch.cat(asked).numpy()).all()


def test_one_parameter() -> None:
    expansion = Expansion(np.array([1.0]), np.array([[2.0]]), np.array([3.0, -0.5]))
    assert monomials(np.array([[2.0]])).tolist() == [[2.0, 4.0]]
    assert expansion(np.array([[5.0]]))[0] == pytest.approx(3 * 2 - 0.5 * 4)


def test_what_contradicts_by_hundreds_of_nats_is_bounded_and_the_rest_is_not() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((4000, 2))
    mild = Expansion(np.zeros(2), np.eye(2), np.array([3.0, 0.0, 0.0, 0.0, 0.0]))
    wild = Expansion(np.zeros(2), np.eye(2), np.array([900.0, 0.0, 0.0, 0.0, 0.0]))
    assert bounded(mild, drawn)(drawn).std() == pytest.approx(3, rel=0.03)
    assert bounded(wild, drawn)(drawn).std() == pytest.approx(SPREAD, rel=0.01)
