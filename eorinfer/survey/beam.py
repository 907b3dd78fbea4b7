"""Primary beam of a station, and windows along the line of sight. Loads no torch."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import windows
from scipy.special import j1

from eorinfer.settings.survey import SkaLow
from eorinfer.survey.sky import comoving_distance, wavelength

#: Full width at half maximum of an evenly lit disc, in wavelengths over its diameter.
FWHM = 1.029


def primary_beam(settings: SkaLow, n_cells: int, box_length: float, redshift: float) -> NDArray[np.float64]:
    """Compute the power beam of a station at the centres of the cells of a slice, 1 in the middle of the field.

    Parameters
    ----------
    settings
        Shape of the beam, and the layout with the diameter of a station.
    n_cells, box_length
        Cells along a transverse side, and its length in comoving Mpc.
    redshift
        Sets the wavelength and the angle that the box subtends.

    Returns
    -------
    ndarray
        (N, N): Airy's pattern of an evenly lit disc, or the Gaussian of the same width at half maximum.
    """
    side = box_length / comoving_distance(redshift)
    x = (np.arange(n_cells) - (n_cells - 1) / 2) * side / n_cells
    angle = np.hypot(x[:, None], x)
    scale = wavelength(redshift) / settings.array.diameter
    if settings.beam == "gaussian":
        return np.asarray(np.exp2(-((2 * angle / (FWHM * scale)) ** 2)), dtype=np.float64)
    argument = np.pi * np.sin(angle) / scale
    small = argument < 1e-6
    argument[small] = 1.0
    return np.where(small, 1.0, (2 * j1(argument) / argument) ** 2)


def line_of_sight_taper(settings: SkaLow, n_cells: int) -> NDArray[np.float64]:
    """Compute the window (Nz,) along the line of sight; its mean square is 1, so that white noise keeps its power."""
    name = {"blackman-harris": "blackmanharris", "hann": "hann"}[settings.taper or "hann"]
    window = windows.get_window(name, n_cells, fftbins=False)
    return np.asarray(window / np.sqrt((window**2).mean()), dtype=np.float64)
