"""Calibration of a posterior: ranks of truths among samples.

Three questions are put to the same samples: simulation-based calibration of each parameter
(Talts et al. 2018, arXiv 1804.06788), expected coverage of the regions of highest density
(Hermans et al. 2021, arXiv 2110.06581; by samples as in Deistler et al. 2022, arXiv 2210.04815)
and TARP (Lemos et al. 2023, arXiv 2302.03026). Each is the rank of one number among many, which
is uniform when the posterior is right. All functions work on arrays.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sbi.diagnostics import check_tarp, run_sbc, run_tarp
from scipy.stats import kstwo

from eorinfer.validation.uniformity import (
    COVERAGE,
    LEVEL,
    TARP,
    Effect,
    UniformityTest,
    Visible,
    effects,
    smallest_visible,
    uniformity_tests,
)

#: Chance that a right posterior's TARP curve deviates by more than what is called chance.
CHANCE = 0.05


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
    def tarp_steps(self) -> NDArray[np.float64]:
        """TARP's curve without bins (2 B + 2, 2), by the truths' ranks: credibility and expected coverage."""
        u = np.sort(self.fractions[TARP])
        credibility = np.concatenate([[0.0], np.repeat(u, 2), [1.0]])
        coverage = np.repeat(np.arange(len(u) + 1) / len(u), 2)
        return np.column_stack([credibility, coverage])

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
