"""Layouts of interferometers: those known by name, and files of antennas. Loads no torch."""

from dataclasses import dataclass, field
from math import cos, isfinite, radians, sin
from pathlib import Path
from typing import Any

#: East, north and up of each antenna in m.
Antennas = tuple[tuple[float, float, float], ...]
#: Ends of the names of files of antennas.
ENDS = (".csv", ".txt", ".dat")
#: Distance from the origin in m beyond which positions must be geocentric.
GEOCENTRIC = 1e6


@dataclass(frozen=True)
class Array:
    """Assumptions about an array that has a name.

    Attributes
    ----------
    latitude
        Degrees.
    diameter
        Diameter of a station or dish in m, for its beam.
    area
        Effective area of a station for one polarisation in m^2, taken to be the same at every frequency.
    defaults
        Keys of the table whose defaults differ from those of SKA-Low.
    """

    latitude: float
    diameter: float
    area: float
    defaults: dict[str, Any] = field(default_factory=dict)


#: HERA: DeBoer et al. 2017 (arXiv:1606.07473). LOFAR: a core field of van Haarlem et al. 2013 (arXiv:1305.3550), 24
#: tiles of 16 dipoles of lambda^2 / 3, at 150 MHz; ASTRON's table of station areas says the same. MWA: Tingay et al.
#: 2013 (arXiv:1206.6945), at 150 MHz.
ARRAYS = {
    "AA4": Array(-26.8247, 38.0, 1134.0),
    "AA*": Array(-26.8247, 38.0, 1134.0),
    "HERA": Array(-30.7215, 14.0, 153.9, {"sefd": "sky", "declination": -30.7215, "hours_per_day": 0.7}),
    "LOFAR": Array(52.9153, 30.75, 512.0, {"sefd": "sky", "declination": 90.0}),
    "MWA": Array(-26.7033, 4.4, 21.5, {"sefd": "sky", "declination": -27.0}),
}
#: Defaults of a layout from a file.
OF_FILES = {"sefd": "sky"}
#: Names of SKA-Low's own, to which nothing may change.
SKA_LOW = ("AA4", "AA*")


def with_layout(table: dict[str, Any], beside: Path | None) -> dict[str, Any]:
    """Fill in what follows from the layout of a table: antennas of a file, and defaults of an array.

    Parameters
    ----------
    table
        Keys of the table as given; one that has ``antennas`` already needs no file.
    beside
        Folder at which the path starts; the working folder by default.

    Raises
    ------
    ValueError
        If the layout is not known, or its file is wrong.
    """
    layout = table.get("layout", "AA4")
    if not isinstance(layout, str):
        raise ValueError(f"layout = {layout!r}: must be a name or a file in quotes")
    if layout in ARRAYS:
        if given := [key for key in ("antennas", "latitude", "diameter") if table.get(key) is not None]:
            raise ValueError(f'{given[0]}: only with layout = "antennas.csv"; {layout} has its own')
        return ARRAYS[layout].defaults | table
    if not layout.lower().endswith(ENDS):
        names = ", ".join(f'"{name}"' for name in ARRAYS)
        raise ValueError(f'layout = "{layout}" is not known: one of {names}, or a file such as "antennas.csv"')
    table = OF_FILES | table
    if table.get("antennas") is None:
        table["antennas"] = read_antennas((beside or Path()) / layout, layout)
    return table


def read_antennas(path: Path, name: str) -> Antennas:
    """Read east, north and up in m, one antenna a line, between commas or spaces; a header may come first.

    Raises
    ------
    ValueError
        If the file cannot be read, or a line has no such numbers or repeats another one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"layout: {path}: cannot be read ({reason})") from error
    found: dict[tuple[float, float, float], int] = {}
    header_allowed = True
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            if header_allowed:
                header_allowed = False
                continue
            raise ValueError(f"layout: {name}, line {number}: {line.strip()!r} has no numbers") from error
        header_allowed = False
        if len(values) != 3 or not all(map(isfinite, values)):
            raise ValueError(f"layout: {name}, line {number}: {line.strip()!r}; expected east, north and up in m")
        position = (values[0], values[1], values[2])
        if position in found:
            raise ValueError(f"layout: {name}, line {number} repeats the antenna of line {found[position]}")
        found[position] = number
    if len(found) < 2:
        raise ValueError(f"layout: {name} has {len(found)} antennas; an interferometer needs two or more")
    far = max(max(map(abs, position)) for position in found)
    if far > GEOCENTRIC:
        raise ValueError(f"layout: {name} has positions {far:.0f} m away: geocentric? expected east, north, up in m")
    return tuple(found)


def as_lines(antennas: Antennas | None) -> list[str] | None:
    """Write each antenna as a line of a file has it: a config of hundreds then has a line for each."""
    return None if antennas is None else [" ".join(map(repr, position)) for position in antennas]


def from_lines(value: Any) -> Any:
    """Read what `as_lines` wrote; other values are left to the check of the table."""
    if isinstance(value, list | tuple) and value and all(isinstance(line, str) for line in value):
        return [line.split() for line in value]
    return value


def lowest_sine(latitude: float, declination: float, hours: float) -> float:
    """Compute the sine of the elevation at both ends of a track of a length in hours, centred on transit."""
    delta, phi, turn = radians(declination), radians(latitude), radians(min(7.5 * hours, 180.0))
    return sin(phi) * sin(delta) + cos(phi) * cos(delta) * cos(turn)
