"""Power spectra of batches of cubes, averaged in shells or in rings of k, on torch."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.arrays import as_tensor
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.bins import default_edges, mode_components, mode_wavenumbers
from eorinfer.summaries.chunks import chunked, in_chunks
from eorinfer.summaries.modes import BinnedSpectrum
from simulators import Observable


class PowerSpectrum(BinnedSpectrum):
    """Power spectrum P(k) of periodic cubes, averaged in shells of k.

    P(k) = V <|delta_k|^2> with delta_k = (1 / N_cells) sum_x f(x) exp(-i k x), so that white noise
    of variance sigma^2 per cell has P = V sigma^2 / N_cells. The zero mode belongs to no bin.

    Parameters
    ----------
    cells
        Number of cells along each axis, in two or three dimensions.
    box_length
        Comoving Mpc along each axis.
    edges
        Rising bin edges in 1/Mpc; a bin is edges[i] <= k < edges[i + 1].
    n_bins
        Number of logarithmic bins where `edges` is not given (default 10), from the fundamental mode of the longest
        axis to the corner of Fourier space. A bin without modes is merged into the one above it.
    chunks
        Number of parts that cubes are cut into along their last axis. `cells` and `box_length` are those of a part.

    Attributes
    ----------
    edges
        (n_bins + 1,) float64 in 1/Mpc.
    k
        (n_bins,) float64 mean wavenumber of the modes in each bin, in 1/Mpc.
    counts
        (n_bins,) float64 number of independent modes: half of all, since f is real.

    Raises
    ------
    ValueError
        If a bin of `edges` holds no mode.

    Examples
    --------
    >>> import torch
    >>> from eorinfer import PowerSpectrum
    >>> spectrum = PowerSpectrum((32, 32), (64.0, 64.0), n_bins=5)
    >>> spectrum(torch.randn(4, 1, 32, 32)).shape
    torch.Size([4, 1, 5])
    """

    edges: Tensor
    k: Tensor

    def __init__(
        self,
        cells: tuple[int, ...],
        box_length: tuple[float, ...],
        edges: Sequence[float] | None = None,
        n_bins: int | None = None,
        chunks: int = 1,
    ) -> None:
        if edges is not None and n_bins is not None:
            raise ValueError("give edges or n_bins, not both")
        if edges is None:
            edges = default_edges(cells, box_length, 10 if n_bins is None else n_bins).tolist()
        limits = _rising(edges)
        k = mode_wavenumbers(cells, box_length)
        super().__init__(cells, box_length, [k], [limits])
        self.chunks = chunks
        self.register_buffer("edges", torch.from_numpy(limits))
        self.register_buffer("k", self._mean(k))

    def forward(self, cubes: Tensor | NDArray[np.floating]) -> Tensor:
        """Compute P(k) (..., n_bins) of cubes (..., *cells); with chunks (B, C chunks, n_bins) of (B, C, *cells)."""
        return super().forward(in_chunks(as_tensor(cubes), self.chunks))


class CylindricalPowerSpectrum(BinnedSpectrum):
    """Power spectrum P(k_perp, k_par) of periodic cubes, averaged in rings around the line of sight.

    The line of sight is the last axis. P(k) is that of `PowerSpectrum`: call the module for one batch, or `pair` for
    two of them.

    Parameters
    ----------
    cells
        Number of cells along each of three axes.
    box_length
        Comoving Mpc along each axis.
    across, along
        Rising bin edges of k_perp and |k_par| in 1/Mpc; a bin is edges[i] <= k < edges[i + 1], so that only edges
        that begin at 0 take the modes with k_perp = 0 or k_par = 0.

    Attributes
    ----------
    k_perp, k_par
        (n_perp, n_par) float64 means over the modes in each bin, in 1/Mpc.
    counts
        (n_perp, n_par) float64 number of independent modes.

    Raises
    ------
    ValueError
        If a bin holds no mode.
    """

    k_perp: Tensor
    k_par: Tensor

    def __init__(
        self,
        cells: tuple[int, int, int],
        box_length: tuple[float, float, float],
        across: Sequence[float],
        along: Sequence[float],
    ) -> None:
        if len(cells) != 3:
            raise ValueError(f"cells {cells}: a cylindrical power spectrum has three axes")
        x, y, z = mode_components(cells, box_length)
        k = [np.hypot(x, y), np.abs(z)]
        super().__init__(cells, box_length, k, [_rising(across), _rising(along)])
        self.register_buffer("k_perp", self._mean(k[0]))
        self.register_buffer("k_par", self._mean(k[1]))


class JointPowerSpectrum(nn.Module):
    """P(k) of every channel of maps, and of the sum of every two channels.

    P of a sum is P_1 + P_2 + 2 P_12. So these are the auto and cross spectra of the channels, in a linear combination
    in which no value is negative.

    Parameters
    ----------
    spectrum
        Bins of P(k).
    """

    positive = True

    def __init__(self, spectrum: PowerSpectrum) -> None:
        super().__init__()
        self.spectrum = spectrum

    def forward(self, maps: Tensor) -> Tensor:
        """Measure maps (B, C, *cells): (B, C (C + 1) / 2, n_bins), the channels first."""
        sums = [maps[:, i] + maps[:, j] for i, j in itertools.combinations(range(maps.shape[1]), 2)]
        power: Tensor = self.spectrum(torch.cat([maps, *(one[:, None] for one in sums)], dim=1))
        return power


def dimensionless(k: Tensor, power: Tensor, dimension: int) -> Tensor:
    """Compute the variance per logarithmic k: k^3 P / (2 pi^2) in 3D, k^2 P / (2 pi) in 2D.

    Parameters
    ----------
    k
        Wavenumbers in 1/Mpc, with shape (n_bins,).
    power
        P(k), with shape (..., n_bins), in unit^2 Mpc^dimension.
    dimension
        2 or 3.

    Returns
    -------
    Tensor
        (..., n_bins) in unit^2.
    """
    solid = {2: 2 * np.pi, 3: 2 * np.pi**2}[dimension]
    return k**dimension * power / solid


def _rising(edges: Sequence[float]) -> NDArray[np.float64]:
    """Return bin edges as an array, or raise ValueError unless there are two or more and they rise."""
    limits = np.array(edges, dtype=np.float64)
    if limits.ndim != 1 or len(limits) < 2 or np.any(np.diff(limits) <= 0):
        raise ValueError(f"bin edges must rise: got {limits}")
    return limits


def build_power_spectrum(observable: Observable, settings: PowerSpectrumSettings) -> PowerSpectrum:
    """Build the P(k) bins that a config describes, for an observable."""
    part = chunked(observable, settings.chunks)
    edges = default_edges(part.cells, part.box_length, settings.bins, settings.k_max, settings.k_min)
    return PowerSpectrum(part.cells, part.box_length, edges.tolist(), chunks=settings.chunks)


def build_joint_power_spectrum(observable: Observable, settings: PowerSpectrumSettings) -> JointPowerSpectrum:
    """Build the same bins for the auto spectra of channels and of their sums."""
    return JointPowerSpectrum(build_power_spectrum(observable, settings))
