"""What 21cmFAST's inputs are called, which differs between versions; our own names are those of 4.1."""

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from simulators.base import SimulationError

if TYPE_CHECKING:
    from py21cmfast import InputParameters

#: For each version that the tests were run with: its names, where they are not those of 4.1.
NAMES: dict[str, dict[str, str]] = {
    "4.1": {},
    # 4.3 raises for the old names of four, and takes M_TURN without using it.
    "4.3": {
        "F_STAR10": "F_STAR10_ACG",
        "ALPHA_STAR": "ALPHA_STAR_ACG",
        "F_ESC10": "F_ESC10_ACG",
        "M_TURN": "M_TURN_STELLAR_FEEDBACK",
        "L_X": "LX_OVER_SFR_ACG",
        "INHOMO_RECO": "RECOMB_MODEL",
        "compute_halo_grid": "compute_emissivity_fields",
        "halobox": "emissivity_fields",
        "sfr": "sfr_acg",
    },
}
#: Values of inputs that a name of `NAMES` takes in place of a boolean.
_CHOICES: dict[str, dict[Any, str]] = {"RECOMB_MODEL": {False: "none", True: "inhomogeneous"}}


def names_of(p21c: ModuleType) -> dict[str, str]:
    """Return the names of the imported version, where they are not those of 4.1.

    Raises
    ------
    SimulationError
        If no table has this version: its parameters may have other names, and would change nothing.
    """
    version = str(p21c.__version__)
    series = ".".join(version.split(".")[:2])
    if series not in NAMES:
        raise SimulationError(
            f"21cmFAST {version} is not supported, only {' and '.join(NAMES)}: pip install 21cmFAST==4.1.1"
        )
    return NAMES[series]


def renamed(p21c: ModuleType, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs of 4.1 under the names, and with the values, of the imported version."""
    names = names_of(p21c)
    result = {}
    for name, value in values.items():
        theirs = names.get(name, name)
        result[theirs] = _CHOICES[theirs][value] if theirs in _CHOICES else value
    return result


def with_parameters(p21c: ModuleType, inputs: "InputParameters", values: Mapping[str, float]) -> "InputParameters":
    """Return 21cmFAST's inputs with these parameters.

    Raises
    ------
    SimulationError
        If the inputs do not hold a value afterwards: the simulation would be of another theta.
    """
    theirs = renamed(p21c, values)
    changed = inputs.evolve_input_structs(**theirs)
    for name, value in theirs.items():
        if getattr(changed.astro_params, name) != value:
            raise SimulationError(f"21cmFAST {p21c.__version__} did not take {name} = {value:g}")
    return changed
