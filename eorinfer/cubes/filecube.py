"""A cube as a file describes it, before its unit is converted and anything is compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from simulators import Observable
from simulators.reionization.geometry import frequency_of


@dataclass(frozen=True)
class FileCube:
    """Content of a file.

    Attributes
    ----------
    values
        (C, *cells) in the unit and the precision of the file.
    unit, axes, cell_size, channels, coordinates, field_of_view
        See `simulators.Observable`.
    theta, seed
        Parameters (P,) and seed of a mock, None for the sky.
    mask
        Cells (C, *cells) of bool that the file marks as left out, None for none.
    frequencies
        MHz of the cells, as `eorinfer.core.units.Conditions` has them; None where the file has none.
    beam, pixel
        Solid angles in sr; the beam as one number or in the shape of `frequencies`; None where not said.
    notes
        A line for each thing that a reader should know: what was taken from the config, or turned round.
    """

    values: NDArray[Any]
    unit: str
    axes: tuple[str, ...]
    cell_size: tuple[float, ...]
    channels: tuple[float, ...]
    coordinates: tuple[float, ...] = ()
    field_of_view: float = 0.0
    theta: NDArray[np.float64] | None = None
    seed: int | None = None
    mask: NDArray[np.bool_] | None = None
    frequencies: NDArray[np.float64] | None = None
    beam: NDArray[np.float64] | float | None = None
    pixel: float | None = None
    notes: tuple[str, ...] = ()


def frequencies_of(observable: Observable) -> NDArray[np.float64] | None:
    """Compute the frequency in MHz of the cells of a cube, in a shape that broadcasts with (C, *cells).

    Returns
    -------
    NDArray
        None where the observable does not say.
    """
    o, along = observable, np.array(observable.coordinates)
    of_channels = (-1, *(1,) * len(o.cells))
    if o.axes[0] == "wavelength":
        metres = 1e-6 * np.array(o.channels).reshape(of_channels)
        return 299.792458 / (metres * (1 + along) / (1 + along[0]) if o.coordinates else metres)
    if o.axes[-1] == "frequency" and o.coordinates:
        return along
    if o.axes[-1] == "z" and o.coordinates:
        return np.array([frequency_of(z) for z in o.coordinates])
    if o.axes[0] == "redshift":
        return np.array([frequency_of(z) for z in o.channels]).reshape(of_channels)
    return None


def whole_mask(values: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    """Spread a mask over a cube (C, *cells): cells that are not 0, or are NaN, are left out.

    Parameters
    ----------
    values
        (C, *cells), (*cells), or of three cell axes a map (x, y) for all slices, or one a channel.
    shape
        Shape of the cube.
    where
        Name of the mask for the message.

    Returns
    -------
    NDArray
        (C, *cells) of bool.

    Raises
    ------
    InputError
        If it has another shape, or leaves no cell.
    """
    cells = shape[1:]
    allowed, expected = [shape, cells], f"{shape} or {cells}"
    if len(cells) == 3:
        maps = [cells[:2], (1, *cells[:2]), (shape[0], *cells[:2])]
        if values.shape != cells and values.shape in maps:
            values = values[..., None]
        allowed += [(*one, 1) for one in maps]
        expected += f", or {cells[:2]} for all slices"
    if values.shape not in allowed:
        raise InputError(f"{where}: the mask has shape {values.shape}, expected {expected}")
    mask = np.broadcast_to(values.astype(bool), shape).copy()  # NaN is true
    if mask.all():
        raise InputError(f"{where}: masks every cell; cells that are not 0 are left out, those that are 0 are used")
    return mask


def beam_area(major: Any, minor: Any) -> Any:
    """Solid angle in sr of a Gaussian beam whose FWHM are `major` and `minor`, in radians."""
    return np.pi / (4 * np.log(2)) * major * minor
