"""Scores of a separation as a table, and maps side by side."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.report.figures import pyplot


def separation_table(scores: dict[str, Any]) -> str:
    """A table for each line: one row a method.

    Parameters
    ----------
    scores
        As `eorinfer.separation.scores.score` gives them.
    """
    lines = []
    for name, found in scores["lines"].items():
        mean_of_training = found["mean_error"]["training mean"]
        equal = found.get("equal")
        columns = [f"r at k={k:.2g}" for k in (scores["k"][i] for i in _shown(scores, equal))]
        recalls = found["at_recall"][next(iter(found["at_recall"]))]["recalls"]
        lines += [
            f"{name}: {scores['maps']} maps, sigma of the map {found['sigma_map']:.3g}, of the noise "
            f"{found['sigma_noise']:.3g}, mean {found['mean']:.3g} {scores['unit']}; always answering the mean of "
            f"training is off by {mean_of_training['rms']:.1%}",
            f"  {'':14s} mean off  P off  {'  '.join(columns)}  PDF off  "
            f"precision at recall {', '.join(f'{r:.0%}' for r in recalls)} (legacy precision, recall at "
            f"{scores['sought']:g} sigma)",
        ]
        for method in found["at_recall"]:
            lines.append(f"  {method:14s} {_row(scores, found, method, equal)}")
        if equal is not None:
            lines.append(f"  signal and noise are equal at k = {scores['k'][equal]:.2g} 1/Mpc")
    return "\n".join(lines)


def _row(scores: dict[str, Any], found: dict[str, Any], method: str, equal: int | None) -> str:
    at = "  ".join("   -" if p is None else f"{p:4.0%}" for p in found["at_recall"][method]["precision"])
    legacy = next(p for p in found["peaks"][method] if p["of"] == "map" and p["sigmas"] == scores["sought"])
    peaks = f"{at}  ({_percent(legacy['legacy_precision'])}, {_percent(legacy['legacy_recall'])})"
    if method not in found["spectra"]:
        return f"{'':{8 + 7 + 11 * len(_shown(scores, equal)) + 9}s} {peaks}"
    spectra = found["spectra"][method]
    r = "  ".join(f"{spectra['correlation'][i]:9.3f}" for i in _shown(scores, equal))
    mean, power = found["mean_error"][method]["rms"], float(np.median(spectra["off"]))
    return f"{mean:8.1%} {power:6.1%} {r} {found['brightness'][method]['distance']:8.3f}  {peaks}"


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
