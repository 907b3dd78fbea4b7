"""Arrays of rows that a user gives for an import: one npy or HDF5 file, or a folder with an observation file a row."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError, naming
from eorinfer.core.hdf5 import open_hdf5, own_dataset
from eorinfer.core.numbers import UnusableError, usable
from eorinfer.core.reading import ForeignFileError, refuse_foreign, refuse_surroundings
from eorinfer.core.seeds import PRIOR_ROUND
from eorinfer.cubes.filecube import frequencies_of
from eorinfer.cubes.formats import text_of
from eorinfer.cubes.observation import Observation
from simulators import Observable

HDF5 = (".h5", ".hdf5")
#: First bytes of an npy file, or of an archive of such, which has a message of its own.
MAGIC = (b"\x93NUMPY", b"PK")


@dataclass(frozen=True)
class GivenCubes:
    """Cubes of all rows, read when they are used.

    Attributes
    ----------
    path
        File or folder.
    rows
        Number of rows.
    read
        Cubes (n, C, *cells) of a slice of the rows, in the unit of the observable, with values as they are.
    note
        What a reader should know; empty for nothing.
    """

    path: Path
    rows: int
    read: Callable[[slice], NDArray[Any]]
    note: str = ""

    def float32(self, rows: slice) -> NDArray[np.float32]:
        """Read the cubes of a slice in the bank's precision."""
        return np.asarray(self.read(rows), np.float32)

    def checked(self) -> Iterator[NDArray[np.float64]]:
        """Yield the cube of each row.

        Raises
        ------
        InputError
            If a value is not usable; names row and cell.
        """
        for i in range(self.rows):
            yield numbers(self.path, self.read(slice(i, i + 1))[0], f", row {i}", "; leave such rows out")


@contextmanager
def given_cubes(path: Path, observable: Observable, rows: int, unit: str | None = None) -> Iterator[GivenCubes]:
    """Open the cubes of one observable.

    Parameters
    ----------
    path
        npy of (n, C, *cells); HDF5 with such a dataset under the name of the observable, as `bank export` writes it; or
        a folder of HDF5, FITS or npy files as observations are read, one a row, in the order of their names, and where
        these have numbers in that of the numbers.
    observable
        Shape, unit and axes that each cube must have.
    rows
        Number of rows.
    unit
        Unit of the values of an npy file, which does not say; by default the observable's.

    Raises
    ------
    InputError
        If a file cannot be read, or its shape, unit or axes do not fit, or it has rows of failed simulations.
    """
    if path.is_dir():
        _refuse_unit(path, unit)
        files = sorted((file for file in path.iterdir() if not file.name.startswith(".")), key=_by_number)
        if len(files) != rows:
            raise InputError(f"{path}: has {len(files)} files, expected {rows}: one for each row of theta")
        note = ""
        if files != sorted(files):
            note = f"{path}: rows are its files by their numbers: {files[0].name}, {files[1].name} to {files[-1].name}"
        yield GivenCubes(
            path,
            rows,
            lambda some: np.stack([Observation.read(f, observable).values for f in files[some]]),
            note,
        )
    elif path.suffix.lower() in HDF5:
        _refuse_unit(path, unit)
        with _opened(path) as file:
            refuse_failed(path, file)
            data = _dataset(path, file, observable.name)
            _refuse_other_axes(path, data.attrs, observable)
            yield _of_array(path, data, observable, rows, text_of(data.attrs.get("unit", observable.unit)))
    else:
        yield _of_array(path, load_npy(path), observable, rows, observable.unit if unit is None else unit)


def load_theta(path: Path, names: list[str], most_bytes: float) -> tuple[NDArray[Any], str]:
    """Read theta as `load` does, with its columns in the order of the parameters' names where the file says its own.

    Returns
    -------
    theta, note
        As in the file or in the order of `names`; a line if that is another, else empty.

    Raises
    ------
    InputError
        See `load`; or if the file names other parameters, or has rows of failed simulations or of other rounds.
    """
    theta = load(path, "theta", most_bytes)
    if path.suffix.lower() not in HDF5:
        return theta, ""
    with _opened(path) as file:
        refuse_failed(path, file)
        _refuse_other_rounds(path, file)
        attributes = own_dataset(file, "theta").attrs
        own = [text_of(name) for name in attributes["names"]] if "names" in attributes else names
    if sorted(own) != sorted(names):
        raise InputError(f"{path}: theta is of {', '.join(own)}, expected {', '.join(names)}")
    if own == names:
        return theta, ""
    return theta[:, [own.index(name) for name in names]], f"{path}: theta is put in the order {', '.join(names)}"


def load_world(path: Path, n: int, most_bytes: float) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    """Read which world made each row, as `bank export` writes it; None for a file that does not say.

    Returns
    -------
    world, names
        Number (n,) of each row's world among the names; no names where the file has numbers alone.

    Raises
    ------
    InputError
        If they are no n whole numbers, or a number has no name.
    """
    if path.suffix.lower() not in HDF5:
        return None
    with _opened(path) as file:
        if "world" not in file:
            return None
        data = _dataset(path, file, "world", most_bytes)
        world = np.asarray(data[()])
        names = tuple(text_of(name) for name in data.attrs.get("names", ()))
    if world.shape != (n,) or not np.issubdtype(world.dtype, np.integer) or (world < 0).any():
        raise InputError(f'{path}: "world" must have {n} whole numbers from 0, one for each row of theta')
    if names and world.max() >= len(names):
        raise InputError(f'{path}: "world" has the number {world.max()}, but names for {len(names)} worlds only')
    return world.astype(np.int64), names


def load(path: Path, name: str, most_bytes: float) -> NDArray[Any]:
    """Read an array of parameters or seeds: an npy file, or the dataset `name` of an HDF5 file.

    Raises
    ------
    InputError
        If the file cannot be read, or the array is larger than `most_bytes`.
    """
    if path.suffix.lower() not in HDF5:
        return load_npy(path, most_bytes)
    with _opened(path) as file:
        return np.asarray(_dataset(path, file, name, most_bytes)[()])


def load_npy(path: Path, most_bytes: float = np.inf) -> NDArray[Any]:
    """Open an npy file; what it holds is read when it is used, and is never more than the file has.

    Raises
    ------
    InputError
        If it is no regular file, no npy of plain values, or larger than `most_bytes`.
    WorkError
        If the operating system refused.
    """
    try:
        if path.suffix == ".npz":
            raise InputError(f"{path}: is an npz archive of several arrays; give one array as npy")
        refuse_foreign(path, links=True)
        with path.open("rb") as file:
            if not file.read(6).startswith(MAGIC):
                raise InputError(f"{path}: cannot be read as npy: write it with numpy.save, or give HDF5")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, ForeignFileError, SyntaxError, TypeError, OverflowError) as error:
        refuse_surroundings(path, error)
        raise InputError(f"{path}: cannot be read as npy ({error})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path}: is an archive of several arrays; give one array as npy")
    if not array.dtype.itemsize or array.nbytes > most_bytes:
        raise InputError(
            f"{path}: holds {array.dtype} {array.shape}, {array.nbytes / 1e9:.3g} GB; not what is expected"
        )
    return array


def numbers(path: Path, values: NDArray[Any], where: str = "", advice: str = "") -> NDArray[np.float64]:
    """Return usable numbers in double precision.

    Raises
    ------
    InputError
        If a value is not usable; names its cell.
    """
    try:
        return usable(values, f"{path}{where}").astype(np.float64)
    except UnusableError as error:
        raise InputError(f"{error}{advice}") from error


def refuse_failed(path: Path, file: Any) -> None:
    """Refuse the export of a bank that has rows without a cube.

    Raises
    ------
    InputError
        If the dataset ``status`` says so.
    """
    if "status" not in file:
        return
    status = np.char.decode(np.asarray(own_dataset(file, "status")[()]).astype(bytes), "utf-8")
    if failed := int((status != "ok").sum()):
        raise InputError(
            f"{path}: {failed} of {len(status)} rows are of failed simulations, whose cubes are zero; export the bank "
            "without --all"
        )


def _refuse_other_rounds(path: Path, file: Any) -> None:
    """Refuse the export of a bank with rows that were not drawn from the prior: they would be trained on as if so.

    Raises
    ------
    InputError
        If the dataset ``round`` says so.
    """
    if "round" not in file:
        return
    rounds = np.asarray(own_dataset(file, "round")[()])
    if others := int((rounds != PRIOR_ROUND).sum()):
        names = ", ".join(f"{number:02d}" for number in np.unique(rounds[rounds != PRIOR_ROUND]))
        raise InputError(
            f"{path}: {others} of {len(rounds)} rows are of rounds {names}: truths of tests, or from a posterior. "
            f"Only those of round {PRIOR_ROUND:02d} were drawn from the prior; export the bank with --prior"
        )


def _refuse_other_axes(path: Path, attributes: Any, observable: Observable) -> None:
    """Refuse cubes whose attributes, as `bank export` writes them, are not those of the observable."""
    wanted = {"cell_size": observable.cell_size, "channels": observable.channels}
    if "axes" in attributes:
        axes = tuple(text_of(axis) for axis in attributes["axes"])[-len(observable.cells) :]
        if axes != observable.axes[1:]:
            raise InputError(f"{path}: axes of {observable.name} are {axes}, expected {observable.axes[1:]}")
    for name, ours in wanted.items():
        if name not in attributes:
            continue
        theirs = np.atleast_1d(np.asarray(attributes[name], float))
        if theirs.size not in (1, len(ours)) or not np.allclose(theirs, ours, rtol=1e-4):
            raise InputError(
                f"{path}: {name} of {observable.name} is {theirs.tolist()}, expected {list(ours)}; "
                "say in [simulator] what the cubes are"
            )


def _by_number(file: Path) -> tuple[list[str | int], str]:
    """Sort cube_2 before cube_10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], file.name


def _of_array(path: Path, array: Any, observable: Observable, rows: int, unit: str) -> GivenCubes:
    """Give the rows of an array or a dataset, which is not read yet."""
    if array.shape != (expected := (rows, *observable.shape)):
        raise InputError(f"{path}: shape {array.shape}, expected {expected}: rows, channels, cells")
    factor = _factor(path, unit, observable)
    return GivenCubes(path, rows, lambda some: array[some] if factor is None else array[some] * factor)


def _factor(path: Path, unit: str, observable: Observable) -> NDArray[np.float64] | float | None:
    """Return what values are multiplied by to be in the observable's unit; None for nothing."""
    if unit == observable.unit:
        return None
    from eorinfer.core.units import Conditions, UnitError, conversion  # loads astropy

    with naming(f"{path}: ", UnitError):
        factor = conversion(unit, observable.unit, Conditions(frequencies_of(observable)))
    return factor if np.any(factor != 1) else None


def _refuse_unit(path: Path, unit: str | None) -> None:
    if unit is not None:
        raise InputError(f"{path}: --unit is for npy files; other files say their unit themselves")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open_hdf5(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({error})") from error


def _dataset(path: Path, file: Any, name: str, most_bytes: float = np.inf) -> Any:
    if name not in file:
        raise InputError(f'{path}: has no dataset "{name}", only {", ".join(sorted(file)) or "nothing"}')
    return own_dataset(file, name, most_bytes)
