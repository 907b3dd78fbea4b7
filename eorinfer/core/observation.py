"""An observed cube with what is needed to check that it fits: HDF5, FITS or npy."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.files import whole_file, whole_hdf5
from eorinfer.core.hdf5 import open_hdf5, own_dataset
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
    def of(
        cls,
        observable: Observable,
        values: NDArray[np.float32],
        theta: NDArray[np.float64] | None = None,
        seed: int | None = None,
    ) -> "Observation":
        """A cube that has the observable's own axes."""
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
        """Write HDF5: dataset ``observed`` and its attributes, and other arrays `beside` it by name."""
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
        from astropy.io import fits

        header = fits.Header()
        header["BUNIT"] = self.unit
        for i, (axis, size) in enumerate(zip(self.axes[:0:-1], self.cell_size[::-1], strict=True), start=1):
            header[f"CTYPE{i}"], header[f"CDELT{i}"], header[f"CUNIT{i}"] = axis, size, "Mpc"
        header[f"CTYPE{len(self.axes)}"] = self.axes[0]
        channels = fits.BinTableHDU.from_columns(
            [fits.Column(name=self.axes[0], format="D", array=np.array(self.channels))], name="CHANNELS"
        )
        if self.field_of_view:
            header["FOV"] = self.field_of_view, "degrees"
        tables = [channels]
        if self.coordinates:
            column = fits.Column(name=self.axes[-1], format="D", array=np.array(self.coordinates))
            tables.append(fits.BinTableHDU.from_columns([column], name="SLICES"))
        with whole_file(Path(path)) as temporary:
            fits.HDUList([fits.PrimaryHDU(self.values, header), *tables]).writeto(temporary)

    @classmethod
    def read(cls, path: Path, observable: Observable) -> "Observation":
        """Read an observation and check it against what the posterior or the simulator expects.

        Parameters
        ----------
        path
            ``.h5``/``.hdf5`` or ``.fits``, which carry unit and axes, or ``.npy``,
            which takes them from `observable`.
        observable
            Observable that the file must fit.

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
        """Read an observation as it is.

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
        except _MissingEntry as error:
            raise InputError(f"{path}: {error}") from error
        except (OSError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            reason = " ".join(str(error).split()).strip("'\"") or type(error).__name__
            raise InputError(f"{path}: cannot be read as {suffix} ({reason})") from error

    @classmethod
    def written(cls, path: Path) -> "Observation":
        """Read what `write` wrote, when nobody knows what it should be.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        try:
            return _from_hdf5(path)
        except (_MissingEntry, OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: is no observation of a run ({error})") from error

    def check(self, observable: Observable, where: str) -> None:
        """Say what does not fit.

        Raises
        ------
        InputError
            Naming `where`, what is there and what would be right.
        """
        if self.values.shape != observable.shape:
            raise InputError(
                f"{where}: the cube has shape {self.values.shape}, expected {observable.shape} "
                f"({', '.join(observable.axes)})"
            )
        bad = int(self.values.size - np.isfinite(self.values).sum())
        if bad:
            raise InputError(
                f"{where}: {bad} of {self.values.size} values are NaN or infinite; every cell needs a finite value"
            )
        for name in ("unit", "axes"):
            if getattr(self, name) != getattr(observable, name):
                raise InputError(f"{where}: {name} is {getattr(self, name)!r}, expected {getattr(observable, name)!r}")
        keys = {"channels": _channel_key(observable.axes)}
        for name in ("cell_size", "channels", "coordinates", "field_of_view"):
            key = keys.get(name, name)
            ours, theirs = (np.atleast_1d(getattr(one, name)) for one in (self, observable))
            if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=1e-4):
                raise InputError(f"{where}: {key} is {_plain(ours)}, expected {_plain(theirs)}")


def _channel_key(axes: tuple[str, ...]) -> str:
    return {"redshift": "redshifts", "wavelength": "wavelengths"}.get(axes[0], "channels")


def _plain(values: NDArray[np.float64]) -> str:
    texts = [str(float(f"{v:.6g}")) for v in values]
    if len(texts) > 8:  # a light-cone has hundreds of slices
        texts = [*texts[:2], "...", f"{texts[-1]} ({len(texts)} in all)"]
    return f"[{', '.join(texts)}]"


class _MissingEntry(Exception):
    """The file can be read and lacks something; the message is the whole of it."""


def _text(value: object) -> str:
    """Text of an HDF5 attribute, which other programs write as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_hdf5(path: Path, observable: Observable) -> Observation:
    return _from_hdf5(path, observable.axes)


def _from_hdf5(path: Path, axes: tuple[str, ...] | None = None) -> Observation:
    """Read a file that has the attributes which `axes` ask for, or its own axes."""
    with open_hdf5(path) as file:
        if "observed" not in file:
            raise _MissingEntry(f'has no dataset "observed", only {", ".join(sorted(file)) or "nothing"}')
        data = own_dataset(file, "observed")
        attrs = data.attrs
        channels = _channel_key(tuple(map(_text, attrs["axes"])) if axes is None else axes)
        wanted = ("unit", "axes", "cell_size", channels)
        if lacking := [name for name in wanted if name not in attrs]:
            raise _MissingEntry(
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
    from astropy.io import fits

    with fits.open(path) as hdus:
        header = hdus[0].header
        if hdus[0].data is None:
            raise _MissingEntry("the primary HDU holds no image")
        values = np.asarray(hdus[0].data, np.float32)
        if any(str(header.get(f"CTYPE{i + 1}")).startswith("RA---") for i in range(values.ndim)):
            return _from_sky(header, values, observable)
        dimension = values.ndim - 1
        wanted = [f"CTYPE{i + 1}" for i in range(values.ndim)] + [f"CDELT{i + 1}" for i in range(dimension)]
        if lacking := [name for name in wanted if name not in header]:
            raise _MissingEntry(f"the header lacks {lacking[0]}; it needs BUNIT, {', '.join(wanted)}")
        axes = tuple(str(header[f"CTYPE{i}"]) for i in range(values.ndim, 0, -1))
        if "CHANNELS" not in hdus:
            raise _MissingEntry(f'has no table CHANNELS; it needs one with the column "{axes[0]}"')
        sizes = tuple(float(header[f"CDELT{i}"]) for i in range(dimension, 0, -1))
        channels = tuple(float(v) for v in hdus["CHANNELS"].data[axes[0]])
        coordinates = tuple(float(v) for v in hdus["SLICES"].data[axes[-1]]) if "SLICES" in hdus else ()
        field_of_view = float(header.get("FOV", 0.0))
        return Observation(
            values,
            header.get("BUNIT", ""),
            axes,
            sizes,
            channels,
            coordinates=coordinates,
            field_of_view=field_of_view,
        )


def _from_sky(header: Any, values: NDArray[np.float32], observable: Observable) -> Observation:
    """An image with WCS, as `eorinfer lim --fits` writes it; what a header cannot say is taken from `observable`."""
    if values.ndim < len(observable.shape):
        values = values[None]
    kinds = {str(header.get(f"CTYPE{i}"))[:4]: i for i in range(1, values.ndim + 1)}
    wanted = [f"CDELT{kinds.get('DEC-', '')}", *(f"CHAN{i}" for i in range(len(values)))]
    if lacking := [name for name in wanted if name not in header]:
        raise _MissingEntry(
            f"the header has sky coordinates and lacks {lacking[0]}; it needs BUNIT, {', '.join(wanted)}"
        )
    pixel = abs(float(header[wanted[0]]))
    trained = observable.field_of_view / observable.cells[0]
    across = tuple(size * pixel / trained if trained else 0.0 for size in observable.cell_size[:2])
    coordinates = observable.coordinates
    if coordinates and "WAVE" in kinds:
        axis = kinds["WAVE"]
        step = 1 + float(header[f"CDELT{axis}"]) / float(header[f"CRVAL{axis}"])
        coordinates = tuple(((1 + coordinates[0]) * step ** np.arange(values.shape[-1]) - 1).tolist())
    return Observation(
        values,
        str(header.get("BUNIT", "")),
        observable.axes,
        (*across, *observable.cell_size[2:]),
        tuple(float(header[f"CHAN{i}"]) for i in range(len(values))),
        coordinates=coordinates,
        field_of_view=pixel * values.shape[1],
    )


def _read_npy(path: Path, observable: Observable) -> Observation:
    return Observation.of(observable, np.load(path, allow_pickle=False))
