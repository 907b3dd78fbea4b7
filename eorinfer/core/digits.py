"""Numbers as text with as many digits as their error allows, and tables of them."""

from collections.abc import Sequence

import numpy as np


def decimals(std: float) -> int:
    """Count the decimals with which an error has two significant digits."""
    if not (np.isfinite(std) and std > 0):
        return 4
    # Rounded first: 0.0996 is 0.10, not 0.100.
    return int(np.clip(1 - np.floor(np.log10(float(f"{std:.1e}"))), 0, 12))


def with_error(mean: float, std: float, sign: str = "") -> str:
    """Write a value and its error, which has two significant digits.

    Parameters
    ----------
    mean, std
        Value and its error.
    sign
        ``"+"`` writes the sign of positive values too.
    """
    if not np.isfinite(std) or std <= 0:
        return f"{mean:{sign}.4g} ± {std:.2g}"
    tens = int(np.floor(np.log10(float(f"{std:.1e}")))) - 1
    if tens > 0:  # 1234 ± 321 is 1230 ± 320
        mean, std = round(mean, -tens), round(std, -tens)
    digits = decimals(std)
    mean = round(mean, digits) + 0.0  # and no -0.00
    return f"{mean:{sign}.{digits}f} ± {std:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of texts as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
