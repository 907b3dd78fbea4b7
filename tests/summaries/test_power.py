"""Power spectra against numpy's full FFT, and against fields whose power is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.summaries.power import CylindricalPowerSpectrum, PowerSpectrum, default_edges, dimensionless

BOXES = [
    ((9, 8), (50.0, 80.0)),
    ((8, 9), (50.0, 50.0)),
    ((7, 7), (20.0, 30.0)),
    ((6, 8, 10), (30.0, 80.0, 40.0)),
    ((5, 7, 9), (50.0, 50.0, 60.0)),
    ((8, 8, 7), (64.0, 64.0, 20.0)),
]


def field(cells: tuple[int, ...], batch: tuple[int, ...] = (2, 3), seed: int = 0) -> Tensor:
    return torch.randn(*batch, *cells, generator=torch.Generator().manual_seed(seed))


def brute_force(
    cube: NDArray[np.float32], box_length: tuple[float, ...], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean k, number of modes and P(k), one mode of the full FFT after the other."""
    delta = np.fft.fftn(cube.astype(np.float64)) / cube.size
    sums = np.zeros((3, len(edges) - 1))
    for index in np.ndindex(cube.shape):
        wave = [i if i <= n / 2 else i - n for i, n in zip(index, cube.shape, strict=True)]
        k = np.sqrt(sum((2 * np.pi * m / length) ** 2 for m, length in zip(wave, box_length, strict=True)))
        for i in range(len(edges) - 1):
            if edges[i] <= k < edges[i + 1]:
                sums[:, i] += [k, 1, np.prod(box_length) * abs(delta[index]) ** 2]
    return sums[0] / sums[1], sums[1], sums[2] / sums[1]


@pytest.mark.parametrize(("cells", "box_length"), BOXES)
def test_against_every_mode_of_the_full_fft(cells: tuple[int, ...], box_length: tuple[float, ...]) -> None:
    spectrum = PowerSpectrum(cells, box_length, n_bins=4)
    cubes = field(cells)
    power = spectrum(cubes)
    assert power.shape == (2, 3, len(spectrum.k))
    assert power.dtype == torch.float64
    for index in np.ndindex(2, 3):
        k, counts, expected = brute_force(cubes[index].numpy(), box_length, spectrum.edges.numpy())
        np.testing.assert_allclose(spectrum.k, k, rtol=1e-12)
        np.testing.assert_array_equal(spectrum.counts, counts / 2)
        np.testing.assert_allclose(power[index], expected, rtol=1e-5)


@pytest.mark.parametrize(("cells", "box_length"), BOXES)
def test_parseval(cells: tuple[int, ...], box_length: tuple[float, ...]) -> None:
    spectrum = PowerSpectrum(cells, box_length, edges=[1e-3, 0.3, 100.0])
    cubes = field(cells) + 5
    total = (2 * spectrum.counts * spectrum(cubes)).sum(-1) / np.prod(box_length)
    variance = cubes.double().flatten(2).var(-1, correction=0)
    torch.testing.assert_close(total, variance, rtol=1e-5, atol=0)


def test_white_noise_level() -> None:
    spectrum = PowerSpectrum((24, 24, 24), (96.0, 96.0, 96.0))
    mean = spectrum(3 * field((24, 24, 24), (16, 4))).mean(dim=(0, 1))
    expected = 9.0 * 96**3 / 24**3
    error = (64 * spectrum.counts) ** -0.5
    assert (abs(mean / expected - 1) < 4 * error).all()
    assert error[-1] < 0.01


@pytest.mark.parametrize("wave", [(2, 0, 0), (0, 3, -1), (1, 2, 3), (0, 0, 4)])
def test_plane_wave(wave: tuple[int, int, int]) -> None:
    cells, box_length = (12, 10, 11), (60.0, 40.0, 55.0)
    x = np.meshgrid(*(np.arange(n) / n for n in cells), indexing="ij")
    phase = 2 * np.pi * sum(m * axis for m, axis in zip(wave, x, strict=True))
    cube = torch.from_numpy(2.0 * np.cos(phase + 0.4))
    k = float(2 * np.pi * np.sqrt(sum((m / length) ** 2 for m, length in zip(wave, box_length, strict=True))))
    spectrum = PowerSpectrum(cells, box_length, edges=[0.05, 0.999 * k, 1.001 * k, 1.2])
    power = spectrum(cube)
    # Amplitude 2 puts |delta_k| = 1 into k and -k: V for one of the independent modes of the bin.
    assert power[1].item() == pytest.approx(60 * 40 * 55 / spectrum.counts[1].item())
    assert power[[0, 2]].abs().max() < 1e-10 * power[1]


def test_zero_cubes_and_constant_cubes() -> None:
    spectrum = PowerSpectrum((8, 8, 8), (10.0, 10.0, 10.0))
    assert torch.equal(spectrum(torch.zeros(2, 1, 8, 8, 8)), torch.zeros(2, 1, len(spectrum.k)).double())
    assert spectrum(torch.full((8, 8, 8), 7.0)).max() < 1e-8


def test_gradient() -> None:
    spectrum = PowerSpectrum((4, 5, 6), (10.0, 10.0, 12.0), n_bins=2)
    cubes = field((4, 5, 6), (2,)).double().requires_grad_()
    assert torch.autograd.gradcheck(spectrum, (cubes,))


def test_cross_spectrum() -> None:
    spectrum = PowerSpectrum((8, 8, 8), (10.0, 10.0, 10.0))
    first, second = field((8, 8, 8), seed=1), field((8, 8, 8), seed=2)
    torch.testing.assert_close(spectrum.cross(first, first), spectrum(first))
    torch.testing.assert_close(spectrum.cross(first, -2 * first), -2 * spectrum(first))
    both = spectrum(first + second)
    torch.testing.assert_close(
        both, spectrum(first) + spectrum(second) + 2 * spectrum.cross(first, second), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("cells", "box_length"), [*BOXES, ((32, 32, 32), (128.0,) * 3), ((8, 8, 64), (8.0, 8.0, 64.0))]
)
@pytest.mark.parametrize("n_bins", [None, 1, 5, 40])
def test_default_bins_are_never_empty(
    cells: tuple[int, ...], box_length: tuple[float, ...], n_bins: int | None
) -> None:
    spectrum = PowerSpectrum(cells, box_length, n_bins=n_bins)
    assert 1 <= len(spectrum.k) <= (n_bins or 10)
    assert (spectrum.counts > 0).all()
    assert spectrum.edges[0].item() == pytest.approx(2 * np.pi / max(box_length), rel=1e-5)
    # Every mode but the zero mode has a bin.
    assert 2 * spectrum.counts.sum() == np.prod(cells) - 1
    assert ((spectrum.edges[:-1] <= spectrum.k) & (spectrum.k < spectrum.edges[1:])).all()


def test_default_bins_of_a_usual_box() -> None:
    edges = default_edges((32, 32, 32), (128.0,) * 3, 8, k_max=np.pi / 4)
    assert len(edges) == 9
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(16) / 8, rtol=1e-5)


def test_arrays_are_read_as_tensors() -> None:
    spectrum, x = PowerSpectrum((8, 8), (10.0, 10.0)), field((8, 8), (3,))
    for array in (x.numpy(), x.numpy().astype(">f4")):  # as a FITS file has them
        assert torch.equal(spectrum(array), spectrum(x))
        assert torch.equal(spectrum.cross(array, x), spectrum.cross(x, x))


def test_refusals() -> None:
    cells, box_length = (8, 8), (10.0, 10.0)
    with pytest.raises(ValueError, match=r"no mode of this box lies between k = 0\.1 and 0\.2"):
        PowerSpectrum(cells, box_length, edges=[0.1, 0.2, 1.0])
    with pytest.raises(ValueError, match="edges must rise"):
        PowerSpectrum(cells, box_length, edges=[1.0, 0.5])
    with pytest.raises(ValueError, match="not both"):
        PowerSpectrum(cells, box_length, edges=[0.5, 1.0], n_bins=3)
    with pytest.raises(ValueError, match="no bins"):
        PowerSpectrum(cells, box_length, n_bins=0)
    with pytest.raises(ValueError, match="two or three axes"):
        PowerSpectrum((8,), (10.0,))
    with pytest.raises(ValueError, match=r"cells 8 and box_length 10.0 must both have two or three axes"):
        PowerSpectrum(8, 10.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"for cells \(8, 8\): got \(2, 9, 8\)"):
        PowerSpectrum(cells, box_length)(torch.zeros(2, 9, 8))


def test_dimensionless() -> None:
    k = torch.tensor([0.5, 2.0], dtype=torch.float64)
    power = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    three = [[0.125 * 3 / (2 * np.pi**2), 8 * 4 / (2 * np.pi**2)]]
    two = [[0.25 * 3 / (2 * np.pi), 4 * 4 / (2 * np.pi)]]
    np.testing.assert_allclose(dimensionless(k, power, 3), three)
    np.testing.assert_allclose(dimensionless(k, power, 2), two)


def correlated(r: float, cells: tuple[int, ...], batch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """White noise of variances 4 and 9 with the correlation coefficient r at every k."""
    one, other = field(cells, batch, seed=3).double(), field(cells, batch, seed=4).double()
    return 2 * one, 3 * (r * one + (1 - r**2) ** 0.5 * other)


@pytest.mark.parametrize("r", [-0.8, -0.2, 0.0, 0.5])
def test_pair_of_known_correlation(r: float) -> None:
    cells, box_length, n = (16, 16, 16), (40.0, 40.0, 40.0), 400
    spectrum = PowerSpectrum(cells, box_length, n_bins=6)
    first, second = correlated(r, cells, (n,))
    pair = spectrum.pair(first, second)
    volume = (40 / 16) ** 3
    expected = 6 * r * volume
    error = 6 * volume * ((1 + r**2) / (2 * n * spectrum.counts)).sqrt()
    assert (abs(pair.cross.mean(0) - expected) < 4 * error).all()
    assert (abs(pair.first.mean(0) / (4 * volume) - 1) < 4 * (n * spectrum.counts) ** -0.5).all()
    # The scatter between cubes is what the errors say: 3.5% by chance, 4 sigma allowed; r needs many modes for it.
    np.testing.assert_allclose(pair.cross.std(0), n**0.5 * error, rtol=0.15)
    np.testing.assert_allclose(pair.error.square().mean(0).sqrt(), n**0.5 * error, rtol=0.15)
    coefficient = pair.coefficient[:, 2:]
    many = (2 * spectrum.counts[2:]).sqrt()
    assert (abs(coefficient.mean(0) - r) < 4 * (1 - r**2) / many / n**0.5 + 1 / many**2).all()
    np.testing.assert_allclose(coefficient.std(0), (1 - r**2) / many, rtol=0.15)
    np.testing.assert_allclose(pair.coefficient_error[:, 2:].mean(0), (1 - r**2) / many, rtol=0.15)


def test_pair_of_a_field_with_itself_and_with_nothing() -> None:
    spectrum = PowerSpectrum((8, 8), (10.0, 10.0))
    cubes = field((8, 8)).double()
    same = spectrum.pair(cubes, -3 * cubes)
    torch.testing.assert_close(same.first, spectrum(cubes))
    torch.testing.assert_close(same.second, 9 * spectrum(cubes))
    torch.testing.assert_close(same.cross, spectrum.cross(cubes, -3 * cubes))
    torch.testing.assert_close(same.coefficient, -torch.ones(2, 3, len(spectrum.k)).double())
    nothing = spectrum.pair(torch.zeros(2, 3, 8, 8), cubes)  # a fully ionised box
    assert torch.equal(nothing.coefficient, torch.zeros_like(same.cross))


def test_rings_against_every_mode_of_the_full_fft() -> None:
    cells, box_length = (6, 8, 10), (30.0, 80.0, 40.0)
    across, along = [0.0, 0.1, 0.5, 1.2], [0.0, 0.1, 0.5, 1.0]
    spectrum = CylindricalPowerSpectrum(cells, box_length, across, along)
    first, second = field(cells), field(cells, seed=1)
    pair = spectrum.pair(first, second)
    assert spectrum(first).shape == pair.cross.shape == (2, 3, 3, 3)
    k = np.meshgrid(
        *(2 * np.pi * np.fft.fftfreq(n, x / n) for n, x in zip(cells, box_length, strict=True)), indexing="ij"
    )
    k_perp, k_par = np.hypot(k[0], k[1]), abs(k[2])
    one, two = (np.fft.fftn(x.numpy(), axes=(-3, -2, -1)) / 480 for x in (first, second))
    for i, j in np.ndindex(3, 3):
        inside = (k_perp >= across[i]) & (k_perp < across[i + 1]) & (k_par >= along[j]) & (k_par < along[j + 1])
        inside &= k_perp + k_par > 0
        assert spectrum.counts[i, j] == inside.sum() / 2
        assert spectrum.k_perp[i, j].item() == pytest.approx(k_perp[inside].mean())
        assert spectrum.k_par[i, j].item() == pytest.approx(k_par[inside].mean())
        cross = 30 * 80 * 40 * (one * two.conj()).real[..., inside].mean(-1)
        np.testing.assert_allclose(pair.cross[..., i, j], cross, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(pair.first[..., i, j], 96000 * (abs(one) ** 2)[..., inside].mean(-1), rtol=1e-4)
    torch.testing.assert_close(pair.first, spectrum(first))


def test_rings_refuse_an_empty_bin_and_maps() -> None:
    with pytest.raises(ValueError, match=r"no mode .* k = 0 and 0\.1 and between 0 and 0\.1 1/Mpc"):
        CylindricalPowerSpectrum((8, 8, 8), (10.0,) * 3, [0.0, 0.1, 2.0], [0.0, 0.1, 2.0])
    with pytest.raises(ValueError, match="three axes"):
        CylindricalPowerSpectrum((8, 8), (10.0, 10.0), [0.0, 2.0], [0.0, 2.0])  # type: ignore[arg-type]
