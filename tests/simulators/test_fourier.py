"""The FFT grid against NumPy's and torch's own."""

import numpy as np
import pytest
import torch

from simulators.fourier import frequencies, half_plane, mode_weights, wavenumbers, wavevectors

GRIDS = [((8,), (0.4,)), ((5, 8), (1.7, 2.0)), ((6, 8, 7), (2.3, 1 / 7, 40.0))]


@pytest.mark.parametrize(("cells", "size"), GRIDS)
def test_frequencies_are_those_of_numpy_and_torch(cells: tuple[int, ...], size: tuple[float, ...]) -> None:
    whole = [np.fft.fftfreq(n, d) for n, d in zip(cells, size, strict=True)]
    half = np.fft.rfftfreq(cells[-1], size[-1])
    for ours, theirs in zip(frequencies(cells, size), [*whole[:-1], half], strict=True):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(frequencies(cells, size, half=False), whole, strict=True):
        assert np.array_equal(ours, theirs)
    for ours, n, d in zip(frequencies(cells, size, half=False, dtype=np.float32), cells, size, strict=True):
        assert np.array_equal(ours, torch.fft.fftfreq(n, d).numpy())


@pytest.mark.parametrize(("cells", "size"), GRIDS)
def test_mode_weights_complete_the_sum_over_modes(cells: tuple[int, ...], size: tuple[float, ...]) -> None:
    x = np.random.default_rng(1).normal(size=cells)
    modes = np.fft.rfftn(x)
    assert modes.shape == half_plane(cells) == mode_weights(cells).shape
    assert np.isclose((mode_weights(cells) * np.abs(modes) ** 2).sum(), x.size * (x**2).sum())
    assert mode_weights(cells).sum() == x.size


def test_wavevectors_are_those_of_a_plane_wave() -> None:
    cells, size = (6, 10), (2.0, 1.5)
    x = np.stack(np.meshgrid(*(d * np.arange(n) for n, d in zip(cells, size, strict=True)), indexing="ij"))
    for index in ((1, 2), (5, 3)):
        k = np.array([component[index] for component in wavevectors(cells, size)])
        power = np.abs(np.fft.rfftn(np.cos(np.tensordot(k, x, 1))))
        assert np.unravel_index(power.argmax(), power.shape) == index


def test_wavenumbers_are_lengths_of_wavevectors() -> None:
    components = wavevectors((4, 4, 4), (2.5,) * 3)
    assert np.allclose(wavenumbers((4, 4, 4), 10.0), np.sqrt(sum(c**2 for c in components)))
