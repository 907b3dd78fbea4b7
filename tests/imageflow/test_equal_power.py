"""Pairs of images of equal power, and what likelihoods say of them."""

import numpy as np

from eorinfer.imageflow.equal_power import equal_power_pairs
from eorinfer.studies.equal_power import summarise


def test_pairs_agree_in_power_and_differ_in_condition() -> None:
    rng = np.random.default_rng(1)
    m, bins = 120, 6
    # Ten kinds of spectra, far apart in units of their scatter; conditions know nothing of the kind.
    kind = rng.integers(10, size=m)
    power = 10.0 * kind[:, None] + rng.normal(0, 0.3, (m, bins))
    scatter = np.ones((m, bins))
    y = rng.uniform(0, 1, (m, 2))
    apart = np.array([0.4, np.inf])
    pairs = equal_power_pairs(power, scatter, y, apart, m, 3)
    assert len(pairs.first) > 20
    assert (kind[pairs.first] == kind[pairs.second]).all()
    assert (np.abs(y[pairs.first, 0] - y[pairs.second, 0]) >= 0.4).all()
    numbers = np.concatenate([pairs.first, pairs.second])
    assert len(np.unique(numbers)) == len(numbers)
    expected = (power[pairs.first] - power[pairs.second]) ** 2 / 2
    assert np.allclose(pairs.chi2, expected.sum(1))
    assert (pairs.chi2 < bins).all()
    # Either may be the first; the seed decides; at most as many as asked.
    assert 0.2 < (pairs.first < pairs.second).mean() < 0.8
    few = equal_power_pairs(power, scatter, y, apart, 5, 3)
    assert len(few.first) == 5
    assert (few.first == pairs.first[:5]).all()
    other = equal_power_pairs(power, scatter, y, apart, 5, 4)
    assert (other.first != few.first).any()


def test_where_no_spectra_agree_there_are_no_pairs() -> None:
    power = 100.0 * np.arange(8)[:, None] * np.ones(3)
    pairs = equal_power_pairs(power, np.ones((8, 3)), np.arange(8.0)[:, None], np.array([0.5]), 10, 1)
    assert pairs.first.shape == pairs.second.shape == pairs.chi2.shape == (0,)


def test_what_is_told_of_preferences() -> None:
    rng = np.random.default_rng(2)
    sure, blind = summarise(np.full((50, 2), 7.0)), summarise(rng.normal(0, 1, (4000, 2)))
    assert sure["preferred"] == sure["auc"] == 1
    assert sure["difference"] == {"low": 7.0, "median": 7.0, "high": 7.0}
    assert abs(blind["preferred"] - 0.5) < 0.02
    assert abs(blind["auc"] - 0.5) < 0.03
    # A method that prefers the first condition whatever it sees has learned nothing.
    assert summarise(np.stack([rng.normal(3, 1, 4000), rng.normal(-3, 1, 4000)], axis=1))["auc"] < 0.53
