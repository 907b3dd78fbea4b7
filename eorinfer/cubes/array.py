"""An array in memory with what its owner says of its axes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.numbers import UnusableError, usable
from eorinfer.cubes.filecube import FileCube
from simulators.reionization.geometry import LINE_FREQUENCY

#: Arguments by kind of coordinate, and the units in which these are plain numbers.
NAMES = {"redshift": "redshifts", "wavelength": "wavelengths", "frequency": "frequencies"}
UNITS = {"redshifts": "", "wavelengths": "um", "frequencies": "MHz", "cell_size": "Mpc", "field_of_view": "deg"}


def cube_of_array(values: Any, cell_size: Any, unit: str | None, given: dict[str, Any], field_of_view: Any) -> FileCube:
    """Put an array into the order (C, *cells) and describe its axes.

    Parameters
    ----------
    values
        Array (C, *cells) or (*cells), masked or not, or an astropy quantity.
    cell_size
        Comoving Mpc along each cell axis, one number or (D,), or a quantity.
    unit
        Unit of `values`; that of a quantity is its own.
    given
        Coordinates by kind, of which at most one is not None: ``redshift`` or ``wavelength`` of each channel, or
        ``redshift`` or ``frequency`` of each slice of a light-cone. In micrometres and MHz, or quantities.
    field_of_view
        Side of the map in degrees, or a quantity; 0 where the axes are lengths.

    Raises
    ------
    InputError
        If a value is not usable, or the numbers of coordinates and sizes do not go with the shape.
    """
    values, mask = apart_from_mask(values)
    array, unit = _plain(values, unit)
    sizes, field_of_view = _numbers(cell_size, "cell_size"), float(_numbers(field_of_view, "field_of_view")[0])
    if sizes.min() <= 0 or field_of_view < 0:
        raise InputError(f"cell_size is {sizes.tolist()} and field_of_view {field_of_view:g}; sizes are above 0")
    named = {kind: _numbers(x, NAMES[kind]) for kind, x in given.items() if x is not None}
    if len(named) > 1:
        raise InputError(f"give one of {', '.join(named)}: the others follow from it")
    kind, along = next(iter(named.items()), ("channel", np.zeros(1)))
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise InputError(f"values has shape {array.shape}; give (C, *cells) or (*cells) with two or three cell axes")
    if kind == "frequency" and along.max() > LINE_FREQUENCY:
        raise InputError(
            f"frequencies reach {along.max():g} MHz, beyond the line at rest ({LINE_FREQUENCY:g} MHz); are they in Hz?"
        )
    if kind == "frequency" and len(along) != array.shape[-1]:
        raise InputError(
            f"frequencies has {len(along)} numbers, and values {array.shape[-1]} slices along the line of sight, the "
            f"last axis; boxes have redshifts, {LINE_FREQUENCY:g} MHz / frequency - 1"
        )
    cone = kind == "frequency" or (len(along) > 1 and len(along) == array.shape[-1] != array.shape[0])
    maps = array.ndim == 3 and not cone and (len(sizes) == 2 or len(along) == array.shape[0])
    if array.ndim == 2 or (array.ndim == 3 and not maps):
        array, mask = array[None], None if mask is None else mask[None]
    channels = (0.0,) if cone else tuple(along.tolist())
    if len(channels) != len(array):
        raise InputError(f"values has shape {array.shape}, which does not go with {len(along)} numbers of {kind}")
    if len(sizes) not in (1, array.ndim - 1):
        raise InputError(f"cell_size has {len(sizes)} numbers, and values {array.ndim - 1} cell axes")
    across = ("theta_x", "theta_y") if field_of_view and kind != "wavelength" else ("x", "y")
    last = () if array.ndim == 3 else ("frequency",) if kind == "frequency" else ("z",)
    return FileCube(
        array,
        unit,
        ("channel" if cone else kind, *across, *last),
        tuple(np.broadcast_to(sizes, array.ndim - 1).tolist()),
        channels,
        coordinates=tuple(along.tolist()) if cone else (),
        field_of_view=field_of_view,
        mask=mask,
    )


def apart_from_mask(values: Any) -> tuple[Any, NDArray[np.bool_] | None]:
    """Part a masked array from the mask that it has, with 0 in masked cells; other values come back as they are."""
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.getmaskarray(values).any():
        return values, None
    return values.filled(0), np.ma.getmaskarray(values)


def _numbers(given: Any, name: str) -> NDArray[np.float64]:
    """Return one or more numbers (n,) of an argument in its own unit."""
    try:
        numbers = np.atleast_1d(usable(given, name, UNITS[name])).astype(float)
    except UnusableError as error:
        raise InputError(str(error)) from error
    except ValueError as error:  # lists of several lengths
        raise InputError(f"{name}: must be one number or a list of numbers") from error
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(f"{name}: must be one number or a list of numbers")
    return numbers


def _plain(values: Any, unit: Any) -> tuple[NDArray[Any], str]:
    """Return real numbers and their unit; a quantity is converted where `unit` is another one than its own."""
    own = str(values.unit) if hasattr(values, "unit") and hasattr(values, "to_value") else None
    unit = None if unit is None else str(unit)
    try:
        return usable(values, "values", unit or own), unit or own or ""
    except UnusableError as error:
        raise InputError(str(error)) from error
