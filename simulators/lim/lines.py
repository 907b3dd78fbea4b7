"""Star formation rates of halos, and luminosities of lines.

The coefficients are those of the papers named; units are Msun, Msun/yr and erg/s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Mass at which a change of slope does not change luminosities, Msun.
PIVOT = 1e12

#: Function from masses (N,) in Msun and redshifts (N,) to star formation rates or luminosities (N,).
Relation = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Line:
    """An emission line.

    Attributes
    ----------
    name, label
        Name in configs, and LaTeX without dollar signs.
    wavelength
        Rest wavelength in micrometres.
    per_sfr
        Intrinsic luminosity in erg/s for a star formation rate of 1 Msun/yr.
    attenuation
        Attenuation by dust, magnitudes.
    """

    name: str
    label: str
    wavelength: float
    per_sfr: float
    attenuation: float

    def luminosity(self, sfr: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the attenuated luminosity in erg/s of star formation rates in Msun/yr, of any shape."""
        return self.per_sfr * 10 ** (-0.4 * self.attenuation) * sfr


#: Intrinsic: Gong et al. 2017 (arXiv:1610.09060, eqs. 3-5); attenuation: Fonseca et al. 2017 (arXiv:1607.05288).
LINES = {
    line.name: line
    for line in (
        Line("ha", r"{\rm H}\alpha", 0.65628, 1 / 7.9e-42, 1.00),
        Line("hb", r"{\rm H}\beta", 0.48613, 0.35 / 7.9e-42, 1.38),
        Line("oiii", r"[{\rm O\,III}]", 0.5007, 1 / 7.6e-42, 1.35),
        Line("oii", r"[{\rm O\,II}]", 0.3727, 1 / 1.4e-41, 0.62),
    )
}


def line_label(name: str) -> str:
    """Write the name of a line as a figure does, ``oiii`` as [O III]; ``oiii_1`` says the channel too.

    A name that is no line of `LINES` stays as it is.
    """
    base, _, channel = name.partition("_")
    if base not in LINES:
        return name
    return f"${LINES[base].label}$" + (f", channel {channel}" if channel else "")


_GONG = np.array(
    [
        [1.0, -7.90, 2.50, -2.18],
        [1.4, -7.70, 2.49, -2.18],
        [1.8, -7.50, 2.49, -2.25],
        [2.2, -7.10, 2.42, -2.10],
        [2.7, -6.78, 2.36, -2.20],
        [3.3, -6.30, 2.25, -2.20],
        [4.0, -6.15, 2.25, -2.20],
        [4.8, -5.90, 2.25, -2.20],
    ]
)
_FONSECA = np.array(
    [
        [0, 3e-10, 6e10, 1e12, 3.15, -1.7, -1.7],
        [1, 1.7e-9, 9e10, 2e12, 2.9, -1.4, -2.1],
        [2, 4e-9, 7e10, 2e12, 3.1, -2.0, -1.5],
        [3, 1.1e-8, 5e10, 3e12, 3.1, -2.1, -1.5],
        [4, 6.6e-8, 5e10, 2e12, 2.9, -2.0, -1.0],
        [5, 7e-7, 6e10, 2e12, 2.5, -1.6, -1.0],
    ]
)
_SILVA = np.array([[1.07, 2.64e-9], [1.63, 4.92e-9], [2.19, 9.18e-9], [2.75, 1.71e-8]])


def gong17(mass: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the rate of Gong et al. 2017 (arXiv:1610.09060): constant above 1e13 Msun, linear in z from 1 to 4.8."""
    a, b, c = (np.interp(z, _GONG[:, 0], column) for column in _GONG.T[1:])
    m = np.minimum(mass, 1e13)
    return np.asarray(10**a * (m / 1e8) ** b * (1 + m / 4e11) ** c)


def fonseca17(mass: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the rate of Fonseca et al. 2017 (arXiv:1607.05288, eq. 11), z from 0 to 5; log amplitude linear in z."""
    m0 = np.exp(np.interp(z, _FONSECA[:, 0], np.log(_FONSECA[:, 1])))
    mb, mc, a, b, c = (np.interp(z, _FONSECA[:, 0], column) for column in _FONSECA.T[2:])
    return np.asarray(m0 * (mass / 1e8) ** a * (1 + mass / mb) ** b * (1 + mass / mc) ** c)


def silva15(mass: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the rate of Silva et al. 2015 (arXiv:1410.4808), z up to 2.75; log amplitude linear in z."""
    m0 = np.exp(np.interp(z, _SILVA[:, 0], np.log(_SILVA[:, 1])))
    return np.asarray(m0 * (mass / 1e8) ** 2.7 * (1 + mass / 8e11) ** -4.0)


STAR_FORMATION: dict[str, Relation] = {"gong17": gong17, "fonseca17": fonseca17, "silva15": silva15}


def read_table(path: str | Path) -> Relation:
    """Read a relation from a text file with the columns 1+z, log10 M, log10 of the quantity, on a grid.

    This is the format of UniverseMachine's star formation rates; luminosities may have it too. The relation is linear
    in the logarithms between the points, and constant beyond the lowest and highest z and mass.

    Raises
    ------
    ValueError
        If the file is no such table.
    """
    try:
        rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no table of numbers ({error})") from error
    if rows.shape[1] != 3 or not np.isfinite(rows[:, :2]).all():
        raise ValueError(f"{path}: it has {rows.shape[1]} columns, expected 1+z, log10 M and log10 of the quantity")
    a, m = np.unique(rows[:, 0]), np.unique(rows[:, 1])
    if len(rows) != len(a) * len(m) or len(m) < 2:
        raise ValueError(f"{path}: {len(rows)} rows are no grid of {len(a)} redshifts and {len(m)} masses")
    values = np.full((len(a), len(m)), np.nan)
    values[np.searchsorted(a, rows[:, 0]), np.searchsorted(m, rows[:, 1])] = rows[:, 2]
    if np.isnan(values).any():
        raise ValueError(f"{path}: {int(np.isnan(values).sum())} points of the grid are missing or no numbers")
    # A table's zero is often written as -1000.
    values = np.maximum(values, -30.0)

    def relation(mass: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.interp(np.log10(mass), m, np.arange(len(m)))
        y = np.interp(1 + z, a, np.arange(len(a)))
        i, j = np.minimum(y.astype(int), max(len(a) - 2, 0)), np.minimum(x.astype(int), len(m) - 2)
        up, right = np.minimum(i + 1, len(a) - 1), j + 1
        fy, fx = y - i, x - j
        low = values[i, j] * (1 - fx) + values[i, right] * fx
        high = values[up, j] * (1 - fx) + values[up, right] * fx
        return np.asarray(10 ** (low * (1 - fy) + high * fy))

    return relation


def scattered(
    luminosity: NDArray[np.float64], dex: float, normal: NDArray[np.floating], keep_mean: bool
) -> NDArray[np.float64]:
    """Scatter luminosities lognormally.

    Parameters
    ----------
    luminosity
        (N,) luminosities.
    dex
        Standard deviation of log10 L.
    normal
        (N,) standard normal numbers.
    keep_mean
        Whether the mean of L is kept (the median then falls), or the median.
    """
    sigma = np.log(10) * dex
    return np.asarray(luminosity * np.exp(sigma * normal - (sigma**2 / 2 if keep_mean else 0.0)))
