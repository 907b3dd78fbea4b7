"""SKA-Low: thermal noise in the uv plane, the foreground wedge, and the observed cube.

The sky is flat: each channel of a coeval cube, and each slice of a light-cone, is at one redshift. The time that
baselines spend in a uv cell sets its noise (Thompson, Moran & Swenson 2017, doi:10.1007/978-3-319-44431-4, sections
4.1 and 6.2). Cells that no baseline crosses hold neither signal nor noise. Weighting is natural, without a taper:
weights on signal and noise alike do not change the signal to noise of a mode, and a weight on one of them alone would
invent or destroy information.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.constants import Boltzmann
from torch import Tensor

from eorinfer.core.arrays import white_noise
from eorinfer.settings.survey import SkaLow
from eorinfer.survey.base import Survey
from eorinfer.survey.beam import line_of_sight_taper, primary_beam
from eorinfer.survey.coverage import uv_time, uv_times
from eorinfer.survey.noise_cubes import NoiseCubes
from eorinfer.survey.residual import residual_modes
from eorinfer.survey.sky import JANSKY, channel_width, comoving_distance, outside_wedge, system_flux, wavelength
from simulators.fourier import half_plane


@dataclass(frozen=True)
class Slices:
    """The slices of a light-cone along its last axis.

    Attributes
    ----------
    redshifts
        Redshift of each slice.
    sides
        Transverse side of each slice in comoving Mpc.
    depths
        Depth of each slice along the line of sight in comoving Mpc.
    """

    redshifts: tuple[float, ...]
    sides: tuple[float, ...]
    depths: tuple[float, ...]


class SkaLowSurvey(Survey):
    """Observe brightness-temperature cubes with SKA-Low.

    Parameters
    ----------
    settings
        Layout, observing time, SEFD, baseline cuts and foreground wedge.
    cells
        (N, N, Nz): two transverse axes and the line of sight.
    cell_size
        Comoving Mpc along each axis; the two transverse ones must be equal.
    redshifts
        Redshift of each of the C channels of coeval cubes.
    slices
        Slices of a light-cone of one channel, Nz of them, in place of `redshifts`.
    noise_cubes
        Realisations that noise is drawn from, in place of thermal noise.

    Attributes
    ----------
    mask
        Buffer (C, N, N // 2 + 1, 1), for a light-cone (1, N, N // 2 + 1, Nz): 1 where a mode is
        measured, else 0; the rfft half-plane over the two transverse axes.
    noise
        Buffer like `mask`, in mK: factor on the Fourier modes of white noise of unit variance per cell.
    window
        Buffer (C, N, N // 2 + 1, Nz), the last axis Fourier transformed too: 0 inside the
        foreground wedge, else 1. None where foregrounds are left alone.
    beam
        Buffer (C, N, N, 1), for a light-cone (1, N, N, Nz): factor on the signal. None without a primary beam.
    taper
        Buffer (Nz,): factor on signal and noise along the line of sight. None without one.
    residual
        Buffer (N, N // 2 + 1, Nz) in mK: factor on the three-dimensional modes of white noise. None without residuals.
    rms
        Thermal noise per cell in mK for each redshift, a tuple of C or Nz, before taper and wedge.
    """

    mask: Tensor
    noise: Tensor
    window: Tensor | None
    beam: Tensor | None
    taper: Tensor | None
    residual: Tensor | None

    def __init__(
        self,
        settings: SkaLow,
        cells: tuple[int, int, int],
        cell_size: tuple[float, float, float],
        redshifts: tuple[float, ...],
        slices: Slices | None = None,
        noise_cubes: NoiseCubes | None = None,
    ) -> None:
        super().__init__()
        if cells[0] != cells[1] or not np.isclose(cell_size[0], cell_size[1]):
            raise ValueError(f"SKA-Low needs a square sky: got {cells[:2]} cells of {cell_size[:2]} Mpc")
        side = cells[0] * cell_size[0]
        if slices is None:
            sigma = np.stack([mode_noise(settings, cells[0], side, cell_size[2], z) for z in redshifts])
        else:
            redshifts = slices.redshifts
            sigma = slice_noise(settings, cells[0], slices)
        self.shape = (len(redshifts) if slices is None else 1, *cells)
        # White noise of unit variance has <|FFT|^2> = N^2 in each mode; its FFT times this real,
        # symmetric factor is Hermitian and has the variance sigma^2.
        factor = sigma / cells[0]
        half = torch.from_numpy(factor[:, :, : half_plane(cells[:2])[1], None]).float()
        if slices is not None:
            half = half.permute(3, 1, 2, 0).contiguous()
        self.register_buffer("mask", (half > 0).float())
        self.register_buffer("noise", half)
        window = None
        if settings.wedge:
            # A Fourier transform along a light-cone allows one slope only: the steepest leaves no foregrounds.
            each = redshifts if slices is None else (max(redshifts),)
            outside = np.stack([outside_wedge(settings, cells, cell_size, z) for z in each])
            window = torch.from_numpy(outside).float()
        self.register_buffer("window", window)
        beam = taper = residual = None
        if settings.beam is not None:
            sides = (side,) * len(redshifts) if slices is None else slices.sides
            each_beam = [primary_beam(settings, cells[0], s, z) for s, z in zip(sides, redshifts, strict=True)]
            beam = torch.from_numpy(np.stack(each_beam)).float()[..., None]
            beam = beam if slices is None else beam.permute(3, 1, 2, 0).contiguous()
        if settings.taper is not None:
            taper = torch.from_numpy(line_of_sight_taper(settings, cells[2])).float()
        if settings.residual is not None:
            residual = torch.from_numpy(residual_modes(settings.residual, cells, cell_size)).float()
        self.register_buffer("beam", beam)
        self.register_buffer("taper", taper)
        self.register_buffer("residual", residual)
        self._noise_cubes = noise_cubes
        self.rms = tuple(float(rms) for rms in np.sqrt((factor**2).mean(axis=(1, 2))))

    @property
    def thermal(self) -> bool:
        """Tell whether all noise is thermal and the same along the line of sight."""
        return self._noise_cubes is None and self.residual is None and self.taper is None

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe clean cubes in mK, with shape (B, C, N, N, Nz).

        Each frequency slice (N, N) loses its mean, which no baseline measures. The primary beam acts on the signal
        alone; coverage, taper and wedge act on signal, residuals and noise alike.
        """
        if tuple(clean.shape[1:]) != self.shape:
            raise ValueError(f"this survey observes (B, *{self.shape}): got {tuple(clean.shape)}")
        sky = (-3, -2)
        modes = torch.fft.rfft2(clean if self.beam is None else clean * self.beam, dim=sky) * self.mask
        if self._noise_cubes is None:
            modes = modes + torch.fft.rfft2(white_noise(clean, generator), dim=sky) * self.noise
        else:
            modes = modes + torch.fft.rfft2(self._noise_cubes.draw(clean, generator), dim=sky) * self.mask
        if self.residual is not None:
            left = torch.fft.fft(torch.fft.rfft2(white_noise(clean, generator), dim=sky), dim=-1) * self.residual
            modes = modes + torch.fft.ifft(left, dim=-1) * self.mask
        if self.taper is not None:
            modes = modes * self.taper
        if self.window is not None:
            modes = torch.fft.ifft(torch.fft.fft(modes, dim=-1) * self.window, dim=-1)
        return torch.fft.irfft2(modes, s=self.shape[1:3], dim=sky)


def mode_noise(settings: SkaLow, n_cells: int, box_length: float, depth: float, redshift: float) -> NDArray[np.float64]:
    """Compute the thermal noise of each transverse Fourier mode of one frequency slice.

    Parameters
    ----------
    settings
        Observing time, SEFD, polarisations and baseline cuts.
    n_cells, box_length
        Cells along a transverse side, and its length in comoving Mpc.
    depth
        Depth of one cell along the line of sight in comoving Mpc.
    redshift
        Redshift of the slice.

    Returns
    -------
    ndarray
        (N, N) standard deviation sqrt<|n|^2> of numpy's ``fft2`` of the noise image in mK, in
        fft order; 0 where nothing is measured.
    """
    return _noise(settings, uv_time(settings, n_cells, box_length, redshift), box_length, depth, redshift)


def slice_noise(settings: SkaLow, n_cells: int, slices: Slices) -> NDArray[np.float64]:
    """Compute the thermal noise of each transverse Fourier mode of every slice of a light-cone.

    Returns
    -------
    ndarray
        (Nz, N, N), each as `mode_noise` gives it, with the uv coverage of `uv_times`.
    """
    times = uv_times(settings, n_cells, slices.sides, slices.redshifts)
    each = zip(times, slices.sides, slices.depths, slices.redshifts, strict=True)
    return np.stack([_noise(settings, time, side, depth, z) for time, side, depth, z in each])


def _noise(
    settings: SkaLow, time: NDArray[np.float64], box_length: float, depth: float, redshift: float
) -> NDArray[np.float64]:
    """Compute the standard deviation (N, N) in mK of each mode from the seconds (N, N) that baselines spend in it."""
    bandwidth = 1e6 * channel_width(depth, redshift)  # Hz
    # A visibility of one polarisation has <|n|^2> = SEFD^2 / (bandwidth time), half of it in the
    # real part; independent polarisations and samples average down.
    flux = np.zeros_like(time)  # Jy
    seen = time > 0
    flux[seen] = system_flux(settings, redshift) / np.sqrt(settings.polarisations * bandwidth * time[seen])
    # V(u) = sum_pixels I omega exp(-2 pi i u x), so that fft2(I) = V / omega; then T = lambda^2 I / 2k.
    omega = (box_length / len(time) / comoving_distance(redshift)) ** 2  # sr
    return flux * (1e3 * JANSKY * wavelength(redshift) ** 2 / (2 * Boltzmann * omega))
