"""SKA-Low: rotation synthesis, thermal noise in the uv plane, and the observed cube.

A coeval cube is seen as flat sky, one redshift a channel. The noise of a uv cell is set by the
time that baselines spend in it (Thompson, Moran & Swenson 2017, doi:10.1007/978-3-319-44431-4,
sections 4.1 and 6.2); cells that no baseline crosses hold neither signal nor noise. Natural
weighting without a taper: weights on signal and noise alike leave the signal to noise of each
mode as it is, and a weight on one of them alone would invent or destroy information.

Distances are those of astropy's Planck18 (arXiv:1807.06209).
"""

from functools import cache

import numpy as np
import torch
from astropy.cosmology import Planck18
from numpy.typing import NDArray
from scipy.constants import Boltzmann, speed_of_light
from torch import Tensor

from eorinfer.survey.base import Survey, white_noise
from eorinfer.survey.settings import SefdTable, SkaLow

LINE_FREQUENCY = 1420.40575  # MHz, the 21cm line at rest
SIDEREAL_DAY = 86164.0905  # s, one turn of the Earth
JANSKY = 1e-26  # W / m^2 / Hz

#: SEFD of one station and polarisation: SKA-TEL-SKO-0000818 revision 2 (the table that tools21cm
#: ships), which goes on to 350 MHz. 21cm redshifts 27.4 down to 4.7.
SKAO_SEFD: SefdTable = (
    (50.0, 27071.5),
    (60.0, 10828.6),
    (70.0, 6574.5),
    (80.0, 4760.9),
    (90.0, 3535.6),
    (100.0, 3203.4),
    (110.0, 3120.1),
    (120.0, 2988.4),
    (130.0, 2861.4),
    (140.0, 2624.8),
    (150.0, 2467.6),
    (160.0, 2382.5),
    (170.0, 2358.1),
    (180.0, 2320.4),
    (190.0, 2310.7),
    (200.0, 2257.8),
    (210.0, 2235.9),
    (220.0, 2186.3),
    (230.0, 2252.3),
    (240.0, 2237.7),
    (250.0, 2153.9),
)


class SkaLowSurvey(Survey):
    """Observe coeval brightness-temperature cubes with SKA-Low.

    Parameters
    ----------
    settings
        Layout, observing time, SEFD and baseline cuts.
    cells
        (N, N, Nz): two transverse axes and the line of sight.
    cell_size
        Comoving Mpc along each axis; the two transverse ones must be equal.
    redshifts
        One redshift for each of the C channels.

    Attributes
    ----------
    mask
        Buffer (C, N, N // 2 + 1, 1): 1 where a mode is measured, else 0; the rfft half-plane
        over the two transverse axes.
    noise
        Buffer like `mask`, in mK: what white noise of unit variance per cell is multiplied by
        in Fourier space.
    rms
        Thermal noise per cell in mK for each redshift, a tuple of C.
    """

    mask: Tensor
    noise: Tensor

    def __init__(
        self,
        settings: SkaLow,
        cells: tuple[int, int, int],
        cell_size: tuple[float, float, float],
        redshifts: tuple[float, ...],
    ) -> None:
        super().__init__()
        if cells[0] != cells[1] or not np.isclose(cell_size[0], cell_size[1]):
            raise ValueError(f"SKA-Low needs a square sky: got {cells[:2]} cells of {cell_size[:2]} Mpc")
        self.shape = (len(redshifts), *cells)
        sigma = np.stack([
            mode_noise(settings, cells[0], cells[0] * cell_size[0], cell_size[2], redshift)
            for redshift in redshifts
        ])  # fmt: skip
        # White noise of unit variance has <|FFT|^2> = N^2 in each mode; its FFT times this real,
        # symmetric factor is Hermitian and has the variance sigma^2.
        factor = sigma / cells[0]
        half = torch.from_numpy(factor[:, :, : cells[1] // 2 + 1, None]).float()
        self.register_buffer("mask", (half > 0).float())
        self.register_buffer("noise", half)
        self.rms = tuple(float(rms) for rms in np.sqrt((factor**2).mean(axis=(1, 2))))

    def forward(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Observe clean cubes in mK, with shape (B, C, N, N, Nz).

        Each frequency slice (N, N) loses its mean, which no baseline measures.
        """
        if tuple(clean.shape[1:]) != self.shape:
            raise ValueError(f"this survey observes (B, *{self.shape}): got {tuple(clean.shape)}")
        sky = (-3, -2)
        modes = torch.fft.rfft2(clean, dim=sky) * self.mask
        modes = modes + torch.fft.rfft2(white_noise(clean, generator), dim=sky) * self.noise
        return torch.fft.irfft2(modes, s=self.shape[1:3], dim=sky)


def mode_noise(settings: SkaLow, n_cells: int, box_length: float, depth: float, redshift: float) -> NDArray[np.float64]:
    """Thermal noise of each transverse Fourier mode of one frequency slice.

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
    time = uv_time(settings, n_cells, box_length, redshift)
    bandwidth = 1e6 * channel_width(depth, redshift)  # Hz
    # A visibility of one polarisation has <|n|^2> = SEFD^2 / (bandwidth time), half of it in the
    # real part; independent polarisations and samples average down.
    flux = np.zeros_like(time)  # Jy
    seen = time > 0
    flux[seen] = system_flux(settings, redshift) / np.sqrt(settings.polarisations * bandwidth * time[seen])
    # V(u) = sum_pixels I omega exp(-2 pi i u x), so that fft2(I) = V / omega; then T = lambda^2 I / 2k.
    omega = (box_length / n_cells / Planck18.comoving_distance(redshift).value) ** 2  # sr
    return flux * (1e3 * JANSKY * wavelength(redshift) ** 2 / (2 * Boltzmann * omega))


def uv_time(settings: SkaLow, n_cells: int, box_length: float, redshift: float) -> NDArray[np.float64]:
    """Time that baselines spend in each uv cell of a box.

    Parameters
    ----------
    settings
        Layout, track, declination, observing time and baseline cuts.
    n_cells, box_length
        Cells along a transverse side, and its length in comoving Mpc.
    redshift
        Sets the wavelength and the angle that the box subtends.

    Returns
    -------
    ndarray
        (N, N) seconds over the whole observation, summed over baselines at u or -u; fft order
        on both axes (u to the East, v to the North). 0 at u = 0 and outside the baseline cuts.

    Notes
    -----
    tools21cm's map with mirrored baselines holds N_uv = [C(u) + C(-u)] / 2 / n_steps, where C
    counts every pair of stations once in each of n_steps samples: the mean number of baselines
    in the cell or its mirror, halved. A baseline at -u measures the conjugate of the one at u,
    the same number, so both count towards one mode: t_u = [C(u) + C(-u)] t_obs / n_steps
    = 2 N_uv t_obs, and <|n|^2> = SEFD^2 / (n_pol bandwidth t_u) for u and -u alike.
    This function differs from tools21cm in its cosmology (tools21cm: WMAP7), in the sidereal day,
    and in the Nyquist row and column, where both signs are folded onto one.
    """
    theta = box_length / Planck18.comoving_distance(redshift).value
    cell = wavelength(redshift) / theta  # m of baseline
    counts, n_steps = _grid_tracks(settings, n_cells // 2, cell)
    # Every baseline falls in exactly one cell; the cuts act on whole cells, so that they take no
    # time from a mode that they leave.
    index = np.arange(-(n_cells // 2), n_cells // 2 + 1) % n_cells
    folded = np.zeros((n_cells, n_cells))
    np.add.at(folded, np.ix_(index, index), counts + counts[::-1, ::-1])
    frequency = np.fft.fftfreq(n_cells, 1 / n_cells)
    baseline = cell * np.hypot(frequency[:, None], frequency)
    kept = (baseline > 0) & (baseline >= settings.min_baseline) & (baseline <= settings.max_baseline)
    return np.where(kept, folded * (3600 * settings.hours / n_steps), 0.0)


def _grid_tracks(settings: SkaLow, half: int, cell: float) -> tuple[NDArray[np.int64], int]:
    """Count baselines in cells -half..half of `cell` m; counts (2 half + 1)^2 and the time steps."""
    day = 3600 * settings.hours_per_day  # s
    n_steps = round(day / settings.integration)
    middles = (np.arange(n_steps, dtype=np.float64) + 0.5) / n_steps - 0.5  # of the samples, 0 at transit
    hour_angle = middles * (2 * np.pi * day / SIDEREAL_DAY)
    declination = np.deg2rad(settings.declination)

    baselines = _baselines(settings.layout) / cell
    # A baseline lies up to 0.71 cells from the centre of its cell.
    reach = min(np.sqrt(2) * half, settings.max_baseline / cell) + 1
    near = _closest_approach(baselines, hour_angle, declination) < reach
    x, y, z = baselines[near].T.astype(np.float32)
    # Cells outside the map go to a border of one cell, which is cut off at the end: cheaper than
    # choosing baselines anew at each of thousands of steps. float32 holds the flat index exactly.
    side = 2 * half + 3
    counts = np.zeros(side * side, dtype=np.int64)
    sin_dec, cos_dec = np.float32(np.sin(declination)), np.float32(np.cos(declination))
    for angle in hour_angle:
        sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        u = sin * x + cos * y
        v = cos_dec * z - sin_dec * (cos * x - sin * y)
        for axis in (u, v):
            np.clip(np.rint(axis, out=axis), -half - 1, half + 1, out=axis)
        flat = (u + (half + 1)) * side + (v + (half + 1))
        counts += np.bincount(flat.astype(np.intp), minlength=side * side)
    return counts.reshape(side, side)[1:-1, 1:-1], n_steps


def _closest_approach(
    baselines: NDArray[np.float64], hour_angle: NDArray[np.float64], declination: float
) -> NDArray[np.float64]:
    """Lower bound on each baseline's projected length along the track, in the unit of `baselines`."""
    length = np.linalg.norm(baselines, axis=1)
    angles, step = np.linspace(hour_angle[0], hour_angle[-1], 25, retstep=True)
    x, y, z = baselines.T[:, :, None]
    w = np.cos(declination) * (np.cos(angles) * x - np.sin(angles) * y) + np.sin(declination) * z
    projected = np.sqrt(np.maximum(length[:, None] ** 2 - w**2, 0.0))
    # Per radian, no baseline's projection moves further than the baseline is long.
    return np.asarray(projected.min(axis=1) - length * step / 2, dtype=np.float64)


@cache
def _baselines(layout: str) -> NDArray[np.float64]:
    """All pairs of stations once, (n_pairs, 3) in m: X to the meridian, Y East, Z to the pole."""
    with np.errstate():  # importing tools21cm switches numpy's floating-point warnings off for everyone
        from tools21cm import get_SKA_Low_layout
    stations = get_SKA_Low_layout(layout, unit="xyz", verbose=False).to_value("m")
    first, second = np.triu_indices(len(stations), 1)
    baselines = stations[first] - stations[second]
    baselines.flags.writeable = False  # every caller shares this array
    return baselines


def wavelength(redshift: float) -> float:
    """Observed wavelength of the 21cm line in m."""
    return speed_of_light * (1 + redshift) / (1e6 * LINE_FREQUENCY)


def channel_width(depth: float, redshift: float) -> float:
    """Bandwidth in MHz of a cell `depth` comoving Mpc deep."""
    hubble = Planck18.H(redshift).to_value("km / (s Mpc)")
    return LINE_FREQUENCY * hubble * depth / (1e-3 * speed_of_light * (1 + redshift) ** 2)


def system_flux(settings: SkaLow, redshift: float) -> float:
    """SEFD in Jy of one station and polarisation at the redshifted 21cm line.

    Raises
    ------
    ValueError
        If the table of SEFDs does not reach that frequency.
    """
    if isinstance(settings.sefd, float):
        return settings.sefd
    frequencies, values = zip(*(settings.sefd or SKAO_SEFD), strict=True)
    frequency = LINE_FREQUENCY / (1 + redshift)
    if not frequencies[0] <= frequency <= frequencies[-1]:
        raise ValueError(
            f"redshift {redshift:g} is at {frequency:.1f} MHz, outside the SEFD table "
            f"({frequencies[0]:g} to {frequencies[-1]:g} MHz)"
        )
    return float(np.exp(np.interp(frequency, frequencies, np.log(values))))  # nearly a power law
