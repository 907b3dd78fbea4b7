"""An observed cube and its axes, read from HDF5, FITS or npy and checked against an observable."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError, MissingEntryError
from eorinfer.core.files import whole_hdf5
from eorinfer.core.hdf5 import open_hdf5, own_dataset
from eorinfer.core.numbers import UnusableError, usable
from simulators import Observable

FORMAT = 1


@dataclass(frozen=True)
class Observation:
    """An observed cube.

    Attributes
    ----------
    values
        (C, *cells) float32.
    unit, axes, cell_size, channels, coordinates, field_of_view
        See `simulators.Observable`.
    theta
        (P,) true parameters of a mock, None for the sky.
    seed
        Seed of a mock's realisation, None for the sky.
    """

    values: NDArray[np.float32]
    unit: str
    axes: tuple[str, ...]
    cell_size: tuple[float, ...]
    channels: tuple[float, ...]
    theta: NDArray[np.float64] | None = None
    seed: int | None = None
    coordinates: tuple[float, ...] = ()
    field_of_view: float = 0.0

    @classmethod
    def from_observable(
        cls,
        observable: Observable,
        values: NDArray[np.float32],
        theta: NDArray[np.float64] | None = None,
        seed: int | None = None,
    ) -> "Observation":
        """Make an observation with the axes of an observable."""
        o = observable
        return cls(
            np.asarray(values, np.float32),
            o.unit,
            o.axes,
            o.cell_size,
            o.channels,
            theta,
            seed,
            o.coordinates,
            o.field_of_view,
        )

    @property
    def digest(self) -> str:
        """Hash of the values."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    def write(self, path: Path, beside: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        """Write HDF5: the dataset ``observed`` with its attributes, and the arrays in `beside` under their names."""
        with whole_hdf5(Path(path)) as file:
            for name, array in (beside or {}).items():
                file.create_dataset(name, data=array)
            data = file.create_dataset("observed", data=self.values)
            data.attrs.update(format=FORMAT, unit=self.unit, axes=list(self.axes), cell_size=np.array(self.cell_size))
            data.attrs[_channel_key(self.axes)] = np.array(self.channels)
            if self.coordinates:
                data.attrs["coordinates"] = np.array(self.coordinates)
            if self.field_of_view:
                data.attrs["field_of_view"] = self.field_of_view
            if self.theta is not None:
                data.attrs["theta"] = self.theta
            if self.seed is not None:
                data.attrs["seed"] = np.uint64(self.seed)

    def write_fits(self, path: Path) -> None:
        """Write FITS: the cube as primary image; NumPy's last axis is FITS axis 1."""
        from eorinfer.core.fits import FitsCube, write_cube

        write_cube(path, FitsCube(**{field.name: getattr(self, field.name) for field in fields(FitsCube)}))

    @classmethod
    def read(cls, path: Path, observable: Observable) -> "Observation":
        """Read an observation and check it against what the posterior or the simulator expects.

        Parameters
        ----------
        path
            ``.h5``, ``.hdf5`` or ``.fits``, which contain unit and axes, or ``.npy``, for which they are those of
            `observable`.
        observable
            Shape, unit and axes that the observation must have.

        Raises
        ------
        InputError
            If the file cannot be read, or shape, unit or axes differ, or a value is not finite.
        """
        observation = cls.open(path, observable)
        observation.check(observable, str(path))
        return observation

    @classmethod
    def open(cls, path: Path, observable: Observable) -> "Observation":
        """Read an observation without checking it.

        Parameters
        ----------
        path, observable
            See `read`; nothing is compared with the observable.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        readers = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".fits": _read_fits, ".npy": _read_npy}
        suffix = path.suffix.lower()
        if suffix not in readers:
            raise InputError(f"{path}: observations are {', '.join(readers)} files")
        try:
            return readers[suffix](path, observable)
        except MissingEntryError as error:
            raise InputError(f"{path}: {error}") from error
        except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = " ".join(str(error).split()).strip("'\"") or type(error).__name__
            raise InputError(f"{path}: cannot be read as {suffix} ({reason})") from error

    @classmethod
    def read_unchecked(cls, path: Path) -> "Observation":
        """Read an HDF5 file that `write` wrote, without checking it.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        try:
            return _from_hdf5(path)
        except (MissingEntryError, OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: is no observation of a run ({error})") from error

    def check(self, observable: Observable, where: str) -> None:
        """Check shape, values, unit and axes against an observable.

        Parameters
        ----------
        observable
            Shape, unit and axes that the observation must have.
        where
            Name of the file for the message.

        Raises
        ------
        InputError
            If they differ; the message says what the file has and what would be right.
        """
        if self.values.shape != observable.shape:
            raise InputError(
                f"{where}: the cube has shape {self.values.shape}, expected {observable.shape} "
                f"({', '.join(observable.axes)})"
            )
        try:
            usable(self.values, where)
        except UnusableError as error:
            raise InputError(f"{error}; every cell needs a usable value") from error
        for name in ("unit", "axes"):
            if getattr(self, name) != getattr(observable, name):
                raise InputError(f"{where}: {name} is {getattr(self, name)!r}, expected {getattr(observable, name)!r}")
        keys = {"channels": _channel_key(observable.axes)}
        for name in ("cell_size", "channels", "coordinates", "field_of_view"):
            key = keys.get(name, name)
            ours, theirs = (np.atleast_1d(getattr(source, name)) for source in (self, observable))
            if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=1e-4):
                raise InputError(f"{where}: {key} is {_plain(ours)}, expected {_plain(theirs)}")


def as_observation(x: "Observation | NDArray[Any] | Path | str", observable: Observable) -> Observation:
    """Take an observation as callers have it, and check it.

    Parameters
    ----------
    x
        `Observation`; array (C, *cells), with the axes and the unit of `observable`; or file.
    observable
        What the observation must be like.

    Raises
    ------
    InputError
        See `Observation.read`.
    """
    if isinstance(x, str | Path):
        return Observation.read(Path(x), observable)
    if not isinstance(x, Observation):
        try:
            x = Observation.from_observable(observable, usable(x, "observation", observable.unit))
        except UnusableError as error:
            raise InputError(str(error)) from error
    x.check(observable, "observation")
    return x


def _channel_key(axes: tuple[str, ...]) -> str:
    return {"redshift": "redshifts", "wavelength": "wavelengths"}.get(axes[0], "channels")


def _plain(values: NDArray[np.float64]) -> str:
    texts = [str(float(f"{v:.6g}")) for v in values]
    if len(texts) > 8:  # a light-cone has hundreds of slices
        texts = [*texts[:2], "...", f"{texts[-1]} ({len(texts)} in all)"]
    return f"[{', '.join(texts)}]"


def _text(value: object) -> str:
    """Return the text of an HDF5 attribute, which other programs may write as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_hdf5(path: Path, observable: Observable) -> Observation:
    return _from_hdf5(path, observable.axes)


def _from_hdf5(path: Path, axes: tuple[str, ...] | None = None) -> Observation:
    """Read a file that has the attributes which `axes` ask for, or its own axes."""
    with open_hdf5(path) as file:
        if "observed" not in file:
            raise MissingEntryError(f'has no dataset "observed", only {", ".join(sorted(file)) or "nothing"}')
        data = own_dataset(file, "observed")
        attrs = data.attrs
        channels = _channel_key(tuple(map(_text, attrs["axes"])) if axes is None else axes)
        wanted = ("unit", "axes", "cell_size", channels)
        if lacking := [name for name in wanted if name not in attrs]:
            raise MissingEntryError(
                f'the dataset "observed" lacks the attribute {lacking[0]}; it needs {", ".join(wanted)}'
            )
        size = np.atleast_1d(attrs["cell_size"])
        return Observation(
            np.asarray(data[()], np.float32),
            _text(attrs["unit"]),
            tuple(_text(a) for a in attrs["axes"]),
            # one number stands for cubic cells
            tuple(float(v) for v in (np.repeat(size, max(data.ndim - 1, 1)) if size.size == 1 else size)),
            tuple(float(v) for v in np.atleast_1d(attrs[channels])),
            np.asarray(attrs["theta"], np.float64) if "theta" in attrs else None,
            int(attrs["seed"]) if "seed" in attrs else None,
            tuple(float(v) for v in np.atleast_1d(attrs["coordinates"])) if "coordinates" in attrs else (),
            float(attrs.get("field_of_view", 0.0)),
        )


def _read_fits(path: Path, observable: Observable) -> Observation:
    from eorinfer.core.fits import read_cube  # here, since astropy takes half a second to load

    return Observation(**vars(read_cube(path, observable)))


def _read_npy(path: Path, observable: Observable) -> Observation:
    return Observation.from_observable(observable, np.load(path, allow_pickle=False))
