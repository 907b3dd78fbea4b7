"""The calibration tests: they find what is wrong, leave alone what is right, and say what they can see."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import truncnorm
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.npe import batched as many
from eorinfer.npe.batched import Truncation, draw
from eorinfer.npe.ensemble import log_density
from eorinfer.validation.calibration import Calibration, calibrate, interval_coverage, recovery, sbc_ranks
from eorinfer.validation.sharpness import RelativeWidths
from eorinfer.validation.uniformity import LEVEL
from eorinfer.validation.verdict import calibration_content, effect_lines, verdict_line
from simulators import Parameter

NAMES = ["a", "b"]
PARAMETERS = tuple(Parameter(name, name, -3.0, 3.0, 0.0) for name in NAMES)
#: Standard deviation of the noise that hides theta from the toy's observer.
NOISE = 0.8


def gaussian(
    seed: int, width: float = 1.0, shift: float = 0.0, correlation: float = 0.0, truths: int = 300, n: int = 200
) -> Calibration:
    """Truths with a normal posterior of unit width, and samples of one that may be wrong."""
    rng = np.random.default_rng(seed)
    mean = 2 * rng.standard_normal((truths, 2))
    right = np.array([[1.0, 0.9], [0.9, 1.0]]) if correlation else np.eye(2)
    claimed = np.array([[1.0, correlation], [correlation, 1.0]])
    theta = mean + rng.standard_normal((truths, 2)) @ np.linalg.cholesky(right).T
    offset = rng.standard_normal((truths, n, 2)) @ np.linalg.cholesky(claimed).T
    samples = mean[:, None] + shift + width * offset

    def log_q(x: NDArray[np.float64]) -> NDArray[np.float64]:
        z = (x - shift) / width
        return -0.5 * np.einsum("...i,ij,...j", z, np.linalg.inv(claimed), z)

    return calibrate(NAMES, theta, samples, log_q(theta - mean), log_q(samples - mean[:, None]), seed)


def failed(result: Calibration) -> set[str]:
    return {test.quantity for test in result.tests if test.p_holm < LEVEL}


@pytest.mark.parametrize("seed", range(4))
def test_a_right_posterior_is_calibrated(seed: int) -> None:
    result = gaussian(seed)
    assert result.calibrated
    assert result.truths == 300
    assert abs(result.area_to_curve) < 0.03
    assert verdict_line(result).startswith("calibrated: smallest p-value ")
    assert "; with 300 test cases an error of -" in verdict_line(result)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"width": 0.75}, "a is too narrow, b is too narrow, regions of highest density hold the truth too seldom"),
        ({"width": 1.4}, "a is too wide, b is too wide, regions of highest density hold the truth too often"),
        ({"shift": 0.4}, "a is too high, b is too high"),
        ({"shift": -0.4}, "a is too low, b is too low"),
    ],
)
def test_what_is_wrong_is_found_and_named(error: dict[str, float], words: str) -> None:
    for seed in range(3):
        result = gaussian(seed, **error)
        assert not result.calibrated
        assert f"NOT calibrated: {words}" in verdict_line(result)
    if width := error.get("width"):
        assert (result.area_to_curve > 0) == (width > 1)


@pytest.mark.parametrize(("width", "shift"), [(0.9, 0.0), (1.2, 0.0), (0.8, -0.3), (0.5, 0.0), (0.25, 0.0), (0.1, 0.2)])
def test_the_size_of_an_error_is_said_with_its_band(width: float, shift: float) -> None:
    result = gaussian(5, width=width, shift=shift, truths=1000)
    for name in NAMES:
        effect = result.effects[name]
        # Truths beyond all samples say less: three of four, where the width is a tenth of the right one.
        assert 0.8 < effect.width_error / (width / np.sqrt(2 * 1000)) < (1.2 if width > 0.4 else 4)
        assert abs(effect.width - (width - 1)) < 4 * effect.width_error
        assert effect.shift is not None
        assert effect.shift_error == pytest.approx(np.sqrt((1 + shift**2 / 2) / 1000), rel=0.05 if width > 0.4 else 0.3)
        assert abs(effect.shift - shift) < 4 * effect.shift_error
    if not shift:
        whole = result.effects["coverage"]
        assert abs(whole.width - (width - 1)) < 4 * whole.width_error
        assert whole.width_error < result.effects["a"].width_error
    lines = list(effect_lines(result))
    assert len(lines) == 4
    if width == 0.9:
        assert re.match(r"a: widths \d+ ± 2% too narrow, mean 0\.\d\d ± 0\.03 σ too \w+ \(p = ", lines[0])


def test_tarp_sees_half_the_width_everywhere() -> None:
    """Its mean over credibilities does not: the curve of a wrong width crosses the diagonal."""
    for seed in range(3):
        narrow, right = gaussian(seed, width=0.5), gaussian(seed)
        for found in (narrow, right):
            steps = found.tarp_steps
            off = steps[:, 1] - steps[:, 0]
            assert off[np.abs(off).argmax()] == pytest.approx(found.tarp_deviation, abs=1e-12)
            np.testing.assert_array_equal(steps[[0, -1]], [[0, 0], [1, 1]])
        assert abs(narrow.tarp_deviation) > narrow.tarp_chance
        assert abs(right.tarp_deviation) < 1.2 * right.tarp_chance


def test_a_wrong_correlation_is_seen_beside_right_marginals() -> None:
    result = gaussian(1, correlation=-0.9)
    assert failed(result) & {"coverage", "tarp"}
    assert not failed(result) & set(NAMES)
    assert not failed(gaussian(1, correlation=0.9))


def test_a_flat_posterior_has_ties_and_is_calibrated() -> None:
    """All samples have the density of the truth: a network that has learned nothing is the prior."""
    rng = np.random.default_rng(1)
    theta, samples = rng.random((500, 2)), rng.random((500, 100, 2))
    result = calibrate(NAMES, theta, samples, np.zeros(500), np.zeros((500, 100)), seed=9)
    assert result.calibrated
    assert result.fractions["coverage"].std() == pytest.approx(1 / np.sqrt(12), rel=0.1)


def test_ranks_are_counts_of_smaller_samples() -> None:
    rng = np.random.default_rng(1)
    theta, samples = rng.random((30, 3)), rng.random((30, 50, 3))
    np.testing.assert_array_equal(sbc_ranks(theta, samples), (samples < theta[:, None]).sum(1))


def test_recovery() -> None:
    rng = np.random.default_rng(1)
    mean = 2 * rng.standard_normal((2000, 2))
    theta = mean + [1.0, 0.5] * rng.standard_normal((2000, 2))
    samples = mean[:, None] + [1.0, 0.5] * rng.standard_normal((2000, 300, 2))
    found = recovery(NAMES, theta, samples, np.array([2.0, 2.0]))
    assert found["a"]["rms_error_over_prior"] == pytest.approx(0.5, rel=0.05)
    assert found["b"]["std_over_prior"] == pytest.approx(0.25, rel=0.05)
    assert found["a"]["pull_std"] == pytest.approx(1.0, rel=0.05)
    assert abs(found["a"]["pull_mean"]) < 0.1
    assert found["b"]["correlation"] > 0.95
    for level in (0.68, 0.95):
        np.testing.assert_allclose(interval_coverage(theta, samples, level), level, atol=0.03)


def test_widths_over_a_reference() -> None:
    rng = np.random.default_rng(1)
    ours = 2 * rng.standard_normal((5, 4000, 2))
    references = [Samples.unweighted(rng.standard_normal((4000, 2)), PARAMETERS, "exact") for _ in range(5)]
    widths = RelativeWidths.from_samples(ours, references, [False] * 4 + [True])
    content = widths.content(NAMES)
    assert content["observations"] == 5
    assert content["short_chains"] == 1
    for name in NAMES:
        assert content["std"][name]["median"] == pytest.approx(2.0, rel=0.05)
        assert content["interval_68"][name]["median"] == pytest.approx(2.0, rel=0.05)
    assert content["volume"]["median"] == pytest.approx(4.0, rel=0.05)


class ToyNetwork:
    """The exact posterior of theta seen through normal noise, under the flat prior of a box."""

    low = torch.full((2,), -3.0)

    def sample(self, n: int, features: Tensor) -> Tensor:
        x = features.numpy()
        u = torch.rand(n, *x.shape, dtype=torch.float64).numpy()
        return torch.from_numpy(truncnorm.ppf(u, (-3 - x) / NOISE, (3 - x) / NOISE, x, NOISE))

    def log_prob(self, theta: Tensor, features: Tensor) -> Tensor:
        x = features.numpy()
        low, high = (-3 - x) / NOISE, (3 - x) / NOISE
        return torch.from_numpy(truncnorm.logpdf(theta.numpy(), low, high, x, NOISE).sum(-1))


@dataclass
class Toy:
    """As much of a posterior as `draw` needs; its region is a disc, or the right half of the box."""

    prior = Prior(PARAMETERS)
    networks = (ToyNetwork(),)
    regions: tuple[Any, ...] = ("a disc",)
    radius: float = 1.2

    def contains(self, theta: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(np.linalg.norm(theta - [1.0, 0.5], axis=-1) < self.radius)


def truncated(toy: Toy, seed: int, truths: int = 400) -> tuple[NDArray[np.float64], list[Tensor], Truncation]:
    """Truths from the prior inside the region, what is observed of them, and that prior."""
    rng = np.random.default_rng(seed)
    theta = toy.prior.sample(400_000, rng)
    inside = theta[toy.contains(theta)]
    x = inside[:truths] + NOISE * rng.standard_normal((truths, 2))
    return inside[:truths], [torch.from_numpy(x)], Truncation(inside[truths : truths + 8000], len(inside) / 400_000)


@pytest.mark.parametrize("tries", [50, 1])
@pytest.mark.job
def test_a_right_posterior_is_calibrated_inside_a_truncated_prior(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rejection, and by resampling where that would take too long."""
    monkeypatch.setattr(many, "TRIES", tries)
    toy: Any = Toy()
    theta, read, truncation = truncated(toy, 1)
    draws = draw(toy, read, 100, 2, truncation)
    assert draws.pooled.all() == (tries == 1)
    assert toy.contains(draws.values.reshape(-1, 2)).all()
    log_q = [log_density(toy.networks, t, read) for t in (theta[:, None], draws.values)]
    result = calibrate(NAMES, theta / 3, draws.values / 3, log_q[0][:, 0], log_q[1], 1)
    assert result.calibrated, result.worst

    untruncated = draw(Toy(regions=()), read, 100, 2).values  # type: ignore[arg-type]
    q = log_density(toy.networks, untruncated, read)
    wrong = calibrate(NAMES, theta / 3, untruncated / 3, log_q[0][:, 0], q, 1)
    assert not wrong.calibrated, "samples outside of the region are not the posterior under the truncated prior"


def test_the_mass_inside_normalises_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejection and resampling agree on the share of the mass that is inside the region."""
    toy: Any = Toy()
    _, read, truncation = truncated(toy, 3, truths=30)
    rejected = draw(toy, read, 2000, 1, truncation)
    monkeypatch.setattr(many, "TRIES", 1)
    resampled = draw(toy, read, 2000, 1, truncation)
    assert resampled.pooled.any()
    np.testing.assert_allclose(resampled.share, rejected.share, rtol=0.15)
    assert (draw(Toy(regions=()), read, 10, 1).share == 1).all()  # type: ignore[arg-type]


def test_drawing_leaves_torchs_random_state_alone_and_repeats() -> None:
    toy: Any = Toy()
    _, read, truncation = truncated(toy, 3, truths=5)
    state = torch.get_rng_state()
    first, again, other = (draw(toy, read, 50, seed, truncation).values for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize(("width", "more"), [(0.5, -1), (2.0, 1)])
def test_expected_coverage_is_above_credibility_where_a_posterior_is_too_wide(width: float, more: int) -> None:
    content = calibration_content(gaussian(1, width=width))["expected_coverage"]
    credibility, coverage = (np.array(content[name]) for name in ("credibility", "coverage"))
    middle = (credibility > 0.2) & (credibility < 0.8)
    assert (more * (coverage - credibility)[middle] > 0.05).all()
    # Of a posterior in two dimensions: the region of credibility c ends at r^2 = -2 ln(1 - c) of its own widths.
    assert coverage == pytest.approx(1 - (1 - credibility) ** width**2, abs=0.08)
