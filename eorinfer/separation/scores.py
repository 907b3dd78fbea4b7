"""How well lines were separated: peaks, power, correlation, brightness distribution and mean."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from eorinfer.separation.peaks import Peaks, count, find_peaks
from eorinfer.summaries.power import PowerSpectrum, default_edges
from simulators import Observable

#: Thresholds in standard deviations of the noise, and of the true map.
NOISE_SIGMAS, MAP_SIGMAS = (1.0, 2.0, 3.0, 3.5, 4.0, 5.0), (1.0, 2.0, 3.0, 4.0, 5.0)
#: True peaks that a reconstruction is asked for at every threshold of its own, in standard deviations of the true map.
SOUGHT = 3.0
#: Recalls at which precisions are compared, and thresholds between which they are interpolated.
RECALLS, SWEEP = (0.25, 0.5, 0.75), 30
#: Bins of P(k), and of the brightness distribution.
BINS, LEVELS = 8, 60


@dataclass(frozen=True)
class Maps:
    """Known lines and what was made of them.

    Attributes
    ----------
    true
        (N, L, *cells)
    made
        Reconstructed maps (N, L, *cells) by method.
    noise
        (N, C, *cells): the observed maps without the lines.
    channels
        Channel that each line was found in.
    training_mean
        (L,) mean intensities of the lines in training.
    draws
        (D, N, L, *cells) of one method, whose mean P(k) is its answer to P(k); None without any.
    """

    true: NDArray[np.float32]
    made: dict[str, NDArray[np.float32]]
    noise: NDArray[np.float32]
    channels: tuple[int, ...]
    training_mean: NDArray[np.float64]
    draws: NDArray[np.float32] | None = None


def score(maps: Maps, observable: Observable, lines: list[str], radius: float) -> dict[str, Any]:
    """All scores of all methods, ready for JSON.

    Parameters
    ----------
    maps
        Maps to compare.
    observable
        Observable of the image, for lengths.
    lines
        Names of the lines.
    radius
        Peak radius in pixels: a peak is the highest pixel within it, and two peaks closer than it are the same.
    """
    cells = observable.cells
    lengths = observable.box_length if all(observable.cell_size) else tuple(float(n) for n in cells)
    spectrum = PowerSpectrum(cells, lengths, default_edges(cells, lengths, BINS).tolist())
    found: dict[str, Any] = {}
    for i, name in enumerate(lines):
        true, noise = maps.true[:, i], maps.noise[:, maps.channels[i]]
        made = {method: array[:, i] for method, array in maps.made.items()}
        draws = [] if maps.draws is None else [torch.from_numpy(draw[:, i]) for draw in maps.draws]
        found[name] = {
            "sigma_map": float(true.std()),
            "sigma_noise": float(noise.std()),
            "mean": float(true.mean(dtype=float)),
            **_spectra(spectrum, true, noise, made, draws),
            **_peaks(true, noise, made, radius),
            **_brightness(true, made),
            "mean_error": _means(true, made | {"training mean": np.full_like(true, maps.training_mean[i])}),
        }
    return {
        "maps": len(maps.true),
        "radius": radius,
        "unit": observable.unit,
        "k": spectrum.k.tolist(),
        "sought": SOUGHT,
        "lines": found,
    }


def _spectra(
    spectrum: PowerSpectrum, true: Any, noise: Any, made: dict[str, Any], draws: list[torch.Tensor]
) -> dict[str, Any]:
    """P(k) of the line and of the noise; of each method P over the true one, map by map and of means, and r(k).

    For comparison, how far off the mean P of the other maps is: what one would answer without looking at a map.
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
    # Where the line is as strong as the noise, on a logarithmic scale the nearest bin; none without noise.
    if of_noise.max() > 1e-9 * own.mean(0).max():
        out["equal"] = int(np.abs(np.log(own.mean(0) / of_noise)).argmin())
    return out


def _slices(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps (N, nx, ny), or slices of cubes (N, nx, ny, nz) as (N * nz, nx, ny)."""
    return maps if maps.ndim == 3 else np.moveaxis(maps, -1, 1).reshape(-1, *maps.shape[1:3])


def _peaks(true: Any, noise: Any, made: dict[str, Any], radius: float) -> dict[str, Any]:
    """Precision and recall at the same threshold in both maps, and as a method's own threshold varies."""
    wanted = [find_peaks(image, radius) for image in _slices(true)]
    found = {method: [find_peaks(image, radius) for image in _slices(array)] for method, array in made.items()}
    # What comes about by chance: the peaks of one map's reconstruction looked for in another map.
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
            for c in [count(wanted, peaks, radius, n * sigma, n * sigma)]
        ]
        out["at_recall"][method] = _at_recalls(wanted, peaks, radius, SOUGHT * float(true.std()))
    return out


def _at_recalls(true: list[Peaks], found: list[Peaks], radius: float, sought: float) -> dict[str, Any]:
    """Precision at given recalls of the true peaks above `sought`; None where no threshold reaches the recall."""
    heights = np.concatenate([peaks.height for peaks in found])
    if not len(heights):
        return {"precision": [None] * len(RECALLS), "recalls": list(RECALLS)}
    levels = np.quantile(heights, np.linspace(0, 1, SWEEP))
    counts = [count(true, found, radius, sought, np.nextafter(level, -np.inf)).rates() for level in levels[::-1]]
    recall, precision = (np.array([c[name] for c in counts]) for name in ("recall", "precision"))
    if not np.isfinite(recall).all():
        return {"precision": [None] * len(RECALLS), "recalls": list(RECALLS)}
    order = np.argsort(recall, kind="stable")
    at = [float(np.interp(r, recall[order], precision[order])) if r <= recall.max() else None for r in RECALLS]
    return {"precision": at, "recalls": list(RECALLS), "curve": np.stack([recall, precision], 1).tolist()}


def _brightness(true: Any, made: dict[str, Any]) -> dict[str, Any]:
    """Counts of pixels by brightness, and how far they are from the true ones, in standard deviations of the map."""
    low, high = float(true.min()) - 2 * float(true.std()), float(true.max())
    edges = np.linspace(low, high, LEVELS + 1)
    out: dict[str, Any] = {"edges": edges.tolist(), "true": np.histogram(true, edges)[0].tolist()}
    for method, array in made.items():
        distance = wasserstein_distance(_thinned(true), _thinned(array)) / float(true.std())
        out[method] = {"counts": np.histogram(array, edges)[0].tolist(), "distance": float(distance)}
    return {"brightness": out}


def _thinned(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels, at most some hundred thousand of them."""
    flat = maps.ravel()
    return flat[:: max(1, len(flat) // 400_000)]


def _off(errors: NDArray[np.floating]) -> dict[str, Any]:
    """Relative errors (N, ...) of maps: what half of them and 68% of them are within, (...)."""
    half, most = np.quantile(np.abs(errors), [0.5, 0.68], axis=0).tolist()
    return {"off": half, "off_68": most}


def _means(true: Any, made: dict[str, Any]) -> dict[str, Any]:
    """Relative error of the mean intensity, map by map."""
    axes = tuple(range(1, true.ndim))
    own = true.mean(axes, dtype=float)
    off = {method: array.mean(axes, dtype=float) / own - 1 for method, array in made.items()}
    return {m: {"rms": float(np.sqrt(np.mean(x**2))), "bias": float(np.mean(x)), **_off(x)} for m, x in off.items()}
