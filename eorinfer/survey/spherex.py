"""SPHEREx: beam, channel noise and masked pixels, on maps and spectral cubes of in-band intensity."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from eorinfer.core.arrays import white_noise
from eorinfer.settings.survey import SphereX
from eorinfer.survey.base import Survey
from eorinfer.survey.continuum import ContinuumResidual
from eorinfer.survey.sensitivity import PIXEL, Channels, noise_level, resolving_power
from simulators.fourier import frequencies


class SphereXSurvey(Survey):
    """Observe the sum of the lines in nW/m^2/sr.

    The sky is smoothed by the beam, and each channel adds white noise. With `[survey] smoothing` both are smoothed
    further. Where the lines are smoothed already (`smoothing`), the noise is smoothed alike. Masked pixels are zero.
    Channels that two cubes share have the same noise and mask.

    Parameters
    ----------
    settings
        Beam, noise table, smoothing and masks.
    pixel
        Side of a pixel, arcmin.
    pixels
        Number of pixels along each side of the map.
    channels
        Wavelengths and R of the channels, and the slices of a cube that they are.
    smoothing
        Standard deviation in arcmin of the Gaussian that the clean maps were smoothed with.
    """

    _sigma: Tensor
    _beam: Tensor
    _smoothing: Tensor
    _like_lines: Tensor | None
    _disc: Tensor

    def __init__(
        self, settings: SphereX, pixel: float, pixels: tuple[int, int], channels: Channels, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self._starts, self._slices = channels.starts, channels.slices
        self._continuum: ContinuumResidual | None = None
        if settings.continuum is not None:
            width = 1 / (channels.resolution or resolving_power(settings, channels.wavelengths[0]))
            self._continuum = ContinuumResidual(
                settings.continuum, channels.wavelengths, width, cube=channels.slices > 0, pixels=pixels, pixel=pixel
            )
        levels = [noise_level(settings, wavelength, channels.resolution) for wavelength in channels.wavelengths]
        sigma = [level * PIXEL / pixel for level in levels]
        self.register_buffer("_sigma", torch.tensor(sigma, dtype=torch.float32), persistent=False)
        self._smooth = settings.smoothing > 0
        lines = math.sqrt(8 * math.log(2)) * smoothing
        widths = {"_beam": settings.beam / 60, "_smoothing": settings.smoothing, "_like_lines": lines or None}
        for name, fwhm in widths.items():
            transfer = None if fwhm is None else _gaussian(fwhm, pixel, (2 * pixels[0], 2 * pixels[1]))
            self.register_buffer(name, transfer, persistent=False)
        # Probability that a star is in a pixel, and that a pixel is dead.
        self._stars = 1 - math.exp(-settings.stars * (pixel / 60) ** 2)
        self._dead = settings.dead_pixels
        reach = int(settings.star_radius / pixel)
        r = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
        disc = torch.tensor(r * pixel <= settings.star_radius, dtype=torch.float32)
        self.register_buffer("_disc", disc[None, None], persistent=False)

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Return the noise of a pixel in each channel of the instrument (M,) in nW/m^2/sr, before smoothing."""
        return self._sigma.double().cpu().numpy()

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe clean cubes, with shape (B, C, *cells)."""
        cubes = clean if self._slices else clean[..., None]
        sky = _filtered(cubes, self._beam)
        b, _, nx, ny, _ = cubes.shape
        instrument = white_noise(sky, generator, (b, nx, ny, len(self._sigma))) * self._sigma.to(sky)
        if self._continuum is not None:
            instrument = self._continuum.noise_factor() * self._continuum.remove(instrument)
            instrument = instrument + self._continuum(instrument, generator)
            sky = self._windows(self._continuum.remove(self._instrument(sky)))
        if self._like_lines is not None:
            instrument = _filtered(instrument[:, None], self._like_lines)[:, 0]
        observed = sky + self._windows(instrument)
        if self._smooth:
            observed = _filtered(observed, self._smoothing)
        if self._stars or self._dead:
            observed = observed * self._windows(self._good(instrument, generator))
        return observed if self._slices else observed[..., 0]

    def _windows(self, instrument: Tensor) -> Tensor:
        """Sort channels of the instrument (B, nx, ny, M) into cubes (B, C, nx, ny, slices)."""
        if not self._slices:
            return instrument.movedim(-1, 1)[..., None]
        if not self._starts:
            return instrument[:, None]
        return torch.stack([instrument[..., start : start + self._slices] for start in self._starts], dim=1)

    def _instrument(self, cubes: Tensor) -> Tensor:
        """Undo `_windows`: one spectrum of the instrument (B, nx, ny, M) from cubes (B, C, nx, ny, slices)."""
        if not self._slices:
            return cubes[..., 0].movedim(1, -1)
        if not self._starts:
            return cubes[:, 0]
        spectrum = cubes.new_empty(*cubes.shape[:1], *cubes.shape[2:4], len(self._sigma))
        for start, cube in zip(self._starts, cubes.unbind(1), strict=True):
            spectrum[..., start : start + self._slices] = cube
        return spectrum

    def _good(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the mask (B, nx, ny, M): 1 where a pixel is used, else 0."""
        good = torch.ones_like(like)
        if self._stars:
            stars = torch.rand(like.shape[:3], generator=generator, device=generator.device).to(like.device)
            hit = (stars < self._stars).to(self._disc)[:, None]
            hidden = F.conv2d(hit, self._disc, padding=self._disc.shape[-1] // 2)[:, 0] > 0.5
            good = good * (~hidden)[..., None]
        if self._dead:
            draw = torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)
            good = good * (draw >= self._dead)
        return good


def _gaussian(fwhm: float, pixel: float, pixels: tuple[int, int]) -> Tensor:
    """Compute the transfer function (nx, ny // 2 + 1, 1) of a Gaussian with a FWHM in arcmin."""
    x, y = frequencies(pixels, (pixel, pixel))
    k2 = x[:, None] ** 2 + y**2
    sigma = fwhm / math.sqrt(8 * math.log(2))
    return torch.tensor(np.exp(-2 * (math.pi * sigma) ** 2 * k2), dtype=torch.float32)[..., None]


def _filtered(cubes: Tensor, transfer: Tensor) -> Tensor:
    """Filter the maps of cubes (B, C, nx, ny, slices) by a transfer function; the edges are mirrored."""
    nx, ny = cubes.shape[2:4]
    # Mirrored to twice its size a map is periodic, and the kernel does not carry one edge to the other.
    wide = torch.cat([cubes, cubes.flip(2)], dim=2)
    wide = torch.cat([wide, wide.flip(3)], dim=3)
    modes = torch.fft.rfftn(wide, dim=(2, 3)) * transfer.to(wide)
    return torch.fft.irfftn(modes, s=(2 * nx, 2 * ny), dim=(2, 3))[:, :, :nx, :ny]
