"""Positions of antennas, and the baselines between them. Loads no torch."""

from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.layouts import SKA_LOW, Antennas

#: Dishes along a side of HERA's hexagon, and the distance between two in m (DeBoer et al. 2017, arXiv:1606.07473).
HERA_SIDE, HERA_SEPARATION = 11, 14.6


@cache
def baselines_of(layout: str, antennas: Antennas | None, latitude: float) -> NDArray[np.float64]:
    """List the vectors between all pairs of antennas.

    Parameters
    ----------
    layout
        Name of an array; a file of antennas has its positions in `antennas`.
    antennas
        East, north and up of each in m; None for an array that has a name.
    latitude
        Degrees; SKA-Low's own layouts have theirs from tools21cm.

    Returns
    -------
    ndarray
        (n_pairs, 3) in m: X to the meridian, Y East, Z to the pole.
    """
    stations = _ska_low(layout) if layout in SKA_LOW else _equatorial(_local(layout, antennas), latitude)
    first, second = np.triu_indices(len(stations), 1)
    baselines = stations[first] - stations[second]
    baselines.flags.writeable = False  # every caller shares this array
    return baselines


def _ska_low(layout: str) -> NDArray[np.float64]:
    """Look up the stations of SKA-Low (n, 3) in m, on the axes of `baselines_of`."""
    with np.errstate():  # importing tools21cm switches numpy's floating-point warnings off for everyone
        from tools21cm import get_SKA_Low_layout
    return np.asarray(get_SKA_Low_layout(layout, unit="xyz", verbose=False).to_value("m"), dtype=np.float64)


def _local(layout: str, antennas: Antennas | None) -> NDArray[np.float64]:
    """Give east, north and up (n, 3) in m."""
    if antennas is not None:
        return np.array(antennas, dtype=np.float64)
    if layout == "HERA":
        return hexagon(HERA_SIDE, HERA_SEPARATION)
    source = files("eorinfer.survey") / "layouts" / f"{layout.lower()}.txt"
    return np.loadtxt(source.read_text().splitlines())


def hexagon(side: int, separation: float) -> NDArray[np.float64]:
    """Place dishes in a hexagon with `side` along each side, `separation` m apart: (3 side (side - 1) + 1, 3) in m."""
    first, second = np.mgrid[1 - side : side, 1 - side : side]
    first, second = (steps[np.abs(first + second) < side] for steps in (first, second))
    east, north = first + second / 2, np.sqrt(0.75) * second
    return separation * np.stack([east, north, np.zeros_like(east)], axis=1)


def _equatorial(local: NDArray[np.float64], latitude: float) -> NDArray[np.float64]:
    """Turn east, north and up (n, 3) to the axes of `baselines_of`."""
    east, north, up = local.T
    sin, cos = np.sin(np.deg2rad(latitude)), np.cos(np.deg2rad(latitude))
    return np.stack([cos * up - sin * north, east, cos * north + sin * up], axis=1)
