"""Scores of the odds of worlds, and the rows that they are evaluated on."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.worlds import FIRST, KNOWN, SHARED, later_rows
from benchmarks.worlds_seen import scored_odds
from eorinfer.bank.rows import Rows

NAMES = ("a", "b", "c", "d")


def truths(world: NDArray[np.int64], seed: NDArray[np.int64]) -> Rows:
    n = len(world)
    return Rows(
        theta=np.zeros((n, 1)),
        seed=seed.astype(np.uint64),
        round=np.ones(n, np.int64),
        status=np.full(n, "ok"),
        message=np.full(n, ""),
        seconds=np.zeros(n),
        shard=np.full(n, "one.h5"),
        index=np.arange(n),
        world=world,
    )


def drawn(n: int, together: int, sharpen: float) -> tuple[NDArray[np.float64], Rows]:
    """Draw odds (n, 4), of which `together` share a realisation and are the same, and worlds that follow them."""
    rng = np.random.default_rng(1)
    true = np.repeat(rng.dirichlet(np.ones(4), n // together), together, axis=0)
    world = np.repeat([rng.choice(4, p=p) for p in true[::together]], together)
    said = true**sharpen
    return said / said.sum(1, keepdims=True), truths(world, np.arange(n) // together)


def test_later_rows_of_worlds_that_are_simulated_share_no_realisation() -> None:
    of_worlds = [later_rows(number) for number in range(4)]
    assert len(np.unique(np.concatenate(of_worlds))) == 400
    realisations = [set(rows // SHARED) for rows in of_worlds[1:]]
    assert sum(map(len, realisations)) == len(set.union(*realisations)) == 150
    assert min(map(min, of_worlds)) >= FIRST + KNOWN


@pytest.mark.parametrize(("sharpen", "fair"), [(1.0, True), (2.0, False)])
def test_odds_that_are_too_sure_are_found_out(sharpen: float, fair: bool) -> None:
    found = scored_odds(*drawn(800, 1, sharpen), NAMES)
    assert (found["p_by_realisation"] > 0.01) == fair
    assert (abs(found["said_less_right"]["mean"]) < 3 * found["said_less_right"]["error"]) == fair
    assert sum(of["pairs"] for of in found["reliability"]) == 3200


def test_rows_of_a_realisation_are_not_counted_as_independent() -> None:
    one, four = (scored_odds(*drawn(800, together, 1.0), NAMES) for together in (1, 4))
    ratio = four["accuracy_by_realisation"]["error"] / one["accuracy_by_realisation"]["error"]
    assert 1.8 < ratio < 2.2
    assert four["p_by_realisation"] > four["p_calibrated"]
