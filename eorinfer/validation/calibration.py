"""Calibration of a posterior: ranks of truths among samples, their uniformity, and the errors that would show.

Three questions are put to the same samples: simulation-based calibration of each parameter
(Talts et al. 2018, arXiv 1804.06788), expected coverage of the regions of highest density
(Hermans et al. 2021, arXiv 2110.06581; by samples as in Deistler et al. 2022, arXiv 2210.04815)
and TARP (Lemos et al. 2023, arXiv 2302.03026). Each is the rank of one number among many, which
is uniform when the posterior is right. All functions work on arrays.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.diagnostics import check_tarp, run_sbc, run_tarp
from sbi.diagnostics.sbc import check_uniformity_frequentist
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, kstwo

#: Chance of calling a posterior that is right uncalibrated, all tests together.
LEVEL = 0.01
#: Chance that the smallest visible miscalibration is seen with.
POWER = 0.8
#: Chance that a right posterior's TARP curve deviates by more than what is called chance.
CHANCE = 0.05
#: Simulated validations from which the power is computed.
REPEATS = 400
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
        error = f"{100 * self.width_error:.0f}"
        words = f"widths {100 * abs(self.width):.0f} ± {error}% too {'narrow' if self.width < 0 else 'wide'}"
        if self.shift is not None:
            side = "low" if self.shift < 0 else "high"
            words += f", mean {abs(self.shift):.2f} ± {self.shift_error:.2f} σ too {side}"
        return words


@dataclass(frozen=True)
class Calibration:
    """Result of the tests.

    Attributes
    ----------
    fractions
        Share of samples below the truth (B,), for each quantity, with the steps between
        ranks filled at random, so that a posterior that is right gives exactly uniform ones.
        A small ``"coverage"`` means that the truth has low density.
    tests
        All tests.
    visible
        Smallest errors that the tests could have found.
    tarp
        (K, 2) credibility and expected coverage, from sbi's `run_tarp`.
    area_to_curve
        sbi's `check_tarp`: above 0 when the posterior is too wide, below when it is too narrow.
    effects
        Size of the error that the ranks show, for each quantity but ``"tarp"``.
    """

    fractions: dict[str, NDArray[np.float64]]
    tests: tuple[UniformityTest, ...]
    visible: Visible
    tarp: NDArray[np.float64]
    area_to_curve: float
    effects: dict[str, Effect]

    @property
    def tarp_deviation(self) -> float:
        """Largest deviation of TARP's curve, expected coverage less credibility, with its sign.

        A mean over all credibilities would be near zero for a posterior that is too narrow, or too wide: the curve
        crosses the diagonal in the middle.
        """
        u = np.sort(self.fractions[TARP])
        steps = np.arange(len(u) + 1) / len(u)
        above, below = (steps[1:] - u).max(), (u - steps[:-1]).max()
        return float(above if above > below else -below)

    @property
    def tarp_chance(self) -> float:
        """Deviation that TARP's curve of a right posterior stays within 95 times of 100 (Kolmogorov-Smirnov)."""
        return float(kstwo.isf(CHANCE, self.truths))

    @property
    def calibrated(self) -> bool:
        """True if no test fails at `LEVEL`, after Holm's correction."""
        return self.worst.p_holm >= LEVEL

    @property
    def worst(self) -> UniformityTest:
        """Test with the smallest p-value."""
        return min(self.tests, key=lambda test: test.p)

    @property
    def truths(self) -> int:
        """Number of truths."""
        return len(self.fractions[TARP])


def calibrate(
    names: list[str],
    unit_theta: NDArray[np.float64],
    unit_samples: NDArray[np.float64],
    log_q_theta: NDArray[np.float64],
    log_q_samples: NDArray[np.float64],
    seed: int,
) -> Calibration:
    """Test samples of B posteriors against the truths that their observations were made with.

    Parameters
    ----------
    names
        Names of the P parameters.
    unit_theta
        (B, P) truths, in units of the prior's box, so that no parameter outweighs another in TARP.
    unit_samples
        (B, n, P), in the same units.
    log_q_theta, log_q_samples
        Log density of each posterior (B,) at the truth and (B, n) at its samples, up to a constant of each. A truth
        whose density is no number, or zero, has rank 0.
    seed
        Seed of TARP's reference points and of filling the steps between ranks.
    """
    rng = np.random.default_rng(seed)
    n = unit_samples.shape[1]
    log_q_theta, log_q_samples = _ordered(log_q_theta, log_q_samples)
    # Independent of the observations, as expected coverage asks; inside the box that the truths span.
    low, high = unit_theta.min(0), unit_theta.max(0)
    references = low + (high - low) * rng.random(unit_theta.shape)
    distance = np.linalg.norm(unit_theta - references, axis=-1)
    distances = np.linalg.norm(unit_samples - references[:, None], axis=-1)
    scalars = np.concatenate([unit_theta, log_q_theta[:, None], distance[:, None]], axis=-1)
    drawn = np.concatenate([unit_samples, log_q_samples[..., None], distances[..., None]], axis=-1)
    below, above = sbc_ranks(scalars, drawn), sbc_ranks(-scalars, -drawn)
    # A posterior that is flat gives ties in its density: the truth is anywhere among them.
    filled = (below + rng.random(below.shape) * (n - above - below + 1)) / (n + 1)
    fractions = dict(zip([*names, COVERAGE, TARP], filled.T, strict=True))
    tests = uniformity_tests(fractions)
    curve, area = _tarp(unit_theta, unit_samples, references)
    visible = smallest_visible(len(unit_theta), LEVEL / len(tests), seed)
    return Calibration(fractions, tests, visible, curve, area, effects(fractions, len(names), n))


def _ordered(
    log_q_theta: NDArray[np.float64], log_q_samples: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log densities in the same order, all finite: sbi would drop the truths that have none."""
    theta, samples = np.isfinite(log_q_theta), np.isfinite(log_q_samples)
    # Of each posterior by itself: its constant is its own.
    lowest = np.minimum(
        np.where(samples, log_q_samples, np.inf).min(1), np.where(theta, log_q_theta, np.inf), dtype=np.float64
    )
    lowest = np.where(np.isfinite(lowest), lowest, 0.0)
    # A unit lower, and still lower where the numbers are so large that a unit is lost in them.
    step = 1.0 + 1e-6 * np.abs(lowest)
    return (
        np.where(theta, log_q_theta, lowest - 2 * step),
        np.where(samples, log_q_samples, (lowest - step)[:, None]),
    )


def sbc_ranks(theta: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count how many of the samples (B, n, Q) are below theta (B, Q) in each column, by sbi's `run_sbc`: (B, Q)."""
    truths, drawn = torch.from_numpy(theta), _Drawn(torch.from_numpy(samples))
    with _without_advice():
        ranks, _ = run_sbc(truths, truths, drawn, samples.shape[1], show_progress_bar=False)
    return np.asarray(ranks.numpy(), np.float64)


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
    at has, squared, the mean P / w² in P dimensions; w is then that of all parameters together.

    Parameters
    ----------
    fractions
        Share of samples below the truth (B,), for each quantity.
    parameters
        P.
    samples
        Number of samples that the shares were counted with: no rank lies further out than half a sample.
    """
    edge = 0.5 / (samples + 1)
    found = {}
    for quantity, u in fractions.items():
        inside = np.clip(u, edge, 1 - edge)
        if quantity == COVERAGE:
            squared = chi2.isf(inside, parameters)
            mean, spread = squared.mean() / parameters, squared.std() / parameters
            width = 1 / np.sqrt(mean)
            found[quantity] = Effect(float(width - 1), float(0.5 * width * spread / mean / np.sqrt(len(u))))
        elif quantity != TARP:
            z = ndtri(inside)
            width = 1 / z.std(ddof=1)
            # Of a standard deviation, by the fourth moment: ranks of a wrong posterior are not normal.
            kurtosis = np.mean(((z - z.mean()) / z.std()) ** 4)
            width_error = width * np.sqrt(max(kurtosis - 1, 0.0) / (4 * len(z)))
            shift_error = 1 / np.sqrt(len(z))
            found[quantity] = Effect(float(width - 1), float(width_error), float(-z.mean() * width), float(shift_error))
    return found


def kolmogorov_smirnov(u: NDArray[np.float64]) -> float:
    """p-value of u (B,) being uniform in [0, 1], by sbi: any difference, best seen in the middle."""
    return float(check_uniformity_frequentist(torch.from_numpy(u.copy())[:, None], 1)[0])


def mean_and_spread(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-value (...) of u (..., B) being uniform, against another mean and another spread.

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


def recovery(
    names: list[str], theta: NDArray[np.float64], samples: NDArray[np.float64], prior_std: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Compare means and widths with the truths, parameter by parameter.

    Parameters
    ----------
    names
        Names of the P parameters.
    theta, samples
        (B, P) truths and (B, n, P) samples.
    prior_std
        (P,) standard deviations of what the truths were drawn from.

    Returns
    -------
    dict
        Scores of each parameter: root mean square error and median standard deviation in units of the
        prior's, mean and standard deviation of (mean - truth) / std, correlation of mean and
        truth, and the share of truths inside the central 68% and 95%.
    """
    mean, std = samples.mean(1), samples.std(1, ddof=1)
    pull = (mean - theta) / std
    rms = np.sqrt(np.mean((mean - theta) ** 2, axis=0))
    inside = {level: interval_coverage(theta, samples, level) for level in (0.68, 0.95)}
    return {
        name: {
            "rms_error_over_prior": float(rms[i] / prior_std[i]),
            "std_over_prior": float(np.median(std[:, i]) / prior_std[i]),
            "pull_mean": float(pull[:, i].mean()),
            "pull_std": float(pull[:, i].std(ddof=1)),
            "correlation": float(np.corrcoef(mean[:, i], theta[:, i])[0, 1]),
            "inside_68": float(inside[0.68][i]),
            "inside_95": float(inside[0.95][i]),
        }
        for i, name in enumerate(names)
    }


def interval_coverage(theta: NDArray[np.float64], samples: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Share (P,) of truths (B, P) inside the central interval of their samples (B, n, P)."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return np.asarray(((theta >= low) & (theta <= high)).mean(0))


def _tarp(
    theta: NDArray[np.float64], samples: NDArray[np.float64], references: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Curve (K, 2) of credibility and expected coverage, by sbi, and its area to the diagonal."""
    truths = torch.from_numpy(theta)
    with _without_advice():
        coverage, credibility = run_tarp(
            truths,
            truths,
            _Drawn(torch.from_numpy(samples)),
            torch.from_numpy(references),
            num_posterior_samples=samples.shape[1],
            show_progress_bar=False,
            num_bins=max(2, len(theta) // 10),
            z_score_theta=False,
        )
        # Its p-value compares the curves as if their bins were draws; ours are of the ranks.
        area, _ = check_tarp(coverage, credibility)
    return torch.stack([credibility, coverage], dim=1).double().numpy(), float(area)


def _smallest(power: Callable[[float], float], most: float, otherwise: float) -> float:
    """Find the smallest error up to `most` that is seen with a chance of `POWER`, by bisection."""
    if power(most) < POWER:
        return otherwise
    low, high = 0.0, most
    while high - low > 1e-2 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


class _Drawn:
    """Samples (B, n, Q) that are there already, where sbi asks a posterior for them."""

    def __init__(self, samples: torch.Tensor) -> None:
        self._samples = samples

    def sample_batched(self, shape: torch.Size, x: torch.Tensor, show_progress_bars: bool) -> torch.Tensor:
        """Give the samples (n, B, Q)."""
        return self._samples.transpose(0, 1)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence sbi's warning on fewer than 100 truths, and scipy's on a p-value that is not used.

    `Visible` says what the truths are worth.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ks_2samp")
        warnings.filterwarnings("ignore", message="Number of (SBC|TARP|posterior) samples")
        yield
