"""Comparison of a cube with an observable: what differs is refused, with both shown."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.numbers import UnusableError, usable
from eorinfer.cubes.formats import channel_key
from simulators import Observable

#: Relative difference at which two coordinates count as the same.
TOLERANCE = 1e-4
#: A smallest or largest value that several cells share is a fill value if it is as many times the range of all other
#: cells away from them. Gaussian noise of a million cells has its extremes within 1 of them.
FAR = 10.0


class Described(Protocol):
    """A cube with its axes; attributes as those of `simulators.Observable`."""

    @property
    def values(self) -> NDArray[np.float32]:
        """(C, *cells)."""

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(C, *cells), whether a cell is left out."""

    @property
    def field_of_view(self) -> float:
        """Side in degrees; 0 where it is not said."""


def refuse_unusable(values: NDArray[Any], where: str) -> None:
    """Refuse cells without a usable value.

    Raises
    ------
    InputError
        Naming the first of them, and the mask that leaves NaN cells out.
    """
    try:
        usable(values, where)
    except UnusableError as error:
        hint = '; [observation] mask = "nan" leaves NaN cells out, here and in simulations'
        nan = np.asarray(values).dtype.kind == "f" and bool(np.isnan(values).any())
        raise InputError(f"{error}; every cell needs a usable value{hint if nan else ''}") from error


def refuse_fill_value(image: NDArray[Any], mask: NDArray[np.bool_] | None, where: str) -> None:
    """Refuse an image (C, *cells) whose smallest or largest value stands for cells without one, such as -9999.

    Raises
    ------
    InputError
        With the value and the number of its cells, apart from those of the mask (C, *cells).
    """
    values = image if mask is None else image[~mask]
    for extreme in (values.min(), values.max()) if values.size and image.ndim > 2 else ():
        same = values == extreme
        count, rest = int(same.sum()), values[~same]
        if count < 2 or rest.size < 2:
            continue
        low, high = float(rest.min()), float(rest.max())
        away = max(low - float(extreme), float(extreme) - high)
        if 0 < FAR * (high - low) < away:
            raise InputError(
                f"{where}: {count} of {values.size} values are {float(extreme):g}, where all others lie between "
                f"{low:.4g} and {high:.4g}: it looks like a fill value. Write NaN in its place, and set [observation] "
                'mask = "nan"'
            )


def refuse_other(observed: Described, observable: Observable, where: str) -> None:
    """Check shape, values, unit and axes of a cube against an observable; parameters as of `Observation.check`.

    Raises
    ------
    InputError
        If they differ; the message says what the file has and what would be right.
    """
    if observed.values.shape != observable.shape:
        raise InputError(
            f"{where}: the cube has shape {observed.values.shape}, expected {observable.shape} "
            f"({', '.join(observable.axes)})"
        )
    refuse_unusable(observed.values, where)
    refuse_fill_value(observed.values, observed.mask, where)
    for name in ("unit", "axes"):
        if getattr(observed, name) != getattr(observable, name):
            raise InputError(f"{where}: {name} is {getattr(observed, name)!r}, expected {getattr(observable, name)!r}")
    keys = {"channels": channel_key(observable.axes)}
    for name in ("cell_size", "channels", "coordinates", "field_of_view"):
        key = keys.get(name, name)
        ours, theirs = (np.atleast_1d(getattr(source, name)) for source in (observed, observable))
        if name == "field_of_view" and not observed.field_of_view:
            continue  # the sides of the cells in Mpc are compared already
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=TOLERANCE):
            raise InputError(
                f"{where}: {key} is {_plain(ours)}, expected {_plain(theirs)}{_meaning(name, ours, observable)}"
            )


def _meaning(name: str, numbers: NDArray[np.float64], observable: Observable) -> str:
    """Say what the numbers of an attribute are, where its name alone does not."""
    if name == "coordinates":
        last = observable.axes[-1]
        return {"frequency": ": frequencies in MHz", "z": ": redshifts of the slices"}.get(last, f": {last}")
    if name == "cell_size" and observable.field_of_view and observable.cell_size[0]:
        trained = observable.field_of_view / observable.cells[0]
        pixels = [trained * size / observable.cell_size[0] for size in numbers[:2]]
        return f": pixels of {pixels[0]:.6g} x {pixels[1]:.6g} degrees, expected {trained:.6g}"
    if name == "cell_size" and len(numbers) == len(observable.cell_size) and min(observable.cell_size) > 0:
        ratio = numbers / np.array(observable.cell_size)
        if np.ptp(ratio) < TOLERANCE and any(0.6 < h < 0.8 for h in (ratio[0], 1 / ratio[0])):
            return "; is one of them in Mpc/h? Lengths are in Mpc"
    return ""


def _plain(values: NDArray[np.float64]) -> str:
    texts = [str(float(f"{v:.6g}")) for v in values]
    if len(texts) > 8:  # a light-cone has hundreds of slices
        texts = [*texts[:2], "...", f"{texts[-1]} ({len(texts)} in all)"]
    return f"[{', '.join(texts)}]"
