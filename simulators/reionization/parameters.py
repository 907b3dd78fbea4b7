"""Parameters of the two models of sources: their priors, and the ranges safe for 21cmFAST."""

import difflib
from collections.abc import Sequence

from simulators.base import Parameter

_XRAYS = (
    Parameter("L_X", r"\log_{10} L_X", 38.0, 42.0, 40.5, "log10 erg/s/(Msun/yr)", "soft X-rays below 2 keV"),
    Parameter("NU_X_THRESH", r"E_0", 100.0, 1500.0, 500.0, "eV", "lowest X-ray energy that escapes"),
    Parameter("X_RAY_SPEC_INDEX", r"\alpha_X", -1.0, 3.0, 1.0, "", "slope of the X-ray spectrum"),
)
#: The nine parameters of Park et al. 2019 (arXiv 1809.08995) with the flat priors of 21cmEMU, in 21cmFAST's own names
#: and units.
PARAMETERS: tuple[Parameter, ...] = (
    Parameter("F_STAR10", r"\log_{10} f_{*,10}", -3.0, 0.0, -1.3, "", "stellar fraction, 1e10 Msun"),
    Parameter("ALPHA_STAR", r"\alpha_*", -0.5, 1.0, 0.5, "", "mass slope of the stellar fraction"),
    Parameter("F_ESC10", r"\log_{10} f_{\rm esc,10}", -3.0, 0.0, -1.0, "", "escape fraction, 1e10 Msun"),
    Parameter("ALPHA_ESC", r"\alpha_{\rm esc}", -1.0, 0.5, -0.5, "", "mass slope of the escape fraction"),
    Parameter("M_TURN", r"\log_{10} M_{\rm turn}", 8.0, 10.0, 8.7, "log10 Msun", "turnover halo mass"),
    Parameter("t_STAR", r"t_*", 0.01, 1.0, 0.5, "1/H(z)", "star formation time"),
    *_XRAYS,
)
#: Name of the parameter that is a length: no larger than a third of the box.
BUBBLE = "R_BUBBLE_MAX"
#: Parameters of a constant ionising efficiency, with the flat priors of 21CMMC (Greig & Mesinger 2017, arXiv
#: 1705.03471).
CONSTANT_EFFICIENCY: tuple[Parameter, ...] = (
    Parameter("HII_EFF_FACTOR", r"\zeta", 10.0, 250.0, 30.0, "", "ionising efficiency of all halos"),
    Parameter("ION_Tvir_MIN", r"\log_{10} T_{\rm vir}", 4.0, 6.0, 4.69897, "log10 K", "lowest virial temperature"),
    Parameter(BUBBLE, r"R_{\rm max}", 5.0, 25.0, 15.0, "Mpc", "largest ionised bubble: mean free path"),
    *_XRAYS,
)
#: Parameters of each model of the sources.
SOURCES: dict[str, tuple[Parameter, ...]] = {"e-integral": PARAMETERS, "const-ion-eff": CONSTANT_EFFICIENCY}
#: Parameters that vary by default.
VARIED: dict[str, tuple[str, ...]] = {
    "e-integral": ("F_ESC10", "ALPHA_ESC", "M_TURN"),
    "const-ion-eff": ("HII_EFF_FACTOR", "ION_Tvir_MIN", BUBBLE),
}

#: Parameters that act only through the spin temperature.
XRAY = tuple(parameter.name for parameter in _XRAYS)

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
    "HII_EFF_FACTOR": (1.0, 1000.0),
    "ION_Tvir_MIN": (4.0, 6.5),
    BUBBLE: (1.0, 100.0),
}


def check_name(name: str, parameters: Sequence[Parameter] = PARAMETERS) -> str:
    """Return the name if one of `parameters` has it.

    Raises
    ------
    ValueError
        If none has; the message names the nearest one and all.
    """
    known = [parameter.name for parameter in parameters]
    if name in known:
        return name
    near = difflib.get_close_matches(name.upper(), [own.upper() for own in known], n=1)
    hint = "".join(f' Did you mean "{own}"?' for own in known if [own.upper()] == near)
    raise ValueError(f'"{name}" is not a parameter.{hint} The parameters are {", ".join(known)}')


def out_of_range(name: str, value: float) -> str:
    """Say what is wrong with the value of a parameter; empty if nothing is."""
    low, high = _SAFE_RANGE[name]
    if low <= value <= high:
        return ""
    return f"{name} = {value:g} is outside {low:g} to {high:g}, where 21cmFAST can be trusted"
