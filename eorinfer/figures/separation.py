"""Scores of a separation as a table, and maps side by side."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import subplots
from simulators.lim.lines import line_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Characters of the column with the methods.
WIDTH = 14


def separation_table(scores: dict[str, Any]) -> str:
    """Write two tables for each line, one of spectra and means and one of peaks, with a row for each method.

    `scores` are those of `eorinfer.separation.scores.score`.
    """
    rows = _of_draws(scores) if "of_draws" in scores else []
    return "\n".join([*rows, *(row for name, line in scores["lines"].items() for row in _tables(scores, name, line))])


def _of_draws(scores: dict[str, Any]) -> list[str]:
    """Write the scores of draws as draws of a posterior, a row for each line."""
    found = scores["of_draws"]
    above = [k for k, inside in enumerate(found["above_beam"]) if inside]
    rows = [
        f"{found['draws']} draws of {scores['maps']} maps, beside the truth, in bins of k above the beam; "
        "r and rmse are those of the posterior mean",
        f"  {'':{WIDTH}s} P over true, by k   mean over true   r, by k       rmse/sigma   smallest p of a rank",
    ]
    for name, line in found["lines"].items():
        power, r = ([line[key][k] for k in above] for key in ("power", "r"))
        worst = min(line["p"], key=line["p"].__getitem__)
        rows.append(
            f"  {name:{WIDTH}s} {min(power):.2f} to {max(power):.2f}   {line['mean']:14.3f}   "
            f"{max(r):.3f} to {min(r):.3f}   {line['rmse']:8.3f}   {line['p'][worst]:.2g} ({worst})"
        )
    uniform = "uniform" if found["p_holm"] > 0.01 else "NOT uniform"
    rest = "no noise" if found["rest"] is None else f"rms of what is left over that of the noise {found['rest']:.3f}"
    rows.append(f"  ranks are {uniform}: p = {found['p_holm']:.2g} with Holm's correction ({found['worst_rank']})")
    return [*rows, f"  observed minus lines of a draw: {found['sum']:.2g} of the rms of the lines; {rest}"]


def _tables(scores: dict[str, Any], name: str, line: dict[str, Any]) -> list[str]:
    equal = line.get("equal")
    columns = "  ".join(f"r at k={scores['k'][i]:.2g}" for i in _shown(scores, equal))
    recalls = ", ".join(f"{r:.0%}" for r in line["at_recall"][next(iter(line["at_recall"]))]["recalls"])
    without = line["mean_error"]["training mean"], line["power_without_map"]
    return [
        f"{name}: {scores['maps']} map{'s' * (scores['maps'] != 1)}, sigma of the map {line['sigma_map']:.3g}, "
        f"of the noise {line['sigma_noise']:.3g}, mean {line['mean']:.3g} {scores['unit']}",
        f"  {'':{WIDTH}s} mean off, 50% and 68% of maps   P off, 50% and 68%   P over true, by k  {columns}  PDF off",
        *(f"  {method:{WIDTH}s} {_spectra(scores, line, method, equal)}" for method in line["spectra"]),
        *_draws(line),
        f"  {'no map at all':{WIDTH}s} {_errors(*without)}   (the mean of training, and P of the other maps)",
        f"  {'':{WIDTH}s} precision at recall {recalls} of peaks above {scores['sought']:g} sigma of the map, "
        "each method above its own threshold (legacy precision, recall where both are above that)",
        *(f"  {method:{WIDTH}s} {_peaks(scores, line, method)}" for method in line["at_recall"]),
        *_at_thresholds(line, scores["unit"]),
        *([] if equal is None else [f"  signal and noise are equal at k = {scores['k'][equal]:.2g} 1/Mpc"]),
    ]


def _spectra(scores: dict[str, Any], line: dict[str, Any], method: str, equal: int | None) -> str:
    spectra = line["spectra"][method]
    ratio = f"{min(spectra['ratio']):.2f} to {max(spectra['ratio']):.2f}"
    r = "  ".join(f"{spectra['correlation'][i]:9.3f}" for i in _shown(scores, equal))
    errors = _errors(line["mean_error"][method], spectra)
    return f"{errors}   {ratio:>17s}  {r}  {line['brightness'][method]['distance']:7.3f}"


def _draws(line: dict[str, Any]) -> list[str]:
    """Write the row of the draws' mean P(k), where there are draws."""
    if (power := line.get("power_of_draws")) is None:
        return []
    ratio = f"{min(power['ratio']):.2f} to {max(power['ratio']):.2f}"
    mean = line["mean_error"]["mean of draws"]
    return [f"  {'draws, mean P':{WIDTH}s} {_errors(mean, power)}   {ratio:>17s}"]


def _errors(mean: dict[str, Any], power: dict[str, Any]) -> str:
    """Write the errors of the mean and of P(k), those of P(k) by their median over k."""
    off, most = (float(np.median(power[name])) for name in ("off", "off_68"))
    return f"{mean['off']:19.1%} {mean['off_68']:11.1%}   {off:11.1%} {most:7.1%}"


def _peaks(scores: dict[str, Any], line: dict[str, Any], method: str) -> str:
    at = "  ".join("   -" if p is None else f"{p:4.0%}" for p in line["at_recall"][method]["precision"])
    legacy = next(p for p in line["peaks"][method] if p["of"] == "map" and p["sigmas"] == scores["sought"])
    return f"{at}  ({_percent(legacy['legacy_precision'])}, {_percent(legacy['legacy_recall'])})"


def _at_thresholds(line: dict[str, Any], unit: str) -> list[str]:
    """Write precision and recall of the first method above the thresholds that were chosen on validation maps."""
    method = next(iter(line["at_recall"]))
    words = {"best": "best balance", "precise": "for a precision of 60%"}
    return [
        f"  {method} above {found['threshold']:.3g} {unit}, chosen on validation maps ({words[name]}): precision "
        f"{_percent(found['legacy_precision'])}, recall {_percent(found['legacy_recall'])} by pairs; "
        f"{_percent(found['precision'])}, {_percent(found['recall'])} one to one"
        for name, found in line.get("at_threshold", {}).items()
    ]


def _shown(scores: dict[str, Any], equal: int | None) -> list[int]:
    """List the bins of k whose r is shown: the second, the middle one, and that of equal signal and noise."""
    middle = len(scores["k"]) // 2
    return sorted({1, middle, *(() if equal is None else (equal,))})


def _percent(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.0%}"


def separation_figure(
    observed: NDArray[np.float32],
    true: NDArray[np.float32],
    made: dict[str, NDArray[np.float32]],
    lines: list[str],
    *,
    side: float,
    unit: str,
) -> "Figure":
    """Draw observed, true and reconstructed maps, a row for each line; cubes by their first slice.

    Parameters
    ----------
    observed
        Observed map (L, *cells) that each line is in.
    true
        True maps (L, *cells).
    made
        Reconstructed maps (L, *cells) by method.
    lines
        Names of the lines.
    side
        Side of the map, arcmin; 0 for pixels.
    unit
        Unit of the maps.
    """
    panels = {"observed": observed, "true": true, **made}
    figure, axes = subplots(
        len(lines),
        len(panels),
        figsize=(2.6 * len(panels) + 1.1, 2.7 * len(lines)),
        squeeze=False,
        layout="constrained",
    )
    # One scale, that of the true lines: a method that is too bright or too faint is seen to be.
    high = max(float(np.percentile(_image(maps), 99.8)) for maps in true) or 1.0
    for row, name in enumerate(lines):
        for axis, (method, maps) in zip(axes[row], panels.items(), strict=True):
            if method == "observed" and row and np.array_equal(observed[row], observed[0]):
                axis.set_axis_off()
                continue
            image = _image(maps[row])
            extent = (0, side, 0, side * image.shape[1] / image.shape[0]) if side else None
            picture = axis.imshow(image.T, origin="lower", extent=extent, vmin=0.0, vmax=high, cmap="inferno")
            axis.set_title(f"{line_label(name)}, {method}" if method != "observed" else "observed", fontsize=10)
            axis.tick_params(labelsize=7)
        axes[row, 1].set_ylabel("arcmin" if side else "pixels", fontsize=8)
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, extend="both")
    bar.set_label(unit.replace("nW/m^2/sr", "nW m$^{-2}$ sr$^{-1}$"), fontsize=9)
    bar.ax.tick_params(labelsize=7)
    figure.supxlabel("arcmin" if side else "pixels", fontsize=8)
    return figure


def _image(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return maps if maps.ndim == 2 else maps[..., 0]
