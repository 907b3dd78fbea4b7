"""Cells of the page's tables: how a value is shown, and by what number it is sorted."""

import math
import re
from dataclasses import dataclass

Cell = str | int | float | bool | None

#: Where there is no value.
NOTHING = "–"
#: A number that a text begins with ("1.65 ± 0.09", "> 3", "12%"), and none that is part of a word, of an id or of a
#: shape ("2D", "01-5a67", "1 × 32").
_LEADING = re.compile(
    r"\s*[<>≤≥≈~]?\s*([+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][+\-−]?\d+)?)"
    r"(?!\w|[.,]\d|-\w|\s*×\s*\d)"
)


@dataclass(frozen=True)
class Shown:
    """A cell as it stands in the page.

    Attributes
    ----------
    text
        What is read.
    value
        What it is sorted by in a column of numbers; None where it has no number, which is sorted last.
    """

    text: str
    value: float | None


def shown(cell: Cell) -> Shown:
    """A cell of a table, from JSON or from a run."""
    if cell is None or cell == "":
        return Shown(NOTHING, None)
    if isinstance(cell, bool):
        return Shown("yes" if cell else "no", None)
    if isinstance(cell, int):
        # Narrow spaces that do not break, as SI writes long numbers.
        return Shown(minus(f"{cell:,}".replace(",", "\u202f") if abs(cell) >= 10_000 else str(cell)), float(cell))
    if isinstance(cell, float):
        return Shown(minus(f"{cell:.4g}"), cell if math.isfinite(cell) else None)
    return Shown(cell, leading_number(cell))


def leading_number(text: str) -> float | None:
    """The number that a text begins with, if it does."""
    found = _LEADING.match(text)
    return None if found is None else float(found[1].replace(",", "").replace("−", "-"))


def is_numeric(column: list[Shown]) -> bool:
    """Whether a column is one of numbers: at least half of what stands in it begins with one."""
    filled = [cell for cell in column if cell.text != NOTHING]
    return bool(filled) and 2 * sum(cell.value is not None for cell in filled) >= len(filled)


def to_figures_of(value: float, error: float) -> str:
    """A value with as many decimals as give its error two figures."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return minus(f"{value:.4g}")
    decimals = 1 - math.floor(math.log10(error))
    value = round(value, decimals) + 0.0  # and no -0.00
    return minus(f"{value:.{decimals}f}" if 0 <= decimals <= 6 else f"{value:.4g}")


def minus(text: str) -> str:
    """A number with the sign for minus instead of a hyphen, which is shorter and may end a line."""
    return text.replace("-", "−")
