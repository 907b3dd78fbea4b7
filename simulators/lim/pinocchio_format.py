"""Bytes and columns of PINOCCHIO's files, versions 4 and 5, as fields by name.

The formats were checked on real outputs, ascii against binary.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CATALOG_5_LIGHT = np.dtype([("id", "<u8"), ("mass", "<f4"), ("x", "<f4", 3), ("v", "<f4", 3), ("q", "<f4", 3)])
_CATALOG_5 = np.dtype([*_CATALOG_5_LIGHT.descr, ("n", "<i4"), ("pad", "<i4")])
_CATALOG_4 = np.dtype(
    [("start", "<i4"), ("id", "<u8"), ("mass", "<f8"), *((name, "<f8", 3) for name in ("q", "x", "v"))]
    + [(name, "<i4") for name in ("n", "pad", "end")]
)
_SKY = ("mass", "theta", "phi", "v_los", "z_obs")
_CONE_5 = np.dtype([("id", "<u8"), ("z", "<f4"), ("x", "<f4", 3), ("v", "<f4", 3), *((name, "<f4") for name in _SKY)])
_CONE_5_LIGHT = np.dtype([("id", "<u8"), *((name, "<f4") for name in ("z", "mass", "theta", "phi", "z_obs", "pad"))])
_CONE_4 = np.dtype(
    [("start", "<i4"), ("id", "<u8"), ("z", "<f8"), ("x", "<f8", 3), ("v", "<f8", 3)]
    + [(name, "<f8") for name in _SKY]
    + [("end", "<i4")]
)
#: Columns of each field in the ascii files, counted from 0, by the number of columns.
CATALOG_COLUMNS: dict[int, dict[str, int | slice]] = {
    n: {"mass": 1, "x": slice(5, 8), "v": slice(8, 11)} for n in (11, 12)
}
CONE_COLUMNS: dict[int, dict[str, int | slice]] = {
    13: {"z": 1, "x": slice(2, 5), "v": slice(5, 8), "mass": 8, "theta": 9, "phi": 10, "z_obs": 12},
    6: {"z": 1, "mass": 2, "theta": 3, "phi": 4, "z_obs": 5},
}


class CatalogueError(ValueError):
    """Raised where a file of halos cannot be used; the message names it and says what would be right."""


def is_text(data: bytes) -> bool:
    """Tell whether the bytes of a file are ascii text."""
    return not set(data[:200]) - set(range(32, 127)) - {9, 10, 13}


def ascii_fields(
    file: Path, data: bytes, columns: Mapping[int, Mapping[str, int | slice]]
) -> dict[str, NDArray[np.float64]]:
    """Read named columns (N, ...) of an ascii file; `CatalogueError` if it is truncated or has other columns."""
    lines = [line for line in data.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    n = len(lines[0].split()) if lines else min(columns)
    if n not in columns:
        cone, one_redshift = "a past light-cone (pinocchio.RUN.plc.out)", "one redshift (pinocchio.Z.RUN.catalog.out)"
        wanted, other = (cone, one_redshift) if columns is CONE_COLUMNS else (one_redshift, cone)
        like = f", as catalogues of {other} have" if n in CATALOG_COLUMNS or n in CONE_COLUMNS else ""
        counts = " or ".join(map(str, sorted(columns)))
        raise CatalogueError(f"{file}: it has {n} columns{like}; those of {wanted} have {counts}")
    try:
        rows = np.array([line.split() for line in lines], dtype=np.float64).reshape(-1, n)
    except ValueError as error:
        raise CatalogueError(f"{file}: not every line has {n} numbers; is it truncated? ({error})") from error
    return {name: rows[:, column] for name, column in columns[n].items()}


class _Bytes:
    """Reader of a binary file that names the byte where it ends too early."""

    def __init__(self, file: Path, data: bytes) -> None:
        self.file, self.data, self.at = file, data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def take(self, dtype: np.dtype, count: int) -> NDArray:
        size = dtype.itemsize * count
        if count < 0 or self.at + size > len(self.data):
            raise CatalogueError(
                f"{self.file}: truncated, or no PINOCCHIO file: {size} bytes wanted at {self.at} of {len(self.data)}"
            )
        self.at += size
        return np.frombuffer(self.data, dtype, count, self.at - size)

    def integers(self, count: int) -> list[int]:
        return [int(i) for i in self.take(np.dtype("<i4"), count)]

    def expect(self, *wanted: int) -> None:
        at = self.at
        marks = self.integers(len(wanted))
        if marks != list(wanted):
            raise CatalogueError(f"{self.file}: record marks {marks} at byte {at}, expected {list(wanted)}: damaged")


def catalog_blocks(file: Path, data: bytes) -> list[dict[str, NDArray[np.float64]]]:
    """Read the fields of each task's block of a binary catalogue; `CatalogueError` if it is damaged."""
    reader = _Bytes(file, data)
    mark, _, third, end = reader.integers(4)
    if (mark, end) != (8, 8):
        raise CatalogueError(f"{file}: no PINOCCHIO catalogue: it begins with {mark}")
    if third > 10:
        return _blocks_5(reader, third, {56: _CATALOG_5, 48: _CATALOG_5_LIGHT})
    blocks = []
    while reader:
        [_, n, _] = reader.integers(3)
        blocks.append(_named(_records_4(reader, n, _CATALOG_4)))
    return blocks


def cone_blocks(file: Path, data: bytes) -> list[dict[str, NDArray[np.float64]]]:
    """Read the fields of each block of a binary light-cone; `CatalogueError` if it is damaged."""
    reader = _Bytes(file, data)
    if reader.integers(1) != [4]:
        reader.at = 0
        count, rest = divmod(len(data), _CONE_4.itemsize)
        if rest:
            raise CatalogueError(f"{file}: truncated: {rest} bytes after {count} records of {_CONE_4.itemsize}")
        return [_named(_records_4(reader, count, _CONE_4))]
    size, _ = reader.integers(2)
    return _blocks_5(reader, size, {56: _CONE_5, 32: _CONE_5_LIGHT})


def _blocks_5(
    reader: _Bytes,
    size: int,
    kinds: Mapping[int, np.dtype],
) -> list[dict[str, NDArray[np.float64]]]:
    if size not in kinds:
        raise CatalogueError(f"{reader.file}: records of {size} bytes, expected {' or '.join(map(str, kinds))}")
    blocks = []
    while reader:
        reader.expect(4)
        [n] = reader.integers(1)
        reader.expect(4)
        if n:
            reader.expect(n * size)
            blocks.append(_named(reader.take(kinds[size], n)))
            reader.expect(n * size)
    return blocks


def _records_4(reader: _Bytes, n: int, dtype: np.dtype) -> NDArray:
    records = reader.take(dtype, n)
    mark = dtype.itemsize - 8
    if ((records["start"] != mark) | (records["end"] != mark)).any():
        raise CatalogueError(f"{reader.file}: record marks are not {mark} everywhere: damaged, or single precision")
    return records


def _named(records: NDArray) -> dict[str, NDArray[np.float64]]:
    wanted = ("mass", "x", "v", "z", "theta", "phi", "z_obs")
    return {name: records[name] for name in wanted if name in (records.dtype.names or ())}
