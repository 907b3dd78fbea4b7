"""P-values of distances among those of held-out simulations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from eorinfer.npe.reference import NEIGHBOUR, Reference, regression, tail_p


def reference(held_out: NDArray[np.float64], realisations: int) -> Reference:
    """A reference with given log distances (m,) of held-out statistics; those of features are larger by one."""
    rows = torch.from_numpy(np.random.default_rng(1).random((50, 2)))
    held = torch.from_numpy(np.stack([held_out, held_out + 1]))
    return replace(regression(rows, rows, rows), held_out=held, realisations=torch.tensor(realisations))


def test_far_ones_have_the_tail_of_students_t() -> None:
    held = np.linspace(-1, 1, 101)
    p = reference(held, 101).p_values(np.exp([[3.0], [3.0]]))
    # Symmetric distances: the upper half's spread is that of all, with half of the degrees of freedom.
    whole = student.sf(3 / (held.std(ddof=1) * np.sqrt(1 + 1 / 101)), 100)
    upper = np.sqrt(np.mean(held[held >= 0] ** 2)) * np.sqrt(1 + 2 / 101)
    assert p[0, 0] == pytest.approx(max(whole, student.sf(3 / upper, 101 / 2 - 1)))
    nearer = student.sf(2 / upper, 101 / 2 - 1)
    assert p[1, 0] == pytest.approx(nearer), "of features, whose distances are larger by one"


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
    assert 0.02 < five < 0.06
    assert half < 0.008


def test_near_ones_have_their_rank_at_least() -> None:
    held = np.linspace(-1, 1, 99)
    far = np.array([0.985, 0.9, 0.0, -2.0])
    p = reference(held, 99).p_values(np.exp([far, far]))[0]
    rank = (1 + (held >= far[:, None]).sum(1)) / 100
    assert (p >= rank - 1e-12).all()
    assert p[2] == pytest.approx(rank[2], abs=0.02)
    assert p[3] == pytest.approx(1.0, abs=1e-3)


def test_few_realisations_count_as_few_however_many_rows_they_have() -> None:
    held = np.linspace(-1, 1, 200)
    p = [reference(held, n).p_values(np.exp([[3.0], [4.0]]))[0, 0] for n in (200, 20, 5)]
    assert p[0] < p[1] / 10 < p[2] / 100


def test_the_distance_of_features_is_that_to_a_near_neighbour() -> None:
    known = reference(np.linspace(-1, 1, 10), 10)
    white = (known.features[:1] - known.features).square().sum(1).sort().values
    raw = torch.linalg.solve(known.feature_whiten, known.features[:1].T).T * known.feature_scale + known.feature_centre
    assert known.feature_distances(raw)[0] == pytest.approx(float(white[NEIGHBOUR - 1]), rel=1e-6)
