"""Uniform ranks: tests that ranks of truths are uniform, the errors that would show, and the size of those that do.

A rank of a truth among samples of its posterior, as a share, is uniform in [0, 1] when the posterior is right. All
functions work on arrays of such shares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.diagnostics.sbc import check_uniformity_frequentist
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, kstwo, norm

#: Chance of calling a posterior that is right uncalibrated, all tests together.
LEVEL = 0.01
#: Chance that the smallest visible miscalibration is seen with.
POWER = 0.8
#: Simulated validations from which the power is computed.
REPEATS = 400
#: Largest error of a mean, in right standard deviations, and of the logarithm of a width.
FARTHEST = 7.0
COVERAGE, TARP = "coverage", "tarp"
TESTS = ("kolmogorov-smirnov", "mean and spread")


@dataclass(frozen=True)
class UniformityTest:
    """Test of one rank.

    Attributes
    ----------
    quantity
        Name of a parameter, ``"coverage"`` or ``"tarp"``.
    test
        Name of the test, one of `TESTS`.
    p
        p-value of this test alone.
    p_holm
        p-value with Holm's correction for all tests of the validation.
    """

    quantity: str
    test: str
    p: float
    p_holm: float


@dataclass(frozen=True)
class Visible:
    """Smallest errors in one parameter that would have been found with a chance of `POWER`.

    Attributes
    ----------
    too_narrow
        Share by which a width is below the right one; 1 where no such error would be found.
    too_wide
        Share by which a width is above it; infinite where none would be found.
    shift
        Error of the mean, in standard deviations; infinite if none would be found.
    """

    too_narrow: float
    too_wide: float
    shift: float


@dataclass(frozen=True)
class Effect:
    """Size of a posterior's error, with standard errors.

    Attributes
    ----------
    width, width_error
        Widths over the right ones, less 1: -0.04 means 4% too narrow.
    shift, shift_error
        Error of the mean in right standard deviations; None for the regions of highest density, which have no side.
    """

    width: float
    width_error: float
    shift: float | None = None
    shift_error: float | None = None

    def line(self) -> str:
        """Say it in plain words, as ``widths 4 ± 3% too narrow, mean 0.10 ± 0.08 σ too high``."""
        side = "" if self.shift is None else f"too {'low' if self.shift < 0 else 'high'}"
        if self.shift is not None and abs(self.shift) > 0.999 * FARTHEST:  # where the search ended
            return f"mean more than {FARTHEST:g} σ {side}, so that widths cannot be told"
        error = f"{100 * self.width_error:.0f}"
        words = f"widths {100 * abs(self.width):.0f} ± {error}% too {'narrow' if self.width < 0 else 'wide'}"
        if self.shift is not None:
            words += f", mean {abs(self.shift):.2f} ± {self.shift_error:.2f} σ {side}"
        return words


def uniformity_tests(fractions: dict[str, NDArray[np.float64]]) -> tuple[UniformityTest, ...]:
    """Two tests of each quantity's fractions (B,), with Holm's correction over all of them."""
    p: list[float] = []
    for u in fractions.values():
        p += [kolmogorov_smirnov(u), float(mean_and_spread(u))]
    named = [(quantity, test) for quantity in fractions for test in TESTS]
    corrected = holm(np.array(p))
    return tuple(UniformityTest(*name, a, float(b)) for name, a, b in zip(named, p, corrected, strict=True))


def effects(fractions: dict[str, NDArray[np.float64]], parameters: int, samples: int) -> dict[str, Effect]:
    """Turn ranks into errors of width and mean, as a normal posterior would have them.

    The ranks u of a normal posterior of width w and mean m, in right standard deviations, have normal quantiles of
    standard deviation 1 / w and mean -m / w. The distance from the peak that a truth's region of highest density ends
    at has, squared, the mean P / w² in P dimensions; w is then that of all parameters together. Both are of largest
    likelihood. A truth beyond all samples counts as one that lies anywhere beyond them (a censored value): taken as
    the last sample's, it would hide how much too narrow a posterior is. Errors hold for other shapes too (Huber 1967).

    Parameters
    ----------
    fractions
        Share of samples below the truth (B,), for each quantity.
    parameters
        P.
    samples
        Number of samples that the shares were counted with.
    """
    edge = 1 / (samples + 1)
    low, high = ndtri(edge), ndtri(1 - edge)
    near, far = chi2.isf([1 - edge, edge], parameters)
    found = {}
    for quantity, u in fractions.items():
        inside = np.clip(u, edge / 2, 1 - edge / 2)
        if quantity == COVERAGE:
            squared = chi2.isf(inside, parameters)
            start = [-0.5 * np.log(squared.mean() / parameters)]
            (log_w,), (error,) = _censored(
                lambda p: chi2(parameters, scale=np.exp(-2 * p[0])), squared, near, far, np.array(start)
            )
            found[quantity] = Effect(float(np.expm1(log_w)), float(np.exp(log_w) * error))
        elif quantity != TARP:
            z = ndtri(inside)
            w = 1 / max(z.std(ddof=1), 1e-3)
            (log_w, m), (error, shift_error) = _censored(
                lambda p: norm(-p[1] * np.exp(-p[0]), np.exp(-p[0])), z, low, high, np.array([np.log(w), -z.mean() * w])
            )
            width, width_error = float(np.expm1(log_w)), float(np.exp(log_w) * error)
            found[quantity] = Effect(width, width_error, float(m), float(shift_error))
    return found


def _censored(
    family: Callable[[NDArray[np.float64]], Any],
    x: NDArray[np.float64],
    low: float,
    high: float,
    start: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a distribution to values x (B,), of which those outside of [low, high] lie anywhere beyond their end.

    Returns
    -------
    parameters, errors
        Of largest likelihood (p,), and their standard errors (p,), from the scatter of its slopes.
    """

    def terms(p: NDArray[np.float64]) -> NDArray[np.float64]:
        d = family(p)
        return np.where(x < low, d.logcdf(low), np.where(x > high, d.logsf(high), d.logpdf(x)))

    bounds = [(-FARTHEST, FARTHEST)] * len(start)
    start = np.clip(start, -FARTHEST, FARTHEST)
    best = minimize(lambda p: -terms(p).mean(), start, method="L-BFGS-B", bounds=bounds).x
    steps = 1e-4 * np.eye(len(start))

    def slopes(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([(terms(p + step) - terms(p - step)) / 2e-4 for step in steps])

    curvature = np.array([(slopes(best + step).mean(1) - slopes(best - step).mean(1)) / 2e-4 for step in steps])
    inverse, own = np.linalg.pinv(curvature), slopes(best)
    return best, np.sqrt(np.diag(inverse @ (own @ own.T) @ inverse.T)) / len(x)


def kolmogorov_smirnov(u: NDArray[np.float64]) -> float:
    """Compute the p-value of u (B,) being uniform in [0, 1], by sbi: any difference, best seen in the middle."""
    return float(check_uniformity_frequentist(torch.from_numpy(u.copy())[:, None], 1)[0])


def mean_and_spread(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the p-value (...) of u (..., B) being uniform, against another mean and another spread.

    Neyman's smooth test of order two (Neyman 1937; Rayner & Best 1989): the means of the first two
    Legendre polynomials, each standard normal. A posterior that is off, too narrow or too wide moves
    just these; Kolmogorov-Smirnov sees only errors of the width that are nearly twice as large.
    """
    x = 2 * u - 1
    first = (np.sqrt(3.0) * x).mean(-1)
    second = (np.sqrt(5.0) * (1.5 * x**2 - 0.5)).mean(-1)
    return np.asarray(chi2.sf(u.shape[-1] * (first**2 + second**2), 2))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's (1979) step-down correction: p-values (m,) to compare with the level of all m together."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def smallest_visible(truths: int, level: float, seed: int) -> Visible:
    """Find the smallest errors that this number of truths shows at this level with a chance of `POWER`.

    Computed for a normal posterior, by simulating `REPEATS` validations of it.

    Parameters
    ----------
    truths
        B.
    level
        Level of one test: that of all tests divided by their number, Holm's first and strictest step.
    seed
        Seed of the simulated truths.
    """
    z = np.sort(np.random.default_rng(seed).standard_normal((REPEATS, truths)), axis=-1)
    steps = np.arange(truths + 1) / truths
    critical = kstwo.isf(level, truths)

    def power(u: NDArray[np.float64]) -> float:
        """Share of the validations (REPEATS, B), sorted, that fail one of the two tests."""
        distance = np.maximum((steps[1:] - u).max(-1), (u - steps[:-1]).max(-1))
        return float(np.mean((distance > critical) | (mean_and_spread(u) < level)))

    # A posterior of width w and mean m, in true standard deviations, has ranks ndtr((z - m) / w).
    return Visible(
        too_narrow=_smallest(lambda share: power(ndtr(z / (1 - share))), 0.999, 1.0),
        too_wide=_smallest(lambda share: power(ndtr(z / (1 + share))), 20.0, np.inf),
        shift=_smallest(lambda shift: power(ndtr(z - shift)), 10.0, np.inf),
    )


def symptom(quantity: str, u: NDArray[np.float64]) -> str:
    """Name what is wrong with a posterior, in plain words, from the fractions (B,) of one quantity."""
    x = 2 * u - 1
    off, spread = np.sqrt(3.0) * x.mean(), np.sqrt(5.0) * (1.5 * x**2 - 0.5).mean()
    if quantity == COVERAGE:
        if abs(spread) > abs(off):
            return "the shape is off (coverage of the regions of highest density)"
        return f"regions of highest density hold the truth too {'seldom' if off < 0 else 'often'}"
    if quantity == TARP:
        return "expected coverage by TARP is off"
    if abs(spread) > abs(off):
        return f"{quantity} is too {'narrow' if spread > 0 else 'wide'}"
    return f"{quantity} is too {'low' if off > 0 else 'high'}"


def _smallest(power: Callable[[float], float], most: float, otherwise: float) -> float:
    """Find the smallest error up to `most` that is seen with a chance of `POWER`, by bisection."""
    if power(most) < POWER:
        return otherwise
    low, high = 0.0, most
    while high - low > 1e-2 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
