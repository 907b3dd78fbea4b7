"""Figure of a chain: its walkers over the steps, and its autocorrelation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import emcee
import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import drawable, looks, settle, subplots
from simulators import Parameter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Walkers, and points of each, that are drawn at most.
WALKERS, POINTS = 8, 600
#: Autocorrelation times that the right panels show.
TIMES = 10


def chain_figure(
    chain: NDArray[np.float64], parameters: Sequence[Parameter], tau: float | None, label: str
) -> "Figure":
    """Draw the trace and the autocorrelation function of each parameter.

    Parameters
    ----------
    chain
        Steps of all walkers (steps, walkers, P).
    parameters
        The P parameters.
    tau
        Longest autocorrelation time in steps, or None.
    label
        Label of the method, for its colour.
    """
    steps, walkers, _ = chain.shape
    size = (9.2, 0.6 + 1.6 * len(parameters))
    figure, axes = subplots(len(parameters), 2, figsize=size, squeeze=False, sharex="col", layout="constrained")
    (look,) = looks([label])
    every = max(1, steps // POINTS)
    lags = min(steps, int(TIMES * tau) + 2 if tau else steps)
    for i, (parameter, (trace, correlation)) in enumerate(zip(parameters, axes, strict=True)):
        values = chain[:, :, i]
        trace.plot(np.arange(0, steps, every), values[::every, :WALKERS], color=look.colour, lw=0.5, alpha=0.5)
        trace.plot(np.arange(0, steps, every), values[::every].mean(1), color="black", lw=0.9)
        moving = [values[:, w] for w in range(walkers) if np.ptp(values[:, w]) > 0]
        if moving:
            function = np.mean([emcee.autocorr.function_1d(walker) for walker in moving], axis=0)
            correlation.plot(function[:lags], color=look.colour, lw=1.2)
        correlation.axhline(0, color="0.6", lw=0.8)
        if tau:
            correlation.axvline(tau, color="0.4", lw=0.8, ls="--")
        trace.set_ylabel(f"${drawable(parameter.label, parameter.name)}$")
        correlation.set_ylim(-0.25, 1.05)
    axes[-1, 0].set_xlabel("step")
    axes[-1, 1].set_xlabel("lag [steps]")
    axes[0, 0].set_title(f"{min(WALKERS, walkers)} of {walkers} walkers; black: mean of all", fontsize=10)
    times = f"; dashed: longest time, {tau:.0f} steps" if tau else ""
    axes[0, 1].set_title(f"autocorrelation{times}", fontsize=10)
    return settle(figure)
