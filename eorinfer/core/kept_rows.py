"""Arrays that are computed row by row and kept, so that a stopped command continues."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.files import whole_hdf5
from eorinfer.core.hdf5 import opened

FORMAT = 1
#: Arrays, or numbers, of one row by name.
Row = dict[str, NDArray[np.float64]]


def write_rows(file: Path, key: str, rows: Sequence[Row]) -> None:
    """Write the rows so far, one at least; `key` is the hash of all that they depend on."""
    with whole_hdf5(file) as content:
        content.attrs.update(format=FORMAT, key=key)
        for name in rows[0]:
            content[name] = np.array([row[name] for row in rows])


def read_rows(file: Path, key: str, names: Sequence[str]) -> list[Row]:
    """Read what `write_rows` wrote; nothing if there is no such file or it has another key."""
    try:
        with opened(file) as content:
            if content.attrs.get("format") != FORMAT or content.attrs.get("key") != key:
                return []
            arrays = [content[name][()] for name in names]
    except (OSError, KeyError):
        return []
    return [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]
