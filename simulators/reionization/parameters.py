"""The nine parameters of Park et al. 2019 (arXiv 1809.08995): their priors, and the ranges safe for 21cmFAST."""

import difflib
from typing import Annotated

from pydantic import AfterValidator

from simulators.base import Parameter

#: The nine parameters of Park+2019 with the flat priors of 21cmEMU, in 21cmFAST's own names and units.
PARAMETERS: tuple[Parameter, ...] = (
    Parameter("F_STAR10", r"\log_{10} f_{*,10}", -3.0, 0.0, -1.3, "", "stellar fraction, 1e10 Msun"),
    Parameter("ALPHA_STAR", r"\alpha_*", -0.5, 1.0, 0.5, "", "mass slope of the stellar fraction"),
    Parameter("F_ESC10", r"\log_{10} f_{\rm esc,10}", -3.0, 0.0, -1.0, "", "escape fraction, 1e10 Msun"),
    Parameter("ALPHA_ESC", r"\alpha_{\rm esc}", -1.0, 0.5, -0.5, "", "mass slope of the escape fraction"),
    Parameter("M_TURN", r"\log_{10} M_{\rm turn}", 8.0, 10.0, 8.7, "log10 Msun", "turnover halo mass"),
    Parameter("t_STAR", r"t_*", 0.01, 1.0, 0.5, "1/H(z)", "star formation time"),
    Parameter("L_X", r"\log_{10} L_X", 38.0, 42.0, 40.5, "log10 erg/s/(Msun/yr)", "soft X-rays below 2 keV"),
    Parameter("NU_X_THRESH", r"E_0", 100.0, 1500.0, 500.0, "eV", "lowest X-ray energy that escapes"),
    Parameter("X_RAY_SPEC_INDEX", r"\alpha_X", -1.0, 3.0, 1.0, "", "slope of the X-ray spectrum"),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

#: Parameters that act only through the spin temperature.
XRAY = ("L_X", "NU_X_THRESH", "X_RAY_SPEC_INDEX")

#: Ranges beyond which 21cmFAST 4.1.1 raises, returns finite nonsense or dies of a segmentation fault (t_STAR = 0).
_SAFE_RANGE: dict[str, tuple[float, float]] = {
    "F_STAR10": (-3.0, 0.0),
    "ALPHA_STAR": (-1.0, 1.5),
    "F_ESC10": (-4.0, 0.0),
    "ALPHA_ESC": (-1.5, 1.0),
    "M_TURN": (7.0, 11.0),
    "t_STAR": (0.001, 1.0),
    "L_X": (36.0, 44.0),
    "NU_X_THRESH": (100.0, 1900.0),
    "X_RAY_SPEC_INDEX": (-2.0, 4.0),
}


def _known(name: str) -> str:
    if name in BY_NAME:
        return name
    near = difflib.get_close_matches(name.upper(), [known.upper() for known in BY_NAME], n=1)
    hint = "".join(f' Did you mean "{known}"?' for known in BY_NAME if [known.upper()] == near)
    raise ValueError(f'"{name}" is not a parameter.{hint} The parameters are {", ".join(BY_NAME)}')


#: A name of `PARAMETERS` in a config.
ParameterName = Annotated[str, AfterValidator(_known)]


def out_of_range(name: str, value: float) -> str:
    """Say what is wrong with the value of a parameter; empty if nothing is."""
    low, high = _SAFE_RANGE[name]
    if low <= value <= high:
        return ""
    return f"{name} = {value:g} is outside {low:g} to {high:g}, where 21cmFAST can be trusted"
