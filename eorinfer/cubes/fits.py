"""FITS files of observations and mocks; axes are found by their type, through astropy's WCS.

A file whose axes are sky coordinates may have them in any order, rotated (CD or PC matrix), with frequencies,
wavelengths, velocities or redshifts along the line of sight, rising or falling, and a Stokes axis of length one. A file
whose axes are lengths has them in the order of the observable, with the table ``CHANNELS`` beside the image.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from eorinfer.core.errors import MissingEntryError
from eorinfer.core.files import whole_file
from eorinfer.cubes.filecube import FileCube
from eorinfer.cubes.fits_image import Image, opened
from eorinfer.cubes.fits_sky import SkyAxes, on_the_sky
from simulators import Observable

#: Keywords of the array, which differ where the numbers do.
_OF_ARRAY = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|[PG]COUNT|BSCALE|BZERO|BLANK|BUNIT|DATAM(IN|AX)|CHECKSUM|DATASUM)$"
)
#: Keywords of its axes and their coordinates, which differ where the axes are in another order.
_OF_AXES = re.compile(
    r"WCSAXES$|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CRDER|CSYER|CNAME|CHAN)\d+$|(PC|CD|PV|PS)\d+_\d+$"
)
#: Those of one axis or two, with their numbers.
_OF_AXIS = re.compile(r"(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CRDER|CSYER|CNAME|PC|CD|PV|PS)(\d+)(?:_(\d+))?$")
#: Keywords that a header may have many times.
_TEXTS = ("COMMENT", "HISTORY", "")


def write_cube(path: Path, cube: FileCube) -> None:
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
    image = _without_single_channel(observed)
    hdus = [fits.PrimaryHDU(image, _of_axes(header, image.ndim))]
    for name, array in beside.items():
        image = _without_single_channel(array)
        hdus.append(fits.ImageHDU(image, _of_axes(header, image.ndim), name=name.upper()))
    with whole_file(path) as temporary:
        fits.HDUList(hdus).writeto(temporary)


def read_cube(path: Path, observable: Observable) -> FileCube:
    """Read the first image of a file; what its header cannot say is taken from `observable`, and noted.

    Raises
    ------
    MissingEntryError
        If the header or a table lacks an entry, or an axis cannot be understood.
    """
    with opened(path) as image:
        return on_the_sky(image, observable) if image.on_the_sky else _in_lengths(image, observable)


def sky_header_of(path: Path, observable: Observable) -> fits.Header | None:
    """Return a header with the sky coordinates of a file, in the order of axes of `observable`.

    Returns
    -------
    header
        None if the file has no sky coordinates.
    """
    with opened(path) as image:
        if not image.on_the_sky:
            return None
        axes = SkyAxes.from_image(image, observable)
        header = fits.Header()
        if not (in_order := axes.in_order(image)):
            wcs = image.wcs.sub([axis + 1 for axis in axes.fits_order])
            if axes.reversed and axes.spectral is not None:
                wcs = _with_reversed_first_axis(wcs, image.length(axes.spectral))
            header = wcs.to_header()
        header["BUNIT"] = observable.unit
        for i, channel in enumerate(observable.channels):
            header[f"CHAN{i}"] = channel, observable.axes[0]
        for card in image.header.cards:
            others = _OF_ARRAY.match(card.keyword) or (not in_order and _OF_AXES.match(card.keyword))
            if not others and (card.keyword in _TEXTS or card.keyword not in header):
                header.append(card)
        return header


def _of_axes(header: fits.Header, dimension: int) -> fits.Header:
    """Return a header without the coordinates of axes beyond those of an array."""
    made = header.copy()
    for keyword in set(header):
        if (found := _OF_AXIS.match(keyword)) and max(int(n) for n in found.groups() if n) > dimension:
            del made[keyword]
    if made.get("WCSAXES", 0) > dimension:
        made["WCSAXES"] = dimension
    return made


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


def _in_lengths(image: Image, observable: Observable) -> FileCube:
    """Read an image whose cells have a width in Mpc, as `write_cube` writes it; one channel may be left out."""
    values, without_channel = image.values, image.values.ndim == len(observable.cells) and observable.shape[0] == 1
    dimension = values.ndim - (0 if without_channel else 1)
    kinds = [f"CTYPE{i + 1}" for i in range(values.ndim)]
    wanted = kinds + [f"CDELT{i + 1}" for i in range(dimension)]
    given = kinds if image.wcs.wcs.has_cd() else wanted
    if lacking := [name for name in given if name not in image.header]:
        raise MissingEntryError(f"the header lacks {lacking[0]}; it needs BUNIT, {', '.join(wanted)}")
    axes = tuple(reversed(image.kinds))
    if without_channel:
        values, axes = values[None], (observable.axes[0], *(axis.lower() for axis in axes))
    channels, notes = _stated_channels(image, axes[0], observable)
    return FileCube(
        values,
        image.unit,
        axes,
        tuple(reversed(_lengths(image, dimension))),
        channels,
        coordinates=_column(image, "SLICES", axes[-1]),
        field_of_view=float(image.header.get("FOV", 0.0)),
        beam=image.beam(),
        notes=notes,
    )


def _stated_channels(image: Image, axis: str, observable: Observable) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return the channels of the table CHANNELS, or of the card REDSHIFT where there is one channel."""
    if "CHANNELS" in image.tables:
        return _column(image, "CHANNELS", axis), ()
    if observable.shape[0] == 1 and observable.axes[0] == "channel":
        return observable.channels, ()
    if observable.shape[0] == 1 and observable.axes[0] == "redshift" and "REDSHIFT" in image.header:
        return (float(image.header["REDSHIFT"]),), ()
    card = ", or the card REDSHIFT" if observable.shape[0] == 1 and observable.axes[0] == "redshift" else ""
    raise MissingEntryError(f'has no table CHANNELS; it needs one with the column "{axis}"{card}')


def _column(image: Image, table: str, name: str) -> tuple[float, ...]:
    """Return a column of a table; empty if the file has no such table."""
    if table not in image.tables:
        return ()
    return tuple(float(v) for v in image.tables[table].data[name])


def _lengths(image: Image, dimension: int) -> list[float]:
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
