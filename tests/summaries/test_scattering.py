"""Scattering coefficients: what they must and must not change with."""

import pytest
import torch

from eorinfer.networks.embedding import Embedding
from eorinfer.summaries.scattering import Scattering
from eorinfer.summaries.surrogates import phase_randomised


def lognormal(n: int, *cells: int) -> torch.Tensor:
    """Smooth bright spots."""
    white = torch.randn(n, 1, *cells, generator=torch.Generator().manual_seed(1))
    axes = tuple(range(2, white.ndim))
    k = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(c) for c in cells), indexing="ij")).square().sum(0).sqrt()
    return torch.exp(8 * torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * torch.exp(-((12 * k) ** 2)), dim=axes).real)


def test_they_scale_with_the_map_and_hardly_change_with_shifts_of_periodic_ones() -> None:
    x, summary = lognormal(4, 32, 32), Scattering((32, 32), (True, True))
    found = summary(x)
    assert found.shape == (4, 1, 60)
    assert (found > 0).all()
    assert torch.allclose(summary(2 * x), 2 * found, rtol=1e-4)
    assert torch.allclose(summary(x + 5), found, rtol=1e-2)
    shifted = summary(torch.roll(x, (8, 16), (2, 3)))
    assert (shifted / found - 1).abs().median() < 0.1


def test_they_tell_a_map_from_one_with_its_power_spectrum() -> None:
    x, summary = lognormal(16, 32, 32), Scattering((32, 32), (True, True))
    copies = phase_randomised(x, torch.Generator().manual_seed(2))
    ratio = (summary(x) / summary(copies)).log().mean(0)[0]
    assert ratio.abs().max() > 0.3  # a Gaussian copy has other second-order coefficients


def test_cubes_are_cut_across_the_line_of_sight() -> None:
    x = lognormal(2, 16, 16, 6)
    cube, maps = Scattering((16, 16, 6), (True, True, False)), Scattering((16, 16), (True, True))
    each = torch.stack([maps(x[..., i]) for i in range(6)]).mean(0)
    assert torch.allclose(cube(x), each, rtol=1e-4)


def test_an_embedding_of_them_alone() -> None:
    x = lognormal(8, 16, 16)
    made = Embedding((1, 16, 16), 5, None, None, (True, True), scattering=Scattering((16, 16), (True, True)))
    made.fit_scaling(x)
    assert made(x).shape == (8, 5)
    assert not list(made.scattering.parameters())  # type: ignore[union-attr]


def test_maps_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="too small, or odd"):
        Scattering((15, 15), (True, True))
