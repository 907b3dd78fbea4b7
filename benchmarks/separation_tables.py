"""Scores of separated lines in the published setting: peaks at one threshold, spectra, brightness and mean."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.separation.peaks import Peaks, best_threshold, count, find_peaks
from eorinfer.summaries.power import PowerSpectrum

#: Radius of peaks in arcmin, and height of the true peaks in standard deviations of the true maps.
RADIUS, HEIGHT = 4.0, 3.0
#: Edges of the bins of P(k), per arcmin, in steps of a fifth of a decade.
EDGES = 10 ** np.arange(-1.1, 0.31, 0.2)

#: Maps (N, nx, ny) or (N, L, nx, ny) by method; the true ones are ``"true"``.
MapsByMethod = dict[str, NDArray[np.float32]]


def line_figures(
    chosen: MapsByMethod, scored: MapsByMethod, pixel: float, shift: int, precision: float
) -> dict[str, Any]:
    """Score every method on maps of one line.

    Parameters
    ----------
    chosen, scored
        Maps (N, nx, ny) on which the thresholds are chosen, and others on which methods are scored. A true peak is
        above `HEIGHT` standard deviations of the true maps of the former.
    pixel
        Side of a pixel, arcmin.
    shift
        Number of successive maps of one realisation: chance compares maps further apart.
    precision
        Precision at which the recall is asked for.
    """
    radius, spectrum = RADIUS / pixel, power_spectrum(scored["true"].shape[-1], pixel)
    sought = HEIGHT * float(chosen["true"].std())
    before, true = (peaks_of(maps["true"], radius) for maps in (chosen, scored))
    x, sd = torch.from_numpy(scored["true"]), float(scored["true"].std())
    own, means = spectrum(x).numpy(), scored["true"].mean((1, 2), dtype=float)
    methods: dict[str, Any] = {}
    for method in [name for name in scored if name != "true"]:
        maps, found = scored[method], peaks_of(scored[method], radius)
        first = peaks_of(chosen[method], radius)
        threshold = best_threshold(before, first, radius, sought)
        strict = best_threshold(before, first, radius, sought, precision)
        y = torch.from_numpy(maps)
        power, cross = spectrum(y).numpy(), spectrum.cross(x, y).numpy()
        methods[method] = {
            "threshold_over_sought": [_rounded(threshold / sought), _rounded(strict / sought)],
            **peak_figures(true, found, radius, sought, threshold),
            f"for_precision_{precision:g}": peak_figures(true, found, radius, sought, strict)["published_count"],
            "at_the_true_threshold": peak_figures(true, found, radius, sought, sought)["published_count"],
            "mean_off_68": round(float(np.quantile(np.abs(maps.mean((1, 2), dtype=float) / means - 1), 0.68)), 3),
            "rmse_over_sd": round(float(np.sqrt(np.mean(np.square(maps - scored["true"])))) / sd, 2),
            "one_point_off": round(one_point(scored["true"], maps), 3),
            "r": np.round((cross / np.sqrt(own * power)).mean(0), 2).tolist(),
            "power": np.round(power.mean(0) / own.mean(0), 2).tolist(),
        }
        if len(methods) == 1:
            others = found[shift:] + found[:shift]
            methods["chance"] = peak_figures(true, others, radius, sought, threshold)
    return {
        "k_per_arcmin": np.round(spectrum.k.numpy(), 2).tolist(),
        "sd": sd,
        "true_peaks_a_map": round(sum(len(peaks.above(sought)) for peaks in true) / len(true), 1),
        "methods": methods,
    }


def peak_figures(true: list[Peaks], found: list[Peaks], radius: float, sought: float, above: float) -> dict[str, Any]:
    """Give precision and recall by the published count of pairs, and one to one."""
    rates = count(true, found, radius, sought, above).rates()
    return {
        "published_count": [_rounded(rates["legacy_precision"]), _rounded(rates["legacy_recall"])],
        "one_to_one": [_rounded(rates["precision"]), _rounded(rates["recall"])],
    }


def _rounded(value: float) -> float | None:
    """Round a number for a file; None where there is none, as for the precision of no peaks."""
    return round(value, 3) if np.isfinite(value) else None


def peaks_of(maps: NDArray[np.float32], radius: float) -> list[Peaks]:
    """Find the peaks of maps (N, nx, ny)."""
    return [find_peaks(image, radius) for image in maps]


def one_point(true: NDArray[np.float32], made: NDArray[np.float32]) -> float:
    """Compute the mean distance of the quantiles of two sets of maps over the standard deviation of the first."""
    levels = (np.arange(2000) + 0.5) / 2000
    return float(np.abs(np.quantile(true, levels) - np.quantile(made, levels)).mean() / true.std())


def power_spectrum(pixels: int, pixel: float) -> PowerSpectrum:
    """Make P(k) in the bins of `EDGES` that a map has modes in, with k per arcmin."""
    side = pixels * pixel
    return PowerSpectrum((pixels, pixels), (side, side), EDGES[np.greater(EDGES, 2 * np.pi / side)].tolist())


def printed(name: str, figures: dict[str, Any]) -> str:
    """Write the figures of a line, a row for each method."""
    k = ", ".join(f"{value:g}" for value in figures["k_per_arcmin"])
    title = (
        f"\n{name}: {figures['true_peaks_a_map']} true peaks a map; r and power over the true one at k = {k} /arcmin"
    )
    rows = (
        f"  {method:22s} " + ", ".join(f"{key} {value}" for key, value in row.items())
        for method, row in figures["methods"].items()
    )
    return "\n".join((title, *rows))
