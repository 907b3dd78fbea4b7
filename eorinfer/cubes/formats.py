"""Readers of observation files, one a format; each gives a `FileCube` as the file has it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError, MissingEntryError, naming
from eorinfer.core.hdf5 import open_hdf5, own_dataset
from eorinfer.core.numbers import UnusableError, refuse_other_kinds
from eorinfer.cubes.filecube import FileCube, beam_area, whole_mask
from simulators import Observable

#: What the root of 21cmFAST's own files has.
_OF_21CMFAST = ("BrightnessTemp", "lightcones", "InitialConditions")


def read_file(path: Path, observable: Observable) -> FileCube:
    """Read a file in the format that its name says.

    Raises
    ------
    InputError
        If it cannot be read; the message names the file and what it lacks.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    suffix = format_of(path)
    if suffix not in _READERS:
        raise InputError(f"{path}: observations are .h5, .hdf5, .fits, .npy files (FITS also as .fits.gz)")
    try:
        cube = _READERS[suffix](path, observable)
    except MissingEntryError as error:
        raise InputError(f"{path}: {error}") from error
    except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split()).strip("'\"") or type(error).__name__
        raise InputError(f"{path}: cannot be read as {suffix} ({reason})") from error
    with naming("", UnusableError):
        refuse_other_kinds(cube.values, str(path))
    return cube


def format_of(path: Path) -> str:
    """Return the suffix that names the format; FITS files may be compressed and have shorter names."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] in ([".gz"], [".fz"]):
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return ".fits" if last in (".fit", ".fts") else last


def channel_key(axes: tuple[str, ...]) -> str:
    """Return the name of the attribute with the channels."""
    return {"redshift": "redshifts", "wavelength": "wavelengths"}.get(axes[0], "channels")


def from_hdf5(path: Path, axes: tuple[str, ...] | None = None) -> FileCube:
    """Read a file that has the attributes which `axes` ask for, or its own axes.

    Raises
    ------
    MissingEntryError
        If the dataset or an attribute is not there.
    """
    with open_hdf5(path) as file:
        if "observed" not in file:
            there = ", ".join(sorted(file)) or "nothing"
            if any(name in file for name in _OF_21CMFAST):
                raise MissingEntryError(
                    "is a cube of 21cmFAST, without noise; give it as [observation] clean = "
                    f'"{path.name}", which [survey] then observes'
                )
            raise MissingEntryError(f'has no dataset "observed", only {there}')
        data = own_dataset(file, "observed")
        attrs = data.attrs
        own = tuple(map(text_of, attrs["axes"])) if axes is None or "axes" in attrs else axes
        # A cube of another kind is read too: what differs is said, not an attribute that it never had.
        channels = channel_key(own if axes is None or channel_key(own) in attrs else axes)
        wanted = ("unit", "axes", "cell_size", channels)
        if lacking := [name for name in wanted if name not in attrs]:
            raise MissingEntryError(
                f'the dataset "observed" lacks the attribute {lacking[0]}; it needs {", ".join(wanted)}'
            )
        size = np.atleast_1d(attrs["cell_size"])
        beam = None
        if "bmaj" in attrs and "bmin" in attrs:
            beam = float(beam_area(np.radians(attrs["bmaj"]), np.radians(attrs["bmin"])))
        mask = own_dataset(file, "mask")[()] if "mask" in file else None
        return FileCube(
            np.asarray(data[()]),
            text_of(attrs["unit"]),
            tuple(text_of(a) for a in attrs["axes"]),
            # one number stands for cubic cells
            tuple(float(v) for v in (np.repeat(size, max(data.ndim - 1, 1)) if size.size == 1 else size)),
            tuple(float(v) for v in np.atleast_1d(attrs[channels])),
            tuple(float(v) for v in np.atleast_1d(attrs["coordinates"])) if "coordinates" in attrs else (),
            float(attrs.get("field_of_view", 0.0)),
            np.asarray(attrs["theta"], np.float64) if "theta" in attrs else None,
            int(attrs["seed"]) if "seed" in attrs else None,
            None if mask is None else whole_mask(np.asarray(mask), data.shape, str(path)),
            beam=beam,
        )


def with_channel(values: NDArray[Any], observable: Observable) -> NDArray[Any]:
    """Add the axis of the one channel to an array that has cells alone."""
    return values[None] if observable.shape[0] == 1 and values.shape == observable.cells else values


def text_of(value: object) -> str:
    """Return the text of an HDF5 attribute, which other programs may write as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_hdf5(path: Path, observable: Observable) -> FileCube:
    return from_hdf5(path, observable.axes)


def _read_fits(path: Path, observable: Observable) -> FileCube:
    from eorinfer.cubes.fits import read_cube  # here, since astropy takes half a second to load

    return read_cube(path, observable)


def _read_npy(path: Path, observable: Observable) -> FileCube:
    with path.open("rb") as file:
        if not (first := file.read(6)) == b"\x93NUMPY":
            raise ValueError("it is an archive of arrays, .npz" if first[:2] == b"PK" else "it has no header of NumPy")
    values, o = with_channel(np.load(path, allow_pickle=False), observable), observable
    note = f"{path.name} has no header: unit and axes are taken to be those of the simulations"
    return FileCube(values, o.unit, o.axes, o.cell_size, o.channels, o.coordinates, o.field_of_view, notes=(note,))


_READERS: dict[str, Callable[[Path, Observable], FileCube]] = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".fits": _read_fits,
    ".npy": _read_npy,
}
