"""Residuals of foregrounds after their removal, as a Gaussian field. Loads no torch."""

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.survey import Residual
from eorinfer.survey.sky import wavenumbers
from simulators.fourier import mode_weights


def residual_modes(
    settings: Residual, cells: tuple[int, int, int], cell_size: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Compute the factor on the Fourier modes of white noise of unit variance that makes residuals of it.

    Parameters
    ----------
    settings
        P ~ k_perp^index exp(-(k_par / k_par_scale)^2 / 2), with the root mean square `amplitude` in mK per cell.
    cells, cell_size
        (N, N, Nz) cells, and their sides in comoving Mpc.

    Returns
    -------
    ndarray
        (N, N // 2 + 1, Nz) in mK: the rfft half-plane over the transverse axes and the full fft along the last;
        0 where k_perp is 0, which no baseline measures.
    """
    across, along = wavenumbers(cells, cell_size)
    measured = across > 0
    power = np.zeros((*across.shape, cells[2]))
    power[measured] = across[measured, None] ** settings.index * np.exp(-((along / settings.k_par_scale) ** 2) / 2)
    mean = (power * mode_weights(cells[:2])[..., None]).sum() / np.prod(cells)
    return np.asarray(settings.amplitude * np.sqrt(power / mean), dtype=np.float64)
