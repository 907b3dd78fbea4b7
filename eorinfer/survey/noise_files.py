"""Files of noise realisations, checked against the cubes that are observed. Loads no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from eorinfer.core.errors import InputError
from eorinfer.core.hdf5 import open_hdf5, own_dataset
from simulators import Observable


@contextmanager
def open_noise(path: Path, observable: Observable) -> Iterator[h5py.Dataset]:
    """Open the dataset ``noise`` of a file, (N, C, *cells).

    Raises
    ------
    ValueError
        If the file cannot be read, or its noise has another shape or unit than the cubes.
    """
    expected = f"(N, {', '.join(map(str, observable.shape))})"
    try:
        with open_hdf5(path) as file:
            dataset = own_dataset(file, "noise")
            unit = dataset.attrs.get("unit", file.attrs.get("unit"))
            unit = unit.decode() if isinstance(unit, bytes) else unit
            if dataset.shape[1:] != observable.shape or not dataset.shape[0]:
                raise ValueError(f"noise: {path}: the dataset noise has shape {dataset.shape}, expected {expected}")
            if dataset.dtype.kind != "f":
                raise ValueError(f"noise: {path}: the dataset noise is of {dataset.dtype}, expected real numbers")
            if unit != observable.unit:
                given = "no attribute unit" if unit is None else f"unit = {str(unit)!r}"
                raise ValueError(f"noise: {path}: the dataset noise has {given}, expected unit = {observable.unit!r}")
            yield dataset
    except InputError as error:
        raise ValueError(f"noise: {error}") from error
    except KeyError as error:
        raise ValueError(f"noise: {path}: has no dataset noise, {expected}") from error
    except OSError as error:
        raise ValueError(f"noise: {path}: cannot be read as HDF5 ({error.strerror or error})") from error
