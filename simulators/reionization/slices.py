"""Slices of a light-cone: where each one lies in the periodic box, and its interpolation between two nodes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulators.base import SimulationError
from simulators.reionization.geometry import distance, redshift_at

if TYPE_CHECKING:
    from astropy.cosmology import FLRW


@dataclass(frozen=True)
class View:
    """Way in which a light-cone runs through the periodic box.

    Attributes
    ----------
    axis
        Axis of the box along the line of sight; the others stay in their order.
    start
        Cell of the box at the light-cone's corner: the two across, then the one along the line of sight.
    """

    axis: int
    start: tuple[int, int, int]

    def planes(self, number: int, first: int, cells: int) -> NDArray[np.int_]:
        """Return the planes of the box at `number` slices from slice `first` on, counted around."""
        return (self.start[2] + first + np.arange(number)) % cells


def refuse_other_cosmology(cosmology: "FLRW", distances: NDArray[np.float64]) -> None:
    """Raise unless the simulation's own distances are those of the light-cone's slices.

    Else slices would be taken at the wrong redshifts, or lie beyond the nodes (21cmFAST issue 666).

    Parameters
    ----------
    cosmology
        Cosmology of the simulation, an object of astropy.
    distances
        Distances to the slices, in Mpc.

    Raises
    ------
    SimulationError
        If they differ by more than 0.1 per cent at either end.
    """
    for ours in (distances[0], distances[-1]):
        z = float(redshift_at(ours))
        theirs = float(cosmology.comoving_distance(z).value)
        if abs(theirs / ours - 1) > 1e-3:
            raise SimulationError(
                f"21cmFAST's cosmology has z = {z:.3f} at {theirs:.1f} Mpc, the light-cone at {ours:.1f} Mpc "
                "(Planck18): its slices would not be those of the simulation"
            )


def fill_slices(
    made: dict[str, NDArray[np.float32]],
    planes: NDArray[np.int_],
    axis: int,
    slices: NDArray[np.float64],
    above: Any,
    below: Any,
) -> None:
    """Fill the slices of `made` between two coevals by interpolation, linear in comoving distance."""
    far, near = distance(above.redshift), distance(below.redshift)
    here = np.flatnonzero((slices >= near) & (slices <= far))
    weight = ((slices[here] - near) / (far - near)).astype(np.float32)
    for name, cube in made.items():
        field = f"velocity_{'xyz'[axis]}" if name == "velocity" else name
        first, second = (np.moveaxis(getattr(box, field), axis, 2)[..., planes[here]] for box in (above, below))
        cube[..., here] = weight * first + (1 - weight) * second


def refuse_empty(made: dict[str, NDArray[np.float32]], slices: NDArray[np.float64]) -> None:
    """Raise `SimulationError` if a slice lies between no two nodes."""
    for name, cube in made.items():
        empty = np.flatnonzero(np.isnan(cube).any(axis=(0, 1)))
        if len(empty):
            z = float(redshift_at(slices[empty[0]]))
            raise SimulationError(
                f"{len(empty)} of {len(slices)} slices of {name} were not made, the first at z = {z:.3f}"
            )


def nearest_slices(
    theirs: NDArray[np.float64], ours: NDArray[np.float64], cell: float
) -> tuple[NDArray[np.int_], float]:
    """Choose among slices that were made elsewhere.

    Parameters
    ----------
    theirs, ours
        Comoving distances in Mpc to the middles of those slices, in any order, and of a light-cone's own, rising.
    cell
        Depth of a slice in Mpc.

    Returns
    -------
    nearest, off
        For each of ours the number of theirs, and the largest distance between two of a pair in Mpc.

    Raises
    ------
    SimulationError
        If the slices do not reach from end to end.
    """
    # A slice stands for the cell around it; half a cell nearer or farther is the same history.
    nearest = np.abs(theirs - ours[:, None]).argmin(axis=1)
    off = float(np.abs(theirs[nearest] - ours).max())
    if off > 0.5001 * cell or len(set(nearest.tolist())) < len(nearest):
        needed, there = redshift_at(ours[[0, -1]]), redshift_at(np.array([theirs.min(), theirs.max()]))
        raise SimulationError(
            f"{len(theirs)} slices from z = {there[0]:.4g} to {there[1]:.4g}, expected {len(ours)} "
            f"from {needed[0]:.4g} to {needed[1]:.4g}, {cell:g} Mpc apart"
        )
    return nearest, off
