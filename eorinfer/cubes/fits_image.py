"""The image of a FITS file: the first one in it, with its coordinates, beam and frequencies."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from eorinfer.core.errors import MissingEntryError
from eorinfer.cubes.filecube import beam_area
from simulators.reionization.geometry import frequency_of

#: Doppler conventions of the velocity axes that FITS knows.
_VELOCITIES = {
    "VRAD": units.doppler_radio,
    "VOPT": units.doppler_optical,
    "VELO": units.doppler_relativistic,
}
#: Velocities in the spelling of AIPS, radio or optical ones as the card VELREF says.
_AIPS = ("VELO-LSR", "VELO-HEL", "VELO-OBS")
#: Names of axes of redshift; FITS has none, and takes them for axes of no kind.
REDSHIFTS = ("REDSHIFT", "Z")
OTHER_SPECTRAL = "VRAD, VOPT or REDSHIFT"


@dataclass(frozen=True)
class Image:
    """An image without its Stokes axis; FITS counts axes from the last of `values`.

    Attributes
    ----------
    values
        Numbers as the file has them.
    header, wcs
        Header and coordinates.
    tables
        All HDUs of the file, while it is open.
    """

    values: NDArray[Any]
    header: fits.Header
    wcs: WCS
    tables: fits.HDUList = field(compare=False)

    @property
    def kinds(self) -> list[str]:
        """Type of each FITS axis, empty where the header has none."""
        return [str(kind).strip() for kind in self.wcs.wcs.ctype]

    @property
    def unit(self) -> str:
        """BUNIT, empty where the header has none."""
        return str(self.header.get("BUNIT", "")).strip()

    @property
    def on_the_sky(self) -> bool:
        """Whether two axes are celestial coordinates."""
        return bool(self.wcs.has_celestial)

    def length(self, axis: int) -> int:
        """Return the number of pixels along a FITS axis, counted from 0."""
        return int(self.values.shape[self.values.ndim - 1 - axis])

    @property
    def spectral(self) -> int | None:
        """FITS axis of frequency, wavelength, velocity or redshift, from 0; None without one."""
        if self.wcs.wcs.spec >= 0:
            return int(self.wcs.wcs.spec)
        return next((i for i, kind in enumerate(self.kinds) if kind.upper() in REDSHIFTS), None)

    @property
    def pixels(self) -> NDArray[np.float64]:
        """Size of a pixel in degrees, along longitude and latitude."""
        return np.asarray(proj_plane_pixel_scales(self.wcs.celestial))

    def world(self, axis: int) -> NDArray[np.float64]:
        """Return the coordinate of each pixel along one axis, in the unit of the header."""
        wcs = self.wcs.sub([axis + 1])
        return np.asarray(wcs.pixel_to_world_values(np.arange(self.length(axis))), np.float64)

    def frequencies(self, axis: int) -> NDArray[np.float64]:
        """Return the frequency in MHz of each pixel of a spectral axis; redshifts are those of the 21cm line.

        Raises
        ------
        MissingEntryError
            If the axis is of no known kind, or a velocity without a rest frequency or its convention.
        """
        kind, world = self.kinds[axis], self.world(axis)
        if kind.upper() in REDSHIFTS:
            return np.array([frequency_of(z) for z in world.tolist()])
        kind, wcs = kind[:4], self.wcs.sub([axis + 1])
        unit = units.Unit(wcs.world_axis_units[0])
        rest = wcs.wcs.restfrq * units.Hz if wcs.wcs.restfrq else wcs.wcs.restwav * units.m
        if kind in ("FREQ", "WAVE", "WAVN", "ENER"):
            return np.asarray((world * unit).to_value(units.MHz, units.spectral()))
        if kind not in (*_VELOCITIES, "ZOPT"):
            raise MissingEntryError(
                f"CTYPE{axis + 1} is {self.kinds[axis]}; it must be FREQ or WAVE, or {OTHER_SPECTRAL}"
            )
        velocity = next(
            (str(v) for key, v in self.header.items() if key.startswith("CTYPE") and str(v)[:8] in _AIPS), ""
        )
        if velocity and "VELREF" not in self.header:
            # wcslib would take them for optical ones.
            raise MissingEntryError(
                f"CTYPE{axis + 1} is {velocity.strip()}, which needs VELREF beside it: 257 for radio velocities, 1 for "
                "optical ones"
            )
        if not rest.value:
            raise MissingEntryError(f"CTYPE{axis + 1} is {self.kinds[axis]}, which needs RESTFRQ in Hz beside it")
        if kind == "ZOPT":
            return np.asarray(rest.to_value(units.MHz, units.spectral()) / (1 + world))
        return np.asarray((world * unit).to_value(units.MHz, _VELOCITIES[kind](rest)))

    def beam(self) -> NDArray[np.float64] | float | None:
        """Solid angle in sr of the Gaussian beam of BMAJ and BMIN, or of each channel's; None if it is not said."""
        if "BMAJ" in self.header and "BMIN" in self.header:
            return float(beam_area(np.radians(self.header["BMAJ"]), np.radians(self.header["BMIN"])))
        if "BEAMS" in self.tables:
            table = self.tables["BEAMS"]
            names = ("BMAJ", "BMIN")
            sides = [
                np.asarray(table.data[name]) * units.Unit(table.columns[name].unit or "arcsec").to("rad")
                for name in names
            ]
            return np.asarray(beam_area(*sides))
        return None


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    """Open the first HDU that holds an image.

    Raises
    ------
    MissingEntryError
        If none does, or it has several images of polarisation.
    """
    with fits.open(path) as hdus, warnings.catch_warnings():
        # astropy says so when it translates units and dates of older files
        warnings.simplefilter("ignore", FITSFixedWarning)
        hdu = next((hdu for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] > 1), None)
        if hdu is None:
            raise MissingEntryError("no HDU holds an image")
        yield _without_stokes(Image(np.asarray(hdu.data), hdu.header, WCS(hdu.header, hdus), hdus))


def _without_stokes(image: Image) -> Image:
    stokes = [i for i, kind in enumerate(image.kinds) if kind == "STOKES"]
    if not stokes:
        return image
    (axis,) = stokes
    values = np.moveaxis(image.values, image.values.ndim - 1 - axis, 0)
    if len(values) > 1:
        raise MissingEntryError(f"CTYPE{axis + 1} is STOKES with {len(values)} images; give a file with one of them")
    kept = [i + 1 for i in range(image.values.ndim) if i != axis]
    return replace(image, values=values[0], wcs=image.wcs.sub(kept))
