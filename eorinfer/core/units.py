"""Units of maps: read as imagers write them, and converted where the numbers can be."""

import re
import warnings
from dataclasses import dataclass

import numpy as np
from astropy import units
from numpy.typing import NDArray

#: Spellings of older imagers, which FITS does not know.
_SPELLINGS = {
    "JY": "Jy", "MJY": "MJy", "BEAM": "beam", "KELVIN": "K", "SR": "sr", "PIXEL": "pix", "HZ": "Hz",
    "ERGS": "erg", "ergs": "erg", "ster": "sr", "micron": "um",
}  # fmt: skip
#: Solid angle in sr that no beam of an image has: wider ones are in another unit than degrees.
WIDEST = 0.14
_WORD = re.compile(r"[A-Za-z]+")


class UnitError(ValueError):
    """A unit that cannot be read or converted; the message says what would be right."""


@dataclass(frozen=True)
class Conditions:
    """What a conversion needs besides the units.

    Attributes
    ----------
    frequencies
        MHz of the cells, in a shape that broadcasts with (C, *cells); None where they are not known.
    beam, pixel
        Solid angle in sr of the beam, which may change along the line of sight, and of a pixel; None if not known.
    """

    frequencies: NDArray[np.float64] | None = None
    beam: NDArray[np.float64] | float | None = None
    pixel: float | None = None


def parsed(text: str) -> units.UnitBase:
    """Read a unit in the spelling of FITS, of astropy, or of older imagers.

    Raises
    ------
    UnitError
        If it is none of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", units.UnitsWarning)  # several slashes are clear enough
        for spelling in (text, _WORD.sub(lambda word: _SPELLINGS.get(word[0], word[0]), text)):
            try:
                return units.Unit(spelling.strip())
            except (ValueError, TypeError):
                continue
    raise UnitError(f"unit is {text!r}, which is not known; write it as FITS does, such as 'mK' or 'nW m-2 sr-1'")


def same_unit(a: str, b: str) -> bool:
    """Tell whether two units are the same, however they are spelt; unknown ones are compared as text."""
    if a == b:
        return True
    try:
        one, other = parsed(a), parsed(b)
    except UnitError:
        return False
    return bool(a.strip()) == bool(b.strip()) and one == other


def conversion(unit: str, wanted: str, conditions: Conditions) -> NDArray[np.float64] | float:
    """Compute what values in `unit` are multiplied by to be in `wanted`: one number, or one for each frequency.

    Between brightness temperature and surface brightness it is the law of Rayleigh and Jeans, as radio astronomers
    define brightness temperature (`astropy.units.brightness_temperature`).

    Raises
    ------
    UnitError
        If they cannot be converted; the message says what is lacking or what would be right.
    """
    if same_unit(unit, wanted):
        return 1.0
    refusal = f"unit is {unit!r}, expected {wanted!r}"
    if not unit.strip():
        raise UnitError(
            f"has no unit, expected {wanted!r}; it is said by unit = of arrays, BUNIT of FITS files and the attribute "
            "unit of HDF5"
        )
    if not wanted.strip():
        raise UnitError(refusal)
    try:
        target, divisor = _per_steradian(parsed(wanted), conditions, refusal)
    except UnitError as error:
        raise UnitError(refusal) from error
    given, factor = _per_steradian(parsed(unit), conditions, refusal)
    if given.is_equivalent(target):
        return factor / divisor * float(given.to(target))
    density, temperature = units.Jy / units.sr, units.K
    kinds = [[u.is_equivalent(kind) for kind in (density, temperature)] for u in (given, target)]
    if kinds in ([[True, False], [False, True]], [[False, True], [True, False]]):
        if conditions.frequencies is None:
            raise UnitError(f"{refusal}; between them the frequency is needed, which neither file nor config gives")
        law = units.brightness_temperature(conditions.frequencies * units.MHz)
        return np.asarray(factor / divisor * (1.0 * given).to_value(target, law))
    if given.is_equivalent(density) and target.is_equivalent(units.W / units.m**2 / units.sr):
        raise UnitError(
            f"{refusal}, the intensity within a channel: multiply I_nu by the channel's bandwidth in Hz (nu / R), "
            "and nu I_nu by 1 / R"
        )
    raise UnitError(f"{refusal}, and the one is not converted into the other")


def _per_steradian(
    unit: units.UnitBase, conditions: Conditions, refusal: str
) -> tuple[units.UnitBase, NDArray[np.float64] | float]:
    """Put steradians in place of beams and pixels; return the unit and what values are multiplied by."""
    factor: NDArray[np.float64] | float = 1.0
    whole = unit.decompose()
    angles = (
        (units.beam, conditions.beam, "the beam: BMAJ and BMIN in the header, in degrees"),
        (units.pix, conditions.pixel, "the size of a pixel: CDELT in the header, in degrees"),
    )
    for base, angle, name in angles:
        power = float(dict(zip(whole.bases, whole.powers, strict=True)).get(base, 0))
        if power:
            if angle is None:
                raise UnitError(f"{refusal}; the conversion needs {name}")
            if not np.all((np.asarray(angle) > 0) & (np.asarray(angle) < WIDEST)):
                raise UnitError(
                    f"{refusal}; {name}, gives {np.min(angle):.3g} sr: a solid angle is above 0, and that of an image "
                    f"below {WIDEST:g} sr (20 degrees across)"
                )
            whole, factor = (whole * (units.sr / base) ** power).decompose(), factor * angle**power
    return whole, factor
