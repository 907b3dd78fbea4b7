"""Masks: which cells of a cube are left out, as a file says."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.hdf5 import open_hdf5, read_array
from eorinfer.cubes.filecube import whole_mask
from eorinfer.cubes.formats import format_of, read_file
from simulators import Observable


def read_mask(path: Path, observable: Observable) -> NDArray[np.bool_]:
    """Read a mask: cells that are not 0, or are NaN, are left out.

    Parameters
    ----------
    path
        FITS or npy file, or HDF5 with the dataset ``mask``: (C, *cells), (*cells), or a map (x, y) for a whole cube.
    observable
        Cube that is masked.

    Returns
    -------
    NDArray
        (C, *cells) of bool.

    Raises
    ------
    InputError
        If it cannot be read, has another shape, or leaves no cell.
    """
    return whole_mask(_values(path, observable), observable.shape, str(path))


def order_note(path: Path, observed: Path, observable: Observable) -> str | None:
    """Say in which order the cells of a mask are taken, where its file does not; None for FITS.

    Parameters
    ----------
    path, observed
        Files of the mask, and of what it masks. The axes of a FITS file are put in order, which a mask without a header
        does not follow.
    observable
        Cube that is masked.
    """
    if format_of(path) == ".fits":
        return None
    along = observable.coordinates
    order = ", ".join(observable.axes) + (f" from {along[0]:g} to {along[-1]:g}" if along else "")
    note = f"{path.name} has no axes: its cells are taken in the order of the simulations, {order}"
    return f"WARNING: {note}, whatever that of {observed.name}" if format_of(observed) == ".fits" else note


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Hash a mask, for keys of what is trained with it."""
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]


def _values(path: Path, observable: Observable) -> NDArray[np.float64]:
    """Return the numbers of the file in the order of the observable's axes."""
    if format_of(path) in (".h5", ".hdf5"):
        try:
            with open_hdf5(path) as file:
                return read_array(file, "mask").astype(float)
        except (KeyError, OSError) as error:
            raise InputError(f'{path}: cannot be read as a mask; it needs the dataset "mask" ({error})') from error
    try:
        values = read_file(path, observable).values
        if values.ndim == len(observable.shape) or len(observable.cells) != 3:
            return values.astype(float)
    except InputError:
        if len(observable.cells) != 3:
            raise
    flat = replace(
        observable,
        shape=observable.shape[:-1],
        axes=observable.axes[:-1],
        cell_size=observable.cell_size[:-1],
        coordinates=(),
    )
    return read_file(path, flat).values.astype(float)
