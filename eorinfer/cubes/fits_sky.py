"""Images with sky coordinates: axes found by their type, put in order, and described as the observable's are."""

from dataclasses import dataclass, replace

import numpy as np
from astropy import units
from numpy.typing import NDArray

from eorinfer.core.errors import MissingEntryError
from eorinfer.cubes.filecube import FileCube
from eorinfer.cubes.fits_image import OTHER_SPECTRAL, REDSHIFTS, Image
from simulators import Observable
from simulators.reionization.geometry import distance, redshift_of


@dataclass(frozen=True)
class SkyAxes:
    """FITS axes of an image, from 0, in the parts that they play.

    Attributes
    ----------
    longitude, latitude
        Axes across the sky.
    spectral
        Axis along the line of sight, None for maps.
    channel
        Axis of the observable's channels, None where there is one channel.
    reversed
        The line of sight runs against the observable's.
    """

    longitude: int
    latitude: int
    spectral: int | None
    channel: int | None
    reversed: bool = False

    @classmethod
    def from_image(cls, image: Image, observable: Observable) -> "SkyAxes":
        """Find the axes by their types; axes of one pixel may be of any.

        Raises
        ------
        MissingEntryError
            If there is no line of sight, or there are two axes that may be the channels.
        """
        wcs, cube, spectral = image.wcs.wcs, len(observable.cells) == 3, image.spectral
        others = [i for i in range(image.values.ndim) if i not in (wcs.lng, wcs.lat, spectral)]
        if cube and spectral is None:
            raise MissingEntryError(
                f"the header has sky coordinates and no spectral axis; CTYPE must be FREQ or WAVE, or {OTHER_SPECTRAL}"
            )
        if not cube and spectral is not None:
            others.append(spectral)
        several = [i for i in others if image.length(i) > 1] or others[-1:]
        if len(several) > 1:
            names = ", ".join(f"axis {i + 1} ({image.kinds[i] or 'no CTYPE'}, {image.length(i)})" for i in several)
            raise MissingEntryError(f"the header has sky coordinates and besides {names}; only one can be the channels")
        channel = several[0] if several else None
        axes = cls(wcs.lng, wcs.lat, spectral if cube else None, channel)
        if axes.spectral is None:
            return axes
        ours, theirs = _line_of_sight(image, axes.spectral, observable), observable.coordinates
        rising = theirs[-1] - theirs[0] if len(theirs) > 1 else 1.0
        return replace(axes, reversed=len(ours) > 1 and bool((ours[-1] - ours[0]) * rising < 0))

    @property
    def fits_order(self) -> list[int]:
        """FITS axes as they are in files of ours."""
        order = [self.spectral, self.latitude, self.longitude, self.channel]
        return [axis for axis in order if axis is not None]

    @staticmethod
    def numpy_axis(image: Image, axis: int) -> int:
        """Return the axis of the image's array that a FITS axis is."""
        return image.values.ndim - 1 - axis

    def in_order(self, image: Image) -> bool:
        """Whether the image has its axes as files of ours have."""
        return self.fits_order == list(range(image.values.ndim)) and not self.reversed

    def ordered(self, image: Image) -> NDArray[np.float32]:
        """Return the array as (C, *cells)."""
        order = [self.numpy_axis(image, axis) for axis in self.fits_order[::-1]]
        single = [axis for axis in range(image.values.ndim) if axis not in order]
        values = image.values.transpose([*single, *order]).reshape([image.values.shape[axis] for axis in order])
        values = values if self.channel is not None else values[None]
        return np.ascontiguousarray(self.turned(values))

    def turned(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn an array whose last axis is the line of sight of the file the way of the observable."""
        return along[..., ::-1] if self.reversed else along

    def beside(self, along: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
        """Shape numbers (n,) along the spectral axis so that they broadcast with the ordered array."""
        return along.reshape(-1, *(1,) * (dimension - 1)) if self.spectral is None else self.turned(along)


def on_the_sky(image: Image, observable: Observable) -> FileCube:
    """Read an image with sky coordinates.

    Raises
    ------
    MissingEntryError
        If an axis cannot be understood.
    """
    axes = SkyAxes.from_image(image, observable)
    values, notes = axes.ordered(image), []
    spectral = axes.spectral if axes.spectral is not None else image.spectral
    frequencies = None if spectral is None else axes.beside(image.frequencies(spectral), values.ndim)
    beam = image.beam()
    if isinstance(beam, np.ndarray):  # one for each frequency
        beam = axes.beside(beam, values.ndim) if spectral is not None and len(beam) == image.length(spectral) else None
    if axes.reversed:
        notes.append("the line of sight is turned round, to the order of the config")
    coordinates, depth = observable.coordinates, observable.cell_size[2:]
    if axes.spectral is not None:
        sight = axes.turned(_line_of_sight(image, axes.spectral, observable))
        if coordinates:
            coordinates = tuple(sight.tolist())
        elif observable.axes[0] == "redshift" and len(sight) > 1:
            ends = [distance(float(z)) for z in (sight[0], sight[-1])]
            depth = (abs(ends[1] - ends[0]) / (len(sight) - 1),)
    across, said = _across(image.pixels, observable)
    channels, taken = _channels(image, axes, len(values), observable)
    return FileCube(
        values,
        image.unit,
        observable.axes,
        (*across, *depth),
        channels,
        coordinates=coordinates,
        field_of_view=float(image.pixels[0]) * values.shape[1] if observable.field_of_view else 0.0,
        frequencies=frequencies,
        beam=beam,
        pixel=float(np.prod(np.radians(image.pixels))),
        notes=(*notes, *said, *taken),
    )


def _across(pixels: NDArray[np.float64], observable: Observable) -> tuple[tuple[float, float], list[str]]:
    """Compute the side of a cell in Mpc along x and y, from pixels in degrees; and say where none is known."""
    if observable.field_of_view:
        trained = observable.field_of_view / observable.cells[0]
        a, b = (float(size * pixel / trained) for size, pixel in zip(observable.cell_size[:2], pixels, strict=True))
        return (a, b), []
    redshift = None
    if observable.axes[-1] == "frequency" and observable.coordinates:
        redshift = redshift_of(float(np.mean(observable.coordinates)))
    elif observable.axes[-1] == "z" and observable.coordinates:
        redshift = float(np.mean(observable.coordinates))
    elif observable.axes[0] == "redshift":
        redshift = observable.channels[0]
    if redshift is not None:
        a, b = (float(np.radians(pixel) * distance(redshift)) for pixel in pixels)
        return (a, b), []
    said = f"pixels of {pixels[0]:.4g} x {pixels[1]:.4g} degrees are not compared: the config has Mpc and no redshift"
    return observable.cell_size[:2], [said]  # type: ignore[return-value]


def _line_of_sight(image: Image, axis: int, observable: Observable) -> NDArray[np.float64]:
    """Return the observable's coordinate along the line of sight: MHz, or redshift."""
    if observable.axes[0] == "wavelength" and observable.coordinates:
        if image.kinds[axis].upper() in REDSHIFTS:
            return image.world(axis)
        # the line whose redshifts they are: channels are the wavelengths at which the cubes begin
        rest = observable.channels[0] / (1 + observable.coordinates[0])
        return _micrometres(image.frequencies(axis)) / rest - 1
    mhz = image.frequencies(axis)
    if observable.axes[-1] == "frequency" or observable.axes[0] not in ("redshift", "channel"):
        return mhz
    return _redshifts(mhz)


def _channels(image: Image, axes: SkyAxes, n: int, observable: Observable) -> tuple[tuple[float, ...], list[str]]:
    """Return the coordinate of each channel, and what there is to say of it.

    They stand in CHAN0 and so on, which files of ours have, or along a spectral axis, or in the config alone.
    """
    keys = [f"CHAN{i}" for i in range(n)]
    if all(key in image.header for key in keys):
        return tuple(float(image.header[key]) for key in keys), []
    convert = {"wavelength": _micrometres, "redshift": _redshifts}.get(observable.axes[0])
    if convert is not None and axes.channel is not None and axes.channel == image.spectral:
        return tuple(convert(image.frequencies(axes.channel)).tolist()), []
    if convert is not None and axes.spectral is not None and n == 1:
        mhz = axes.turned(image.frequencies(axes.spectral))
        # a light-cone in wavelengths begins there; a box has one redshift, that of its middle
        of_all = convert(mhz)
        return (float(of_all[0] if observable.coordinates else of_all.mean()),), []
    if n != len(observable.channels):
        return tuple(float(i) for i in range(n)), []
    if observable.axes[0] == "channel":
        return observable.channels, []
    shown = ", ".join(f"{channel:g}" for channel in observable.channels)
    return observable.channels, [f"the file names no {observable.axes[0]}; that of the simulations is taken: {shown}"]


def _micrometres(mhz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((mhz * units.MHz).to_value(units.um, units.spectral()))


def _redshifts(mhz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the redshifts at which the 21cm line is observed."""
    return np.array([redshift_of(frequency) for frequency in mhz.tolist()])
