"""Corner plots of several posteriors, by getdist."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.digits import with_error
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples, without_advice
from eorinfer.core.shown_prior import prior_line
from eorinfer.figures.style import drawable, looks, without_tex

if TYPE_CHECKING:
    from getdist import MCSamples
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours of lines that belong to no method: networks, parameters.
COLOURS = ("#1f5fa8", "#d2691e", "#3a8f4d", "#7b4fa3", "#555555")
#: Points between a panel and the first line above it, and from line to line.
ABOVE, LINE = 4, 13
#: Standard deviations to either side of a mean that closer axes show.
CLOSE = 5.0
#: Share of the prior's standard deviation below which axes close on the posteriors, and what the figure then says.
NARROW, CLOSED = 0.25, "axes close on the posteriors"


def corner(
    *samples: Samples,
    truth: NDArray[np.float64] | Mapping[str, float] | None = None,
    close: bool | None = None,
    prior: Prior | None = None,
) -> "Figure":
    """Draw one- and two-dimensional marginals of posteriors that share parameters, those of the first one.

    The first method that sees images is filled and on top, all others are lines. Above the diagonal stand the mean
    and standard deviation of each posterior.

    Parameters
    ----------
    *samples
        Posteriors; the first are drawn above the others.
    truth
        True parameters (P,), or by name, drawn as lines.
    close
        Whether the axes span the posteriors (True) or the prior (False), which shows where it cuts a posterior. By
        default they close where every posterior is narrower than a `NARROW` of the prior; the figure says so.
    prior
        Its densities that are not flat are drawn as thin grey lines.

    Raises
    ------
    InputError
        If something else than posteriors is given, or they share no parameter or have too few samples, or the truth is
        of others.

    Examples
    --------
    >>> from eorinfer import Samples, corner
    >>> npe = Samples.read("runs/gaussian/chains/npe")
    >>> corner(npe).savefig("corner.png")
    """
    if not samples or not all(isinstance(s, Samples) for s in samples):
        raise InputError("corner: give one or more posteriors (Samples), one by one: corner(npe, mcmc)")
    names = samples[0].names
    for other in samples[1:]:
        if not {*names} & {*other.names}:
            raise InputError(f"corner: {other.label} has none of {', '.join(names)}, but {', '.join(other.names)}")
    for one in samples:
        if len(one) <= len(names):
            raise InputError(f"corner: {one.label} has {len(one)} sample(s) of {len(names)} parameters: draw more")
    truth = _ordered(truth, names)
    close = _narrow(samples, prior) if close is None else close
    plots = _plots()

    plotter = plots.get_subplot_plotter(width_inch=1.6 + 2.0 * len(names))
    plotter.settings.axes_labelsize = 15
    plotter.settings.axes_fontsize = 11
    plotter.settings.legend_fontsize = 11
    plotter.settings.axis_tick_max_labels = 4
    limits = _limits(samples, truth, close)
    closed = close and limits != _limits(samples, truth, False)
    shown = looks([s.label for s in samples])
    seen = [look.image for look in shown]
    top = next((seen.index(kind) for kind in (True, None) if kind in seen), None)
    last = [] if top is None else [top]
    numbers = [i for i in reversed(range(len(samples))) if i != top] + last
    order, colours = [samples[i] for i in numbers], [shown[i].colour for i in numbers]
    with without_advice(), without_tex():
        plotter.triangle_plot(
            [_drawable(s) for s in order],
            params=names,
            filled=[i == top for i in numbers],
            contour_colors=colours,
            contour_lws=[1.8] * len(order),
            line_args=[{"color": c, "lw": 1.8} for c in colours],
            legend_labels=[s.label.replace("$", r"\$") for s in order],
            legend_loc="upper right",
            param_limits=dict(zip(names, limits, strict=True)),
            markers=None if truth is None else dict(zip(names, truth, strict=True)),
            marker_args={"color": "black", "lw": 1.0, "ls": "--"},
        )
    for i, name in enumerate(names):
        if prior is not None and (line := prior_line(prior, name)) is not None:
            plotter.subplots[i, i].plot(*line, color="0.6", lw=0.8, zorder=0)
        if len(samples) <= len(COLOURS):
            _write_above(plotter.subplots[i, i], order, colours, name)
    figure: Figure = plotter.fig
    above = _make_room(figure, ABOVE + LINE * len(samples)) if len(samples) <= len(COLOURS) else 0.0
    alone = len(names) == 1 and len(samples) <= len(COLOURS)  # the legend's place is the panel's: labels stand above
    for legend in list(figure.legends):
        legend.get_frame().set_visible(False)  # it would cover a panel's edge
        if alone:
            legend.remove()
    notes = ([] if truth is None else ["dashed: true parameters"]) + ([CLOSED] if closed else [])
    below_legend = 1 - (above + 0.3 + 0.21 * len(samples)) / figure.get_figheight()
    x, y = (0.98, below_legend) if not alone else (0.98, -0.02)
    figure.text(x, y, "\n".join(notes), ha="right", va="top", fontsize=11)
    return figure


def _ordered(
    truth: NDArray[np.float64] | Mapping[str, float] | None, names: Sequence[str]
) -> NDArray[np.float64] | None:
    """Put a truth (P,) that is given by name in the order of the names."""
    if isinstance(truth, Mapping):
        if lacking := [name for name in names if name not in truth]:
            raise InputError(f"corner: truth lacks {', '.join(lacking)}; it has {', '.join(truth)}")
        truth = np.array([truth[name] for name in names])
    if truth is not None and np.shape(truth) != (len(names),):
        raise InputError(f"corner: truth has shape {np.shape(truth)}, for {len(names)} parameters: {', '.join(names)}")
    return truth


def _write_above(axis: "Axes", order: Sequence[Samples], colours: Sequence[str], name: str) -> None:
    """Write mean and standard deviation of a parameter above its panel, those of the posterior on top first."""
    alone = all(len(samples.names) == 1 for samples in order)
    there = [(samples, colour) for samples, colour in zip(order, colours, strict=True) if name in samples]
    for line, (samples, colour) in enumerate(there):
        label = samples.label.replace("$", r"\$") + ": " if alone else ""
        one = samples.only([name])
        axis.annotate(
            label + with_error(float(one.mean[0]), float(one.std[0])),
            (0.5, 1.0),
            (0, ABOVE + LINE * line),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=10,
        )


def _narrow(samples: Sequence[Samples], prior: Prior | None) -> bool:
    """Tell whether all posteriors are narrower than a `NARROW` of the prior, in every parameter."""
    wide = {} if prior is None else dict(zip(prior.names, prior.std.tolist(), strict=True))
    flat = {p.name: (p.high - p.low) / np.sqrt(12.0) for p in samples[0].parameters}
    widths = np.array([wide.get(name, flat[name]) for name in samples[0].names])
    if not np.isfinite(widths).all():
        return False
    limit = dict(zip(samples[0].names, NARROW * widths, strict=True))
    return all(std < limit[name] for s in samples for name, std in zip(s.names, s.std, strict=True) if name in limit)


def _drawable(samples: Samples) -> "MCSamples":
    """Give samples to getdist with labels that can be drawn."""
    chain = samples.to_getdist()
    for parameter in chain.paramNames.names:
        parameter.label = drawable(parameter.label, parameter.name)
    return chain


def _limits(samples: Sequence[Samples], truth: NDArray[np.float64] | None, close: bool) -> list[tuple[float, float]]:
    """Set the ends of each axis, by the posteriors that have its parameter."""
    limits = []
    for i, parameter in enumerate(samples[0].parameters):
        of_it = [s.only([parameter.name]) for s in samples if parameter.name in s]
        # A chain of somebody else may have no ranges, and one under another prior others.
        low = min(_or(s.parameters[0].low, s.values.min()) for s in of_it)
        high = max(_or(s.parameters[0].high, s.values.max()) for s in of_it)
        if close:
            truths = [] if truth is None else [truth[i]]
            low = max(low, min([*(s.mean[0] - CLOSE * s.std[0] for s in of_it), *truths]))
            high = min(high, max([*(s.mean[0] + CLOSE * s.std[0] for s in of_it), *truths]))
        limits.append((float(low), float(high)))
    return limits


def _or(limit: float, of_samples: float) -> float:
    """Return the end of a range, or of the samples where it has none."""
    return limit if np.isfinite(limit) else of_samples


def _make_room(figure: "Figure", above: float) -> float:
    """Grow a figure at its top, until `above` points are free over its panels; returns by how many inches."""
    height, places = figure.get_figheight(), [axes.get_position() for axes in figure.axes]
    grown = max(height, max(place.y1 for place in places) * height + above / 72)
    figure.set_figheight(grown)
    for axes, place in zip(figure.axes, places, strict=True):
        axes.set_position((place.x0, place.y0 * height / grown, place.width, place.height * height / grown))
    return float(grown - height)


def _plots() -> Any:
    """Import getdist's plots, which choose another backend at that; the caller's is put back."""
    import matplotlib

    backend = matplotlib.get_backend()
    from getdist import plots

    if matplotlib.get_backend() != backend:
        matplotlib.use(backend)
    return plots
