"""Noise of SPHEREx by wavelength, and the channels that a cube is made of. Loads no torch."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.survey import SphereX

if TYPE_CHECKING:
    from simulators.base import Observable

#: Side of the pixel for which the table gives the noise, arcmin.
PIXEL = 6.2 / 60
#: Largest distance of the offset of two cubes from a whole number, in channels.
NEAR = 0.05


@dataclass(frozen=True)
class Channels:
    """Channels of the instrument behind an observable.

    Attributes
    ----------
    wavelengths
        (M,) wavelengths in micrometres, rising.
    slices
        Number of slices of each cube; 0 for maps, which have one channel each.
    starts
        Number of the channel with which each of several cubes begins.
    resolution
        R of the channels; 0 for that of the instrument.
    """

    wavelengths: tuple[float, ...]
    slices: int = 0
    starts: tuple[int, ...] = ()
    resolution: float = 0.0


def noise_level(settings: SphereX, wavelength: float, resolution: float = 0.0) -> float:
    """Compute the in-band noise of a pixel of 6.2 arcsec at `wavelength` in micrometres: one sigma in nW/m^2/sr.

    The table gives nu I_nu in the instrument's own channels, interpolated between those of the same R; a channel holds
    the fraction 1 / R of it. One of another width is made of R_table / R of them, whose noise is independent: its
    nu I_nu has sqrt(R / R_table) times the noise. Without `resolution` it is a channel of the instrument.

    Raises
    ------
    ValueError
        If the table does not reach that wavelength.
    """
    table = _table(settings.table)
    if not table[0, 0] <= wavelength <= table[-1, 0]:
        span = f"{table[0, 0]:g} to {table[-1, 0]:g} um"
        raise ValueError(f"a channel at {wavelength:.3f} um: the noise is known from {span}")
    sigma = np.interp(wavelength, table[:, 0], table[:, 1 if settings.field == "all-sky" else 2])
    own = resolving_power(settings, wavelength)
    in_band = sigma / (own * (resolution or own)) ** 0.5
    return float(in_band) * (2**0.5 if settings.nyquist else 1.0)


def resolving_power(settings: SphereX, wavelength: float) -> float:
    """Return R of the table's channel nearest to `wavelength` in micrometres."""
    table = _table(settings.table)
    return float(table[np.abs(table[:, 0] - wavelength).argmin(), 3])


def instrument_channels(observable: "Observable") -> Channels:
    """Find the channels of the instrument behind an observable like those of ``lim-mock``.

    Raises
    ------
    ValueError
        If two cubes are not made of one set of channels.
    """
    if not observable.coordinates:
        return Channels(observable.channels, resolution=observable.resolution)
    steps = np.diff(np.log1p(observable.coordinates))
    relative = np.exp(np.concatenate([[0.0], np.cumsum(steps)]))
    first = observable.channels[0] * relative
    if len(observable.channels) == 1:
        return Channels(tuple(first.tolist()), len(relative), resolution=observable.resolution)
    places = np.log(observable.channels) / steps.mean()
    gaps = np.diff(np.sort(places))
    apart = np.rint(gaps)
    if np.abs(gaps - apart).max() > NEAR or not 1 <= apart.min() <= apart.max() <= len(relative):
        raise ValueError(
            f"cubes that begin at {', '.join(f'{c:.4g}' for c in observable.channels)} um and have {len(relative)} "
            f"channels are {', '.join(f'{gap:.2f}' for gap in gaps)} channels apart: those of one instrument are a "
            f"whole number apart, from 1 to {len(relative)} so that there is no gap"
            + (f"; give [simulator] channels = {int(apart.max())} or more" if apart.max() > len(relative) else "")
        )
    starts = tuple(np.rint(places - places.min()).astype(int).tolist())
    each = zip(starts, observable.channels, strict=True)
    wavelengths = {start + i: first * r for start, first in each for i, r in enumerate(relative)}
    run = tuple(float(wavelengths[i]) for i in sorted(wavelengths))
    return Channels(run, len(relative), starts, observable.resolution)


def _table(path: str | None) -> NDArray[np.float64]:
    """Read the table (n, 4): wavelength, all-sky noise, deep noise and R."""
    source = Path(path) if path else files("eorinfer.survey") / "spherex_v28.txt"
    try:
        table = np.loadtxt(source.read_text().splitlines(), ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no table of noise ({error})") from error
    if table.shape[1] != 4 or len(table) < 2 or not (np.diff(table[:, 0]) > 0).all() or not (table > 0).all():
        raise ValueError(
            f"{path}: shape {table.shape}; expected rows of rising wavelength in um, noise in nu I_nu of the all-sky "
            "and of the deep survey in nW/m^2/sr for a pixel of 6.2 arcsec, and R, all positive"
        )
    return table
