"""Scores of a separation as a table, and maps side by side."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.figures.style import pyplot

#: Of the column with the methods.
WIDTH = 14


def separation_table(scores: dict[str, Any]) -> str:
    """Two tables for each line, of spectra and means and of peaks: one row a method.

    Parameters
    ----------
    scores
        As `eorinfer.separation.scores.score` gives them.
    """
    return "\n".join(line for name, found in scores["lines"].items() for line in _tables(scores, name, found))


def _tables(scores: dict[str, Any], name: str, found: dict[str, Any]) -> list[str]:
    equal = found.get("equal")
    columns = "  ".join(f"r at k={scores['k'][i]:.2g}" for i in _shown(scores, equal))
    recalls = ", ".join(f"{r:.0%}" for r in found["at_recall"][next(iter(found["at_recall"]))]["recalls"])
    without = found["mean_error"]["training mean"], found["power_without_map"]
    return [
        f"{name}: {scores['maps']} maps, sigma of the map {found['sigma_map']:.3g}, of the noise "
        f"{found['sigma_noise']:.3g}, mean {found['mean']:.3g} {scores['unit']}",
        f"  {'':{WIDTH}s} mean off, 50% and 68% of maps   P off, 50% and 68%   P over true, by k  {columns}  PDF off",
        *(f"  {method:{WIDTH}s} {_spectra(scores, found, method, equal)}" for method in found["spectra"]),
        *_of_draws(found),
        f"  {'no map at all':{WIDTH}s} {_errors(*without)}   (the mean of training, and P of the other maps)",
        f"  {'':{WIDTH}s} precision at recall {recalls} of peaks above {scores['sought']:g} sigma of the map, "
        "each method above its own threshold (legacy precision, recall where both are above that)",
        *(f"  {method:{WIDTH}s} {_peaks(scores, found, method)}" for method in found["at_recall"]),
        *([] if equal is None else [f"  signal and noise are equal at k = {scores['k'][equal]:.2g} 1/Mpc"]),
    ]


def _spectra(scores: dict[str, Any], found: dict[str, Any], method: str, equal: int | None) -> str:
    spectra = found["spectra"][method]
    ratio = f"{min(spectra['ratio']):.2f} to {max(spectra['ratio']):.2f}"
    r = "  ".join(f"{spectra['correlation'][i]:9.3f}" for i in _shown(scores, equal))
    errors = _errors(found["mean_error"][method], spectra)
    return f"{errors}   {ratio:>17s}  {r}  {found['brightness'][method]['distance']:7.3f}"


def _of_draws(found: dict[str, Any]) -> list[str]:
    """The mean P(k) of draws, where there are any."""
    if (power := found.get("power_of_draws")) is None:
        return []
    ratio = f"{min(power['ratio']):.2f} to {max(power['ratio']):.2f}"
    mean = found["mean_error"]["mean of draws"]
    return [f"  {'draws, mean P':{WIDTH}s} {_errors(mean, power)}   {ratio:>17s}"]


def _errors(mean: dict[str, Any], power: dict[str, Any]) -> str:
    """Of the mean and of P, the latter by the median over k."""
    off, most = (float(np.median(power[name])) for name in ("off", "off_68"))
    return f"{mean['off']:19.1%} {mean['off_68']:11.1%}   {off:11.1%} {most:7.1%}"


def _peaks(scores: dict[str, Any], found: dict[str, Any], method: str) -> str:
    at = "  ".join("   -" if p is None else f"{p:4.0%}" for p in found["at_recall"][method]["precision"])
    legacy = next(p for p in found["peaks"][method] if p["of"] == "map" and p["sigmas"] == scores["sought"])
    return f"{at}  ({_percent(legacy['legacy_precision'])}, {_percent(legacy['legacy_recall'])})"


def _shown(scores: dict[str, Any], equal: int | None) -> list[int]:
    """Bins of k whose r is shown: the second, the middle one, and that of equal signal and noise."""
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
) -> Any:
    """Observed, true and reconstructed maps, a row for each line; of cubes the first slice.

    Parameters
    ----------
    observed
        (L, *cells): of each line the observed map that it is in.
    true
        (L, *cells)
    made
        By method: (L, *cells).
    lines
        Their names.
    side
        Of the map, arcmin; 0 for pixels.
    unit
        Of the maps.
    """
    plt = pyplot()
    panels = {"observed": observed, "true": true, **made}
    figure, axes = plt.subplots(
        len(lines),
        len(panels),
        figsize=(2.5 * len(panels) + 0.9, 2.6 * len(lines)),
        squeeze=False,
        layout="constrained",
    )
    for row, name in enumerate(lines):
        # Of the true line: what a method makes too bright or too faint is seen.
        low, high = 0.0, float(np.percentile(_image(true[row]), 99.7)) or 1.0
        for axis, (method, maps) in zip(axes[row], panels.items(), strict=True):
            image = _image(maps[row])
            extent = (0, side, 0, side * image.shape[1] / image.shape[0]) if side else None
            limits = (low, high) if method != "observed" else tuple(np.percentile(image, [1, 99.7]).tolist())
            picture = axis.imshow(
                image.T, origin="lower", extent=extent, vmin=limits[0], vmax=limits[1], cmap="inferno"
            )
            axis.set_title(f"{name}: {method}" if method != "observed" else "observed", fontsize=9)
            axis.tick_params(labelsize=7)
            if method in ("observed", list(panels)[-1]):
                bar = figure.colorbar(picture, ax=axis, shrink=0.8)
                bar.ax.tick_params(labelsize=7)
                bar.formatter.set_powerlimits((-2, 2))
                bar.ax.yaxis.get_offset_text().set_fontsize(7)
        axes[row, 0].set_ylabel("arcmin" if side else "pixels", fontsize=8)
    figure.supxlabel(f"{'arcmin' if side else 'pixels'}; {unit}", fontsize=8)
    return figure


def _image(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return maps if maps.ndim == 2 else maps[..., 0]
