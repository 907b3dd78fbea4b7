"""P-values of distances among those of held-out simulations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from eorinfer.npe.reference import NEIGHBOUR, Reference, as_unseen, best_kernel, regression, tail_p


def reference(held_out: NDArray[np.float64], realisations: int) -> Reference:
    """A reference with given log distances (m,) of held-out statistics; those of features are larger by one."""
    rows = torch.from_numpy(np.random.default_rng(1).random((50, 2)))
    held = torch.from_numpy(np.stack([held_out, held_out + 1]))
    return replace(regression(rows, rows, rows), held_out=held, realisations=torch.tensor(realisations))


def test_far_ones_have_the_tail_of_students_t() -> None:
    held = np.linspace(-1, 1, 101)
    p = reference(held, 101).p_values(np.exp([[3.0], [3.0]]))
    for found, log in zip(p[:, 0], (3.0, 2.0), strict=True):  # of features, whose distances are larger by one
        off = np.exp(0.2 * held[50:]) - 1
        upper = np.sqrt(np.mean(off**2)) * np.sqrt(1 + 2 / 101)
        expected = student.sf((np.exp(0.2 * log) - 1) / upper, 101 / 2)
        assert found == pytest.approx(expected, rel=0.05), "the median is a power of the logs, up to that of one"


@pytest.mark.parametrize("realisations", [20, 60, 300])
@pytest.mark.parametrize("freedom", [3, 20])
def test_p_values_are_right_on_average_over_references(realisations: int, freedom: int) -> None:
    """Log distances as white residuals have them: of chi^2. Alarms at 1% and 0.5% come as often as they say."""
    rng = np.random.default_rng(realisations + freedom)
    alarms = []
    for _ in range(400):
        held, far = np.log(rng.chisquare(freedom, realisations)), np.log(rng.chisquare(freedom, 200))
        alarms.append([(tail_p(held, realisations, far) < level).mean() for level in (0.05, 0.005)])
    five, half = np.mean(alarms, axis=0)
    assert 0.035 < five < 0.06
    assert 0.002 < half < 0.008, "neither too bold nor too cautious"


def test_near_ones_have_their_rank_and_p_falls_with_the_distance() -> None:
    rng = np.random.default_rng(1)
    held = np.log(rng.chisquare(8, 400))
    far = np.linspace(-2, 5, 500)
    p = tail_p(held, 400, far)
    assert (np.diff(p) <= 1e-12).all()
    near = far < np.median(held)
    rank = (held >= far[near, None]).mean(1)
    assert np.abs(p[near] - rank).max() < 0.005
    assert (p[0], p[-1]) == (pytest.approx(1.0, abs=2e-3), pytest.approx(0.0, abs=1e-8))


def test_a_realisation_left_out_is_one_that_never_was_there() -> None:
    rng = np.random.default_rng(1)
    theta, noise = torch.from_numpy(rng.random((60, 2))), torch.from_numpy(rng.standard_normal((60, 3)))
    values = torch.stack([theta[:, 0], theta.prod(1), theta[:, 1] ** 2], 1) + 0.1 * noise
    kernel = best_kernel(theta, values)
    whole = regression(theta, values, values, kernel=kernel)
    group = torch.full((60,), -1)
    group[[3, 17, 40]] = 1
    group[5] = 0
    _, without = whole.without(group, kernel.noise)
    stays = group != 1
    standard = ((values - whole.centre) / whole.scale)[stays]
    matrix = torch.exp(-0.5 * (torch.cdist(theta, theta) / kernel.length).square())
    own = torch.linalg.solve(matrix[stays][:, stays] + kernel.noise * torch.eye(57), standard)
    torch.testing.assert_close(without.predicted(theta[:5]), matrix[:5][:, stays] @ own)
    assert len(without.features) == 57


def test_distances_of_networks_that_saw_a_row_are_moved_to_those_that_did_not() -> None:
    rng = np.random.default_rng(2)
    common = rng.standard_normal((4000, 1))
    fresh = torch.from_numpy(2 + 0.7 * common + 0.7 * rng.standard_normal((4000, 3)))
    unseen = torch.arange(3) == torch.arange(4000)[:, None] % 3
    known = torch.where(unseen, fresh, 0.5 * fresh - 3)
    found, wanted = as_unseen(known, unseen), fresh.mean(1)
    torch.testing.assert_close(found, wanted, atol=0.1, rtol=0.1)
    assert torch.equal(as_unseen(fresh, torch.ones_like(unseen)), wanted)


def test_two_p_values_are_worth_what_they_have_in_common() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.standard_normal((2, 2000))
    known = reference(one, 2000)
    for second, tests in ((other, 2.0), (one, 1.0)):
        assert replace(known, held_out=torch.from_numpy(np.stack([one, second]))).tests() == pytest.approx(
            tests, abs=0.08
        )


def test_few_realisations_count_as_few_however_many_rows_they_have() -> None:
    held = np.linspace(-1, 1, 200)
    p = [reference(held, n).p_values(np.exp([[3.0], [4.0]]))[0, 0] for n in (200, 20, 5)]
    assert p[0] < p[1] / 10 < p[2] / 100


def test_the_distance_of_features_is_that_to_a_near_neighbour() -> None:
    known = reference(np.linspace(-1, 1, 10), 10)
    white = (known.features[:1] - known.features).square().sum(1).sort().values
    raw = torch.linalg.solve(known.feature_whiten, known.features[:1].T).T * known.feature_scale + known.feature_centre
    assert known.feature_logs(raw)[0].exp() == pytest.approx(float(white[NEIGHBOUR - 1]), rel=1e-6)
