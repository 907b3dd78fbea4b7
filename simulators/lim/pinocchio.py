"""Read what PINOCCHIO (Monaco et al. 2002, 2013; versions 4 and 5) writes, and start one that the user has installed.

PINOCCHIO itself is under the GPL and stays outside. The formats were checked on real outputs, ascii against binary.
"""

import gzip
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Mpc/h and Msun/h, or Mpc and Msun.
Units = Literal["h", "physical"]

_CATALOG_5_LIGHT = np.dtype([("id", "<u8"), ("mass", "<f4"), ("x", "<f4", 3), ("v", "<f4", 3), ("q", "<f4", 3)])
_CATALOG_5 = np.dtype([*_CATALOG_5_LIGHT.descr, ("n", "<i4"), ("pad", "<i4")])
_CATALOG_4 = np.dtype(
    [("start", "<i4"), ("id", "<u8"), ("mass", "<f8"), *((name, "<f8", 3) for name in ("q", "x", "v"))]
    + [(name, "<i4") for name in ("n", "pad", "end")]
)
_SKY = ("mass", "theta", "phi", "v_los", "z_obs")
_CONE_5 = np.dtype([("id", "<u8"), ("z", "<f4"), ("x", "<f4", 3), ("v", "<f4", 3), *((name, "<f4") for name in _SKY)])
_CONE_5_LIGHT = np.dtype([("id", "<u8"), *((name, "<f4") for name in ("z", "mass", "theta", "phi", "z_obs", "pad"))])
_CONE_4 = np.dtype(
    [("start", "<i4"), ("id", "<u8"), ("z", "<f8"), ("x", "<f8", 3), ("v", "<f8", 3)]
    + [(name, "<f8") for name in _SKY]
    + [("end", "<i4")]
)
#: Columns of the ascii files, counted from 0, by how many there are.
_CATALOG_COLUMNS: dict[int, dict[str, int | slice]] = {
    n: {"mass": 1, "x": slice(5, 8), "v": slice(8, 11)} for n in (11, 12)
}
_CONE_COLUMNS: dict[int, dict[str, int | slice]] = {
    13: {"z": 1, "x": slice(2, 5), "v": slice(5, 8), "mass": 8, "theta": 9, "phi": 10, "z_obs": 12},
    6: {"z": 1, "mass": 2, "theta": 3, "phi": 4, "z_obs": 5},
}


class CatalogueError(ValueError):
    """A file of halos cannot be used; the message names it and says what would be right."""


@dataclass(frozen=True)
class Catalog:
    """Halos of a periodic box.

    Attributes
    ----------
    mass
        (N,) in Msun.
    position
        (N, 3) comoving Mpc, in [0, box).
    velocity
        (N, 3) peculiar, km/s.
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
        (N,) in Msun.
    redshift, observed_redshift
        (N,) cosmological, and with the peculiar velocity.
    offset
        (N, 2) arcmin from the cone's axis on the flat sky: r (cos phi, sin phi), where r is the angle from the axis.
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
        The file. Where there are several (NumFiles > 1) the name without the number reads all of them.
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
    data, factor = _read(Path(path), h, units, _catalog_blocks, _CATALOG_COLUMNS)
    return Catalog(factor * data["mass"], factor * data["x"], data["v"])


def read_lightcone(path: str | Path, h: float | None = None, units: Units | None = None) -> Cone:
    """Read ``pinocchio.RUN.plc.out``; parameters and errors are those of `read_catalog`.

    Offsets are taken from the positions where the parameter file tells the cone's axis: the angles in files of
    version 5 are off by up to 0.5 arcmin near it, from rounding.
    """
    data, factor = _read(Path(path), h, units, _cone_blocks, _CONE_COLUMNS)
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
    """Arcmin (N, 2) from the axis, in PINOCCHIO's frame: the first direction is in the plane of the box's x and y."""
    z = axis / np.linalg.norm(axis)
    x = np.array([z[1], -z[0], 0.0])
    x = x / np.linalg.norm(x) if x.any() else np.array([1.0, 0.0, 0.0])
    across = position @ np.stack([x, np.cross(z, x)], axis=1)
    sine = np.linalg.norm(across, axis=1, keepdims=True)
    angle = np.rad2deg(np.arctan2(sine[:, 0], position @ z))[:, None] * 60
    return np.asarray(angle * across / np.maximum(sine, 1e-300))


def read_parameters(path: str | Path) -> dict[str, str]:
    """Keys and values of a parameter file; the value of a flag is empty."""
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
        Where it runs and leaves its files.
    parameters
        Keys of the parameter file, at least RunFlag; None or "" for a flag without a value.
    redshifts
        Of the catalogues, falling.
    executable
        Its name or path.
    launcher
        What starts it, for instance ``("mpirun", "-n", "8")``.

    Returns
    -------
    list of Path
        The catalogues and light-cones that it wrote.

    Raises
    ------
    CatalogueError
        If there is no such program, if RunFlag is missing, or if it fails; its last words are in the message.
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
    found = sorted(folder.glob(f"pinocchio.*{parameters['RunFlag']}.*.out*"))
    written = [path for path in found if ".catalog.out" in path.name or ".plc.out" in path.name]
    if done.returncode or not written:
        words = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise CatalogueError(f"{executable} in {folder} ended with exit code {done.returncode} and said: {words}")
    return written


def _read(
    path: Path, h: float | None, units: Units | None, blocks: object, columns: Mapping[int, Mapping[str, int | slice]]
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Fields by name, each (N, ...), and the factor that takes masses and lengths to Msun and Mpc."""
    parts, said = [], None
    for file in parts_of(path):
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        if not data:
            raise CatalogueError(f"{file}: the file is empty")
        if _is_text(data):
            said = "h" if b"Msun/h" in data[:2000] else "physical" if b"Msun" in data[:2000] else None
            parts.append(_ascii(file, data, columns))
        else:
            parts += blocks(file, data)  # type: ignore[operator]
    if not parts or not sum(len(part["mass"]) for part in parts):
        raise CatalogueError(f"{path}: there are no halos in it")
    fields = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
    bad = int((~(np.isfinite(fields["mass"]) & (fields["mass"] > 0))).sum())
    if bad:
        raise CatalogueError(f"{path}: {bad} of {len(fields['mass'])} masses are not positive numbers")
    beside = parameters_beside(path)
    if units is None and said is None and beside is None:
        raise CatalogueError(
            f'{path}: its units are not known. Say units="h" (OutputInH100: Mpc/h, Msun/h) or "physical", '
            "or put the run's parameter file beside it"
        )
    if units not in (None, "h", "physical"):
        raise CatalogueError(f'units = "{units}": "h" or "physical"')
    if (units or said or ("h" if "OutputInH100" in (beside or {}) else "physical")) == "physical":
        return fields, 1.0
    if h is None and beside is None:
        raise CatalogueError(f"{path}: it is in Mpc/h; give h, or put the run's parameter file beside it")
    return fields, 1 / (h or float((beside or {})["Hubble100"]))


def parts_of(path: Path) -> list[Path]:
    """The file, or its numbered parts in order."""
    if path.exists():
        return [path]
    zipped = path.with_name(path.name + ".gz")
    if zipped.exists():
        return [zipped]
    pattern = re.compile(re.escape(path.name) + r"\.(\d+)(\.gz)?$")
    found = {int(m[1]): p for p in path.parent.glob(f"{path.name}.*") if (m := pattern.fullmatch(p.name))}
    if not found:
        raise CatalogueError(f"{path}: no such file, nor {path.name}.0")
    if missing := set(range(max(found) + 1)) - found.keys():
        raise CatalogueError(f"{path}: parts {sorted(missing)} of {max(found) + 1} are missing")
    return [found[i] for i in sorted(found)]


def parameters_beside(path: str | Path) -> dict[str, str] | None:
    """The parameter file in the same folder whose RunFlag the file's name has."""
    path = Path(path)
    name = re.sub(r"(\.\d+)?(\.gz)?$", "", path.name)
    for file in sorted(path.parent.iterdir()):
        if not file.is_file() or file.suffix in {".gz", ".out"} or file.stat().st_size > 100_000:
            continue
        try:
            found = read_parameters(file)
        except (UnicodeDecodeError, OSError):
            continue
        if "Hubble100" in found and f".{found.get('RunFlag', '')}." in f"{name}.":
            return found
    return None


def _is_text(data: bytes) -> bool:
    return not set(data[:200]) - set(range(32, 127)) - {9, 10, 13}


def _ascii(file: Path, data: bytes, columns: Mapping[int, Mapping[str, int | slice]]) -> dict[str, NDArray[np.float64]]:
    lines = [line for line in data.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    n = len(lines[0].split()) if lines else min(columns)
    if n not in columns:
        raise CatalogueError(f"{file}: it has {n} columns, expected {' or '.join(map(str, sorted(columns)))}")
    try:
        rows = np.array([line.split() for line in lines], dtype=np.float64).reshape(-1, n)
    except ValueError as error:
        raise CatalogueError(f"{file}: not every line has {n} numbers; is it truncated? ({error})") from error
    return {name: rows[:, column] for name, column in columns[n].items()}


class _Bytes:
    """Reads through a binary file, and says where it ends too early."""

    def __init__(self, file: Path, data: bytes) -> None:
        self.file, self.data, self.at = file, data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def take(self, dtype: np.dtype, count: int) -> NDArray:
        size = dtype.itemsize * count
        if count < 0 or self.at + size > len(self.data):
            raise CatalogueError(
                f"{self.file}: truncated, or no PINOCCHIO file: {size} bytes wanted at {self.at} of {len(self.data)}"
            )
        self.at += size
        return np.frombuffer(self.data, dtype, count, self.at - size)

    def integers(self, count: int) -> list[int]:
        return [int(i) for i in self.take(np.dtype("<i4"), count)]

    def expect(self, *wanted: int) -> None:
        at = self.at
        found = self.integers(len(wanted))
        if found != list(wanted):
            raise CatalogueError(f"{self.file}: record marks {found} at byte {at}, expected {list(wanted)}: damaged")


def _catalog_blocks(file: Path, data: bytes) -> list[dict[str, NDArray[np.float64]]]:
    reader = _Bytes(file, data)
    mark, _, third, end = reader.integers(4)
    if (mark, end) != (8, 8):
        raise CatalogueError(f"{file}: no PINOCCHIO catalogue: it begins with {mark}")
    if third > 10:
        return _blocks_5(reader, third, {56: _CATALOG_5, 48: _CATALOG_5_LIGHT})
    parts = []
    while reader:
        [_, n, _] = reader.integers(3)
        parts.append(_named(_records_4(reader, n, _CATALOG_4)))
    return parts


def _cone_blocks(file: Path, data: bytes) -> list[dict[str, NDArray[np.float64]]]:
    reader = _Bytes(file, data)
    if reader.integers(1) != [4]:
        reader.at = 0
        count, rest = divmod(len(data), _CONE_4.itemsize)
        if rest:
            raise CatalogueError(f"{file}: truncated: {rest} bytes after {count} records of {_CONE_4.itemsize}")
        return [_named(_records_4(reader, count, _CONE_4))]
    size, _ = reader.integers(2)
    return _blocks_5(reader, size, {56: _CONE_5, 32: _CONE_5_LIGHT})


def _blocks_5(
    reader: _Bytes,
    size: int,
    kinds: Mapping[int, np.dtype],
) -> list[dict[str, NDArray[np.float64]]]:
    if size not in kinds:
        raise CatalogueError(f"{reader.file}: records of {size} bytes, expected {' or '.join(map(str, kinds))}")
    parts = []
    while reader:
        reader.expect(4)
        [n] = reader.integers(1)
        reader.expect(4)
        if n:
            reader.expect(n * size)
            parts.append(_named(reader.take(kinds[size], n)))
            reader.expect(n * size)
    return parts


def _records_4(reader: _Bytes, n: int, dtype: np.dtype) -> NDArray:
    records = reader.take(dtype, n)
    mark = dtype.itemsize - 8
    if ((records["start"] != mark) | (records["end"] != mark)).any():
        raise CatalogueError(f"{reader.file}: record marks are not {mark} everywhere: damaged, or single precision")
    return records


def _named(records: NDArray) -> dict[str, NDArray[np.float64]]:
    wanted = ("mass", "x", "v", "z", "theta", "phi", "z_obs")
    return {name: records[name] for name in wanted if name in (records.dtype.names or ())}
