"""Geometry of a light-cone: slices of a periodic box, and the channels and pixels made of them.

Distances are those of astropy's Planck18 (arXiv 1807.06209), whose parameters 21cmFAST shares; the two
differ by 2e-5. Astropy is imported with the first distance, since that takes half a second.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LINE_FREQUENCY = 1420.40575  # MHz, the 21cm line at rest


def distance(redshift: float) -> float:
    """Compute the comoving distance in Mpc."""
    from astropy.cosmology import Planck18

    return float(Planck18.comoving_distance(redshift).value)


@lru_cache(maxsize=1)
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate comoving distances and redshifts from 1 to 60, fine enough for 1e-6 in redshift."""
    from astropy.cosmology import Planck18

    redshifts = np.geomspace(2.0, 61.0, 20001) - 1
    return Planck18.comoving_distance(redshifts).value, redshifts


def redshift_at(distances: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Compute the redshift at each comoving distance in Mpc."""
    return np.asarray(np.interp(distances, *_table()), dtype=np.float64)


def redshift_of(mhz: float) -> float:
    """Compute the redshift at which the 21cm line is observed at a frequency in MHz."""
    return LINE_FREQUENCY / mhz - 1


def frequency_of(redshift: float) -> float:
    """Compute the frequency in MHz at which the 21cm line of a redshift is observed."""
    return LINE_FREQUENCY / (1 + redshift)


def slice_distances(near: float, far: float, depth: float, whole: bool) -> NDArray[np.float64]:
    """Compute the distances in Mpc to the middles of slices that begin at `near`.

    Parameters
    ----------
    near, far
        Edges of the light-cone in Mpc.
    depth
        Depth of one slice in Mpc.
    whole
        Whether the slices must reach `far`, or end as close to it as they can.
    """
    number = np.ceil((far - near) / depth - 1e-9) if whole else np.round((far - near) / depth)
    return near + depth * (np.arange(int(number), dtype=np.float64) + 0.5)


def overlaps(inner: NDArray[np.float64], outer: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the weights that turn means over inner cells into means over outer ones.

    A channel or pixel holds the mean over its extent of a field that is constant within each cell:
    nothing is smoothed or sharpened beyond that, and a fully ionised region stays exactly zero.

    Parameters
    ----------
    inner, outer
        Rising edges of n and m cells; the inner ones cover the outer ones.

    Returns
    -------
    ndarray
        (m, n), each row with the sum 1.
    """
    low = np.maximum(outer[:-1, None], inner[None, :-1])
    high = np.minimum(outer[1:, None], inner[None, 1:])
    lengths = np.clip(high - low, 0.0, None)
    return lengths / lengths.sum(axis=1, keepdims=True)
