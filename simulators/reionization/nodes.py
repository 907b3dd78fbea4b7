"""Nodes: the redshifts at which 21cmFAST evaluates a box, for its thermal history and for a light-cone's slices."""

import itertools
from collections.abc import Sequence

import numpy as np

#: Step in 1 + z of the default nodes with spin temperature, and redshift at which heating starts.
FINE_STEP, FINE_START = 1.03, 25.0
#: Shells around a cell that 21cmFAST sums X-rays and Lyman-alpha photons over, with the default nodes and with others.
FINE_SHELLS, COARSE_SHELLS = 20, 40
#: Step in 1 + z of a light-cone's nodes without spin temperature, and of its coarse ones with it.
CONE_STEP = 1.05
#: Smallest step with spin temperature: below it 21cmFAST's brightness temperature can be wrong (its issue 667).
SMALLEST_STEP = 1.02

#: Coarse nodes of coeval boxes, to which their redshifts are added.
_COARSE = (20.0, 17.0, 14.0, 12.0, 10.0, 8.0, 6.0)
#: Redshift at which heating starts with the coarse nodes of a light-cone, and their step down to it.
_COARSE_START, _COARSE_STEP = 20.0, 1.1

NAMES = ("fine", "coarse")


def log_nodes(low: float, high: float, step: float) -> list[float]:
    """List rising redshifts from `low` to `high`, 1 + z in equal factors of `step` or a little less."""
    number = int(np.ceil(np.log((1 + high) / (1 + low)) / np.log(step) - 1e-6))
    return _equal_steps(low, high, number)


def fine_nodes(redshifts: Sequence[float]) -> tuple[float, ...]:
    """List falling nodes of coeval boxes at `redshifts`: steps near `FINE_STEP`, through each of them."""
    stops = [*sorted(set(redshifts)), heating_start(max(redshifts))]
    nodes = [stops[0]]
    for low, high in itertools.pairwise(stops):
        # The nearest whole number, not the next: else two steps of 1.016 would take the place of one of 1.032.
        number = max(1, round(np.log((1 + high) / (1 + low)) / np.log(FINE_STEP)))
        nodes += _equal_steps(low, high, number)[1:]
    return tuple(reversed(nodes))


def coarse_nodes(redshifts: Sequence[float]) -> tuple[float, ...]:
    """List falling nodes of coeval boxes as in version 0.1: `redshifts`, and a few between and above them."""
    above = [z for z in _COARSE if z > min(redshifts)]
    between = [z for z in above if all(abs(z - out) > 0.03 * (1 + z) for out in redshifts)]
    return tuple(sorted({*redshifts, *between}, reverse=True))


def cone_nodes(low: float, high: float, step: float, heated: bool, coarse: bool) -> tuple[float, ...]:
    """List falling nodes of a light-cone from `low` to `high`, with heating from its start on."""
    if heated and not coarse:
        return tuple(reversed(log_nodes(low, heating_start(high), step)))
    nodes = log_nodes(low, high, step)
    if heated:
        nodes += log_nodes(high, max(_COARSE_START, 1.3 * high), _COARSE_STEP)[1:]
    return tuple(reversed(nodes))


def heating_start(highest: float) -> float:
    """Return the redshift at which heating starts where `highest` is the highest that is looked at."""
    return max(FINE_START, 1.3 * highest)


def refuse_small_steps(nodes: Sequence[float]) -> None:
    """Raise ValueError if falling nodes are closer than `SMALLEST_STEP`, but for the rounding of `log_nodes`."""
    for high, low in itertools.pairwise(nodes):
        if (1 + high) / (1 + low) < SMALLEST_STEP - 0.001:
            raise ValueError(
                f"z = {high:g} and {low:g} are a step of {(1 + high) / (1 + low):.3f} in 1 + z; with spin temperature "
                f"21cmFAST can go wrong in steps below {SMALLEST_STEP:g} (its issue 667)"
            )


def _equal_steps(low: float, high: float, number: int) -> list[float]:
    ratio = ((1 + high) / (1 + low)) ** (1 / number)
    return [low, *(round((1 + low) * ratio**i - 1, 3) for i in range(1, number)), high]
