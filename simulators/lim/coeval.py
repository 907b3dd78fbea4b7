"""Line intensity of the galaxies of a periodic box, on the grid of the box's other fields."""

import numpy as np
from numpy.typing import NDArray

from simulators.lim.lightcone import MPC, NANOWATT


def box_intensity(
    position: NDArray[np.floating],
    luminosity: NDArray[np.floating],
    cells: tuple[int, int, int],
    box_length: float,
    redshift: float,
) -> NDArray[np.float64]:
    """Compute the in-band intensity (*cells) in nW/m^2/sr of a box, each slice along the last axis a channel.

    I = sum of L / (4 pi d_L^2 Omega) over the galaxies of a cell, and d_L^2 Omega = (1 + z)^2 times the comoving area
    of the cell. Slices add up to the in-band intensity of a deeper channel.

    Parameters
    ----------
    position
        (n, 3) positions in comoving Mpc, in [0, box_length).
    luminosity
        (n,) luminosities in erg/s.
    cells
        Number of cells along each axis.
    box_length
        Side of the box, Mpc.
    redshift
        Redshift of the box.

    Raises
    ------
    ValueError
        If a galaxy lies outside the box.
    """
    if not ((position >= 0) & (position <= box_length)).all():
        raise ValueError(f"galaxies from {position.min():g} to {position.max():g} Mpc in a box of {box_length:g} Mpc")
    # A position just below the end of the box may round to the end, which is its beginning.
    index = np.floor(position / (box_length / np.array(cells))).astype(np.int64)
    flat = np.ravel_multi_index(tuple(index.T), cells, mode="wrap")
    total = np.bincount(flat, luminosity, minlength=int(np.prod(cells))).reshape(cells)
    area = (box_length / cells[0]) * (box_length / cells[1]) * MPC**2
    return np.asarray(total * (NANOWATT / (4 * np.pi * (1 + redshift) ** 2 * area)))
