"""Figure of a contest between methods."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import looks, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Nats below the best method beyond which another that is not calibrated is named without a point.
FAR = 3.0
#: Room beside the points, in units of their range.
MARGIN = 0.3
#: Largest ratio of volumes that is drawn, decades; more where this share of a calibrated method's would be beyond.
WIDEST, BEYOND = 1.5, 0.1
#: Share of ratios beyond that from which on the figure says it.
LEAST_SAID = 0.005


def contest_figure(
    labels: Sequence[str],
    gains: NDArray[np.float64],
    calibrated: Sequence[bool],
    curves: Sequence[NDArray[np.float64]],
    log_volumes: Sequence[NDArray[np.float64]],
    over: str,
) -> "Figure":
    """Draw information gained, expected coverage and volumes of several methods, side by side.

    Parameters
    ----------
    labels
        Labels of the M methods.
    gains
        Mean information gained and its error (M, 2), nats; more is better.
    calibrated
        Whether each method is calibrated; the others have open points.
    curves
        Credibility and expected coverage (K, 2) of each method, without bins: what the tables' deviation is of.
    log_volumes
        Log of the ratio of volumes (T,) of each method to the reference's, for the same truths; less is tighter.
    over
        Label of the reference.
    """
    figure, (left, middle, right) = subplots(1, 3, figsize=(13, 0.9 + 0.42 * max(len(labels), 7)))
    colours = [look.colour for look in looks(labels)]
    rows = np.arange(len(labels))[::-1]
    shown = gains[(gains[:, 0] > gains[:, 0].max() - FAR) | np.array(calibrated)]
    low, high = (shown[:, 0] - shown[:, 1]).min(), (shown[:, 0] + shown[:, 1]).max()
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    for row, (mean, error), colour, filled in zip(rows, gains, colours, calibrated, strict=True):
        if mean < low:
            left.annotate(
                f"← {mean:.3g} ± {error:.2g}",
                (low, row),
                color=colour,
                va="center",
                xytext=(4, 0),
                textcoords="offset points",
            )
        else:
            left.errorbar(mean, row, xerr=error, fmt="o", color=colour, capsize=3, mfc=colour if filled else "none")
    left.set_xlim(low, high)
    left.set_ylim(-0.7, len(labels) - 0.3)
    left.set_yticks(rows, labels)
    left.set_xlabel("information gained, nats\n(open: not calibrated)")
    left.grid(axis="x", alpha=0.3)
    middle.plot([0, 1], [0, 0], color="black", lw=0.8, ls="--")
    for curve, colour, label in zip(curves, colours, labels, strict=True):
        middle.plot(curve[:, 0], curve[:, 1] - curve[:, 0], color=colour, lw=1.5, label=label)
    middle.set_xlabel("credibility")
    middle.set_ylabel("expected coverage (TARP) − credibility")
    middle.set_xlim(0, 1)
    decades = [values / np.log(10) for values in log_volumes]
    right_ones = [ratios for ratios, good in zip(decades, calibrated, strict=True) if good and len(ratios)]
    widest = max([WIDEST, *(float(np.quantile(np.abs(ratios), 1 - BEYOND)) for ratios in right_ones)])
    if any(map(len, decades)):
        for row, values, colour in zip(rows, decades, colours, strict=True):
            if len(values):
                _draw_volumes(right, row, values, colour, widest)
        right.set_xlim(-widest, widest)
    right.axvline(0, color="black", lw=0.8, ls="--")
    right.set_yticks(rows, [""] * len(rows))
    right.set_ylim(left.get_ylim())
    right.set_xlabel(f"log₁₀ volume over that of\n{over}")
    figure.tight_layout()
    return figure


def _draw_volumes(axis: "Axes", row: float, decades: NDArray[np.float64], colour: str, widest: float) -> None:
    """Draw the distribution of ratios (T,) on a row, with their median; the share beyond the axis is said."""
    inside = decades[np.abs(decades) <= widest]
    if len(inside) > 1 and np.ptp(inside) > 0:
        violin: Any = axis.violinplot([inside], [row], orientation="horizontal", showextrema=False, widths=0.8)
        for body in violin["bodies"]:
            body.set_facecolor(colour)
            body.set_alpha(0.6)
    middle = float(np.median(decades))
    if abs(middle) <= widest:
        axis.plot([middle, middle], [row - 0.2, row + 0.2], color="black", lw=1.5)
    for side, beyond in ((-1, decades < -widest), (1, decades > widest)):
        if (share := beyond.mean()) >= LEAST_SAID:
            said = f"← {share:.0%} beyond" if side < 0 else f"{share:.0%} beyond →"
            where = "left" if side < 0 else "right"
            axis.text(0.97 * side * widest, row + 0.4, said, ha=where, va="bottom", fontsize=9, color=colour)
