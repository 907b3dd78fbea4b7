"""Priors that are not flat: each against scipy, their draws against their density, and joint ones against samples."""

import json

import numpy as np
import pytest
from scipy import stats

from eorinfer.core.dependence import Dependence
from eorinfer.core.marginals import LogUniform, Marginal, Normal, Table
from eorinfer.core.prior import Prior
from simulators import Parameter

GRID = np.linspace(2.0, 12.0, 60)
A, B, C = (Parameter(name, name, -2.0, 4.0, 0.0) for name in "abc")
NORMAL = Normal(-2.0, 4.0, 3.0, 1.5)
LOG = LogUniform(0.01, 10.0)
TABLE = Table.from_points(GRID, stats.gamma(3.0, loc=1.0).pdf(GRID))
TRUTH = {
    "normal": (NORMAL, stats.truncnorm(-5 / 1.5, 1 / 1.5, 3.0, 1.5)),
    "log": (LOG, stats.loguniform(0.01, 10.0)),
}
PRIOR = Prior.from_marginals((A, B, C), {"a": NORMAL, "c": LOG})


@pytest.mark.parametrize("name", TRUTH)
def test_a_density_is_scipys(name: str) -> None:
    marginal, truth = TRUTH[name]
    theta = np.linspace(marginal.low, marginal.high, 50)[1:-1]
    np.testing.assert_allclose(marginal.cdf(theta), truth.cdf(theta))
    np.testing.assert_allclose(marginal.ppf(truth.cdf(theta)), theta)
    np.testing.assert_allclose(marginal.log_pdf(theta), truth.logpdf(theta))
    assert marginal.std == pytest.approx(truth.std())


def test_a_table_is_normalised_and_cut_where_it_is_zero() -> None:
    density = stats.gamma(3.0, loc=1.0)
    theta = np.linspace(2.5, 11.5, 30)
    inside = density.cdf(12.0) - density.cdf(2.0)
    np.testing.assert_allclose(np.exp(TABLE.log_pdf(theta)), density.pdf(theta) / inside, rtol=0.02)
    np.testing.assert_allclose(TABLE.ppf(TABLE.cdf(theta)), theta, rtol=1e-6)
    assert (Table.from_points(np.arange(6.0), np.array([0, 0, 1, 1, 0, 0.0])).low, TABLE.high) == (1.0, 12.0)


@pytest.mark.parametrize(
    ("grid", "density", "message"),
    [
        ([0.0, 1.0, 0.5], [1.0, 1.0, 1.0], "rising"),
        ([0.0, 1.0], [1.0, -1.0], "negative"),
        ([0.0, 1.0], [0.0, 0.0], "zero everywhere"),
        ([0.0], [1.0], "two columns"),
        ([0.0, np.nan], [1.0, 1.0], "finite"),
    ],
)
def test_what_is_no_density_is_refused(grid: list[float], density: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table.from_points(np.array(grid), np.array(density))


def test_the_density_of_theta_is_that_of_independent_parameters() -> None:
    theta = PRIOR.sample(200, np.random.default_rng(1))
    normal, log = TRUTH["normal"][1], TRUTH["log"][1]
    truth = normal.logpdf(theta[:, 0]) - np.log(6.0) + log.logpdf(theta[:, 2])
    np.testing.assert_allclose(PRIOR.log_prob(theta), truth)
    np.testing.assert_allclose(PRIOR.log_density + PRIOR.log_relative(theta), truth)
    assert PRIOR.log_prob(np.array([[0.0, 0.0, 11.0], [0.0, 0.0, -1.0]])).tolist() == [-np.inf, -np.inf]
    # In the logarithm a log-uniform parameter is flat.
    only = Prior.from_marginals((C,), {"c": LOG})
    np.testing.assert_allclose(only.log_factor(theta[:, 2:]), 0.0, atol=1e-12)


def test_draws_have_the_density_and_fewer_are_the_first_of_more() -> None:
    theta = PRIOR.sample(4000, np.random.default_rng(2))
    for column, (_, truth) in zip((0, 2), TRUTH.values(), strict=True):
        assert stats.kstest(theta[:, column], truth.cdf).pvalue > 1e-3
    assert stats.kstest(theta[:, 1], stats.uniform(-2, 6).cdf).pvalue > 1e-3
    np.testing.assert_allclose(theta.std(0), PRIOR.std, rtol=0.05)
    assert np.array_equal(theta[:7], PRIOR.sample(7, np.random.default_rng(2)))
    assert PRIOR.entropy == pytest.approx(-PRIOR.log_prob(theta).mean(), abs=0.1)


def test_coordinates_and_units_and_back() -> None:
    theta = np.vstack([PRIOR.sample(20, np.random.default_rng(3)), PRIOR.low, PRIOR.high])
    assert PRIOR.contains(PRIOR.from_coordinates(PRIOR.coordinates(theta))).all()
    np.testing.assert_allclose(PRIOR.from_unit(PRIOR.unit(theta)), theta)
    np.testing.assert_allclose(PRIOR.unit(np.array([[1.0, 1.0, np.sqrt(0.1)]])), 0.5)


def test_a_part_has_its_share_of_the_mass_and_the_density_inside() -> None:
    part = PRIOR.within(np.array([1.0, -2.0, 0.1]), np.array([2.0, 1.0, 20.0]))
    theta = PRIOR.sample(20_000, np.random.default_rng(4))
    inside = part.contains(theta)
    assert PRIOR.share(part) == pytest.approx(inside.mean(), rel=0.05)
    drawn = part.sample(4000, np.random.default_rng(5))
    assert part.contains(drawn).all()
    for column in range(3):
        assert stats.ks_2samp(drawn[:, column], theta[inside, column]).pvalue > 1e-3


def correlated(n: int, seed: int) -> np.ndarray:
    """Draw from a bent density of two parameters, with an edge at zero."""
    rng = np.random.default_rng(seed)
    a = rng.normal(1.0, 0.8, n)
    return np.column_stack([a, np.abs(a**2 / 2 + rng.normal(0.0, 0.3, n))])


def joint() -> Prior:
    values = correlated(20_000, 6)
    marginals: dict[str, Marginal] = {}
    for name, column in zip("ac", values.T, strict=True):
        heights, edges = np.histogram(column, 80)
        marginals[name] = Table.from_points((edges[1:] + edges[:-1]) / 2, heights.astype(float))
    u = np.column_stack([m.cdf(x) for m, x in zip(marginals.values(), values.T, strict=True)])
    return Prior.from_marginals((A, B, C), marginals, Dependence.from_quantiles([0, 2], u, np.ones(len(u))))


def test_a_joint_prior_is_that_of_its_samples() -> None:
    prior = joint()
    values, drawn = correlated(4000, 7), prior.sample(4000, np.random.default_rng(8))
    assert np.array_equal(drawn[:5], prior.sample(5, np.random.default_rng(8)))
    # Smoothing is narrower than what is bent; whatever is a function of both shows it.
    for function in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x[:, 1] - x[:, 0] ** 2 / 2):
        assert abs(np.median(function(values)) - np.median(function(drawn[:, [0, 2]]))) < 0.12
    residual = [np.std(x[:, 1] - x[:, 0] ** 2 / 2) for x in (values, drawn[:, [0, 2]])]
    assert 0.9 < residual[1] / residual[0] < 1.6


def test_a_joint_density_integrates_to_one_and_is_that_of_its_draws() -> None:
    prior = joint()
    flat = prior.flattened()
    theta = flat.sample(40_000, np.random.default_rng(9))
    ratio = np.exp(prior.log_prob(theta) - flat.log_density)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / 200)
    # Mean of the first parameter by weights and from draws.
    drawn = prior.sample(20_000, np.random.default_rng(10))
    assert np.average(theta[:, 0], weights=ratio) == pytest.approx(drawn[:, 0].mean(), abs=0.05)
    product = np.average(theta[:, 0] * theta[:, 2], weights=ratio)
    assert product == pytest.approx((drawn[:, 0] * drawn[:, 2]).mean(), rel=0.05)


def test_a_joint_prior_can_be_cut_and_parted() -> None:
    prior = joint()
    part = prior.within(np.array([0.0, -2.0, 0.0]), np.array([1.0, 4.0, 1.0]))
    assert part.contains(part.sample(500, np.random.default_rng(1))).all()
    only = prior.only([2, 0])
    assert only.names == ["c", "a"]
    assert only.dependence is not None
    assert only.dependence.columns == (0, 1)
    assert prior.only([1]).flat


@pytest.mark.parametrize("prior", [PRIOR, joint()], ids=["product", "joint"])
def test_a_density_is_the_same_after_json(prior: Prior) -> None:
    again = Prior.from_json(json.loads(json.dumps(prior.to_json())))
    assert again == prior
    assert again.hash() == prior.hash() != prior.flattened().hash()
    theta = prior.sample(10, np.random.default_rng(1))
    np.testing.assert_array_equal(again.log_prob(theta), prior.log_prob(theta))


def test_too_few_samples_or_a_plane_give_no_joint_prior() -> None:
    u = np.random.default_rng(1).random((100, 2))
    with pytest.raises(ValueError, match="need 20 or more"):
        Dependence.from_quantiles([0, 1], u[:15], np.ones(15))
    with pytest.raises(ValueError, match="linear function"):
        Dependence.from_quantiles([0, 1], u[:, [0, 0]], np.ones(100))


def test_copies_of_samples_do_not_make_the_density_narrow() -> None:
    u = np.random.default_rng(1).random((400, 2))
    once, twice = (Dependence.from_quantiles([0, 1], np.repeat(u, n, axis=0), np.ones(400 * n)) for n in (1, 2))
    at = np.random.default_rng(2).random((500, 2))
    assert np.exp(once.log_ratio(at)).std() < 0.6
    assert np.exp(twice.log_ratio(at)).std() < 0.6
