"""Chain files in getdist's format, from this package or any other: one table or several, and what describes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.reading import read_text, text_file
from simulators import Parameter

#: Bytes that a table may have.
MOST_BYTES = 2e9
#: Files that others keep samples in, by the end of their names.
OTHER_FORMATS = (".nc", ".nc4", ".netcdf", ".npz", ".npy", ".h5", ".hdf5", ".csv", ".fits", ".pkl", ".pickle")


@dataclass(frozen=True)
class ChainFiles:
    """Contents of the files of a chain.

    Attributes
    ----------
    values, weights
        (n, P) and (n,).
    parameters
        The P parameters; without a ``.ranges`` file their ends are infinite.
    label
        Name in legends.
    correlated
        Whether it is a Markov chain, as one counts that does not say.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    parameters: tuple[Parameter, ...]
    label: str
    correlated: bool


def with_suffix(root: Path, suffix: str) -> Path:
    """Return ROOT with a suffix; a dot in ROOT's own name does not start one."""
    return root.with_name(root.name + suffix)


def chain_tables(root: Path) -> list[Path]:
    """List the tables of a chain: ``ROOT.txt``, or ``ROOT_1.txt``, ``ROOT_2.txt`` (or ``ROOT.1.txt``) and so on."""
    if with_suffix(root, ".txt").exists():
        return [with_suffix(root, ".txt")]
    pattern = re.compile(re.escape(root.name) + r"[_.](\d+)\.txt")
    numbered = [(int(m[1]), path) for path in root.parent.glob("*.txt") if (m := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def read_chain(root: Path) -> ChainFiles:
    """Read a chain; ``.ranges`` and ``.properties.ini`` are optional.

    Raises
    ------
    InputError
        If a file is missing or malformed, or a row is not finite; names the file, the row and what would be right.
    """
    tables = chain_tables(root)
    if not tables:
        if root.suffix in OTHER_FORMATS:
            raise InputError(f"{root}: cannot be read as a chain: give the root of getdist's text files, without .txt")
        raise InputError(f"{root}.txt: cannot be read as a chain in getdist's format (there is no such file)")
    try:
        names = _names(with_suffix(root, ".paramnames"))
        ranges = _ranges(with_suffix(root, ".ranges"), list(names))
        properties = _properties(with_suffix(root, ".properties.ini"))
        table = np.concatenate([_table(path, list(names)) for path in tables])
    except InputError as error:
        reason = str(error).removeprefix(f"{root.parent}/")
        raise InputError(f"{root}.txt: cannot be read as a chain in getdist's format ({reason})") from error
    parameters = tuple(
        Parameter(name, label, *ranges.get(name, (-np.inf, np.inf)), fiducial=np.nan) for name, label in names.items()
    )
    correlated = properties.get("sampler", "mcmc") == "mcmc"
    return ChainFiles(table[:, 2:], table[:, 0], parameters, properties.get("label") or root.name, correlated)


def _names(path: Path) -> dict[str, str]:
    """Read the label of each parameter by its name; getdist marks derived ones by a star and comments by ``#``."""
    names: dict[str, str] = {}
    for line in _lines(path):
        first, *rest = line.split(None, 1)
        name = first.rstrip("*")
        label = rest[0].split("#")[0].strip() if rest else ""
        if not name or "?" in name or "*" in name:
            raise InputError(f'{path.name}: "{first[:40]}" is no name of a parameter')
        if name in names:
            raise InputError(f'{path.name}: "{name}" is named twice')
        names[name] = label or name
    if not names:
        raise InputError(f"{path.name}: names no parameter")
    return names


def _ranges(path: Path, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Read the ends of each range by name; getdist writes N for none."""
    if not path.exists():
        return {}
    ranges = {}
    for line in _lines(path):
        name, *ends = line.split()
        try:
            low, high = (
                float(end) if end != "N" else sign * np.inf for end, sign in zip(ends[:2], (-1, 1), strict=True)
            )
        except ValueError as error:
            raise InputError(f"{path.name}: {name[:40]} needs two numbers, or N for none") from error
        if not low < high:
            raise InputError(f"{path.name}: {name[:40]}: {low:g} is not below {high:g}")
        ranges[name] = low, high
    strange = [name for name in ranges if name not in names]
    if strange and (lacking := [name for name in names if name not in ranges]):
        raise InputError(f'{path.name}: has "{strange[0][:40]}" in place of "{lacking[0]}"')
    return ranges


def _properties(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in _lines(path))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _table(path: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """Read weight, -ln p and parameters (n, 2 + P) of finite rows."""
    try:
        with text_file(path, most_bytes=MOST_BYTES):
            # Numpy warns of a table without a row.
            with path.open(encoding="utf-8") as file:
                if not any(line.partition("#")[0].strip() for line in file):
                    raise InputError(f"{path.name}: has no row")
            table: NDArray[np.float64] = np.loadtxt(path, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise InputError(f"{path.name}: {str(error).partition(';')[0][:200]}") from error
    if table.shape[1] != 2 + len(names):
        raise InputError(
            f"{path.name}: has {table.shape[1]} columns; {len(names)} parameters have {2 + len(names)}, "
            "with weight and -ln p before them"
        )
    used = np.delete(table, 1, axis=1)  # -ln p may be infinite, and nothing reads it
    if not (finite := np.isfinite(used)).all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        what = ["the weight", *names][column]
        raise InputError(f"{path.name}: row {row + 1}: {what} is {used[row, column]:g}")
    if (table[:, 0] < 0).any() or not table[:, 0].any():
        raise InputError(f"{path.name}: the first column, the weight, is negative or zero everywhere")
    return table


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f"{path.name}: no such file")
    lines = read_text(path, most_bytes=1e6).lstrip("\ufeff").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
