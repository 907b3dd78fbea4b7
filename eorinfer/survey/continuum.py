"""Continuum of unresolved galaxies and its removal by a smooth fit along each pixel's spectrum."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eorinfer.core.arrays import white_noise
from eorinfer.settings.survey import Continuum
from simulators.fourier import frequencies, mode_weights


class ContinuumResidual(nn.Module):
    """Add a power law to the spectrum of every pixel, and subtract a polynomial fit in ln(wavelength).

    The continuum of a pixel is mean (1 + fluctuation g) (wavelength / middle)^(slope + slope_scatter h), where g is a
    Gaussian field of unit variance with angular spectrum k^index, and h white noise. Cubes are fitted over their own
    channels, so that smooth modes of lines and noise are lost with it. For a map the fit is to `channels` channels on
    either side of its own, spaced by its width: it leaves the continuum's curvature and the noise of those channels.
    The lines in these channels are left out.

    Parameters
    ----------
    settings
        Continuum and order of the fit.
    wavelengths
        (M,) wavelengths of the instrument's channels.
    width
        Width of a channel over its wavelength.
    cube
        Whether the channels are the spectrum of one cube, not separate maps.
    pixels, pixel
        Pixels along each side of the map, and their side.
    """

    _amplitude: Tensor
    _removal: Tensor
    _depth: Tensor
    _neighbours: Tensor
    _weights: Tensor

    def __init__(
        self,
        settings: Continuum,
        wavelengths: tuple[float, ...],
        width: float,
        *,
        cube: bool,
        pixels: tuple[int, int],
        pixel: float,
    ) -> None:
        super().__init__()
        self._settings, self._pixels, self._cube = settings, pixels, cube
        x, y = frequencies(pixels, (pixel, pixel))
        k = np.hypot(x[:, None], y)
        power = np.where(k > 0, np.where(k > 0, k, 1.0) ** settings.index, 0.0)
        unit = np.sqrt(power * np.prod(pixels) / (power * mode_weights(pixels)).sum())
        self.register_buffer("_amplitude", torch.tensor(unit, dtype=torch.float32), persistent=False)
        depth = np.log(np.asarray(wavelengths))
        depth = depth - depth.mean() if cube else np.zeros(len(wavelengths))
        self.register_buffer("_depth", torch.tensor(depth, dtype=torch.float32), persistent=False)
        removal = np.eye(len(depth)) - _fit(depth, depth, settings.order) if cube else np.eye(len(depth))
        self.register_buffer("_removal", torch.tensor(removal, dtype=torch.float32), persistent=False)
        steps = np.arange(-settings.channels, settings.channels + 1)
        beside = width * steps[steps != 0]
        weights = np.zeros((1, len(beside))) if cube else _fit(beside, np.zeros(1), settings.order)
        self.register_buffer("_neighbours", torch.tensor(beside, dtype=torch.float32), persistent=False)
        self.register_buffer("_weights", torch.tensor(weights[0], dtype=torch.float32), persistent=False)

    def remove(self, spectra: Tensor) -> Tensor:
        """Subtract the fit to the spectra (..., M) of lines or noise themselves; maps stay as they are."""
        return spectra @ self._removal.to(spectra).T if self._cube else spectra

    def noise_factor(self) -> float:
        """Return the factor on a map's noise by that of the channels beside it; 1 for cubes."""
        return math.sqrt(1 + float(self._weights.square().sum()))

    def forward(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what is left of the continuum, with the shape (B, nx, ny, M) and unit of `like`."""
        settings, (b, nx, ny, _) = self._settings, like.shape
        modes = torch.fft.rfft2(white_noise(like, generator, (b, nx, ny))) * self._amplitude.to(like)
        bright = settings.mean * (1 + settings.fluctuation * torch.fft.irfft2(modes, s=self._pixels))
        slope = settings.slope + settings.slope_scatter * white_noise(like, generator, (b, nx, ny))
        spectra = bright[..., None] * torch.exp(slope[..., None] * self._depth.to(like))
        if self._cube:
            return self.remove(spectra)
        fitted = torch.exp(slope[..., None] * self._neighbours.to(like)) @ self._weights.to(like)
        return spectra - (bright * fitted)[..., None]


def _fit(x: NDArray[np.float64], at: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Compute the weights (len(at), len(x)) by which a polynomial fitted to values at x gives those at `at`."""
    scale = np.abs(x).max()
    design = np.vander(x / scale, order + 1)
    return np.asarray(np.vander(at / scale, order + 1) @ np.linalg.pinv(design))
