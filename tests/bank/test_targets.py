"""Targets: numbers of each simulation by name, and the prior that simulations give them."""

from dataclasses import replace

import numpy as np
import pytest

from eorinfer.bank.rows import Rows
from eorinfer.bank.targets import parse_targets, target_prior
from eorinfer.core.errors import WorkError
from eorinfer.core.prior import Prior
from eorinfer.core.shown_prior import joined, prior_line
from simulators import GaussianField, Observable, Symmetry

NOTHING = Symmetry((False,), "none")
HISTORY = Observable(
    "history", (1, 3), "", ("channel", "redshift"), (0.0,), (0.0,), NOTHING, coordinates=(10.0, 8.0, 6.0)
)
PARAMETERS = GaussianField(cells=8).parameters
BOXES = GaussianField(cells=8).observables[0]
TWO = replace(BOXES, name="two", shape=(2, 8, 8), axes=("redshift", "x", "y"), channels=(7.0, 8.0))


def test_values_of_arrays() -> None:
    (at,) = parse_targets(["history@7"], PARAMETERS, [HISTORY])
    arrays = np.array([[[1.0, 0.6, 0.2]], [[0.9, 0.5, 0.1]]], np.float32)
    np.testing.assert_allclose(at.of_arrays(arrays, HISTORY), [0.4, 0.3], rtol=1e-6)
    assert at.name == "history_7"
    both = parse_targets(["two", "slope"], PARAMETERS, [TWO])
    assert [t.name for t in both] == ["two_redshift7", "two_redshift8", "slope"]
    cubes = np.random.default_rng(1).standard_normal((5, 2, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(both[1].of_arrays(cubes, TWO), cubes[:, 1].mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tau", "is no parameter and no array of the simulator, which has log_amplitude, slope, history, two"),
        ("history@12", "history has redshift from 6 to 10"),
        ("history@z", "'z' is no number"),
        ("two@7", "two has no coordinates"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_targets([name], PARAMETERS, [HISTORY, TWO])
    with pytest.raises(ValueError, match="slope is named twice"):
        parse_targets(["slope", "slope"], PARAMETERS, [HISTORY])


def rows(values: np.ndarray) -> Rows:
    none, n = Rows.none(values.shape[1]), len(values)
    columns = {name: np.zeros(n, getattr(none, name).dtype) for name in Rows.__dataclass_fields__}
    return Rows(**columns | {"theta": values})


def test_the_prior_is_what_simulations_give() -> None:
    rng = np.random.default_rng(2)
    a = rng.uniform(0, 1, 4000)
    values = np.column_stack([a**2, a + 0.1 * rng.standard_normal(4000)])
    targets = parse_targets(["two"], PARAMETERS, [TWO])
    prior = target_prior(rows(values), targets)
    drawn = prior.sample(20_000, rng)
    np.testing.assert_allclose(drawn.mean(0), values.mean(0), atol=0.02)
    np.testing.assert_allclose(drawn.std(0), values.std(0), rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(drawn.T)[0, 1], np.corrcoef(values.T)[0, 1], atol=0.03)
    shown = joined(Prior.from_ranges(PARAMETERS, {}), prior)
    assert shown.names == ["log_amplitude", "slope", "two_redshift7", "two_redshift8"]
    assert [prior_line(shown, name) is None for name in shown.names] == [True, True, False, False]
    with pytest.raises(WorkError, match="two_redshift7 is 1 in all 50 simulations"):
        target_prior(rows(np.ones((50, 2))), targets)
