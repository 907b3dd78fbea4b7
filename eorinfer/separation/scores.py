"""Score the separation of lines: peaks, power, correlation, brightness distribution and mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from eorinfer.separation.draw_scores import Draws, score_draws
from eorinfer.separation.peaks import Peaks, count, find_peaks, flat
from eorinfer.summaries.power import PowerSpectrum, default_edges
from simulators import Observable

#: Thresholds in standard deviations of the noise, and of the true map.
NOISE_SIGMAS, MAP_SIGMAS = (1.0, 2.0, 3.0, 3.5, 4.0, 5.0), (1.0, 2.0, 3.0, 4.0, 5.0)
#: Height of the true peaks sought at every threshold of a reconstruction, in standard deviations of the true map.
SOUGHT = 3.0
#: Recalls at which precisions are compared, and number of thresholds between which they are interpolated.
RECALLS, SWEEP = (0.25, 0.5, 0.75), 30
#: Number of bins of P(k), and of the brightness distribution.
BINS, LEVELS = 8, 60


@dataclass(frozen=True)
class Maps:
    """Known lines and their reconstructions.

    Attributes
    ----------
    true
        (N, L, *cells) true lines.
    made
        (N, L, *cells) reconstructed lines by method.
    noise
        (N, C, *cells) observed maps without the lines.
    channels
        Channel that each line was found in.
    training_mean
        (L,) mean intensities of the lines in training.
    draws
        Draws of the first method, whose mean P(k) is its estimate of P(k); None without draws.
    thresholds
        Of each line the thresholds of the first method's peaks, see `eorinfer.separation.calibration.peak_thresholds`.
    """

    true: NDArray[np.float32]
    made: dict[str, NDArray[np.float32]]
    noise: NDArray[np.float32]
    channels: tuple[int, ...]
    training_mean: NDArray[np.float64]
    draws: Draws | None = None
    thresholds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def score(maps: Maps, observable: Observable, lines: list[str], radius: float) -> dict[str, Any]:
    """Compute all scores of all methods, ready for JSON.

    Parameters
    ----------
    maps
        Maps to compare.
    observable
        Observable of the image, for lengths.
    lines
        Names of the lines.
    radius
        Peak radius in arcmin, or in pixels where the image has no field of view: a peak is the highest pixel within
        it, and two peaks closer than it are the same.

    Raises
    ------
    ValueError
        If the radius is less than a pixel.
    """
    cells = observable.cells
    pixel = 60 * observable.field_of_view / cells[0] or 1.0
    if radius < pixel:
        raise ValueError(f"a peak radius of {radius:g} arcmin is less than a pixel, {pixel:g} arcmin")
    lengths = observable.box_length if all(observable.cell_size) else tuple(float(n) for n in cells)
    spectrum = PowerSpectrum(cells, lengths, default_edges(cells, lengths, BINS).tolist())
    by_line: dict[str, Any] = {}
    for i, name in enumerate(lines):
        true, noise = maps.true[:, i], maps.noise[:, maps.channels[i]]
        made = {method: array[:, i] for method, array in maps.made.items()}
        draws = [] if maps.draws is None else [torch.from_numpy(draw[:, i]) for draw in maps.draws.lines]
        by_line[name] = {
            "sigma_map": float(true.std()),
            "sigma_noise": float(noise.std()),
            "mean": float(true.mean(dtype=float)),
            "rmse": {m: float((x - true).std(dtype=float) / true.std(dtype=float)) for m, x in made.items()},
            **_spectra(spectrum, true, noise, made, draws),
            **_peaks(true, noise, made, radius / pixel, maps.thresholds.get(name, {})),
            **_brightness(true, made),
            "mean_error": _means(true, made | {"training mean": np.full_like(true, maps.training_mean[i])}),
        }
    of_draws = (
        {} if maps.draws is None else {"of_draws": score_draws(maps.true, maps.draws, observable, spectrum, lines)}
    )
    return {
        **of_draws,
        "maps": len(maps.true),
        "radius": radius,
        "unit": observable.unit,
        "k": spectrum.k.tolist(),
        "sought": SOUGHT,
        "lines": by_line,
    }


def _spectra(
    spectrum: PowerSpectrum,
    true: NDArray[np.float32],
    noise: NDArray[np.float32],
    made: dict[str, NDArray[np.float32]],
    draws: list[torch.Tensor],
) -> dict[str, Any]:
    """Compute P(k) of the line and the noise, and for each method the ratio of P to the true one, and r(k).

    For comparison it includes the error of the mean P of the other maps, the best answer without the map itself.
    """
    x = torch.from_numpy(true)
    own, of_noise = spectrum(x).numpy(), spectrum(torch.from_numpy(noise)).numpy().mean(0)
    others = (own.sum(0) - own) / max(len(own) - 1, 1)
    out: dict[str, Any] = {
        "power": own.mean(0).tolist(),
        "noise_power": of_noise.tolist(),
        "power_without_map": _off(others / own - 1),
        "spectra": {},
    }
    for method, array in made.items():
        y = torch.from_numpy(array)
        power, cross = spectrum(y).numpy(), spectrum.cross(x, y).numpy()
        # A reconstruction without any power correlates with nothing.
        scale = np.sqrt(own * power)
        out["spectra"][method] = {
            "ratio": (power.mean(0) / own.mean(0)).tolist(),
            **_off(power / own - 1),
            "correlation": np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0).mean(0).tolist(),
        }
    if draws:
        power = np.mean([spectrum(draw).numpy() for draw in draws], axis=0)
        out["power_of_draws"] = {"ratio": (power.mean(0) / own.mean(0)).tolist(), **_off(power / own - 1)}
    # Bin in which the line is about as strong as the noise, by the ratio of powers, where it falls through that.
    if of_noise.min() > 0 and (ratio := own.mean(0) / of_noise).min() <= 1 <= ratio.max():
        out["equal"] = int(np.abs(np.log(ratio)).argmin())
    return out


def _peaks(
    true: NDArray[np.float32],
    noise: NDArray[np.float32],
    made: dict[str, NDArray[np.float32]],
    radius: float,
    thresholds: Mapping[str, float | None],
) -> dict[str, Any]:
    """Compute precision and recall at one threshold for both maps, at any threshold of a method, and at chosen ones."""
    true_peaks = [find_peaks(image, radius) for image in flat(true)]
    found = {method: [find_peaks(image, radius) for image in flat(array)] for method, array in made.items()}
    # Matches by chance: the peaks of one map's reconstruction compared with those of another map.
    first = next(iter(made))
    found["chance"] = found[first][1:] + found[first][:1]
    sigmas: list[tuple[str, float, tuple[float, ...]]] = [("map", float(true.std()), MAP_SIGMAS)]
    if noise.std() > 0:
        sigmas.append(("noise", float(noise.std()), NOISE_SIGMAS))
    out: dict[str, Any] = {"peaks": {}, "at_recall": {}}
    for method, peaks in found.items():
        out["peaks"][method] = [
            {"of": of, "sigmas": n, "true": c.true, "found": c.found, **c.rates()}
            for of, sigma, levels in sigmas
            for n in levels
            for c in [count(true_peaks, peaks, radius, n * sigma, n * sigma)]
        ]
        out["at_recall"][method] = _at_recalls(true_peaks, peaks, radius, SOUGHT * float(true.std()))
    out["at_threshold"] = {
        name: {"threshold": level} | count(true_peaks, found[first], radius, thresholds["sought"] or 0.0, level).rates()
        for name in ("best", "precise")
        if (level := thresholds.get(name)) is not None
    }
    return out


def _at_recalls(true: list[Peaks], found: list[Peaks], radius: float, sought: float) -> dict[str, Any]:
    """Compute the precision at given recalls of true peaks above `sought`; None where none reaches the recall."""
    heights = np.concatenate([peaks.height for peaks in found])
    levels = np.quantile(heights, np.linspace(1, 0, SWEEP)) if len(heights) else []
    counts = [count(true, found, radius, sought, np.nextafter(level, -np.inf)).rates() for level in levels]
    recall, precision = (np.array([c[name] for c in counts]) for name in ("recall", "precision"))
    if not len(recall) or not np.isfinite(recall).all():
        return {"precision": [None] * len(RECALLS), "recalls": list(RECALLS)}
    order = np.argsort(recall, kind="stable")
    at = [float(np.interp(r, recall[order], precision[order])) if r <= recall.max() else None for r in RECALLS]
    return {"precision": at, "recalls": list(RECALLS), "curve": np.stack([recall, precision], 1).tolist()}


def _brightness(true: NDArray[np.float32], made: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Compute histograms of brightness, and their distance from the true one in standard deviations of the map."""
    low, high = float(true.min()) - 2 * float(true.std()), float(true.max())
    edges = np.linspace(low, high, LEVELS + 1)
    out: dict[str, Any] = {"edges": edges.tolist(), "true": np.histogram(true, edges)[0].tolist()}
    for method, array in made.items():
        distance = wasserstein_distance(_thinned(true), _thinned(array)) / float(true.std())
        out[method] = {"counts": np.histogram(array, edges)[0].tolist(), "distance": float(distance)}
    return {"brightness": out}


def _thinned(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels, at most about 800,000 of them."""
    flat = maps.ravel()
    return flat[:: max(1, len(flat) // 400_000)]


def _off(errors: NDArray[np.floating]) -> dict[str, Any]:
    """Compute the 50% and 68% quantiles (...) of the sizes of relative errors (N, ...)."""
    half, most = np.quantile(np.abs(errors), [0.5, 0.68], axis=0).tolist()
    return {"off": half, "off_68": most}


def _means(true: NDArray[np.float32], made: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Compute the relative error of the mean intensity, map by map."""
    axes = tuple(range(1, true.ndim))
    own = true.mean(axes, dtype=float)
    off = {method: array.mean(axes, dtype=float) / own - 1 for method, array in made.items()}
    return {m: {"rms": float(np.sqrt(np.mean(x**2))), "bias": float(np.mean(x)), **_off(x)} for m, x in off.items()}
