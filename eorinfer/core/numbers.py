"""One door for numbers from outside: finite, of a kind that means what it says, and small enough to be squared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Largest size of a value: its square must be a number in float32. Every usual fill value is beyond it.
LARGEST = float(np.sqrt(np.finfo(np.float32).max))


class UnusableError(ValueError):
    """Numbers that cannot be used; the message names the first bad cell and its value."""


def usable(values: Any, name: str, unit: str | None = None) -> NDArray[Any]:
    """Return real numbers as a plain array, or say which cell is not usable.

    Parameters
    ----------
    values
        Array, or what NumPy makes one from; an astropy quantity, or a list of such, is converted to `unit`.
    name
        Name of the values in a message.
    unit
        Unit that a quantity is converted to.

    Raises
    ------
    UnusableError
        If a value is masked, complex, text, NaN, infinite or a fill value, or a quantity has another kind of unit.
    """
    if isinstance(values, list | tuple) and any(hasattr(one, "to_value") for one in values):
        values = [usable(one, name, unit) for one in values]
    if hasattr(values, "unit") and hasattr(values, "to_value"):
        values = _in_unit(values, name, unit)
    if hasattr(values, "detach"):  # a tensor, which may want gradients or lie on a GPU
        values = values.detach().cpu()
    if isinstance(values, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(values)
        if masked.any():
            raise UnusableError(
                f"{name}: {int(masked.sum())} of {values.size} values are masked, the first is {_cell(masked)}"
            )
        values = values.data
    array = np.asarray(values)
    refuse_other_kinds(array, name)
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(array.astype(np.float64, copy=False)) <= LARGEST)
    if bad.any():
        value = array[np.unravel_index(np.argmax(bad), bad.shape)]
        kind = f"fill values or too large (beyond {LARGEST:.2g})" if np.isfinite(value) else "NaN or infinite"
        raise UnusableError(
            f"{name}: {int(bad.sum())} of {array.size} values are {kind}, the first is {_cell(bad)} = {value:g}"
        )
    return array


def refuse_other_kinds(array: NDArray[Any], name: str) -> None:
    """Refuse an array that does not hold real numbers; parameters and error as of `usable`."""
    if array.dtype.kind == "c":
        raise UnusableError(f"{name}: the values are complex; give real ones")
    if array.dtype.kind not in "fiub":
        raise UnusableError(f"{name}: the values are {array.dtype}, not numbers")


def unit_of(scale: float) -> float:
    """Return the power of two nearest to a scale whose squares leave float32, else 1.

    Numbers divided by a power of two keep all their bits. Between 1e-6 and 1e6 nothing is divided.
    """
    if not np.isfinite(scale) or scale <= 0 or 2.0**-20 <= scale <= 2.0**20:
        return 1.0
    return float(2.0 ** np.round(np.log2(scale)))


def _in_unit(quantity: Any, name: str, unit: str | None) -> Any:
    if unit is None:
        raise UnusableError(f"{name}: has the unit {quantity.unit}, where a plain number is expected")
    from eorinfer.core.units import parsed  # astropy is there already: the quantity is its own

    try:
        return quantity.to_value(parsed(unit))
    except (ValueError, TypeError) as error:
        raise UnusableError(f"{name}: has the unit {quantity.unit}, which is not converted to {unit!r}") from error


def _cell(bad: NDArray[np.bool_]) -> str:
    """Name the first bad cell."""
    return f"[{', '.join(str(int(i)) for i in np.unravel_index(np.argmax(bad), bad.shape))}]"
