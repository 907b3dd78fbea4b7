"""A posterior under another prior: the weights, and when they are refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eorinfer.core.errors import InputError
from eorinfer.core.marginals import Normal, Table
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.region import draw_truncated
from eorinfer.npe.reweighted import reweighted
from tests.npe.test_posterior import PRIOR, observation, posterior


@pytest.fixture(scope="module")
def trained() -> Posterior:
    return posterior(1)


def test_samples_are_those_of_the_posterior_times_the_ratio_of_the_priors(trained: Posterior) -> None:
    other = trained.with_prior({"log_amplitude": {"normal": [0.4, 0.3]}}).sample(observation(), 4000, seed=2)
    before = trained.sample(observation(), 4000, seed=3)
    ratio = np.exp(-0.5 * ((before.values[:, 0] - 0.4) / 0.3) ** 2)
    for column in range(2):
        mean = np.average(before.values[:, column], weights=ratio)
        assert other.mean[column] == pytest.approx(mean, abs=0.07)
    assert other.std[0] == pytest.approx(np.sqrt(np.cov(before.values[:, 0], aweights=ratio)), rel=0.1)
    assert other.parameters[0].low == pytest.approx(0.4 - 6 * 0.3)
    # Under its own prior all samples count alike.
    same = trained.with_prior(PRIOR).sample(observation(), 500, seed=2)
    assert np.ptp(same.weights) == 0


def test_the_density_is_normed_and_many_observations_are_weighed_alike(trained: Posterior) -> None:
    other = trained.with_prior({"log_amplitude": {"normal": [0.4, 0.3]}})
    sides = [np.linspace(p.low, p.high, 121) for p in trained.prior.parameters]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*sides, indexing="ij")], 1)
    cell = np.prod([side[1] - side[0] for side in sides])
    density = np.exp(other.log_density(grid, observation()))
    assert density.sum() * cell == pytest.approx(1, abs=0.03)
    samples = other.sample(observation(), 20_000, seed=4)
    np.testing.assert_allclose((density[:, None] * grid).sum(0) * cell, samples.mean, atol=0.03)
    assert other.log_density(np.array([[9.0, 9.0]]), observation()) == [-np.inf]

    many = other.sample_many([observation(), observation()], 4000, seed=2)
    np.testing.assert_allclose(many[1].mean, samples.mean, atol=0.07)
    assert np.ptp(many[0].weights) > 0
    far = trained.with_prior({"log_amplitude": {"normal": [2.9, 0.01], "range": [-2.0, 3.0]}})
    with pytest.raises(InputError, match=r"images\[0\]: with_prior: \d+ of 1000 samples count"):
        far.sample_many([observation()], 1000, seed=1)
    with pytest.raises(InputError, match="samples count under the new prior"):
        far.log_density(grid, observation())


def test_weights_that_hardly_count_and_other_priors_are_refused(trained: Posterior) -> None:
    far = trained.with_prior({"log_amplitude": {"normal": [2.9, 0.01], "range": [-2.0, 3.0]}})
    with pytest.raises(InputError, match="of 1000 samples count under the new prior, 200 are needed"):
        far.sample(observation(), 1000, seed=1)
    with pytest.raises(InputError, match="n = 100: at least 200 samples are needed"):
        trained.with_prior(PRIOR).sample(observation(), 100, seed=1)
    with pytest.raises(InputError, match="% of the new prior is outside of what was simulated"):
        trained.with_prior({"slope": [-3.0, 12.0]})
    with pytest.raises(InputError, match=r"with_prior: \[prior\] slop: unknown parameter"):
        trained.with_prior({"slop": [-3.0, 12.0]})
    with pytest.raises(InputError, match="must be"):
        trained.with_prior({"slope": {"normal": [-3.0]}})
    region = trained.region(observation(), 1e-3, seed=3)
    for single in (replace(trained, regions=(region,)), replace(trained, only_for="x")):
        with pytest.raises(InputError, match="trained for one observation"):
            single.with_prior(PRIOR)


class Known:
    """A posterior that is exact: normal in both parameters, under a normal prior that is hardly wider."""

    regions, only_for = (), None
    prior = Prior.from_marginals(PRIOR.parameters, {"log_amplitude": Normal(-2.0, 3.0, 0.0, 0.34)})

    def sample(self, x: Any, n: int, seed: int | None, label: str) -> Samples:
        values = np.random.default_rng(seed).normal([0.0, -1.5], 0.3, (n, 2))
        return Samples.unweighted(values[self.prior.contains(values)], self.prior.parameters, label)

    def sample_many(self, images: Any, n: int, seed: int | None, label: str) -> list[Samples]:
        return [self.sample(x, n, seed, label) for x in images]

    def log_density(self, theta: Any, observation: Any) -> Any:
        return -0.5 * np.square((theta - np.array([0.0, -1.5])) / 0.3).sum(1)


def test_weights_whose_largest_were_hardly_drawn_are_refused() -> None:
    """The ratio of a flat prior over a narrow normal one rises without end in the tails: k is 0.3^2 / 0.34^2."""
    flat, nowhere = reweighted(Known(), PRIOR), np.zeros((1, 2))
    many: Any = None  # whatever is observed
    for ask in (lambda: flat.sample(many, 20_000, seed=1), lambda: flat.log_density(nowhere, many, 20_000, seed=1)):
        with pytest.raises(InputError, match=r"the tail of the weights has k = 0\.[789]\d, above 0\.70"):
            ask()
    wider = Prior.from_marginals(PRIOR.parameters, {"log_amplitude": Normal(-2.0, 3.0, 0.0, 0.45)})
    assert reweighted(Known(), wider).sample(many, 20_000, seed=1).std[0] == pytest.approx(0.3676, rel=0.05)


def test_where_the_prior_of_the_training_has_no_density(trained: Posterior) -> None:
    """Weights were infinite there, or not a number, and so were mean and width; no error said so."""
    grid, density = np.array([-2.0, 0.0, 0.01, 1.0, 1.01, 3.0]), np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    holed = replace(
        trained, prior=Prior.from_marginals(PRIOR.parameters, {"log_amplitude": Table.from_points(grid, density)})
    )
    with pytest.raises(InputError, match="20% of the new prior is outside of what was simulated"):
        holed.with_prior(PRIOR)
    drawn = holed.sample(observation(), 20_000, seed=2)
    hole = (drawn.values[:, 0] > 0.01) & (drawn.values[:, 0] < 1.0)
    assert hole.mean() > 0.02
    tail = holed.with_prior({"log_amplitude": {"normal": [2.0, 0.4], "range": [-2.0, 3.0]}})
    for ask in (
        lambda: tail.sample(observation(), 4000, seed=2),
        lambda: tail.log_density(np.zeros((1, 2)), observation()),
    ):
        with pytest.raises(InputError, match=r"\d+% of the samples lie where the new prior has a density and that of"):
            ask()
    apart = holed.with_prior({"log_amplitude": {"range": [-1.9, 0.0]}})
    samples = apart.sample(observation(), 20_000, seed=2)
    assert samples.weights[hole].max() == 0
    kept = drawn.values[(drawn.values[:, 0] > -1.9) & (drawn.values[:, 0] < 0.0), 0]
    assert samples.mean[0] == pytest.approx(kept.mean(), abs=0.01)
    assert apart.log_density(np.array([[0.5, -1.0]]), observation()) == [-np.inf]


def test_truncated_draws_are_of_the_prior_inside_the_region(trained: Posterior) -> None:
    prior = Prior.from_marginals(PRIOR.parameters, {"log_amplitude": Normal(-2.0, 3.0, 0.0, 1.0)})
    region = replace(trained, prior=prior).region(observation(), 1e-2, seed=3)
    drawn, share = draw_truncated(prior, [region], 1000, np.random.default_rng(1))
    whole = prior.sample(8000, np.random.default_rng(2))
    inside = region.contains(whole)
    assert share == pytest.approx(inside.mean(), rel=0.15)
    np.testing.assert_allclose(drawn.mean(0), whole[inside].mean(0), atol=0.12)
