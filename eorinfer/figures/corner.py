"""Corner plots of several posteriors, by getdist."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.figures.style import drawable, without_tex

if TYPE_CHECKING:
    from getdist import MCSamples
    from matplotlib.figure import Figure

#: Colours of posteriors that are drawn together.
COLOURS = ("#1f5fa8", "#d2691e", "#3a8f4d", "#7b4fa3", "#555555")
#: Standard deviations to either side of a mean that closer axes show.
CLOSE = 5.0


def corner(
    *samples: Samples, truth: NDArray[np.float64] | None = None, close: bool = False, prior: Prior | None = None
) -> "Figure":
    """Draw one- and two-dimensional marginals of posteriors over the same parameters.

    The axes span the prior, which shows where it cuts a posterior.

    Parameters
    ----------
    *samples
        Posteriors; the first is drawn on top.
    truth
        True parameters (P,), drawn as lines.
    close
        Whether the axes span the posteriors instead of the prior.
    prior
        Its densities that are not flat are drawn as thin grey lines.
    """
    plots = _plots()

    parameters = samples[0].parameters
    names = [p.name for p in parameters]
    plotter = plots.get_subplot_plotter(width_inch=1.6 + 2.0 * len(names))
    plotter.settings.axes_labelsize = 15
    plotter.settings.axes_fontsize = 11
    plotter.settings.legend_fontsize = 11
    plotter.settings.axis_tick_max_labels = 4
    order = samples[::-1]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(samples))][::-1]
    with _without_advice(), without_tex():
        plotter.triangle_plot(
            [_drawable(s) for s in order],
            params=names,
            filled=[False] * (len(order) - 1) + [True],
            contour_colors=colours,
            contour_lws=[1.8] * len(order),
            line_args=[{"color": c, "lw": 1.8} for c in colours],
            legend_labels=[s.label.replace("$", r"\$") for s in order],
            legend_loc="upper right",
            param_limits=dict(zip(names, _limits(samples, truth, close), strict=True)),
            markers=None if truth is None else dict(zip(names, truth, strict=True)),
            marker_args={"color": "black", "lw": 1.0, "ls": "--"},
        )
    for i, name in enumerate(names):
        if prior is not None and (line := prior.line(name)) is not None:
            plotter.subplots[i, i].plot(*line, color="0.6", lw=0.8, zorder=0)
    figure: Figure = plotter.fig
    for legend in figure.legends:
        legend.get_frame().set_visible(False)  # it would cover a panel's edge
    if truth is not None:
        below_legend = 1 - (0.25 + 0.28 * len(samples)) / figure.get_figheight()
        figure.text(0.98, below_legend, "dashed: true parameters", ha="right", va="top", fontsize=11)
    return figure


def _drawable(samples: Samples) -> "MCSamples":
    """Give samples to getdist with labels that can be drawn."""
    chain = samples.to_getdist()
    for parameter in chain.paramNames.names:
        parameter.label = drawable(parameter.label, parameter.name)
    return chain


def _limits(samples: Sequence[Samples], truth: NDArray[np.float64] | None, close: bool) -> list[tuple[float, float]]:
    """Set the ends of each axis."""
    low, high = ([getattr(p, side) for p in samples[0].parameters] for side in ("low", "high"))
    # A chain of somebody else may have no ranges.
    low = np.where(np.isfinite(low), low, np.min([s.values.min(0) for s in samples], axis=0)).tolist()
    high = np.where(np.isfinite(high), high, np.max([s.values.max(0) for s in samples], axis=0)).tolist()
    if close:
        truths = [] if truth is None else [truth]
        low = np.maximum(low, np.min([*(s.mean - CLOSE * s.std for s in samples), *truths], axis=0)).tolist()
        high = np.minimum(high, np.max([*(s.mean + CLOSE * s.std for s in samples), *truths], axis=0)).tolist()
    return list(zip(low, high, strict=True))


def _plots() -> Any:
    """Import getdist's plots, which choose another backend at that; the caller's is put back."""
    import matplotlib

    backend = matplotlib.get_backend()
    from getdist import plots

    if matplotlib.get_backend() != backend:
        matplotlib.use(backend)
    return plots


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence getdist's log lines on kernel widths, which matter only for posteriors as narrow as a pixel."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
