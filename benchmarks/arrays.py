"""Arrays in memory that stand for a bank, for networks that are trained on something made of its simulations."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from simulators import Observable


@dataclass(frozen=True)
class ArrayBank:
    """Arrays by the number of a row.

    Attributes
    ----------
    path, fingerprint
        Those of the bank that the arrays were made of.
    observables
        Description of each array.
    arrays
        Arrays (n, *shape) by observable.
    """

    path: Path
    fingerprint: str
    observables: tuple[Observable, ...]
    arrays: dict[str, NDArray[np.float32]]

    def read(self, name: str, rows: Rows) -> NDArray[np.float32]:
        """Read the arrays (m, *shape) of rows of `repeated`."""
        return self.arrays[name][rows.index]


def repeated(rows: Rows, times: int) -> Rows:
    """Number rows as arrays are, each of them `times` times, one after the other."""
    several = rows[np.repeat(np.arange(len(rows)), times)]
    return replace(several, index=np.arange(len(several)))
