"""The map that makes a truncated normal standard: inverse, Jacobian, edges, and the numbers of scipy."""

import numpy as np
import pytest
import torch
from scipy.special import ndtri_exp
from scipy.stats import truncnorm
from torch import Tensor

from eorinfer.npe.truncated import E, TruncatedNormalMap, _log_ndtri


def made(scale: float, parameters: int = 3, features: int = 4) -> TruncatedNormalMap:
    generator = torch.Generator().manual_seed(1)
    m = TruncatedNormalMap(features, parameters)
    for parameter in m.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return m


def draw(shape: tuple[int, ...], seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("parameters", [1, 3, 9])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@torch.no_grad()
def test_forward_undoes_inverse_inside_the_box(scale: float, parameters: int) -> None:
    m, z, features = made(scale, parameters), draw((2000, parameters)), draw((2000, 4), 3)
    v = m.inverse(z, features)
    assert v.abs().max() <= E
    back, log_det = m(v, features)
    assert log_det.isfinite().all()
    # Against an edge a whole tail may lie within one step of float64.
    assert ((back - z).abs() < 1e-3).double().mean() > 0.999


def test_the_jacobian_against_autograd() -> None:
    m, features = made(0.7).double(), draw((6, 4), 3).double()
    v = m.inverse(draw((6, 3)), features).detach()
    z, log_det = m(v, features)
    for i in range(6):

        def one(x: Tensor, i: int = i) -> Tensor:
            result: Tensor = m(x[None], features[[i]])[0][0]
            return result

        jacobian = torch.autograd.functional.jacobian(one, v[i])
        assert torch.equal(jacobian, jacobian.tril())
        expected = torch.diagonal(jacobian).log().sum()
        torch.testing.assert_close(expected.float(), log_det[i], rtol=1e-4, atol=1e-4)
    assert z.dtype == torch.float32


@torch.no_grad()
def test_the_first_parameter_is_scipys_truncated_normal() -> None:
    m, features = made(1.0, 2), draw((40, 4), 3)
    v = (torch.rand((40, 2), generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2 - 1) * E
    z, _ = m(v, features)
    mean, log_width, _ = m._shape(features)
    c, s = mean[:, 0].numpy(), log_width[:, 0].exp().numpy()
    expected = truncnorm((-E - c) / s, (E - c) / s, loc=c, scale=s).cdf(v[:, 0].numpy())
    np.testing.assert_allclose(torch.special.ndtr(z[:, 0].double()), expected, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_it_begins_nearly_flat() -> None:
    m = TruncatedNormalMap(4, 2)
    grid = torch.linspace(-E, E, 101, dtype=torch.float64)
    z, log_det = m(torch.cartesian_prod(grid, grid), torch.zeros(1, 4))
    log_density = log_det - 0.5 * z.square().sum(-1) - np.log(2 * np.pi) + 2 * np.log(2 * E)
    assert log_density.abs().max() < 0.6


def test_a_far_too_wide_start_still_has_a_gradient() -> None:
    m = TruncatedNormalMap(4, 1)
    m.log_width.bias.data.fill_(8.0)
    v = torch.full((1, 1), 1.5, dtype=torch.float64)
    z, log_det = m(v, torch.ones(1, 4))
    (0.5 * z.square().sum() - log_det.sum()).backward()
    assert m.mean.bias.grad is not None
    assert m.mean.bias.grad.abs() > 0.1


def test_the_quantile_of_a_logarithm_is_scipys() -> None:
    log_p = -np.logspace(-10, 3.7, 60)
    np.testing.assert_allclose(_log_ndtri(torch.from_numpy(log_p)), ndtri_exp(log_p), rtol=1e-12)
