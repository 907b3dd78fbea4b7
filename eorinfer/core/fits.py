"""FITS files of observations and mocks; axes are found by their type, through astropy's WCS.

A file whose axes are sky coordinates may have them in any order, rotated (CD or PC matrix), with frequencies,
wavelengths or velocities along the line of sight, rising or falling, and a Stokes axis of length one. A file whose axes
are lengths has them in the order of the observable, with the table ``CHANNELS`` beside the image.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from eorinfer.core.errors import MissingEntryError
from eorinfer.core.files import whole_file
from simulators import Observable
from simulators.reionization.geometry import redshift_of

#: Doppler conventions of the velocity axes that FITS knows.
_VELOCITIES = {
    "VRAD": units.doppler_radio,
    "VOPT": units.doppler_optical,
    "VELO": units.doppler_relativistic,
}


@dataclass(frozen=True)
class FitsCube:
    """An image as a FITS file describes it; attributes as in `eorinfer.core.observation.Observation`."""

    values: NDArray[np.float32]
    unit: str
    axes: tuple[str, ...]
    cell_size: tuple[float, ...]
    channels: tuple[float, ...]
    coordinates: tuple[float, ...] = ()
    field_of_view: float = 0.0


def write_cube(path: Path, cube: FitsCube) -> None:
    """Write a cube whose axes are lengths; NumPy's last axis is FITS axis 1."""
    axes, header = cube.axes, fits.Header()
    header["BUNIT"] = cube.unit
    for i, (axis, size) in enumerate(zip(axes[:0:-1], cube.cell_size[::-1], strict=True), start=1):
        header[f"CTYPE{i}"], header[f"CDELT{i}"], header[f"CUNIT{i}"] = axis, size, "Mpc"
    header[f"CTYPE{len(axes)}"] = axes[0]
    if cube.field_of_view:
        header["FOV"] = cube.field_of_view, "degrees"
    tables = [_table("CHANNELS", axes[0], cube.channels)]
    if cube.coordinates:
        tables.append(_table("SLICES", axes[-1], cube.coordinates))
    with whole_file(Path(path)) as temporary:
        fits.HDUList([fits.PrimaryHDU(cube.values, header), *tables]).writeto(temporary)


def write_images(
    path: Path,
    observable: Observable,
    observed: NDArray[np.float32],
    beside: Mapping[str, NDArray[np.float32]],
    header: fits.Header | None = None,
) -> None:
    """Write an observed image and others of the same pixels, with their place on the sky.

    Parameters
    ----------
    path
        File to write.
    observable
        Axes and unit of the image.
    observed
        The primary image (C, *cells).
    beside
        Arrays of the same pixels, written as extensions under their names in capitals.
    header
        Place of the pixels on the sky, as `sky_header_of` reads it; by default about RA = Dec = 0.
    """
    header = _sky_header(observable) if header is None else header
    hdus = [fits.PrimaryHDU(_without_single_channel(observed), header)]
    for name, array in beside.items():
        hdus.append(fits.ImageHDU(_without_single_channel(array), header, name=name.upper()))
    with whole_file(path) as temporary:
        fits.HDUList(hdus).writeto(temporary)


def read_cube(path: Path, observable: Observable) -> FitsCube:
    """Read the first image of a file; what its header cannot say is taken from `observable`.

    Raises
    ------
    MissingEntryError
        If the header or a table lacks an entry, or an axis cannot be understood.
    """
    with _opened(path) as (hdus, image):
        if image.wcs.has_celestial:
            return _on_the_sky(image, observable)
        return _in_lengths(image, hdus)


def sky_header_of(path: Path, observable: Observable) -> fits.Header | None:
    """Return a header with the sky coordinates of a file, in the order of axes of `observable`.

    Returns
    -------
    header
        None if the file has no sky coordinates.
    """
    with _opened(path) as (_, image):
        if not image.wcs.has_celestial:
            return None
        axes = _SkyAxes.from_image(image, observable)
        if axes.in_order(image):
            return image.header
        wcs = image.wcs.sub([axis + 1 for axis in axes.fits_order])
        if axes.reversed:
            wcs = _with_reversed_first_axis(wcs, image.values.shape[axes.numpy_axis(image, axes.spectral)])
        header = wcs.to_header()
        header["BUNIT"] = observable.unit
        for i, channel in enumerate(observable.channels):
            header[f"CHAN{i}"] = channel, observable.axes[0]
        return header


@dataclass(frozen=True)
class _Image:
    """The image of a file without its Stokes axis; FITS counts axes from the last of `values`."""

    values: NDArray[np.float32]
    header: fits.Header
    wcs: WCS

    @property
    def kinds(self) -> list[str]:
        """Type of each FITS axis, empty where the header has none."""
        return [str(kind) for kind in self.wcs.wcs.ctype]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[fits.HDUList, _Image]]:
    with fits.open(path) as hdus, warnings.catch_warnings():
        # astropy says so when it translates units and dates of older files
        warnings.simplefilter("ignore", FITSFixedWarning)
        hdu = next((hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] > 1), None)
        if hdu is None:
            raise MissingEntryError("no HDU holds an image")
        image = _Image(np.asarray(hdu.data, np.float32), hdu.header, WCS(hdu.header))
        yield hdus, _without_stokes(image)


def _without_stokes(image: _Image) -> _Image:
    stokes = [i for i, kind in enumerate(image.kinds) if kind == "STOKES"]
    if not stokes:
        return image
    (axis,) = stokes
    values = np.moveaxis(image.values, image.values.ndim - 1 - axis, 0)
    if len(values) > 1:
        raise MissingEntryError(f"CTYPE{axis + 1} is STOKES with {len(values)} images; give a file with one of them")
    kept = [i + 1 for i in range(image.values.ndim) if i != axis]
    return _Image(values[0], image.header, image.wcs.sub(kept))


# -- axes on the sky -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _SkyAxes:
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
    def from_image(cls, image: _Image, observable: Observable) -> "_SkyAxes":
        """Find the axes by their types."""
        wcs, cube = image.wcs.wcs, len(observable.cells) == 3
        spectral = wcs.spec if wcs.spec >= 0 else None
        others = [i for i in range(image.values.ndim) if i not in (wcs.lng, wcs.lat, spectral)]
        if cube and spectral is None:
            raise MissingEntryError("the header has sky coordinates and no spectral axis; CTYPE must be FREQ or WAVE")
        if not cube and spectral is not None:
            others.append(spectral)
        sizes = {i: image.values.shape[image.values.ndim - 1 - i] for i in others}
        several = [i for i in others if sizes[i] > 1] or others[-1:]
        if len(several) > 1:
            names = ", ".join(f"axis {i + 1} ({image.kinds[i] or 'no CTYPE'}, {sizes[i]})" for i in several)
            raise MissingEntryError(f"the header has sky coordinates and besides {names}; only one can be the channels")
        channel = several[0] if several else None
        axes = cls(wcs.lng, wcs.lat, spectral if cube else None, channel)
        if axes.spectral is None:
            return axes
        ours, theirs = _line_of_sight(image, axes.spectral, observable), observable.coordinates
        opposite = len(theirs) > 1 and len(ours) > 1 and (ours[-1] - ours[0]) * (theirs[-1] - theirs[0]) < 0
        return cls(axes.longitude, axes.latitude, axes.spectral, axes.channel, opposite)

    @property
    def fits_order(self) -> list[int]:
        """FITS axes as they are in files of ours."""
        order = [self.spectral, self.latitude, self.longitude, self.channel]
        return [axis for axis in order if axis is not None]

    @staticmethod
    def numpy_axis(image: _Image, axis: int | None) -> int:
        """Return the axis of the image's array that a FITS axis is."""
        assert axis is not None
        return image.values.ndim - 1 - axis

    def in_order(self, image: _Image) -> bool:
        """Whether the image has its axes as files of ours have."""
        return self.fits_order == list(range(image.values.ndim)) and not self.reversed

    def ordered(self, image: _Image) -> NDArray[np.float32]:
        """Return the array as (C, *cells)."""
        order = [self.numpy_axis(image, axis) for axis in self.fits_order[::-1]]
        single = [axis for axis in range(image.values.ndim) if axis not in order]
        values = image.values.transpose([*single, *order]).reshape([image.values.shape[axis] for axis in order])
        values = values if self.channel is not None else values[None]
        return np.ascontiguousarray(values[..., ::-1] if self.reversed else values)


def _on_the_sky(image: _Image, observable: Observable) -> FitsCube:
    """Read an image with sky coordinates."""
    axes = _SkyAxes.from_image(image, observable)
    values = axes.ordered(image)
    pixels = proj_plane_pixel_scales(image.wcs.celestial)  # degrees, along longitude and latitude
    trained = observable.field_of_view / observable.cells[0]
    sizes = zip(observable.cell_size[:2], pixels, strict=True)
    across = tuple(float(size * pixel / trained) if trained else 0.0 for size, pixel in sizes)
    coordinates = observable.coordinates
    if axes.spectral is not None and coordinates:
        sight = _line_of_sight(image, axes.spectral, observable)
        coordinates = tuple((sight[::-1] if axes.reversed else sight).tolist())
    return FitsCube(
        values,
        str(image.header.get("BUNIT", "")),
        observable.axes,
        (*across, *observable.cell_size[2:]),
        _channels(image, axes, len(values), observable),
        coordinates=coordinates,
        field_of_view=float(pixels[0]) * values.shape[1],
    )


def _line_of_sight(image: _Image, axis: int, observable: Observable) -> NDArray[np.float64]:
    """Return the observable's coordinate along the line of sight: MHz, or redshift."""
    mhz = _frequencies(image, axis)
    if observable.axes[-1] == "frequency":
        return mhz
    if observable.axes[0] == "wavelength" and observable.coordinates:
        # the line whose redshifts they are: channels are the wavelengths at which the cubes begin
        rest = observable.channels[0] / (1 + observable.coordinates[0])
        return _micrometres(mhz) / rest - 1
    return _redshifts(mhz)


def _channels(image: _Image, axes: _SkyAxes, n: int, observable: Observable) -> tuple[float, ...]:
    """Return the coordinate of each channel: from CHAN0 and so on, a spectral axis, or the observable."""
    keys = [f"CHAN{i}" for i in range(n)]
    if all(key in image.header for key in keys):
        return tuple(float(image.header[key]) for key in keys)
    spectral = image.wcs.wcs.spec
    if axes.channel is not None and axes.channel == spectral:
        mhz = _frequencies(image, spectral)
        convert = {"wavelength": _micrometres, "redshift": _redshifts}.get(observable.axes[0], np.asarray)
        return tuple(convert(mhz).tolist())
    if observable.axes[0] == "channel":
        return observable.channels
    lacking = next(key for key in keys if key not in image.header)
    raise MissingEntryError(f"the header has sky coordinates and lacks {lacking}; it needs BUNIT, {', '.join(keys)}")


def _frequencies(image: _Image, axis: int) -> NDArray[np.float64]:
    """Return the frequency of each pixel of a spectral axis in MHz."""
    wcs = image.wcs.sub([axis + 1])
    kind, unit = image.kinds[axis][:4], wcs.world_axis_units[0]
    world = wcs.pixel_to_world_values(np.arange(image.values.shape[image.values.ndim - 1 - axis]))
    rest = wcs.wcs.restfrq * units.Hz if wcs.wcs.restfrq else wcs.wcs.restwav * units.m
    if kind in ("FREQ", "WAVE", "WAVN", "ENER"):
        return np.asarray((world * units.Unit(unit)).to_value(units.MHz, units.spectral()))
    if kind not in (*_VELOCITIES, "ZOPT"):
        raise MissingEntryError(f"CTYPE{axis + 1} is {image.kinds[axis]}; it must be FREQ or WAVE")
    if not rest.value:
        raise MissingEntryError(f"CTYPE{axis + 1} is {image.kinds[axis]}, which needs RESTFRQ in Hz beside it")
    if kind == "ZOPT":
        return np.asarray(rest.to_value(units.MHz, units.spectral()) / (1 + world))
    return np.asarray((world * units.Unit(unit)).to_value(units.MHz, _VELOCITIES[kind](rest)))


def _micrometres(mhz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((mhz * units.MHz).to_value(units.um, units.spectral()))


def _redshifts(mhz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the redshifts at which the 21cm line is observed."""
    return np.array([redshift_of(frequency) for frequency in mhz.tolist()])


def _with_reversed_first_axis(wcs: WCS, n: int) -> WCS:
    """Return coordinates whose first pixel axis, of n pixels, runs the other way."""
    header = wcs.to_header()
    header["CRPIX1"] = n + 1 - wcs.wcs.crpix[0]
    for i in range(1, wcs.naxis + 1):
        key = f"PC{i}_1"
        header[key] = -header.get(key, 1.0 if i == 1 else 0.0)
    return WCS(header)


def _sky_header(observable: Observable) -> fits.Header:
    """Return a tangent plane about RA = Dec = 0; for cubes with wavelengths, in logarithmic steps."""
    header = fits.Header()
    header["BUNIT"] = observable.unit
    axes = observable.axes[1:]
    if observable.field_of_view:
        pixel = observable.field_of_view / observable.cells[0]
        for axis, kind in (("y", "DEC--TAN"), ("x", "RA---TAN")):
            i = len(axes) - axes.index(axis)
            header[f"CTYPE{i}"], header[f"CUNIT{i}"], header[f"CRVAL{i}"] = kind, "deg", 0.0
            header[f"CRPIX{i}"] = observable.cells[axes.index(axis)] / 2 + 0.5
            header[f"CDELT{i}"] = -pixel if axis == "x" else pixel
    if observable.coordinates and observable.axes[0] == "wavelength":
        # Of the first cube; a second one begins at another wavelength.
        ratio = (1 + observable.coordinates[1]) / (1 + observable.coordinates[0])
        first = observable.channels[0] * 1e-6
        header["CTYPE1"], header["CUNIT1"], header["CRPIX1"] = "WAVE-LOG", "m", 1.0
        header["CRVAL1"], header["CDELT1"] = first, first * np.log(ratio)
    for i, wavelength in enumerate(observable.channels):
        header[f"CHAN{i}"] = wavelength, observable.axes[0]
    return header


# -- axes that are lengths -----------------------------------------------------------------------


def _in_lengths(image: _Image, hdus: fits.HDUList) -> FitsCube:
    """Read an image whose cells are so many Mpc wide, as `write_cube` writes it."""
    dimension = image.values.ndim - 1
    kinds = [f"CTYPE{i + 1}" for i in range(image.values.ndim)]
    wanted = kinds + [f"CDELT{i + 1}" for i in range(dimension)]
    given = kinds if image.wcs.wcs.has_cd() else wanted
    if lacking := [name for name in given if name not in image.header]:
        raise MissingEntryError(f"the header lacks {lacking[0]}; it needs BUNIT, {', '.join(wanted)}")
    axes = tuple(reversed(image.kinds))
    if "CHANNELS" not in hdus:
        raise MissingEntryError(f'has no table CHANNELS; it needs one with the column "{axes[0]}"')
    return FitsCube(
        image.values,
        str(image.header.get("BUNIT", "")),
        axes,
        tuple(reversed(_lengths(image, dimension))),
        tuple(float(v) for v in hdus["CHANNELS"].data[axes[0]]),
        coordinates=tuple(float(v) for v in hdus["SLICES"].data[axes[-1]]) if "SLICES" in hdus else (),
        field_of_view=float(image.header.get("FOV", 0.0)),
    )


def _lengths(image: _Image, dimension: int) -> list[float]:
    """Return the size of a cell along each of the first FITS axes in Mpc."""
    matrix = image.wcs.pixel_scale_matrix
    if np.count_nonzero(matrix - np.diag(np.diag(matrix))):
        raise MissingEntryError("axes that are lengths must not be rotated: the CD or PC matrix must be diagonal")
    lengths = []
    for i, size in enumerate(np.diag(matrix)[:dimension], start=1):
        unit = image.wcs.wcs.cunit[i - 1]
        try:
            lengths.append(float(size) if unit.is_equivalent("") else float((size * unit).to_value("Mpc")))
        except units.UnitConversionError as error:
            text = image.header.get(f"CUNIT{i}")
            raise MissingEntryError(f"CUNIT{i} is '{text}'; it must be a comoving length, such as Mpc") from error
    return lengths


def _table(name: str, column: str, values: tuple[float, ...]) -> fits.BinTableHDU:
    return fits.BinTableHDU.from_columns([fits.Column(name=column, format="D", array=np.array(values))], name=name)


def _without_single_channel(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return array[0] if len(array) == 1 else array
