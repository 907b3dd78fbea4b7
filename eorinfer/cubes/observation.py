"""An observed cube and its axes, read from HDF5, FITS or npy and checked against an observable."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError, MissingEntryError, naming
from eorinfer.core.files import whole_hdf5
from eorinfer.core.numbers import UnusableError, usable
from eorinfer.cubes.array import apart_from_mask, cube_of_array
from eorinfer.cubes.comparison import refuse_fill_value, refuse_other, refuse_unusable
from eorinfer.cubes.filecube import FileCube, frequencies_of
from eorinfer.cubes.formats import channel_key, from_hdf5, read_file, with_channel
from simulators import Observable

FORMAT = 1
#: Cells that are left out: their places, or "nan" for the cells that are NaN.
Mask = NDArray[np.bool_] | Literal["nan"] | None


@dataclass(frozen=True)
class Observation:
    """An observed cube.

    Attributes
    ----------
    values
        (C, *cells) float32; 0 in masked cells.
    unit, axes, cell_size, channels, coordinates, field_of_view
        See `simulators.Observable`.
    theta
        (P,) true parameters of a mock, None for the sky.
    seed
        Seed of a mock's realisation, None for the sky.
    mask
        (C, *cells) of bool, true in cells that are left out; None for none.
    notes
        A line for each thing that reading the file changed, or took from elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import Observation
    >>> sky = Observation.from_array(np.zeros((8, 8)), cell_size=1.0)
    >>> sky.values.shape
    (1, 8, 8)
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
    mask: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        # torch takes neither flipped arrays nor those that cannot be written.
        object.__setattr__(self, "values", np.require(self.values, requirements=["C", "W"]))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.values.shape))
        masked = "" if self.mask is None else f", {int(self.mask.sum())} cells masked"
        kind = "the sky" if self.theta is None else f"a mock at {self.theta.tolist()}"
        return f"Observation({shape} in {self.unit or 'no unit'}, axes {', '.join(self.axes)}{masked}, {kind})"

    @classmethod
    def from_observable(
        cls,
        observable: Observable,
        values: NDArray[np.float32],
        theta: NDArray[np.float64] | None = None,
        seed: int | None = None,
        mask: NDArray[np.bool_] | None = None,
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
            mask,
        )

    @classmethod
    def from_array(
        cls,
        values: Any,
        *,
        cell_size: float | Sequence[float],
        unit: str | None = None,
        redshifts: float | Sequence[float] | None = None,
        wavelengths: float | Sequence[float] | None = None,
        frequencies: Sequence[float] | None = None,
        field_of_view: float = 0.0,
    ) -> "Observation":
        """Make an observation of an array, for `Posterior.sample`, or to be written.

        Parameters
        ----------
        values
            Array (C, *cells), or (*cells) where there is one channel, or an astropy quantity. The line of sight
            is last. Masked cells of a masked array are left out.
        cell_size
            Comoving Mpc along each cell axis; one number stands for cubic cells. This and all that follows may be
            astropy quantities too, which are converted.
        unit
            Unit of `values`, such as ``"mK"``; that of a quantity is its own.
        redshifts
            Redshift of each channel; or of each slice along the last axis of a light-cone, which has one channel.
        wavelengths
            Wavelength of each channel in micrometres, in place of redshifts.
        frequencies
            MHz of each slice along the last axis of a light-cone, in place of redshifts.
        field_of_view
            Side of the map in degrees, for light-cones and maps with angular pixels.

        Raises
        ------
        InputError
            If `values` is not usable, or the channels do not go with its shape.
        """
        cube = cube_of_array(
            values,
            cell_size,
            unit,
            {"redshift": redshifts, "wavelength": wavelengths, "frequency": frequencies},
            field_of_view,
        )
        return _from_cube(cube)

    @property
    def digest(self) -> str:
        """Hash of the values."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    def write(self, path: Path, beside: Mapping[str, NDArray[np.float32]] | None = None, made_by: str = "") -> None:
        """Write HDF5: the dataset ``observed`` with its attributes, and the arrays in `beside` under their names.

        Those have the same unit. `made_by` is a hash of what made a mock.
        """
        with whole_hdf5(Path(path)) as file:
            for name, array in (beside or {}).items():
                file.create_dataset(name, data=array).attrs["unit"] = self.unit
            data = file.create_dataset("observed", data=self.values)
            data.attrs.update(format=FORMAT, unit=self.unit, axes=list(self.axes), cell_size=np.array(self.cell_size))
            data.attrs[channel_key(self.axes)] = np.array(self.channels)
            if self.coordinates:
                data.attrs["coordinates"] = np.array(self.coordinates)
            if self.field_of_view:
                data.attrs["field_of_view"] = self.field_of_view
            if self.theta is not None:
                data.attrs["theta"] = self.theta
            if self.seed is not None:
                data.attrs["seed"] = np.uint64(self.seed)
            if made_by:
                data.attrs["made_by"] = made_by
            if self.mask is not None:
                file.create_dataset("mask", data=self.mask)

    def write_fits(self, path: Path) -> None:
        """Write FITS: the cube as primary image, NaN in masked cells; NumPy's last axis is FITS axis 1."""
        from eorinfer.cubes.fits import write_cube

        values = self.values if self.mask is None else np.where(self.mask, np.float32(np.nan), self.values)
        cube = FileCube(values, self.unit, self.axes, self.cell_size, self.channels, self.coordinates)
        write_cube(path, replace(cube, field_of_view=self.field_of_view))

    @classmethod
    def read(cls, path: Path, observable: Observable, mask: Mask = None) -> "Observation":
        """Read an observation and check it against what the posterior or the simulator expects.

        Parameters
        ----------
        path
            ``.h5``, ``.hdf5`` or ``.fits``, which contain unit and axes, or ``.npy``, for which they are those of
            `observable`.
        observable
            Shape, unit and axes that the observation must have. Values in another unit are converted.
        mask
            Cells (C, *cells) that are left out, or ``"nan"`` for those that are NaN; they are set to 0.

        Raises
        ------
        InputError
            If the file cannot be read, shape, unit or axes differ, or a value is not finite.
        """
        observation = cls.open(path, observable, mask)
        observation.check(observable, str(path))
        return observation

    @classmethod
    def open(cls, path: Path, observable: Observable, mask: Mask = None) -> "Observation":
        """Read an observation and convert its unit, without checking it.

        Parameters
        ----------
        path, observable, mask
            See `read`; nothing but the unit is compared with the observable.

        Raises
        ------
        InputError
            If the file cannot be read or its unit cannot be converted.
        """
        path = Path(path)
        cube = read_file(path, observable)
        known = frequencies_of(observable) if cube.frequencies is None else cube.frequencies
        return _from_cube(cube)._matched(
            observable, str(path), mask, cube.values, {"frequencies": known, "beam": cube.beam, "pixel": cube.pixel}
        )

    @classmethod
    def read_unchecked(cls, path: Path) -> "Observation":
        """Read an HDF5 file that `write` wrote, without checking it.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        try:
            return _from_cube(from_hdf5(path))
        except (MissingEntryError, OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: is no observation of a run ({error})") from error

    def matched(self, observable: Observable, where: str, mask: Mask = None) -> "Observation":
        """Return the observation in the unit of an observable, with 0 in masked cells, checked against it.

        Parameters
        ----------
        observable
            Shape, unit and axes that the observation must have. Values in another unit are converted.
        where
            Name of the observation for messages.
        mask
            Cells that the simulations lack as well; see `read`.

        Raises
        ------
        InputError
            As for `read`.
        """
        if self.unit == observable.unit and mask is None:
            self.check(observable, where)
            return self
        conditions = {"frequencies": frequencies_of(observable)}
        matched = self._matched(observable, where, mask, self.values, conditions)
        matched.check(observable, where)
        return matched

    def _matched(
        self, observable: Observable, where: str, mask: Mask, values: NDArray[Any], conditions: dict[str, Any]
    ) -> "Observation":
        """Mask values, then convert them to the unit of an observable."""
        notes, masks = list(self.notes), [] if self.mask is None else [self.mask]
        if isinstance(mask, str):
            masks.append(np.isnan(values))
        elif mask is not None:
            masks.append(mask)
        joined = np.logical_or.reduce(masks) if masks else None
        fitting = joined if joined is not None and joined.shape == values.shape else None
        if fitting is not None:
            values = np.where(fitting, 0, values)
            notes.append(f"{int(fitting.sum())} of {fitting.size} cells are masked")
        unit = self.unit
        if unit != observable.unit:
            from eorinfer.core.units import Conditions, UnitError, conversion  # loads astropy

            with naming(f"{where}: ", UnitError):
                factor = conversion(unit, observable.unit, Conditions(**conditions))
            if np.any(factor != 1):
                # Before a fill value is converted with the others, and is not known again.
                refuse_unusable(values, where)
                refuse_fill_value(np.asarray(values), fitting, where)
                values = values * factor
                notes.append(f"unit: converted from {unit} to {observable.unit}, times {_span(factor)}")
            unit = observable.unit
        if observable.smoothing:  # no file says it
            notes.append(f"taken to be smoothed across the sky by σ = {observable.smoothing:g} arcmin, as all maps")
        with np.errstate(over="ignore"):
            values = np.asarray(values, np.float32)
        return replace(self, values=values, unit=unit, mask=joined, notes=tuple(notes))

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
        refuse_other(self, observable, where)


def as_observation(
    x: "Observation | NDArray[Any] | Path | str", observable: Observable, mask: Mask = None
) -> Observation:
    """Take an observation as callers have it, and check it.

    Parameters
    ----------
    x
        `Observation`; array (C, *cells), masked or not, with the axes and the unit of `observable`; or file.
    observable
        What the observation must be like; values in another unit are converted.
    mask
        Cells that are left out, in simulations as well.

    Raises
    ------
    InputError
        See `Observation.read`.
    """
    if isinstance(x, str | Path):
        return Observation.read(Path(x), observable, mask)
    if not isinstance(x, Observation):
        try:
            if type(x) is np.ndarray and isinstance(mask, np.ndarray):
                x = with_channel(x, observable)
                x = np.where(mask, 0, x) if x.shape == mask.shape else x
            x, own = apart_from_mask(x)
            values = with_channel(usable(x, "observation", observable.unit), observable)
            own = None if own is None else with_channel(own, observable)
            x = Observation.from_observable(observable, values, mask=own)
        except UnusableError as error:
            raise InputError(str(error)) from error
    return x.matched(observable, "observation", mask)


def _from_cube(cube: FileCube) -> Observation:
    """Take what a file says of its cube; the values in single precision, whatever they are."""
    with np.errstate(over="ignore"):
        values = np.asarray(cube.values, np.float32)
    return Observation(
        values,
        cube.unit,
        cube.axes,
        cube.cell_size,
        cube.channels,
        cube.theta,
        cube.seed,
        cube.coordinates,
        cube.field_of_view,
        cube.mask,
        cube.notes,
    )


def _span(factor: NDArray[np.float64] | float) -> str:
    low, high = float(np.min(factor)), float(np.max(factor))
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
