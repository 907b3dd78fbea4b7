"""The flow by scales: its log-determinant is autograd's, its inverse is one, and its parts are what they say."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from eorinfer.imageflow.density import log_normal
from eorinfer.imageflow.detail import DetailNetwork
from eorinfer.imageflow.haar import corners, join, pyramid, split
from eorinfer.imageflow.mixture import components, from_normal, log_density, to_normal
from eorinfer.imageflow.multiscale import MultiscaleFlow

#: One and several scales and channels, a coarsest map of odd sides, an axis that is never halved, two and three
#: dimensions, and a map that cannot be halved at all.
SHAPES = [(1, 8, 4), (2, 4, 6), (1, 8, 3), (1, 8, 6, 8), (1, 5, 7)]


def flow(shape: tuple[int, ...]) -> MultiscaleFlow:
    """Every parameter away from where it starts."""
    torch.manual_seed(0)
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])
    sizes = (1.0,) * (len(shape) - 1)
    made = MultiscaleFlow(shape, sizes, low, high, width=16, depth=1, components=3, k_knots=3, hidden=(8,)).double()
    made.fit_start(maps(40, shape), conditions(40))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return made


def conditions(n: int) -> Tensor:
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.tensor([-1.0, 2.0]) + u * torch.tensor([2.0, 3.0])


def maps(n: int, shape: tuple[int, ...]) -> Tensor:
    """Skewed and correlated, with a mean and a unit of their own."""
    white = torch.randn(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 5 * (white + white.roll(1, dims=-1)).exp() + 3


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_log_determinant_is_that_of_autograds_jacobian(shape: tuple[int, ...]) -> None:
    made, x, y = flow(shape), maps(1, shape), conditions(1)
    jacobian = torch.autograd.functional.jacobian(lambda v: made(v.view(1, *shape), y)[0].flatten(), x.flatten())
    sign, expected = torch.linalg.slogdet(jacobian)
    assert sign == 1
    assert abs(float(expected)) > 1
    torch.testing.assert_close(made(x, y)[1][0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_inverse(shape: tuple[int, ...]) -> None:
    made, x, y = flow(shape), maps(4, shape), conditions(4)
    z, log_det = made(x, y)
    assert (z - x).abs().max() > 1
    assert (made.inverse(z, y) - x).abs().max() < 1e-10 * x.abs().max()
    scales = made.log_prob_scales(x, y)
    assert scales.shape == (4, 1 + len(made.steps))
    torch.testing.assert_close(scales.sum(-1), log_det + log_normal(z), rtol=1e-11, atol=0)
    torch.testing.assert_close(made.log_prob(x, y), scales.sum(-1), rtol=1e-13, atol=0)


@torch.no_grad()
def test_scales_are_those_of_the_coarser_maps() -> None:
    # ln p of the first scales is that of the map without its finest details, whatever these are.
    made, x, y = flow((1, 8, 4)), maps(3, (1, 8, 4)), conditions(3)
    axes = made.steps[0][0]
    coarse, details = split(x, axes)
    other = join(coarse, details.roll(1, 0), axes)
    mine, theirs = made.log_prob_scales(x, y), made.log_prob_scales(other, y)
    torch.testing.assert_close(mine[:, :-1], theirs[:, :-1], rtol=1e-12, atol=0)
    assert (mine[:, -1] - theirs[:, -1]).abs().min() > 1


@torch.no_grad()
def test_float32_loses_little() -> None:
    made, y = flow((1, 16, 16)), conditions(16)
    x = made.inverse(torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64), y)
    exact = made.log_prob(x, y)
    made.float()
    x = x.float()
    off = made.inverse(made(x, y)[0], y) - x
    assert off.square().mean().sqrt() < 1e-5 * x.std()
    assert (made.log_prob(x, y) - exact).abs().max() < 0.05


@torch.no_grad()
def test_samples_have_the_density() -> None:
    made, y = flow((1, 8, 8)).float(), conditions(1).expand(1000, 2)
    x = made.sample(y, torch.Generator().manual_seed(1))
    z, log_det = made(x, y)
    assert z.std() == pytest.approx(1, abs=0.015)
    surprise = -made.log_prob(x, y)
    entropy = 64 / 2 * math.log(2 * math.pi * math.e) - log_det.mean()
    assert surprise.mean().item() == pytest.approx(entropy.item(), abs=4 * surprise.std().item() / 1000**0.5)


def test_gradients_reach_every_parameter() -> None:
    made = flow((1, 8, 8)).float()
    x = maps(3, (1, 8, 8)).float().requires_grad_()
    made.log_prob(x, conditions(3)).sum().backward()  # type: ignore[no-untyped-call]
    for p in (x, *made.parameters()):
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.abs().max() > 0


def test_details_without_variance_are_refused() -> None:
    made = MultiscaleFlow((1, 8, 8), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    blocks = torch.randn(50, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    with pytest.raises(ValueError, match="details of scale 1 that never vary"):
        made.fit_start(blocks, torch.rand(50, 1))


def test_wavelets() -> None:
    x = torch.randn(3, 2, 8, 6, 4, dtype=torch.float64)
    for axes in ((0,), (1, 2), (0, 1, 2)):
        coarse, details = split(x, axes)
        assert details.shape[1] == 2 ** len(axes) - 1
        torch.testing.assert_close(join(coarse, details, axes), x)
        assert coarse.square().sum() + details.square().sum() == pytest.approx(x.square().sum().item())
    blocks = x.view(3, 2, 4, 2, 3, 2, 2, 2).sum((3, 5, 7)) / math.sqrt(8)
    torch.testing.assert_close(split(x, (0, 1, 2))[0], blocks)
    residuals = torch.tensordot(corners(2), split(x, (0, 1))[1], dims=([1], [1])).movedim(0, 1)
    blocks = x.unflatten(3, (3, 2)).unflatten(2, (4, 2)).movedim((3, 5), (1, 2)).flatten(1, 2)
    torch.testing.assert_close(residuals, (blocks - blocks.mean(1, keepdim=True))[:, :-1])
    assert pyramid((32, 20), 4) == [((0, 1), (16, 10)), ((0, 1), (8, 5)), ((0,), (4, 5))]
    assert pyramid((6, 7), 4) == []


def test_mixtures() -> None:
    parameters = torch.randn(50, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, mean, scale = (p.numpy() for p in components(parameters))
    x = torch.linspace(-6, 6, 50, dtype=torch.float64)
    expected = (np.exp(weight) * norm.pdf(x[:, None], mean, np.exp(scale))).sum(-1)
    np.testing.assert_allclose(log_density(x, parameters).exp(), expected, rtol=1e-12)
    expected = norm.ppf((np.exp(weight) * norm.cdf(x[:, None], mean, np.exp(scale))).sum(-1))
    near = np.abs(expected) < 5  # beyond, SciPy's sum of probabilities is itself rounded to one
    np.testing.assert_allclose(to_normal(x, parameters)[near], expected[near], rtol=1e-7, atol=1e-9)
    # In the far tails, where probabilities underflow, too.
    z = torch.linspace(-60, 60, 50, dtype=torch.float64)
    torch.testing.assert_close(to_normal(from_normal(z, parameters), parameters), z, rtol=1e-11, atol=1e-11)
    slope = torch.autograd.functional.jacobian(lambda v: to_normal(v, parameters), x).diagonal()
    z = to_normal(x, parameters)
    log_det = log_density(x, parameters) + 0.5 * (z.square() + math.log(2 * math.pi))
    torch.testing.assert_close(slope.log(), log_det, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cells", [(4, 6), (5, 4), (2, 3, 4)])
def test_groups_know_only_those_before(cells: tuple[int, ...]) -> None:
    network = DetailNetwork(2, 3, cells, 1, width=4, depth=1, components=2)
    n = math.prod(cells)
    values = torch.randn(1, 8, n)
    u, seen = torch.rand(1, 1), torch.zeros(6, n, dtype=torch.bool)
    for number, (group, parameters) in enumerate(network.walk(values, u)):
        assert parameters.shape == (1, len(group.cells), 6)
        assert not seen[group.row, group.cells].any()
        hidden = values.clone()
        hidden[:, 2:][:, ~seen] = 100.0
        again = [one for _, one in network.walk(hidden, u)][number]
        torch.testing.assert_close(again, parameters, rtol=0, atol=0)
        seen[group.row, group.cells] = True
    assert seen.all()
