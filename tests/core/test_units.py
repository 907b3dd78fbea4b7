"""Units: spellings of imagers, and conversions against astropy's own and against numbers computed by hand."""

import numpy as np
import pytest

from eorinfer.core.units import Conditions, UnitError, conversion, same_unit

MHZ = np.array([150.0, 160.0])
#: A Gaussian beam of 0.05 degrees, and a pixel of 0.01.
BEAM = np.pi / (4 * np.log(2)) * np.radians(0.05) ** 2
CONDITIONS = Conditions(MHZ, BEAM, float(np.radians(0.01) ** 2))
#: 2 k nu^2 / c^2 in W m^-2 Hz^-1 sr^-1 of 1 mK.
RAYLEIGH_JEANS = 2 * 1.380649e-26 * (MHZ * 1e6 / 299792458.0) ** 2


@pytest.mark.parametrize(
    ("unit", "wanted", "factor"),
    [
        ("K", "mK", 1e3),
        ("Kelvin", "mK", 1e3),
        ("Jy/beam", "mK", 1e-26 / BEAM / RAYLEIGH_JEANS),
        ("JY/BEAM", "mK", 1e-26 / BEAM / RAYLEIGH_JEANS),
        ("Jy/pixel", "mK", 1e-26 / np.radians(0.01) ** 2 / RAYLEIGH_JEANS),
        ("MJy/sr", "mK", 1e-20 / RAYLEIGH_JEANS),
        ("W m-2 Hz-1 sr-1", "mK", 1 / RAYLEIGH_JEANS),
        ("mK", "Jy/beam", RAYLEIGH_JEANS * BEAM / 1e-26),
        ("nW sr-1 m-2", "nW/m^2/sr", 1.0),
        ("erg s-1 cm-2 sr-1", "nW/m^2/sr", 1e6),
        ("1e-6 ergs/s/cm^2/ster", "nW/m^2/sr", 1.0),
    ],
)
def test_conversions(unit: str, wanted: str, factor: float) -> None:
    np.testing.assert_allclose(conversion(unit, wanted, CONDITIONS), factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "wanted", "conditions", "message"),
    [
        ("Jy/beam", "mK", Conditions(MHZ), "needs the beam: BMAJ and BMIN in the header, in degrees"),
        ("Jy/beam", "mK", Conditions(None, BEAM), "the frequency is needed"),
        (
            "Jy/beam",
            "mK",
            Conditions(MHZ, 0.0),
            "BMAJ and BMIN in the header, in degrees, gives 0 sr: a solid",
        ),
        ("Jy/beam", "mK", Conditions(MHZ, -BEAM), "BMAJ and BMIN in the header, in degrees, gives -"),
        ("Jy/beam", "mK", Conditions(MHZ, 3600**2 * BEAM), "and that of an image below 0.14 sr"),
        ("Jy/pixel", "mK", Conditions(MHZ, BEAM, np.nan), "CDELT in the header, in degrees, gives nan sr"),
        ("MJy/sr", "nW/m^2/sr", CONDITIONS, r"multiply I_nu by the channel's bandwidth in Hz \(nu / R\)"),
        ("", "mK", CONDITIONS, "has no unit, expected 'mK'; it is said by unit = of arrays, BUNIT"),
        ("mK", "", CONDITIONS, "unit is 'mK', expected ''"),
        ("parsnip", "mK", CONDITIONS, "unit is 'parsnip', which is not known"),
        ("s", "mK", CONDITIONS, "unit is 's', expected 'mK'"),
    ],
)
def test_what_is_not_converted(unit: str, wanted: str, conditions: Conditions, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        conversion(unit, wanted, conditions)


def test_units_are_compared_as_units() -> None:
    assert same_unit("nW sr-1 m-2", "nW/m^2/sr")
    assert same_unit("parsnip", "parsnip")
    assert not same_unit("mK", "MK")
    assert not same_unit("", "mK")
