"""Wavelength, bandwidth, system noise and foreground wedge of a radio telescope at a redshift.

Distances are those of astropy's Planck18 (arXiv:1807.06209). Loads no torch.
"""

import numpy as np
from astropy.cosmology import Planck18
from numpy.typing import NDArray
from scipy.constants import Boltzmann, speed_of_light

from eorinfer.settings.survey import SefdName, SefdTable, SkaLow
from simulators.fourier import frequencies
from simulators.reionization.geometry import LINE_FREQUENCY

JANSKY = 1e-26  # W / m^2 / Hz

#: SEFD of one station and polarisation with the antennas of AAVS2: root 2 times that of Stokes I from SKAO's
#: calculator, at right ascension 0, declination -30 degrees and sidereal time 0 (the table that tools21cm ships;
#: arXiv:2204.05873). It continues to 350 MHz.
AAVS2_SEFD: SefdTable = (
    (49.92, 13697.9), (58.88, 7197.8), (69.12, 4930.5), (79.36, 3634.8), (88.32, 2931.0), (89.6, 2850.6),
    (99.84, 2372.8), (108.8, 2158.6), (119.04, 2063.3), (129.28, 1985.1), (139.52, 1894.2),
    (149.76, 1910.8), (154.88, 1925.8), (160, 2010.6), (168.96, 2138.4), (179.2, 2259.9), (185.6, 2253.9),
    (189.44, 2223.4), (199.68, 2144.4), (209.92, 2137.1), (216.32, 2214.0), (218.88, 2208.4),
    (229.12, 2341.6), (239.36, 2439.0), (249.6, 2316.1), (259.84, 2212.6),
)  # fmt: skip

#: SEFD of one station and polarisation of the older design: SKA-TEL-SKO-0000818 revision 2 (the table that tools21cm
#: ships), which continues to 350 MHz. These frequencies are 21cm redshifts 27.4 to 4.7.
SKA818_SEFD: SefdTable = (
    (50.0, 27071.5), (60.0, 10828.6), (70.0, 6574.5), (80.0, 4760.9), (90.0, 3535.6), (100.0, 3203.4),
    (110.0, 3120.1), (120.0, 2988.4), (130.0, 2861.4), (140.0, 2624.8), (150.0, 2467.6), (160.0, 2382.5),
    (170.0, 2358.1), (180.0, 2320.4), (190.0, 2310.7), (200.0, 2257.8), (210.0, 2235.9), (220.0, 2186.3),
    (230.0, 2252.3), (240.0, 2237.7), (250.0, 2153.9),
)  # fmt: skip

SEFD_TABLES: dict[SefdName, SefdTable] = {"aavs2": AAVS2_SEFD, "818": SKA818_SEFD}
#: Share by which the ends of a table may be rounded.
ROUNDED = 1e-3
#: Temperature of the receivers in K where the SEFD is computed.
RECEIVER = 100.0


def comoving_distance(redshift: float) -> float:
    """Compute the comoving distance in Mpc, transverse and along the line of sight: the Universe is flat."""
    return float(Planck18.comoving_distance(redshift).value)


def wavelength(redshift: float) -> float:
    """Compute the observed wavelength of the 21cm line in m."""
    return speed_of_light * (1 + redshift) / (1e6 * LINE_FREQUENCY)


def channel_width(depth: float, redshift: float) -> float:
    """Compute the bandwidth in MHz of a cell `depth` comoving Mpc deep."""
    hubble = Planck18.H(redshift).to_value("km / (s Mpc)")
    return LINE_FREQUENCY * hubble * depth / (1e-3 * speed_of_light * (1 + redshift) ** 2)


def system_flux(settings: SkaLow, redshift: float) -> float:
    """Look up the SEFD in Jy of one station and polarisation at the redshifted 21cm line.

    Raises
    ------
    ValueError
        If the table of SEFDs does not reach that frequency.
    """
    if isinstance(settings.sefd, float):
        return settings.sefd
    if settings.sefd == "sky":
        # 60 K lambda^2.55, as in 21cmSense and tools21cm (Thompson, Moran & Swenson 2017, section 5.7).
        temperature = RECEIVER + 60.0 * (300.0 * (1 + redshift) / LINE_FREQUENCY) ** 2.55
        return 2 * Boltzmann * temperature / settings.array.area / JANSKY
    table = SEFD_TABLES[settings.sefd] if isinstance(settings.sefd, str) else settings.sefd
    frequencies, values = zip(*table, strict=True)
    frequency = LINE_FREQUENCY / (1 + redshift)
    if not frequencies[0] * (1 - ROUNDED) <= frequency <= frequencies[-1] * (1 + ROUNDED):
        raise ValueError(
            f"redshift {redshift:g} is at {frequency:.1f} MHz, outside the SEFD table "
            f"({frequencies[0]:g} to {frequencies[-1]:g} MHz)"
        )
    return float(np.exp(np.interp(frequency, frequencies, np.log(values))))  # nearly a power law


def wedge_slope(redshift: float, angle: float) -> float:
    """Compute k_par over k_perp at the edge of the foreground wedge.

    A source at `angle` from the pointing has the geometric delay b sin(angle) / c on a baseline b, which
    is k_par = sin(angle) D(z) H(z) / (c (1 + z)) k_perp (Liu, Parsons & Trott 2014, arXiv:1404.2596).

    Parameters
    ----------
    redshift
        Redshift of the 21cm signal.
    angle
        Angle from the pointing in degrees; 90 is the horizon.
    """
    hubble = Planck18.H(redshift).to_value("km / (s Mpc)")
    slope = comoving_distance(redshift) * hubble / (1e-3 * speed_of_light * (1 + redshift))
    return float(np.sin(np.deg2rad(angle)) * slope)


def baseline_length(k: float, redshift: float) -> float:
    """Compute the length in m of the baseline that measures a transverse wavenumber k in 1/Mpc."""
    return k * comoving_distance(redshift) * wavelength(redshift) / (2 * np.pi)


def wavenumbers(
    cells: tuple[int, int, int], cell_size: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute transverse k (N, N // 2 + 1) of a real FFT and line-of-sight |k| (Nz,) of a full FFT, in 1/Mpc."""
    x, y = (2 * np.pi * frequency for frequency in frequencies(cells[:2], cell_size[:2]))
    (z,) = frequencies(cells[2:], cell_size[2:], half=False)
    return np.hypot(x[:, None], y), 2 * np.pi * np.abs(z)


def outside_wedge(
    settings: SkaLow, cells: tuple[int, int, int], cell_size: tuple[float, float, float], redshift: float
) -> NDArray[np.bool_]:
    """Mark the modes without foregrounds: |k_par| above the wedge's edge and the buffer beyond it.

    Returns
    -------
    ndarray
        (N, N // 2 + 1, Nz), the rfft half-plane over the transverse axes and the full fft along the last.
    """
    across, along = wavenumbers(cells, cell_size)
    edge = wedge_slope(redshift, settings.wedge_angle) * across + settings.wedge_buffer
    outside: NDArray[np.bool_] = along >= edge[:, :, None]
    return outside
