"""Figure of a bank: how its rows cover the prior, and slices of a few cubes."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.figures.style import channel_name, new_figure
from simulators import Observable, Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

OK, BAD = "#1f5fa8", "#d2691e"
#: Number of cubes to show, at most.
CUBES = 6
#: Number of points in a panel, at most; more are a blot, and slow to draw.
POINTS = 5000


def bank_figure(bank: Bank, rows: Rows) -> "Figure":
    """Draw θ of these rows, one panel for each pair of parameters, above slices of a few cubes.

    Rows that are not ``ok`` have another colour.
    """
    p = len(bank.parameters)
    side = min(12.0, 2.2 + 1.7 * p)
    width = max(side, 9.0)
    figure: Figure = new_figure(figsize=(width, side + 2.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[side, 2.6], squeeze=False)[:, 0]
    _coverage(above, bank.parameters, rows)
    _cubes(below, bank, rows.ok)
    return figure


def _coverage(figure: "SubFigure", parameters: tuple[Parameter, ...], rows: Rows) -> None:
    p = len(parameters)
    good = rows.status == "ok"
    axes = figure.subplots(p, p, squeeze=False, sharex="col")
    for i in range(p):
        for j in range(p):
            axis = axes[i, j]
            if j > i:
                axis.axis("off")
                continue
            if i == j:
                _histogram(axis, parameters[i], rows.theta[:, i], good)
            else:
                for kind, colour in ((good, OK), (~good, BAD)):
                    points = _thinned(rows.theta[kind])
                    axis.plot(points[:, j], points[:, i], ".", ms=2.5, color=colour, alpha=0.5, rasterized=True)
                axis.set_ylim(*_limits(parameters[i]))
            axis.set_xlim(*_limits(parameters[j]))
            axis.tick_params(labelsize=7, labelleft=j == 0 and i > 0)
            if i == p - 1:
                axis.set_xlabel(f"${parameters[j].label}$")
            if j == 0 and i > 0:
                axis.set_ylabel(f"${parameters[i].label}$")
    counts = ", ".join(f"{n} {status}" for status, n in rows.counts().items()) or "no rows"
    figure.suptitle(f"Coverage of the prior: {counts} (blue: ok)", fontsize=11)


def _histogram(axis: "Axes", parameter: Parameter, values: NDArray[np.float64], good: NDArray[np.bool_]) -> None:
    bins = np.linspace(*_limits(parameter), 21).tolist()
    axis.hist([values[good], values[~good]], bins, stacked=True, color=[OK, BAD])
    axis.set_yticks([])


def _cubes(figure: "SubFigure", bank: Bank, rows: Rows) -> None:
    observable = bank.observables[0]
    n = min(CUBES, len(rows))
    if not n:
        figure.text(0.5, 0.5, "no cube yet", ha="center")
        return
    shown = rows[np.linspace(0, len(rows) - 1, n).astype(int)]
    slices = [_slice(cube) for cube in bank.read(observable.name, shown)]
    low, high = np.percentile(np.concatenate([s.ravel() for s in slices]), [1, 99])
    axes = figure.subplots(1, n, squeeze=False)[0]
    for axis, image, theta in zip(axes, slices, shown.theta, strict=True):
        picture = axis.imshow(image.T, origin="lower", vmin=low, vmax=high, cmap="viridis", aspect=_aspect(image))
        axis.set_xticks([])
        axis.set_yticks([])
        names = bank.parameters[:3]
        axis.set_title("\n".join(f"${q.label}={v:.3g}$" for q, v in zip(names, theta, strict=False)), fontsize=7)
    figure.colorbar(picture, ax=axes, label=observable.unit or observable.name)
    figure.suptitle(_title(observable), fontsize=9)


def _slice(cube: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the first channel through the middle of every axis but the first and the last one."""
    image = cube[0]
    while image.ndim > 2:
        image = image[:, image.shape[1] // 2]
    return image.reshape(image.shape[0], -1)


def _aspect(image: NDArray[np.float32]) -> Literal["equal", "auto"]:
    """Stretch a light-cone, which is far longer than wide."""
    return "equal" if 0.3 < image.shape[0] / image.shape[1] < 3 else "auto"


def _title(observable: Observable) -> str:
    channel = f", {channel_name(observable, 0)}" if observable.channels else ""
    return f"{observable.name}{channel}: slices of a few rows, axes {observable.axes[1]} and {observable.axes[-1]}"


def _limits(parameter: Parameter) -> tuple[float, float]:
    return parameter.low, parameter.high


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points if len(points) <= POINTS else points[:: -(-len(points) // POINTS)]
