"""What ln p and NPE are worth: right where the answer is known, and never far below NPE."""

import numpy as np
import pytest
from numpy.typing import NDArray

from eorinfer.combined.worth import FLOOR, exponents, learn_weights, log_ratio

Array = NDArray[np.float64]
DRAWS = 200


def images(n: int, seed: int, claimed: float = 1.0) -> tuple[Array, Array]:
    """NPE is a normal of width one about the truth; ln p is another measurement as good, of a width that it claims."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, 1))  # about NPE's mean of zero
    measured = truth + rng.standard_normal((n, 1))
    theta = np.concatenate([rng.standard_normal((n, DRAWS)), truth], axis=1)
    return -0.5 * ((theta - measured) / claimed) ** 2, -0.5 * theta**2


def test_two_measurements_count_one_each() -> None:
    weights = learn_weights(*images(4000, 1))
    assert weights == pytest.approx([1, 1], abs=0.1)


def test_one_that_is_too_sure_counts_for_less() -> None:
    """Errors of one where a third is claimed: the inverse variance says nine times too much."""
    log_p, log_q = images(4000, 1, claimed=1 / 3)
    weights = learn_weights(log_p, log_q)
    assert weights[0] == pytest.approx(1 / 9, abs=0.015)
    assert weights[1] == pytest.approx(1, abs=0.1)
    log_p, log_q = images(4000, 2, claimed=1 / 3)
    as_it_is, weighed = (log_ratio(exponents(w, log_p, log_q), DRAWS)[:, -1] for w in (np.ones(2), weights))
    assert as_it_is.mean() < 0
    # a normal of half the variance: ln 2 / 2 nats, less what its tails lose to the floor
    assert weighed.mean() == pytest.approx(np.log(2) / 2, abs=0.08)


def test_noise_counts_for_nothing() -> None:
    _, log_q = images(4000, 1)
    log_p = 5 * np.random.default_rng(3).standard_normal(log_q.shape)
    assert learn_weights(log_p, log_q) == pytest.approx([0, 1], abs=0.1)


def test_what_ln_p_rules_out_costs_four_nats_at_most() -> None:
    nats = np.zeros(DRAWS + 1)
    nats[-1] = -1e6
    ratio = log_ratio(nats, DRAWS)
    assert ratio[-1] == pytest.approx(np.log(FLOOR))
    assert np.exp(ratio[:-1]).mean() == pytest.approx(1)
