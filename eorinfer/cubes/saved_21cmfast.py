"""Cubes that 21cmFAST 4 saved by itself: `Coeval.save` and `LightCone.save`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import InputError
from eorinfer.core.hdf5 import open_hdf5, read_array
from eorinfer.core.numbers import UnusableError, usable

_TEMPERATURE = "brightness_temp"


@dataclass(frozen=True)
class SavedCube:
    """Brightness temperature that 21cmFAST saved.

    Attributes
    ----------
    values
        (N, N, n) in mK, the line of sight last.
    cell
        Side of a cell in comoving Mpc.
    redshift
        Redshift of a box; None for a light-cone.
    distances
        (n,) comoving distance in Mpc of each slice of a light-cone; None for a box.
    parameters
        Values of 21cmFAST's parameters by name.
    seed
        Seed of the initial conditions.
    """

    values: NDArray[Any]
    cell: float
    redshift: float | None
    distances: NDArray[np.float64] | None
    parameters: dict[str, float]
    seed: int


def is_21cmfast(path: Path) -> bool:
    """Tell whether an HDF5 file is a box or a light-cone that 21cmFAST 4 saved."""
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    try:
        with open_hdf5(path) as file:
            return "lightcones" in file or "BrightnessTemp" in file
    except OSError:
        return False


def read_21cmfast(path: Path) -> SavedCube:
    """Read a box or a light-cone.

    Raises
    ------
    InputError
        If the file lacks what 21cmFAST 4.1 writes, or a value is not usable.
    """
    try:
        with open_hdf5(path) as file:
            if "lightcones" in file:
                saved, group = file["lightcones"], file["InputParameters"]
                distances = read_array(file, "lightcone_distances").astype(float)
                redshift = None
            else:
                saved, group = file["BrightnessTemp/OutputFields"], file["BrightnessTemp/InputParameters"]
                distances, redshift = None, float(file["BrightnessTemp"].attrs["redshift"])
            if _TEMPERATURE not in saved:
                raise InputError(f"{path}: 21cmFAST saved {', '.join(saved)} in it, and no {_TEMPERATURE}")
            values = read_array(saved, _TEMPERATURE)
            options = group["simulation_options"].attrs
            cell = float(options["BOX_LEN"]) / int(options["HII_DIM"])
            return SavedCube(
                usable(values, str(path)),
                cell,
                redshift,
                distances,
                _parameters(group),
                int(group.attrs["random_seed"]),
            )
    except UnusableError as error:
        raise InputError(f"{error}") from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).strip("'\"")
        raise InputError(f"{path}: cannot be read as a cube of 21cmFAST 4.1 ({reason})") from error


def _parameters(group: h5py.Group) -> dict[str, float]:
    """Return the numbers among 21cmFAST's parameters."""
    found = {}
    for name in ("cosmo_params", "astro_params"):
        for key, value in group[name].attrs.items():
            if isinstance(value, int | float | np.number):
                found[key] = float(value)
    return found
