"""Read files of PINOCCHIO (Monaco et al. 2002, 2013; versions 4 and 5), and start one that the user has installed.

PINOCCHIO is under the GPL and no part of this package.
"""

import gzip
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulators.lim.pinocchio_format import (
    CATALOG_COLUMNS,
    CONE_COLUMNS,
    CatalogueError,
    ascii_fields,
    catalog_blocks,
    cone_blocks,
    is_text,
)

#: ``"h"`` for Mpc/h and Msun/h, ``"physical"`` for Mpc and Msun.
Units = Literal["h", "physical"]


@dataclass(frozen=True)
class Catalog:
    """Halos of a periodic box.

    Attributes
    ----------
    mass
        (N,) masses in Msun.
    position
        (N, 3) positions in comoving Mpc, in [0, box).
    velocity
        (N, 3) peculiar velocities, km/s.
    """

    mass: NDArray[np.float64]
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]


@dataclass(frozen=True)
class Cone:
    """Halos of a past light-cone.

    Attributes
    ----------
    mass
        (N,) masses in Msun.
    redshift, observed_redshift
        (N,) redshifts, cosmological and with the peculiar velocity.
    offset
        (N, 2) offsets in arcmin from the cone's axis on the flat sky: r (cos phi, sin phi) with r the angle from it.
    position, velocity
        (N, 3) comoving Mpc from the observer along the box's axes, and km/s; None for a file of LIGHT_OUTPUT.
    """

    mass: NDArray[np.float64]
    redshift: NDArray[np.float64]
    observed_redshift: NDArray[np.float64]
    offset: NDArray[np.float64]
    position: NDArray[np.float64] | None
    velocity: NDArray[np.float64] | None


def read_catalog(path: str | Path, h: float | None = None, units: Units | None = None) -> Catalog:
    """Read ``pinocchio.Z.RUN.catalog.out``: version 4 or 5, ascii or binary, gzipped or not.

    Parameters
    ----------
    path
        Path of the file. With several files (NumFiles > 1) the name without the number reads all of them.
    h
        Hubble constant over 100 km/s/Mpc; by default that of the run's parameter file in the same folder.
    units
        ``"h"`` for Mpc/h and Msun/h (OutputInH100), ``"physical"`` for Mpc and Msun; by default what an
        ascii file's header says, or the parameter file.

    Raises
    ------
    CatalogueError
        If a file is missing, truncated, empty or no catalogue, if masses are not positive numbers, or if the units
        cannot be known.
    """
    data, factor = _read(Path(path), h, units, catalog_blocks, CATALOG_COLUMNS)
    return Catalog(factor * data["mass"], factor * data["x"], data["v"])


def read_lightcone(path: str | Path, h: float | None = None, units: Units | None = None) -> Cone:
    """Read ``pinocchio.RUN.plc.out``; parameters and errors are those of `read_catalog`.

    If the parameter file gives the cone's axis, offsets are computed from the positions: rounding of the angles in
    files of version 5 is wrong by up to 0.5 arcmin near the axis.
    """
    data, factor = _read(Path(path), h, units, cone_blocks, CONE_COLUMNS)
    # In the files theta is the latitude above the plane across the cone's axis, whatever the manual says.
    r, phi = 60 * (90 - data["theta"]), np.deg2rad(data["phi"])
    offset = np.stack([r * np.cos(phi), r * np.sin(phi)], axis=1)
    axis = (parameters_beside(path) or {}).get("PLCAxis")
    if axis and "x" in data:
        offset = _offsets(data["x"], np.array(axis.split()[:3], np.float64))
    return Cone(
        factor * data["mass"],
        data["z"],
        data["z_obs"],
        offset,
        factor * data["x"] if "x" in data else None,
        data.get("v"),
    )


def _offsets(position: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute offsets (N, 2) in arcmin from the axis in PINOCCHIO's frame, whose first direction is in x and y."""
    z = axis / np.linalg.norm(axis)
    x = np.array([z[1], -z[0], 0.0])
    x = x / np.linalg.norm(x) if x.any() else np.array([1.0, 0.0, 0.0])
    return from_axis(position @ np.stack([x, np.cross(z, x)], axis=1), position @ z)


def from_axis(across: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute offsets (N, 2) in arcmin from an axis, of points (N, 2) across and (N,) along it."""
    sine = np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.rad2deg(np.arctan2(sine[:, 0], along))[:, None] * 60
    return np.asarray(angle * across / np.maximum(sine, 1e-300))


def read_parameters(path: str | Path) -> dict[str, str]:
    """Read keys and values of a parameter file; the value of a flag is empty."""
    lines = (line.split("#")[0].split(maxsplit=1) for line in Path(path).read_text().splitlines())
    return {line[0]: line[1].strip() if len(line) > 1 else "" for line in lines if line}


def run(
    folder: str | Path,
    parameters: Mapping[str, object],
    redshifts: Sequence[float],
    *,
    executable: str = "pinocchio.x",
    launcher: Sequence[str] = (),
) -> list[Path]:
    """Write a parameter file and start a PINOCCHIO that is installed.

    Parameters
    ----------
    folder
        Folder in which it runs and leaves its files.
    parameters
        Keys of the parameter file, at least RunFlag; None or "" for a flag without a value.
    redshifts
        Redshifts of the catalogues, falling.
    executable
        Name or path of the program.
    launcher
        Command that starts it, for instance ``("mpirun", "-n", "8")``.

    Returns
    -------
    list of Path
        Catalogues and light-cones that it wrote.

    Raises
    ------
    CatalogueError
        If there is no such program, if RunFlag is missing, or if it fails; the message has its last line.
    """
    if "RunFlag" not in parameters:
        raise CatalogueError("the parameters lack RunFlag, the name of the run")
    program = shutil.which(executable)
    if program is None:
        raise CatalogueError(
            f"{executable} is not on the PATH: build PINOCCHIO (https://github.com/pigimonaco/Pinocchio) and give "
            "its path, or read files that exist with read_catalog"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"OutputList": "outputs", **parameters}
    (folder / "parameters").write_text(
        "".join(f"{k} {'' if v is None else v}".strip() + "\n" for k, v in content.items())
    )
    (folder / str(content["OutputList"])).write_text("".join(f"{z:g}\n" for z in redshifts))
    done = subprocess.run(
        [*launcher, str(Path(program).resolve()), "parameters"], cwd=folder, capture_output=True, text=True, check=False
    )
    outputs = sorted(folder.glob(f"pinocchio.*{parameters['RunFlag']}.*.out*"))
    written = [path for path in outputs if ".catalog.out" in path.name or ".plc.out" in path.name]
    if done.returncode or not written:
        words = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise CatalogueError(f"{executable} in {folder} ended with exit code {done.returncode} and said: {words}")
    return written


def _read(
    path: Path,
    h: float | None,
    units: Units | None,
    blocks: Callable[[Path, bytes], list[dict[str, NDArray[np.float64]]]],
    columns: Mapping[int, Mapping[str, int | slice]],
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Read fields (N, ...) by name, and the factor from masses and lengths to Msun and Mpc."""
    fields_of_files, header_units = [], None
    for file in parts_of(path):
        data = _bytes(file)
        if not data:
            raise CatalogueError(f"{file}: the file is empty")
        if is_text(data):
            header_units = "h" if b"Msun/h" in data[:2000] else "physical" if b"Msun" in data[:2000] else None
            fields_of_files.append(ascii_fields(file, data, columns))
        else:
            fields_of_files += blocks(file, data)
    if not fields_of_files or not sum(len(fields["mass"]) for fields in fields_of_files):
        raise CatalogueError(f"{path}: there are no halos in it")
    names = fields_of_files[0]
    fields = {name: np.concatenate([each[name] for each in fields_of_files]).astype(np.float64) for name in names}
    bad = int((~(np.isfinite(fields["mass"]) & (fields["mass"] > 0))).sum())
    if bad:
        raise CatalogueError(f"{path}: {bad} of {len(fields['mass'])} masses are not positive numbers")
    beside = parameters_beside(path)
    if units is None and header_units is None and beside is None:
        raise CatalogueError(
            f'{path}: its units are not known. Say units="h" (OutputInH100: Mpc/h, Msun/h) or "physical", '
            "or put the run's parameter file beside it"
        )
    if units not in (None, "h", "physical"):
        raise CatalogueError(f'units = "{units}": "h" or "physical"')
    if (units or header_units or ("h" if "OutputInH100" in (beside or {}) else "physical")) == "physical":
        return fields, 1.0
    if h is None and beside is None:
        raise CatalogueError(f"{path}: it is in Mpc/h; give h, or put the run's parameter file beside it")
    return fields, 1 / (h or float((beside or {})["Hubble100"]))


def _bytes(file: Path) -> bytes:
    """Read a file, unpacked where it ends with .gz."""
    data = file.read_bytes()
    if file.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise CatalogueError(f"{file}: is truncated or no gzip file ({error}); copy it again, or unpack it") from error


def parts_of(path: Path) -> list[Path]:
    """List the file, or its numbered parts in order."""
    if path.exists():
        return [path]
    zipped = path.with_name(path.name + ".gz")
    if zipped.exists():
        return [zipped]
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)(\.gz)?$")
    numbered = {int(m[1]): p for p in path.parent.glob(f"{path.name}.*") if (m := pattern.fullmatch(p.name))}
    if not numbered:
        raise CatalogueError(f"{path}: no such file, nor {path.name}.0")
    if missing := set(range(max(numbered) + 1)) - numbered.keys():
        raise CatalogueError(f"{path}: parts {sorted(missing)} of {max(numbered) + 1} are missing")
    return [numbered[i] for i in sorted(numbered)]


def parameters_beside(path: str | Path) -> dict[str, str] | None:
    """Read the parameter file in the same folder whose RunFlag is in the file's name; None without one."""
    path = Path(path)
    name = re.sub(r"(\.\d+)?(\.gz)?$", "", path.name)
    for file in sorted(path.parent.iterdir()):
        if not file.is_file() or file.suffix in {".gz", ".out"} or file.stat().st_size > 100_000:
            continue
        try:
            parameters = read_parameters(file)
        except (UnicodeDecodeError, OSError):
            continue
        if "Hubble100" in parameters and f".{parameters.get('RunFlag', '')}." in f"{name}.":
            return parameters
    return None
