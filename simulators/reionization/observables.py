"""Observables of 21cmFAST beside the image: global signal, optical depth and UV luminosity functions."""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from simulators.base import Observable, Symmetry

if TYPE_CHECKING:
    from py21cmfast import InputParameters

CUBES = ("brightness_temp", "neutral_fraction")
GLOBAL = ("global_signal", "global_neutral_fraction", "optical_depth", "luminosity_function")

#: Redshifts at which an optical depth needs the mean neutral fraction: (1 + z) in steps of a tenth from z = 5, below
#: which 21cmFAST's integral takes the gas to be ionised. The gas is neutral above the last.
HISTORY = tuple(round(6 * 1.1**i - 1, 3) for i in range(13))

#: Absolute UV magnitudes of the luminosity functions; 21cmFAST's own grid moves with theta.
MAGNITUDES = tuple(float(m) for m in np.arange(-24.0, -9.5, 0.5))


def _check_name(name: str) -> str:
    if name in CUBES + GLOBAL:
        return name
    raise ValueError(f'"{name}" is not an observable; there are {", ".join(CUBES + GLOBAL)}')


#: Name in ``observables``.
ObservableName = Annotated[str, AfterValidator(_check_name)]

#: Mean brightness temperature (mK) and neutral fraction by redshift.
Means = Mapping[float, tuple[float, float]]


def with_history(redshifts: Sequence[float], above: bool, between: bool) -> tuple[float, ...]:
    """Return `redshifts` with those of `HISTORY` that lie below them, falling.

    Parameters
    ----------
    redshifts
        Redshifts of the simulation in any case.
    above
        Whether to add redshifts above the highest. With spin temperature they would change the thermal history, and
        so the image.
    between
        Whether to add redshifts between the others. In a light-cone they would change the nodes between which slices
        are interpolated.
    """
    low, high = min(redshifts), max(redshifts)
    joining = [z for z in HISTORY if z < low or (z > high and above) or (low < z < high and between)]
    # A redshift within 3 per cent needs no other.
    joining = [z for z in joining if all(abs(z - there) > 0.03 * (1 + z) for there in redshifts)]
    return tuple(sorted({*redshifts, *joining}, reverse=True))


def described(name: str, history: Sequence[float], luminosity_redshifts: tuple[float, ...]) -> Observable:
    """Describe an observable that is no cube: shape, unit and coordinates."""
    unit, axes, shape, channels, coordinates = {
        "global_signal": ("mK", ("channel", "redshift"), (1, len(history)), (0.0,), tuple(history)),
        "global_neutral_fraction": ("", ("channel", "redshift"), (1, len(history)), (0.0,), tuple(history)),
        "optical_depth": ("", ("channel", "number"), (1, 1), (0.0,), ()),
        "luminosity_function": (
            "1/Mpc3/mag",
            ("redshift", "magnitude"),
            (len(luminosity_redshifts), len(MAGNITUDES)),
            luminosity_redshifts,
            MAGNITUDES,
        ),
    }[name]
    return Observable(
        name=name,
        shape=shape,
        unit=unit,
        axes=axes,
        cell_size=(0.0,),
        channels=channels,
        symmetry=Symmetry(periodic=(False,), rotations="none"),
        coordinates=coordinates,
    )


def computed(
    name: str,
    p21c: ModuleType,
    inputs: "InputParameters",
    means: Means,
    history: Sequence[float],
    luminosity_redshifts: tuple[float, ...],
) -> NDArray[np.float32]:
    """Compute an observable that is no cube, as `described`.

    Parameters
    ----------
    inputs
        Inputs of 21cmFAST at theta.
    means
        Mean brightness temperature and neutral fraction at every redshift of `history`.
    """
    makers: dict[str, Callable[[], Any]] = {
        "global_signal": lambda: [[means[z][0] for z in history]],
        "global_neutral_fraction": lambda: [[means[z][1] for z in history]],
        "optical_depth": lambda: [[_optical_depth(p21c, inputs, means)]],
        "luminosity_function": lambda: _luminosity_functions(p21c, inputs, luminosity_redshifts),
    }
    return np.asarray(makers[name](), dtype=np.float32)


def _optical_depth(p21c: ModuleType, inputs: "InputParameters", means: Means) -> float:
    """Compute the Thomson optical depth of the volume-averaged history."""
    rising = sorted(means)
    fractions = [means[z][1] for z in rising]
    return float(p21c.compute_tau(redshifts=rising, global_xHI=fractions, inputs=inputs))


def _luminosity_functions(
    p21c: ModuleType, inputs: "InputParameters", redshifts: Sequence[float]
) -> NDArray[np.float64]:
    """Compute galaxies per Mpc³ and magnitude at `MAGNITUDES`, (len(redshifts), M); 0 beyond 21cmFAST's masses."""
    magnitudes, _, log10_density = p21c.compute_luminosity_function(redshifts=list(redshifts), inputs=inputs, nbins=100)
    result = np.zeros((len(redshifts), len(MAGNITUDES)))
    for row, magnitude, log10 in zip(result, magnitudes, log10_density, strict=True):
        there = np.isfinite(magnitude) & np.isfinite(log10)  # both ends are NaN
        order = np.argsort(magnitude[there])
        m, d = magnitude[there][order].astype(np.float64), log10[there][order].astype(np.float64)
        if len(m) > 1:
            row[:] = 10 ** np.interp(MAGNITUDES, m, d, left=-np.inf, right=-np.inf)
    return result
