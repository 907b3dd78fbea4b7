"""The embedding: shapes, periodic padding, and that it survives empty cubes and keeps amplitudes."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eorinfer.networks.embedding import Convolution, ConvolutionalNetwork, Embedding, FilterPower
from eorinfer.summaries.power import PowerSpectrum, default_edges

SHAPES = [(1, 16, 16), (3, 16, 16), (2, 8, 8, 8), (1, 12, 12, 20)]


def embedding(shape: tuple[int, ...], **settings: object) -> Embedding:
    torch.manual_seed(0)
    cells, lengths = shape[1:], tuple(float(n) for n in shape[1:])
    spectrum = PowerSpectrum(cells, lengths, default_edges(cells, lengths, 4).tolist())
    arguments = {"power_spectrum": spectrum, "width": 4, "periodic": (True,) * len(cells)} | settings
    return Embedding(shape, 5, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("redshifts", ["channels", "volumes"])
@pytest.mark.parametrize("branch", ["both", "cnn", "spectrum"])
def test_features_of_every_kind_of_cube(shape: tuple[int, ...], redshifts: str, branch: str) -> None:
    off: dict[str, dict[str, object]] = {"both": {}, "cnn": {"power_spectrum": None}, "spectrum": {"width": None}}
    net = embedding(shape, redshifts=redshifts, **off[branch])
    x = torch.randn(6, *shape)
    net.fit_scaling(x)
    features = net(x)
    assert features.shape == (6, 5)
    assert features.isfinite().all()
    assert not torch.allclose(features[0], features[1])
    features.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_each_chunk_of_a_light_cone_is_an_input() -> None:
    parts = PowerSpectrum((8, 8, 4), (8.0, 8.0, 4.0), n_bins=3, chunks=3)
    net = embedding((1, 8, 8, 12), power_spectrum=parts, width=None)
    assert net.length == 9
    x = torch.randn(6, 1, 8, 8, 12)
    net.fit_scaling(x)
    louder = x.clone()
    louder[..., 8:] *= 3
    assert not torch.allclose(net(x), net(louder))
    changed = (net.summarise(x) - net.summarise(louder)).abs().amax(0).unflatten(0, (3, 3)) > 1e-3
    assert changed.any(1).tolist() == [False, False, True]


def test_means_of_chunks_are_those_of_their_slices() -> None:
    torch.manual_seed(0)
    open_ends = (True, True, False)
    whole = ConvolutionalNetwork(2, (8, 8, 24), 4, open_ends)
    parts = ConvolutionalNetwork(2, (8, 8, 24), 4, open_ends, chunks=3)
    parts.load_state_dict(whole.state_dict())
    x = torch.randn(5, 2, 8, 8, 24)
    x[..., 16:] *= 3
    of_whole, of_parts = whole(x).unflatten(1, (3, 4)), parts(x).unflatten(1, (3, 12))
    # filters on the full cube: each chunk as a cube of its own
    alone = torch.cat([whole.full(x[..., 8 * i : 8 * i + 8]) for i in range(3)], dim=1)
    torch.testing.assert_close(of_parts[:, 0], alone)
    # later maps: means over thirds of their slices
    thirds = of_parts[:, 1:].unflatten(2, (4, 3))
    torch.testing.assert_close(thirds.mean(3), of_whole[:, 1:])
    assert (thirds[..., 2] > 2 * thirds[..., 0]).all()
    assert parts.features == 3 * whole.features


def test_volumes_share_one_network() -> None:
    one, several = embedding((1, 8, 8, 8)), embedding((3, 8, 8, 8), redshifts="volumes")
    assert one.cnn is not None
    assert several.cnn is not None
    assert [p.shape for p in one.cnn.parameters()] == [p.shape for p in several.cnn.parameters()]


@pytest.mark.parametrize("cells", [(16, 16), (8, 8, 8)])
def test_a_periodic_shift_by_the_coarsest_cell_changes_nothing(cells: tuple[int, ...]) -> None:
    net = ConvolutionalNetwork(1, cells, 4, (True,) * len(cells))
    x = torch.randn(2, 1, *cells)
    stride = 2 ** len(net.stages)
    shifted = x.roll([stride] * len(cells), dims=tuple(range(2, 2 + len(cells))))
    torch.testing.assert_close(net(x), net(shifted), rtol=1e-4, atol=1e-5)
    bounded = ConvolutionalNetwork(1, cells, 4, (False,) * len(cells))
    bounded.load_state_dict(net.state_dict())
    assert not torch.allclose(bounded(x), bounded(shifted), rtol=1e-3)


def test_padding_is_periodic_along_the_axes_that_are() -> None:
    layer = Convolution(1, 1, 2, periodic=(True, False))
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(layer(x).roll(3, 2), layer(x.roll(3, 2)))
    assert not torch.allclose(layer(x).roll(3, 3), layer(x.roll(3, 3)))


def test_empty_cubes_are_data_like_any_other() -> None:
    net = embedding((2, 8, 8, 8))
    x = torch.randn(6, 2, 8, 8, 8)
    x[3:] = 0.0
    net.fit_scaling(x)
    assert net(x).isfinite().all()
    net.fit_scaling(torch.zeros(4, 2, 8, 8, 8))
    assert net(torch.zeros(1, 2, 8, 8, 8)).isfinite().all()


@pytest.mark.parametrize("off", [{"power_spectrum": None}, {"width": None}])
def test_amplitude_is_not_normalised_away(off: dict[str, object]) -> None:
    net = embedding((1, 16, 16), **off)
    x = torch.randn(4, 1, 16, 16)
    net.fit_scaling(x)
    assert not torch.allclose(net(x), net(1.3 * x), rtol=1e-2)


def test_an_embedding_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="convolutions, the power spectrum, scattering coefficients"):
        embedding((1, 8, 8), power_spectrum=None, width=None)


@pytest.mark.parametrize("cells", [(6, 7), (4, 6, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_power_of_filters_is_the_mean_square_of_a_convolution(cells: tuple[int, ...], channels: int) -> None:
    periodic = (True,) * len(cells)
    power, layer = FilterPower(channels, 5, len(cells), periodic), Convolution(channels, 5, len(cells), periodic)
    layer.convolution.weight.data = power.filters.weight.data.view_as(layer.convolution.weight)
    layer.convolution.bias.data = power.filters.bias.data
    x = torch.randn(4, channels, *cells) + 0.5
    expected = layer(x).square().flatten(2).mean(-1)
    torch.testing.assert_close(power(x), expected, rtol=1e-4, atol=1e-5)


def test_filters_do_not_reach_around_an_axis_that_is_not_periodic() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., 0], x[..., -1] = 1.0, 1.0
    wrapped, open_ = FilterPower(1, 5, 2, (True, True)), FilterPower(1, 5, 2, (True, False))
    open_.load_state_dict(wrapped.state_dict())
    assert not torch.allclose(wrapped(x), open_(x), rtol=0.05)
    inside = x.roll(3, dims=3)
    torch.testing.assert_close(wrapped(x), wrapped(inside), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("periodic", [(True, False), (False, False), (False, True)])
def test_the_power_of_filters_counts_pairs_inside_open_axes(periodic: tuple[bool, ...]) -> None:
    """Against the definition: the sum over pairs of cells, one pair after the other."""
    cells = (5, 6)
    power = FilterPower(1, 3, 2, periodic)
    x = torch.randn(1, 1, *cells, generator=torch.Generator().manual_seed(1)) + 0.5
    image = x[0, 0].double().numpy()
    offsets = list(np.ndindex(3, 3))
    second = np.zeros((9, 9))
    for (i, a), (j, b), cell in itertools.product(enumerate(offsets), enumerate(offsets), np.ndindex(*cells)):
        other = [c + q - p for c, p, q in zip(cell, a, b, strict=True)]
        if all(wrap or 0 <= o < n for o, n, wrap in zip(other, cells, periodic, strict=True)):
            second[i, j] += image[cell] * image[tuple(o % n for o, n in zip(other, cells, strict=True))] / image.size
    weight, bias = (p.detach().double().numpy() for p in (power.filters.weight, power.filters.bias))
    expected = np.einsum("fi,ij,fj->f", weight, second, weight) + 2 * bias * image.mean() * weight.sum(1) + bias**2
    np.testing.assert_allclose(power(x)[0].detach(), expected.clip(min=0), rtol=1e-4)


@pytest.mark.parametrize("periodic", [(True, False), (False, False)])
def test_every_convolution_of_the_network_mirrors_open_axes(periodic: tuple[bool, ...]) -> None:
    """A light-cone has one: its features are those of plain convolutions of the padded cube."""
    net = ConvolutionalNetwork(1, (12, 10), 4, periodic)
    x = torch.randn(2, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    squares, maps, cube = [], x, x
    for layer in [*net.stages, net.last]:
        assert isinstance(layer, Convolution)
        padded = maps.numpy()
        for axis, wrap in enumerate(periodic, start=2):
            width = [(1, 1) if i == axis else (0, 0) for i in range(4)]
            padded = np.pad(padded, width, mode="wrap" if wrap else "reflect")
        with torch.no_grad():
            made = layer.convolution(torch.from_numpy(padded))
        squares.append(made.square().mean((2, 3)))
        if layer is not net.last:
            cube = F.avg_pool2d(cube, 2, ceil_mode=True)
            maps = torch.cat([F.silu(made), cube], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, 4:], torch.cat(squares, dim=1), rtol=1e-4, atol=1e-6)
