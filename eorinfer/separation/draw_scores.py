"""Score draws of lines as draws of a posterior: power, mean intensity, ranks of the truth, and sum with the noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kstest

from eorinfer.summaries.power import PowerSpectrum
from simulators import Observable

#: Share of the power that a beam leaves, below which a bin of k is beyond the beam.
BEAM = 0.01
#: Height of a bright pixel, in standard deviations of the true maps.
BRIGHT = 3.0
#: p-value, with Holm's correction for all ranks, below which ranks are not uniform.
LEVEL = 0.01


@dataclass(frozen=True)
class Draws:
    """Draws of lines in observed maps.

    Attributes
    ----------
    mean
        (N, L, *cells) posterior means.
    lines
        (D, N, L, *cells) draws.
    true_rest, rest
        What true lines (N, C, *cells) and those of draws (D, N, C, *cells) leave of the observed maps.
    """

    mean: NDArray[np.float32]
    lines: NDArray[np.float32]
    true_rest: NDArray[np.float32]
    rest: NDArray[np.float32]


def score_draws(
    true: NDArray[np.float32],
    draws: Draws,
    observable: Observable,
    spectrum: PowerSpectrum,
    lines: list[str],
    seed: int = 1,
) -> dict[str, Any]:
    """Compute the scores of draws, ready for JSON.

    Parameters
    ----------
    true
        (N, L, *cells) true lines.
    draws
        Draws and means of them.
    observable
        Observable of the image.
    spectrum
        Bins of P(k).
    lines
        Names of the lines.
    seed
        Seed of the order among equal ranks.

    Returns
    -------
    dict
        ``lines``, and for each ``power``, the ratio of the draws' mean P(k) to the true one, ``mean``, that of the mean
        intensity, ``r`` and ``rmse`` (in standard deviations of the line) of the posterior mean, and the p-values of
        the ranks, with ``p_holm`` the smallest of all after correction. ``above_beam`` tells which bins are not beyond
        the beam. ``rest`` is the rms of the rest of draws over that of the true one, None where there is none; ``sum``
        is that of draws over the root of the lines' summed variances.
    """
    rng = np.random.default_rng(seed)
    above = spectrum.k.numpy() <= beam_limit(observable)
    found: dict[str, Any] = {"draws": len(draws.lines), "above_beam": above.tolist(), "lines": {}}
    p_values: dict[str, float] = {}
    for i, name in enumerate(lines):
        x, mean, several = true[:, i], draws.mean[:, i], draws.lines[:, :, i]
        own = _power(spectrum, x)
        drawn = np.stack([_power(spectrum, draw) for draw in several])
        cells = tuple(range(1, x.ndim))
        level = float(x.mean(dtype=float)) + BRIGHT * float(x.std(dtype=float))
        statistics: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
            f"P{b}": (own[:, b], drawn[:, :, b]) for b in np.flatnonzero(above)
        } | {
            "map mean": (x.mean(cells, dtype=float), several.mean(tuple(c + 1 for c in cells), dtype=float)),
            "bright pixels": ((x > level).sum(cells), (several > level).sum(tuple(c + 1 for c in cells))),
        }
        p = {quantity: _uniformity(*values, rng=rng) for quantity, values in statistics.items()}
        p_values |= {f"{name} {quantity}": value for quantity, value in p.items()}
        a, b = torch.from_numpy(x), torch.from_numpy(mean)
        cross, power = spectrum.cross(a, b).numpy(), spectrum(b).numpy()
        found["lines"][name] = {
            "power": (drawn.mean((0, 1)) / own.mean(0)).tolist(),
            "mean": float(several.mean(dtype=float) / x.mean(dtype=float)),
            "r": (cross.mean(0) / np.sqrt(own.mean(0) * power.mean(0)).clip(np.finfo(float).tiny)).tolist(),
            "rmse": float((mean - x).std(dtype=float) / x.std(dtype=float)),
            "p": p,
        }
    worst, p_holm = _holm(p_values)
    true_rest, drawn_rest = (float(rest.std(dtype=float)) for rest in (draws.true_rest, draws.rest))
    signal = float(np.sqrt(sum(true[:, i].var(dtype=float) for i in range(len(lines)))))
    found |= {"worst_rank": worst, "p_holm": p_holm, "sum": drawn_rest / signal}
    found["rest"] = drawn_rest / true_rest if true_rest > 1e-5 * signal else None
    return found


def beam_limit(observable: Observable) -> float:
    """Compute the wavenumber in 1/Mpc beyond which the smoothing of a map leaves less than `BEAM` of the power.

    Beyond the Nyquist wavenumber, in the corners of Fourier space, there is too little as well.
    """
    size = observable.cell_size[0] or 1.0
    nyquist = np.pi / size
    if not observable.smoothing:
        return float(nyquist)
    pixel = 60 * observable.field_of_view / observable.cells[0]
    sigma = observable.smoothing / pixel * size
    return float(min(nyquist, np.sqrt(-np.log(BEAM)) / sigma))


def _power(spectrum: PowerSpectrum, maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Measure P(k) (N, K) of maps (N, *cells)."""
    power: NDArray[np.float64] = spectrum(torch.from_numpy(np.ascontiguousarray(maps))).double().numpy()
    return power


def _uniformity(true: NDArray[Any], draws: NDArray[Any], *, rng: np.random.Generator) -> float:
    """Test the ranks of true values (N,) among draws (D, N): the p-value of Kolmogorov and Smirnov.

    Equal values are put in random order, and steps between ranks are filled at random, so that the ranks of draws of
    a posterior are exactly uniform (Talts et al. 2018, arXiv 1804.06788).
    """
    below, equal = (draws < true).sum(0), (draws == true).sum(0)
    rank = below + rng.integers(0, equal + 1)
    return float(kstest((rank + rng.random(len(rank))) / (len(draws) + 1), "uniform").pvalue)


def _holm(p: dict[str, float]) -> tuple[str, float]:
    """Find the least uniform quantity, and its p-value with Holm's correction for all of them."""
    worst = min(p, key=p.__getitem__)
    return worst, min(1.0, len(p) * p[worst])
