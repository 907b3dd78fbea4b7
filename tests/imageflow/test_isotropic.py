"""The flow on maps: its log-determinant is autograd's, its inverse is one, and its symmetries are the field's."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from zuko.transforms import MonotonicRQSTransform

from eorinfer.imageflow.isotropic import IsotropicFlow
from eorinfer.imageflow.isotropic_convolution import IsotropicConvolution, Modes
from eorinfer.imageflow.spline import Spline
from simulators import GaussianField

#: Even and odd sides, several channels, two and three dimensions, cells that are not square; and a line of sight.
GRIDS = [
    ((1, 8, 8), (1.0, 1.0), False),
    ((3, 7, 6), (1.0, 2.0), False),
    ((2, 5, 7), (1.0, 1.0), False),
    ((2, 4, 3, 5), (1.0, 1.0, 2.0), False),
    ((1, 4, 4, 6), (1.0, 1.0, 2.0), True),
]


def rough(module: torch.nn.Module, scale: float = 0.15) -> torch.nn.Module:
    """Every parameter away from where it starts, where much is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator).to(p))
    return module


def flow(shape: tuple[int, ...], cell_size: tuple[float, ...], line_of_sight: bool = False) -> IsotropicFlow:
    torch.manual_seed(0)
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])
    made = IsotropicFlow(shape, cell_size, low, high, k_knots=5, hidden=(8,), line_of_sight=line_of_sight)
    rough(made)
    return made.double()


def conditions(n: int) -> Tensor:
    u = torch.rand(n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.tensor([-1.0, 2.0]) + u * torch.tensor([2.0, 3.0])


def maps(n: int, shape: tuple[int, ...]) -> Tensor:
    # Wide enough for some cells to lie in the splines' tails.
    return 3 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(("shape", "cell_size", "line_of_sight"), GRIDS)
def test_log_determinant_is_that_of_autograds_jacobian(
    shape: tuple[int, ...], cell_size: tuple[float, ...], line_of_sight: bool
) -> None:
    made, y = flow(shape, cell_size, line_of_sight), conditions(1)
    x = maps(1, shape)
    jacobian = torch.autograd.functional.jacobian(lambda v: made(v.view(1, *shape), y)[0].flatten(), x.flatten())
    sign, expected = torch.linalg.slogdet(jacobian)
    _, log_det = made(x, y)
    assert sign == 1
    assert abs(float(expected)) > 1
    torch.testing.assert_close(log_det[0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("shape", "cell_size", "line_of_sight"), GRIDS)
def test_inverse(shape: tuple[int, ...], cell_size: tuple[float, ...], line_of_sight: bool) -> None:
    made, y, x = flow(shape, cell_size, line_of_sight), conditions(4), maps(4, shape)
    z, _ = made(x, y)
    assert (z - x).abs().max() > 1
    assert (made.inverse(z, y) - x).abs().max() < 1e-10 * x.abs().max()
    assert (made(made.inverse(x, y), y)[0] - x).abs().max() < 1e-10 * x.abs().max()


def test_what_it_does_commutes_with_shifts_rotations_and_reflections() -> None:
    made, y, x = flow((2, 6, 6), (1.0, 1.0)), conditions(2), maps(2, (2, 6, 6))
    z, log_det = made(x, y)
    moves = (
        lambda m: m.roll((2, 5), dims=(2, 3)),
        lambda m: m.rot90(1, dims=(2, 3)),
        lambda m: m.flip(2),
    )
    for move in moves:
        moved, same = made(move(x), y)
        torch.testing.assert_close(moved, move(z), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(same, log_det, rtol=1e-12, atol=0)


@torch.no_grad()
def test_density_integrates_to_one() -> None:
    made = flow((1, 1, 1), (1.0, 1.0))
    x = torch.linspace(-60, 60, 20001, dtype=torch.float64)
    log_p = made.log_prob(x.view(-1, 1, 1, 1), conditions(1).expand(len(x), 2))
    assert torch.trapezoid(log_p.exp(), x).item() == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_samples_have_the_density() -> None:
    made, y = flow((1, 4, 4), (1.0, 1.0)).float(), conditions(1)
    x = made.sample(y.expand(4000, 2), torch.Generator().manual_seed(1))
    z, _ = made(x, y.expand(4000, 2))
    assert z.std() == pytest.approx(1, abs=0.01)
    # The mean of -ln p over samples of p is its entropy: that of white noise less the mean log-determinant.
    entropy = 16 / 2 * math.log(2 * math.pi * math.e) - made(x, y.expand(4000, 2))[1].mean()
    surprise = -made.log_prob(x, y.expand(4000, 2))
    assert surprise.mean().item() == pytest.approx(entropy.item(), abs=4 * surprise.std().item() / 4000**0.5)


def test_gradients_reach_every_parameter() -> None:
    made = rough(IsotropicFlow((2, 8, 8), (1.0, 1.0), torch.zeros(2), torch.ones(2)))
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    made.log_prob(x, torch.rand(4, 2)).sum().backward()  # type: ignore[operator]
    assert x.grad is not None
    for p in (x, *made.parameters()):
        assert p.grad is not None
        assert p.grad.isfinite().all()
        assert p.grad.abs().max() > 0


@torch.no_grad()
def test_start_is_near_the_exact_whitening() -> None:
    simulator = GaussianField(cells=32, box_length=32.0)
    rng = np.random.default_rng(1)
    theta = rng.uniform([-1, -2], [1, -1], (600, 2))
    x = torch.tensor(np.array([simulator.gaussian(t, i) for i, t in enumerate(theta)]), dtype=torch.float32)[:, None]
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    made = IsotropicFlow((1, 32, 32), (1.0, 1.0), torch.tensor([-1.0, -2.0]), torch.tensor([1.0, -1.0]))
    y = torch.tensor(theta)
    # Of the cells of a large map an identity leaves more than a nat each.
    before = -made.log_prob(x, y).mean()
    made.fit_start(x, y)
    z, _ = made(x, y)
    power = torch.fft.rfft2(z).abs().square().mean((0, 1)) / 1024
    assert (power[1:, 1:] - 1).abs().max() < 0.5
    assert power.mean() == pytest.approx(1, abs=0.05)
    assert -made.log_prob(x, y).mean() < before - 100


@torch.no_grad()
def test_channels_that_go_together_start_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 300, 8, 8, generator=generator)
    x = torch.stack([a, 2 * a + 0.5 * b], dim=1)
    made = IsotropicFlow((2, 8, 8), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    y = torch.rand(300, 1, generator=generator)
    made.fit_start(x, y)
    z, _ = made(x, y)
    assert (z[:, 0] * z[:, 1]).mean().abs() < 0.02
    assert z.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.02


def test_modes_without_power_are_refused() -> None:
    x = torch.randn(50, 1, 8, 8)
    x = x - x.mean((2, 3), keepdim=True)
    made = IsotropicFlow((1, 8, 8), (1.0, 1.0), torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="modes without power"):
        made.fit_start(x, torch.rand(50, 1))


@torch.no_grad()
def test_a_convolution_of_several_channels_is_the_matrix_of_each_mode() -> None:
    modes = Modes.from_grid((6, 6), (1.0, 1.0), 4, False)
    layer = rough(IsotropicConvolution(3, (6, 6), modes, 2, (8,)), 0.4).double()
    x, u = maps(1, (3, 6, 6)), torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    z, log_det = layer(x, u)
    total = 0.0
    before, after = (np.fft.fftn(t[0].numpy(), axes=(1, 2)) for t in (x, z))
    for i in range(6):
        for j in range(6):
            unit = torch.zeros(3, 3, 6, 6, dtype=torch.float64)
            # Responses to the channels' own plane waves are the columns of M(|k|).
            n = torch.arange(6, dtype=torch.float64)
            wave = torch.cos(2 * torch.pi * (i * n[:, None] + j * n) / 6)
            for c in range(3):
                unit[c, c] = wave
            response, _ = layer(unit, u.expand(3, 2))
            scale = (wave * wave).sum()
            matrix = (response * wave).sum((2, 3)).T.numpy() / float(scale)
            assert np.allclose(np.triu(matrix, 1), 0, atol=1e-12)
            assert np.allclose(matrix @ before[:, i, j], after[:, i, j])
            total += np.linalg.slogdet(matrix)[1]
    assert float(log_det) == pytest.approx(total, rel=1e-10)


def test_spline_against_zukos() -> None:
    # The same knots and slopes, between which both are the same function.
    generator = torch.Generator().manual_seed(1)
    spline = Spline.from_parameters(0.5 * torch.randn(2, 24, generator=generator, dtype=torch.float64), 4.0)
    theirs = MonotonicRQSTransform(*(torch.zeros(2, 1, n, dtype=torch.float64) for n in (7, 7, 6)))
    theirs.horizontal, theirs.vertical = spline.x[:, None], spline.y[:, None]
    d = torch.cat([spline.table[2, :, 1:-1], spline.table[2, :, -1:]], dim=-1)
    theirs.derivatives = d[:, None]
    span = torch.linspace(0.001, 0.999, 400, dtype=torch.float64)
    x = spline.x[:, :1] + span * (spline.x[:, -1:] - spline.x[:, :1])
    y, log_slope = spline.forward(x)
    expected, log_slopes = theirs.call_and_ladj(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_slope, log_slopes.sum(-1), rtol=1e-10, atol=1e-10)


def test_spline_derivatives_tails_and_identity() -> None:
    parameters = (0.7 * torch.randn(3, 15, dtype=torch.float64)).requires_grad_()
    values = (4 * torch.randn(3, 40, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, v: Spline.from_parameters(p, 4.0).forward(v), (parameters, values))
    spline = Spline.from_parameters(parameters.detach(), 4.0)
    far = torch.tensor([[-60.0, -50.0, 50.0, 60.0]], dtype=torch.float64).expand(3, 4)
    y, _ = spline.forward(far)
    slopes = spline.table[2, :, [0, -1]]
    torch.testing.assert_close((y[:, [1, 3]] - y[:, [0, 2]]) / 10, slopes)
    identity = Spline.from_parameters(torch.zeros(1, 15, dtype=torch.float64), 4.0)
    x = torch.linspace(-9, 9, 50, dtype=torch.float64)[None]
    torch.testing.assert_close(identity.forward(x)[0], x)


def test_splines_knots_stand_where_modes_are() -> None:
    for cells, line_of_sight in (((16, 16), False), ((8, 8, 12), False), ((8, 8, 12), True)):
        modes = Modes.from_grid(cells, (1.0,) * len(cells), 6, line_of_sight)
        assert modes.count.sum() == math.prod(cells)
        # Every spline is one at a mode, and together they are one everywhere.
        assert ((modes.basis - 1).abs() < 1e-6).any(1).all()
        torch.testing.assert_close(modes.basis.sum(0), torch.ones(modes.basis.shape[1]))
    assert all(a != b for a, b in pairwise(modes.basis.tolist()))
