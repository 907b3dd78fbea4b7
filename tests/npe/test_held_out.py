"""Coverage on held-out rows is right for a posterior that is right, and low for one that is too narrow."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eorinfer.core.prior import Prior
from eorinfer.npe.held_out import HeldOutCoverage, after_training, find_widening, held_out_coverage, too_few
from simulators import Parameter

PRIOR = Prior((Parameter("a", "a", -9.0, 9.0, 0.0), Parameter("b", "b", -9.0, 9.0, 0.0)))


class Normal:
    """Posterior N(x, width) of each parameter, drawn as the networks of this package are."""

    low = torch.zeros(2)

    def __init__(self, width: float) -> None:
        self.width, self.widening = width, 1.0

    def sample(self, n: int, read: torch.Tensor) -> torch.Tensor:
        return read[None] + self.width * self.widening * torch.randn(n, *read.shape, dtype=torch.float64)

    def log_prob(self, theta: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        width = self.width * self.widening
        return (-0.5 * ((theta - read[None]) / width).square() - np.log(width)).sum(-1)


class Held:
    """Rows whose cube (1, 2) is theta plus noise of one."""

    def __init__(self, rows: int, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.theta = torch.from_numpy(rng.uniform(-3, 3, (rows, 2)))
        self.x = self.theta + torch.from_numpy(rng.standard_normal((rows, 2)))

    def __getitems__(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.theta[rows], self.x[rows]


def found(width: float, rows: int, inside: Any = PRIOR.contains) -> HeldOutCoverage | None:
    posterior: Any = SimpleNamespace(prior=PRIOR, networks=[Normal(width)], contains=inside, read=lambda x: [x])
    held: Any = Held(rows)
    survey: Any = lambda clean, generator: clean  # noqa: E731
    return held_out_coverage([(posterior, held)], survey, 1)


@pytest.mark.parametrize(("width", "expected"), [(1.0, (0.68, 0.95)), (0.5, (0.38, 0.67))])
def test_coverage_of_a_known_posterior(width: float, expected: tuple[float, float]) -> None:
    coverage = found(width, 250)
    assert coverage is not None
    assert coverage.rows == 250
    for shares in coverage.inside.values():
        np.testing.assert_allclose(shares, expected, atol=0.09)
    assert coverage.line().startswith(
        "250 held-out rows that chose nothing: the central 68% and 95% hold the truth in a "
    )
    assert "(± 3 and 1 points by chance)" in coverage.line()


@pytest.mark.parametrize(("width", "expected"), [(0.5, 2.0), (0.8, 1.25), (1.0, 1.0), (1.6, 1.0)])
def test_widths_that_are_too_small_are_widened_and_no_others(width: float, expected: float) -> None:
    posterior: Any = SimpleNamespace(prior=PRIOR, networks=[Normal(width)], contains=PRIOR.contains, read=lambda x: [x])
    survey: Any = lambda clean, generator: clean  # noqa: E731
    held: Any = Held(600)
    assert find_widening([(posterior, held)], survey, 1) == pytest.approx(expected, rel=0.06)
    assert posterior.networks[0].widening == 1.0, "the posterior is left as it is"
    few: Any = Held(9)
    assert find_widening([(posterior, few)], survey, 1) == 1.0
    _, lines = after_training([(posterior, held, held)], survey, 1, np.arange(200, dtype=np.uint64), True)
    assert posterior.networks[0].widening == pytest.approx(expected, rel=0.06)
    assert ("all widths are multiplied by" in lines[0]) == (posterior.networks[0].widening > 1)


@pytest.mark.parametrize(("width", "share"), [(1.0, (0.0, 0.1)), (0.8, (0.9, 1.0))])
def test_chance_alone_widens_nothing(width: float, share: tuple[float, float]) -> None:
    posterior: Any = SimpleNamespace(prior=PRIOR, networks=[Normal(width)], contains=PRIOR.contains, read=lambda x: [x])
    survey: Any = lambda clean, generator: clean  # noqa: E731
    several: list[Any] = [Held(90, seed) for seed in range(30)]
    widened = np.mean([find_widening([(posterior, held)], survey, 1) > 1 for held in several])
    assert share[0] <= widened <= share[1]


def test_few_rows_say_nothing_and_only_rows_inside_count() -> None:
    assert found(1.0, 9) is None
    half = found(1.0, 200, lambda theta: theta[:, 0] > 0)
    assert half is not None
    assert 60 < half.rows < 110
    assert half.inside["b"][1] > 0.85


def test_what_is_said_after_a_training() -> None:
    posterior: Any = SimpleNamespace(prior=PRIOR, networks=[Normal(1.0)], contains=PRIOR.contains, read=lambda x: [x])
    held: Any = Held(50)
    survey: Any = lambda clean, generator: clean  # noqa: E731
    facts, lines = after_training([(posterior, held, held)], survey, 1, np.arange(60, dtype=np.uint64), True)
    assert facts["realisations"] == 60
    assert facts["held_out"]["rows"] == 50
    assert [line.split()[0] for line in lines] == ["50", "WARNING:"]
    posterior.networks = [Normal(float("nan"))]
    facts, lines = after_training([(posterior, held, held)], survey, 1, np.arange(200, dtype=np.uint64), True)
    assert facts["held_out"] is None
    assert "not known: the networks draw parameters that are not numbers" in lines[0]
    facts, lines = after_training([(posterior, held, held)], survey, 1, np.arange(200, dtype=np.uint64), False)
    assert (facts["held_out"], lines) == (None, [])


def test_too_few_realisations() -> None:
    assert too_few(100, 2) is None
    assert str(too_few(99, 2)).startswith("WARNING: 99 realisations for 2 parameter(s) are fewer than 50 each")
