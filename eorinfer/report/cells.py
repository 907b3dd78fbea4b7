"""Typed cells of the page: a number with the text that shows it, words, or a missing value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from eorinfer.core.digits import with_error


@dataclass(frozen=True)
class Number:
    """A number.

    Attributes
    ----------
    value
        Value that a column is sorted by.
    text
        Value as shown, with its digits, error and unit.
    """

    value: float
    text: str


@dataclass(frozen=True)
class Words:
    """A text; a column of numbers puts it last."""

    text: str
    value: ClassVar[None] = None


@dataclass(frozen=True)
class Missing:
    """A value that is not there; a column puts it last."""

    text: ClassVar[str] = "–"
    value: ClassVar[None] = None


Cell = Number | Words | Missing
#: Values that JSON files hold.
Plain = str | int | float | bool | None
MISSING = Missing()


def words(text: str | None) -> Cell:
    """Make a cell of text; of none, or of an empty one, a missing value."""
    return Words(text) if text else MISSING


def yes_or_no(value: bool | None) -> Cell:
    """Make a cell that says yes or no."""
    return MISSING if value is None else Words("yes" if value else "no")


def count(n: int | None, unit: str = "") -> Cell:
    """Make a cell of an integer, with its thousands apart."""
    if n is None:
        return MISSING
    # Narrow spaces that do not break, as SI writes long numbers.
    digits = f"{n:,}".replace(",", "\u202f") if abs(n) >= 10_000 else str(n)
    return _sortable(float(n), minus(digits), unit)


def number(value: float | None, form: str = ".4g", unit: str = "") -> Cell:
    """Make a cell of a number.

    Parameters
    ----------
    value
        Value; one that is not finite is shown, but has no place in an order.
    form
        Digits, as `format` takes them.
    unit
        Unit; empty for none.
    """
    return MISSING if value is None else _sortable(float(value), minus(f"{value:{form}}"), unit)


def measurement(mean: float, error: float, unit: str = "") -> Cell:
    """Make a cell of a mean and its error, which has two significant digits."""
    return _sortable(mean, minus(with_error(mean, error)), unit)


def to_figures_of(value: float, error: float) -> Cell:
    """Make a cell of a value with as many decimals as give its error two figures."""
    return _sortable(value, _rounded(value, error))


def interval(low: float, high: float, error: float) -> Cell:
    """Make a cell of an interval, sorted by its lower end; decimals as in `to_figures_of`."""
    return _sortable(low, f"{_rounded(low, error)} to {_rounded(high, error)}")


def several(values: Sequence[float], form: str = ".4g") -> Cell:
    """Make a cell of several numbers, sorted by the first."""
    return _sortable(values[0], minus(", ".join(f"{value:{form}}" for value in values))) if values else MISSING


def cell_from_plain(value: Plain) -> Cell:
    """Make a cell of a value in a JSON file, where a text may say a number: ``"1.65 ± 0.09"``, ``"> 3"``, ``"12%"``."""
    if isinstance(value, bool):
        return yes_or_no(value)
    if isinstance(value, int):
        return count(value)
    if value is None or isinstance(value, float):
        return number(value)
    leading = leading_number(value)
    return words(value) if leading is None else Number(leading, value)


def leading_number(text: str) -> float | None:
    """Read the number that a text begins with; None for a word, an id or a shape ("2D", "01-5a67", "1 × 32")."""
    first, *rest = text.lstrip("<>≤≥≈~ ").split() or [""]
    digits = first.partition("/")[0].rstrip("%,").replace(",", "").replace("−", "-")
    # `float` also reads "nan", "infinity" and "1_000".
    if rest[:1] == ["×"] or not digits or not set(digits) <= set("+-.0123456789eE"):
        return None
    try:
        return float(digits)
    except ValueError:
        return None


def is_numeric(column: Sequence[Cell]) -> bool:
    """Tell whether a column is one of numbers: at least half of what stands in it."""
    filled = [cell for cell in column if not isinstance(cell, Missing)]
    return bool(filled) and 2 * sum(isinstance(cell, Number) for cell in filled) >= len(filled)


def minus(text: str) -> str:
    """Write the sign for minus instead of a hyphen, which is shorter and may end a line."""
    return text.replace("-", "−")


def _rounded(value: float, error: float) -> str:
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return minus(f"{value:.4g}")
    decimals = 1 - math.floor(math.log10(float(f"{error:.1e}")))  # rounded first: 0.0996 is 0.10
    value = round(value, decimals) + 0.0  # and no -0.00
    return minus(f"{value:.{decimals}f}" if 0 <= decimals <= 6 else f"{value:.4g}")


def _sortable(value: float, digits: str, unit: str = "") -> Cell:
    """Make a number; one that is not finite has no place in an order."""
    text = f"{digits} {unit}" if unit else digits
    return Number(value, text) if math.isfinite(value) else Words(text)
