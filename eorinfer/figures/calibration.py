"""Figure of a calibration: ranks, coverage, recovery, widths and the check of the observation."""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstwo

from eorinfer.figures.corner import COLOURS
from eorinfer.figures.style import SPARE, looks, settle, subplots
from eorinfer.validation.calibration import Calibration
from eorinfer.validation.check import Check
from eorinfer.validation.sharpness import RelativeWidths
from eorinfer.validation.uniformity import COVERAGE, LEVEL, TARP
from simulators import Parameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Number of truths in a recovery panel, at most; more would cover each other.
SHOWN = 100
#: Number of panels side by side.
ACROSS = 3


@dataclass(frozen=True)
class CalibrationPage:
    """Results that the figure shows.

    Attributes
    ----------
    parameters
        Parameters of the posterior, P of them.
    calibration
        Ranks of the truths, and tests of them.
    theta, samples
        Truths (B, P) and posterior samples (B, n, P).
    widths
        Widths over those of each reference.
    check, checks
        Comparison of the observation, and of each truth, with the simulations.
    verdict
        Sentence on the result, one line.
    label
        Name of the method under test.
    """

    parameters: tuple[Parameter, ...]
    calibration: Calibration
    theta: NDArray[np.float64]
    samples: NDArray[np.float64]
    widths: tuple[RelativeWidths, ...]
    check: Check | None
    checks: tuple[Check, ...]
    verdict: str
    label: str = "NPE on images"

    @property
    def colour(self) -> str:
        """Colour of the method."""
        return looks([self.label])[0].colour


def calibration_figure(page: CalibrationPage) -> "Figure":
    """Draw all panels."""
    panels = [_histograms, _ranks, _coverage, _tarp, _widths, _check]
    rows = 2 + -(-len(page.parameters) // ACROSS)
    figure, axes = subplots(rows, ACROSS, figsize=(4.3 * ACROSS, 3.6 * rows + 0.7), squeeze=False, layout="constrained")
    for panel, axis in zip(panels, axes.flat, strict=False):
        panel(axis, page)
    for i, axis in enumerate(axes.flat[len(panels) :]):
        if i < len(page.parameters):
            _recovery(axis, page, i)
        else:
            axis.set_axis_off()
    colour = "#2a6e3a" if page.calibration.calibrated else "#b03020"
    figure.suptitle("\n".join(textwrap.wrap(page.verdict, 118)), fontsize=11, color=colour)
    return settle(figure)


def _histograms(axis: "Axes", page: CalibrationPage) -> None:
    """Draw rank histograms of all parameters, with the scatter that uniform ones have."""
    truths = page.calibration.truths
    wrong = {test.quantity for test in page.calibration.tests if test.p_holm < LEVEL}
    highest = 0.0
    bins = int(np.clip(truths // 20, 5, 20))
    edges = np.linspace(0, 1, bins + 1)
    for i, p in enumerate(page.parameters):
        counts, _ = np.histogram(page.calibration.fractions[p.name], edges)
        label = f"${p.label}$ fails" if p.name in wrong else f"${p.label}$"
        axis.stairs(counts * bins / truths, edges, color=_colour(i), lw=2.5 if p.name in wrong else 1.2, label=label)
        highest = max(highest, float(counts.max()) * bins / truths)
    error = 2.58 * np.sqrt((1 - 1 / bins) * bins / truths)
    axis.axhspan(1 - error, 1 + error, color="0.9", zorder=0)
    axis.set(xlabel="rank of the truth (SBC)", ylabel="density", xlim=(0, 1), ylim=(0, 1.4 * max(highest, 1 + error)))
    axis.set_title("grey: 99% of each bin", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=1 + len(page.parameters) // 4)


def _ranks(axis: "Axes", page: CalibrationPage) -> None:
    """Draw the empirical distribution of the ranks, minus the uniform one."""
    for i, p in enumerate(page.parameters):
        _deviation(axis, page.calibration.fractions[p.name], _colour(i), f"${p.label}$")
    _band(axis, page)
    axis.set(xlabel="rank of the truth (SBC)", ylabel="cumulative share $-$ uniform", xlim=(0, 1))
    axis.set_title("S shape: width, hump: mean; grey: 99% (Kolmogorov-Smirnov)", fontsize=9)


def _coverage(axis: "Axes", page: CalibrationPage) -> None:
    """Draw the expected coverage of the regions of highest density."""
    _deviation(axis, 1 - page.calibration.fractions[COVERAGE], page.colour, "highest density")
    _band(axis, page)
    axis.set(xlabel="credibility", ylabel="expected coverage $-$ credibility", xlim=(0, 1))
    axis.set_title("above 0: too wide, below: too narrow", fontsize=10)


def _tarp(axis: "Axes", page: CalibrationPage) -> None:
    """Draw TARP: the exact curve of the ranks, and sbi's in bins."""
    _deviation(axis, page.calibration.fractions[TARP], page.colour, "TARP")
    credibility, coverage = page.calibration.tarp.T
    axis.plot(credibility, coverage - credibility, ".", color=COLOURS[1], ms=4, label="sbi, binned")
    _band(axis, page)
    axis.set(xlabel="credibility (TARP)", ylabel="expected coverage $-$ credibility", xlim=(0, 1))
    off, chance = page.calibration.tarp_deviation, page.calibration.tarp_chance
    axis.set_title(f"largest deviation {off:+.3f}; chance: {chance:.3f}", fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def _widths(axis: "Axes", page: CalibrationPage) -> None:
    """Draw widths over those of the references, one point for each observation."""
    axis.set_title("widths over those of a reference", fontsize=10)
    if not page.widths:
        _say(axis, "no reference posterior:\nrun `eorinfer mcmc` first")
        return
    positions = np.arange(len(page.parameters))
    colours = [look.colour for look in looks([ratios.label for ratios in page.widths])]
    for j, ratios in enumerate(page.widths):
        shift = 0.25 * (j - (len(page.widths) - 1) / 2)
        rng = np.random.default_rng(0)
        for i in positions:
            x = i + shift + 0.05 * rng.uniform(-1, 1, len(ratios.std))
            axis.plot(x[~ratios.short], ratios.std[~ratios.short, i], "o", ms=3, color=colours[j], alpha=0.5)
            axis.plot(x[ratios.short], ratios.std[ratios.short, i], "x", ms=4, color=colours[j], alpha=0.7)
            middle = np.median(ratios.std[:, i])
            axis.plot([i + shift - 0.1, i + shift + 0.1], [middle, middle], color=colours[j], lw=2)
        short = f" ($\\times$: {ratios.short.sum()} short chains)" if ratios.short.any() else ""
        axis.plot([], [], "o", ms=4, color=colours[j], label=f"over {ratios.label}{short}")
    axis.axhline(1.0, color="0.4", lw=0.8)
    axis.set_yscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    everything = np.concatenate([ratios.std.ravel() for ratios in page.widths])
    axis.set_ylim(min(0.45, everything.min() / 1.2), max(2.2, everything.max() * 1.2))
    axis.set_xticks(positions, [f"${p.label}$" for p in page.parameters])
    if len(positions) > 4:
        axis.tick_params(axis="x", rotation=45)
    axis.set_xlim(-0.6, len(positions) - 0.4)
    axis.set_ylabel("ratio of standard deviations")
    axis.legend(frameon=False, fontsize=8)


def _check(axis: "Axes", page: CalibrationPage) -> None:
    """Draw the observation's most unusual statistics, and its p-value."""
    if page.check is None:
        _say(axis, "the posterior carries no reference:\ntrain it again to check observations")
        return
    worst = page.check.deviations[:8][::-1]
    sigmas = np.array([sigma for _, sigma in worst])
    axis.barh(range(len(worst)), sigmas, color=COLOURS[3] if page.check.unlike else COLOURS[2], height=0.6)
    axis.set_yticks(range(len(worst)), [name for name, _ in worst], fontsize=8)
    axis.axvline(0, color="0.4", lw=0.8)
    widest = max(3.5, float(np.abs(sigmas).max()) * 1.1)
    axis.set_xlim(-widest, widest)
    axis.set_xlabel("observation $-$ simulations [sigma]")
    false = f"\nit would warn of {np.mean([c.unlike for c in page.checks]):.1%} of the truths" if page.checks else ""
    word = "UNLIKE" if page.check.unlike else "like"
    word = f"{word} simulations" if page.check.unlike or not page.check.weak else "of which one cannot tell"
    axis.set_title(f"observation {word}, p = {max(page.check.p, 1e-9):.2g}{false}", fontsize=10)


def _recovery(axis: "Axes", page: CalibrationPage, i: int) -> None:
    """Draw posterior medians and 68% intervals against truths."""
    p = page.parameters[i]
    theta, samples = page.theta[:SHOWN, i], page.samples[:SHOWN, :, i]
    low, high = np.quantile(samples, [0.16, 0.84], axis=1)
    middle = np.median(samples, axis=1)
    axis.errorbar(theta, middle, [middle - low, high - middle], fmt="o", ms=2.5, lw=0.7, color=page.colour, alpha=0.7)
    ends = [min(theta.min(), low.min()), max(theta.max(), high.max())]
    axis.plot(ends, ends, color="0.3", lw=0.8)
    unit = f" [{p.unit}]" if p.unit else ""
    axis.set(xlabel=f"true ${p.label}${unit}", ylabel="median and 68%")


def _deviation(axis: "Axes", u: NDArray[np.float64], colour: str, label: str) -> None:
    """Draw the empirical distribution of u (B,) minus the uniform one."""
    grid = np.linspace(0, 1, 201)
    share = np.searchsorted(np.sort(u), grid, side="right") / len(u)
    axis.plot(grid, share - grid, color=colour, lw=1.5, label=label)


def _band(axis: "Axes", page: CalibrationPage) -> None:
    """Shade where a uniform distribution stays with a chance of 99%, all tests of the page together."""
    critical = kstwo.isf(LEVEL / len(page.calibration.tests), page.calibration.truths)
    axis.axhspan(-critical, critical, color="0.9", zorder=0)
    axis.axhline(0, color="0.4", lw=0.8)
    low, high = axis.get_ylim()
    most = max(abs(low), abs(high), 1.3 * critical)
    axis.set_ylim(-most, most)


def _say(axis: "Axes", text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="0.4")
    axis.set_xticks([])
    axis.set_yticks([])


def _colour(i: int) -> str:
    """Pick the colour of parameter `i`; colours repeat in the end."""
    return (*COLOURS, *SPARE)[i % (len(COLOURS) + len(SPARE))]
