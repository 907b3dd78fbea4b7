"""The diffusion: a Gaussian field before training, and the right density for a denoiser that is known."""

import copy
import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import LEVELS, DiffusionFlow
from eorinfer.imageflow.interpolated import InterpolatedLikelihood
from simulators import GaussianField

LOW, HIGH = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])
NOISE = 0.4
SIMULATOR = GaussianField(cells=6, box_length=6.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-1.0, 1.0), "slope": (2.0, 5.0)})


def conditions(n: int, seed: int = 3) -> Tensor:
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return LOW + u * (HIGH - LOW)


def correlated(n: int, shape: tuple[int, ...]) -> Tensor:
    white = torch.randn(n, *shape, generator=torch.Generator().manual_seed(2))
    return 3 * (white + white.roll(1, dims=-1)) + 2


@cache
def _untrained(shape: tuple[int, ...], n: int) -> DiffusionFlow:
    torch.manual_seed(0)
    flow = DiffusionFlow(shape, (1.0,) * (len(shape) - 1), LOW, HIGH, width=16, k_knots=6, hidden=(8,))
    flow.set_noise(NOISE)
    flow.fit_start(correlated(n, shape) + conditions(n)[:, 0].float().view(-1, *(1,) * len(shape)), conditions(n))
    return flow


def untrained(shape: tuple[int, ...], n: int = 300) -> DiffusionFlow:
    return copy.deepcopy(_untrained(shape, n))


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 4, 6), (1, 4, 4, 6)])
@torch.no_grad()
def test_untrained_it_is_the_gaussian_field(shape: tuple[int, ...]) -> None:
    flow = untrained(shape)
    x, y = correlated(3, shape), conditions(3)
    mean, power = flow.gauss(flow.unit(y, torch.float32))
    logs, size = flow.log_prob(x, y), math.prod(shape)
    assert flow.log_prob_scales(x, y)[:, 1:].abs().max() == 0
    # The covariance in cells, column by column, as the answer of each cell's unit vector.
    unit = torch.eye(size).view(size, *shape)
    for i in range(3):
        covariance = NOISE**2 * flow.gauss.back((1 + power[i]) * flow.gauss.fourier(unit)).reshape(size, size).double()
        middle = (NOISE * mean[i]).expand(shape).flatten()
        exact = multivariate_normal(middle.numpy(), (covariance + covariance.T).numpy() / 2).logpdf(x[i].flatten())
        assert logs[i].item() == pytest.approx(exact, abs=2e-3)
    z = torch.randn(3, *shape, generator=torch.Generator().manual_seed(5))
    made = flow.inverse(z, y)
    expected = NOISE * (mean + flow.gauss.back((1 + power).sqrt() * flow.gauss.fourier(z)))
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-4)
    back, log_det = flow(x, y)
    assert torch.allclose(flow.inverse(back, y), x, atol=1e-3)
    assert torch.allclose(flow.log_prob_by_flow(x, y), logs, atol=1e-2)
    assert log_det.dtype == torch.float64


@torch.no_grad()
def test_the_start_has_the_power_and_the_mean_of_the_maps() -> None:
    shape = (1, 8, 8)
    flow = untrained(shape, 1000)
    y = conditions(2000, seed=8)
    made = flow.sample(y, torch.Generator().manual_seed(1))
    real = correlated(2000, shape) + y[:, 0].float().view(-1, 1, 1, 1)
    real = real + NOISE * torch.randn(real.shape, generator=torch.Generator().manual_seed(9))
    mine, theirs = (torch.fft.rfft2(x - x.mean((2, 3), keepdim=True)).abs().square().mean((0, 1)) for x in (made, real))
    # Isotropic: shells of the maps, which are not.
    k = torch.hypot(torch.fft.fftfreq(8)[:, None], torch.fft.rfftfreq(8)[None])
    for low, high in ((0.1, 0.2), (0.2, 0.35), (0.35, 0.8)):
        inside = (k >= low) & (k < high)
        weight = flow.gauss.count[inside]
        assert (mine[inside] * weight).sum() == pytest.approx(float((theirs[inside] * weight).sum()), rel=0.12)
    for sign in (-1, 1):
        some = sign * y[:, 0] > 0.5
        assert made[some].mean() == pytest.approx(float(real[some].mean()), abs=0.3)


class TwoValued(nn.Module):
    """The best denoiser of cells that are +a or -a, as what the network of a flow has to give."""

    def __init__(self, flow: DiffusionFlow, a: float) -> None:
        super().__init__()
        self._gauss, self._a = flow.gauss, a / NOISE

    def forward(self, inputs: Tensor, log_sigma: Tensor, u: Tensor, of_map: Tensor) -> Tensor:
        sigma = log_sigma.exp().view(-1, 1, 1, 1)
        _, power = self._gauss(u)
        gain = power / (power + sigma**2)
        estimate = inputs[:, :1] * self._gauss.unit
        x = estimate + sigma * inputs[:, 1:]
        error = sigma * (gain * self._gauss.count.to(gain)).flatten(1).sum(1).div(x[0].numel()).sqrt().view(-1, 1, 1, 1)
        return (self._a * torch.tanh(self._a * x / sigma**2) - estimate) / error


@torch.no_grad()
def test_a_known_denoiser_gives_the_exact_density(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, a = (1, 4, 4), 1.0
    flow = untrained(shape)
    sign = torch.randint(0, 2, (400, *shape), generator=torch.Generator().manual_seed(4)) * 2.0 - 1
    flow.fit_start(a * sign, conditions(400))
    monkeypatch.setattr(flow, "network", TwoValued(flow, a))
    x = a * sign[:50] + NOISE * torch.randn(50, *shape, generator=torch.Generator().manual_seed(6))
    y, v = conditions(50), x.double()
    exact = torch.logsumexp(torch.stack([-0.5 * ((v - s * a) / NOISE) ** 2 for s in (-1, 1)]), 0) - math.log(2)
    exact = (exact - math.log(NOISE) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    gauss = flow.log_prob_gauss(x, y)
    assert (exact - gauss).mean() > 3, "else a Gaussian field would pass"
    by_flow = flow.log_prob_by_flow(x, y)
    assert (by_flow - exact).abs().max() < 0.4
    by_levels = flow.log_prob(x, y)
    assert (by_levels - exact).square().mean().sqrt() < 1.0
    assert abs((by_levels - exact).mean()) < 0.5
    made = flow.sample(conditions(200), torch.Generator().manual_seed(1))
    assert (made.abs() - a).square().mean() == pytest.approx(NOISE**2, rel=0.15), "one of the two, and noise"


@torch.no_grad()
def test_differences_of_the_density_have_little_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    # The denoiser does not know y, so that ln p is the same for all y, whatever the Gaussian field says.
    shape, a = (1, 8, 8), 1.0
    flow = untrained(shape)
    sign = torch.randint(0, 2, (400, *shape), generator=torch.Generator().manual_seed(4)) * 2.0 - 1
    flow.fit_start(a * sign, conditions(400))
    flow.gauss.conditioner.linear.weight.add_(torch.tensor([0.4, 0.0]))
    monkeypatch.setattr(flow, "network", TwoValued(flow, a))
    x = a * sign[:60] + NOISE * torch.randn(60, *shape, generator=torch.Generator().manual_seed(6))
    left, right = torch.tensor([-0.5, 3.0]).double().expand(60, 2), torch.tensor([0.5, 3.0]).double().expand(60, 2)
    gauss = flow.log_prob_gauss(x, left) - flow.log_prob_gauss(x, right)
    assert gauss.square().mean().sqrt() > 2, "else there would be nothing to correct"
    for levels in (8, 12, 16, LEVELS):
        added = [flow.log_prob_levels(x, y, levels)[1] - flow.excess_levels(y, levels) for y in (left, right)]
        apart = gauss + (added[0] - added[1]).sum(1)
        assert apart.square().mean().sqrt() < 0.6
        assert abs(apart.mean()) < 0.06, "the noise is the same for all x"


@torch.no_grad()
def test_the_interpolated_likelihood_is_the_direct_one() -> None:
    flow = untrained((1, 6, 6))
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    x = correlated(1, (1, 6, 6))
    found = InterpolatedLikelihood(flow, x, PRIOR)
    y = np.random.default_rng(1).uniform(LOW, HIGH, (40, 2))
    direct = flow.log_prob(x.expand(40, -1, -1, -1), torch.from_numpy(y)).numpy()
    near = direct > direct.max() - 6
    gauss = flow.log_prob_gauss(x.expand(40, -1, -1, -1), torch.from_numpy(y)).numpy()
    assert (direct - gauss)[near].std() > 0.2, "else the network would not count"
    assert (found(y) - direct)[near].std() < 0.2 * (direct - gauss)[near].std()
    assert 0 < found.error < 5
    assert flow.log_prob_levels(x, conditions(1))[1].shape == (1, LEVELS)


def mixture(n: int, side: int, seed: int) -> Tensor:
    """Maps (n, 1, side, side) of a steep spectrum, each with an amplitude of its own that scatters by 0.6 in ln."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]) * side
    root = torch.where(k > 0, 40**0.5 / k.clamp_min(1), torch.zeros(()))
    white = torch.fft.rfft2(torch.randn(n, 1, side, side, generator=generator), norm="ortho")
    amplitude = torch.exp(0.6 * torch.randn(n, 1, 1, 1, generator=generator))
    return amplitude * torch.fft.irfft2(root * white, s=(side, side), norm="ortho")


def log_shells(x: Tensor) -> Tensor:
    """Compute ln P (n, 4) of maps (n, 1, 16, 16) in four shells."""
    power = torch.fft.rfft2(x, norm="ortho").abs().square()[:, 0]
    k = torch.hypot(torch.fft.fftfreq(16)[:, None], torch.fft.rfftfreq(16)[None]) * 16
    edges = (0.5, 1.5, 3.0, 5.5, 9.0)
    shells = [power[:, (k > low) & (k <= high)].mean(1).log() for low, high in itertools.pairwise(edges)]
    return torch.stack(shells, 1)


def test_power_scatters_from_map_to_map_as_it_should() -> None:
    torch.manual_seed(0)
    flow = DiffusionFlow((1, 16, 16), (1.0, 1.0), LOW, HIGH, width=16, k_knots=6, hidden=(8,))
    flow.set_noise(0.5)
    s, y = mixture(2000, 16, 1), conditions(2000)
    flow.fit_start(s, y)
    seen = s + 0.5 * torch.randn(s.shape, generator=torch.Generator().manual_seed(4))
    real = log_shells(seen).std(0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        gauss = log_shells(flow.sample(y[:400], generator)).std(0) / real
    assert (gauss < 0.72).all(), "else a Gaussian field would pass"
    flow.fit_map_power(s, y)
    with torch.no_grad():
        made = log_shells(flow.sample(y[:400], generator)).std(0) / real
    assert ((made > 0.8) & (made < 1.1)).all(), made


def test_far_from_the_conditions_of_few_maps_it_stays_finite() -> None:
    """Ln P rises or falls without end there; e^89 was infinite, and nan where modes are not measured."""
    flow = untrained((1, 8, 8))
    flow.gauss.template[..., 0, 0] = 0.0
    for slope in (1e3, -1e3):
        flow.gauss.conditioner.start_at(
            torch.zeros(flow.gauss.conditioner.linear.out_features),
            torch.full((flow.gauss.conditioner.linear.out_features, 2), slope),
        )
        y = conditions(6)
        x = correlated(6, (1, 8, 8))
        generator = torch.Generator().manual_seed(1)
        assert torch.isfinite(flow.losses(x, y, generator)).all()
        assert torch.isfinite(flow.log_prob_scales(x, y)).all()


def test_the_loss_of_an_untrained_network_is_one() -> None:
    flow: Any = untrained((1, 8, 8), 1000)
    s, y = correlated(1000, (1, 8, 8)) + conditions(1000)[:, 0].float().view(-1, 1, 1, 1), conditions(1000)
    losses = flow.losses(s, y, torch.Generator().manual_seed(1))
    assert losses.shape == (1000,)
    assert losses.mean().item() == pytest.approx(1, abs=0.1)
