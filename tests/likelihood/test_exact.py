"""The known answer, against the full covariance matrix of the cells and a plain dense grid."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from eorinfer.core.prior import Prior
from eorinfer.likelihood.exact import ModePower, grid_posterior, log_likelihood
from simulators import GaussianField

Array = NDArray[np.float64]
SIGMA = 0.3


def observed(simulator: GaussianField, theta: tuple[float, float], seed: int) -> Array:
    field = simulator.gaussian(np.array(theta), seed)
    return field + SIGMA * np.random.default_rng([seed, 1]).standard_normal(field.shape)


def covariance(simulator: GaussianField, theta: Array) -> Array:
    """<x_i x_j> of the cells: xi(r) = (1/V) sum P(k) exp(ikr), and white noise."""
    n, d, length = simulator.cells, simulator.dimension, simulator.box_length
    axis = 2 * np.pi * np.fft.fftfreq(n, length / n)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*[axis] * d, indexing="ij")))
    with np.errstate(divide="ignore"):
        power = np.where(k > 0, np.exp(theta[0]) * (k / simulator.pivot) ** theta[1], 0.0)
    xi = np.fft.ifftn(power).real * n**d / length**d
    cells = np.stack(np.unravel_index(np.arange(n**d), (n,) * d), -1)
    lag = (cells[:, None] - cells[None]) % n
    return np.asarray(xi[tuple(np.moveaxis(lag, -1, 0))] + SIGMA**2 * np.eye(n**d))


@pytest.mark.parametrize(("dimension", "cells"), [(2, 6), (2, 5), (3, 4), (3, 5)])
def test_against_the_covariance_matrix_of_the_cells(dimension: int, cells: int) -> None:
    simulator = GaussianField(dimension=dimension, cells=cells, box_length=7.0)
    field = observed(simulator, (0.5, -1.5), 3)
    theta = np.array([[0.5, -1.5], [2.0, -1.0], [-2.0, 0.5], [0.0, -3.5]])
    got = log_likelihood(simulator, SIGMA, ModePower.from_field(field, 7.0), theta)
    wanted = [multivariate_normal(cov=covariance(simulator, t)).logpdf(field.ravel()) for t in theta]
    np.testing.assert_allclose(got - got[0], np.array(wanted) - wanted[0], rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("shape", [(6, 6), (5, 5), (4, 4, 4), (5, 5, 5)])
def test_modes_hold_each_pair_once(shape: tuple[int, ...]) -> None:
    field = np.random.default_rng(0).standard_normal(shape)
    modes = ModePower.from_field(field, 3.0)
    assert (~modes.real).sum() * 2 + modes.real.sum() == field.size - 1
    assert modes.real.sum() == (2 ** len(shape) - 1 if shape[0] % 2 == 0 else 0)
    parseval = (modes.power * np.where(modes.real, 1, 2)).sum() / 3.0 ** len(shape)
    assert parseval == pytest.approx(field.var())


def dense(simulator: GaussianField, field: Array, prior: Prior, points: int) -> tuple[Array, Array]:
    """Mean and std from one uniform grid over the whole prior."""
    steps = (np.arange(points) + 0.5) / points
    axes = [low + (high - low) * steps for low, high in zip(prior.low, prior.high, strict=True)]
    theta = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    log_l = log_likelihood(simulator, SIGMA, ModePower.from_field(field, simulator.box_length), theta)
    p = np.exp(log_l - log_l.max())
    p /= p.sum()
    mean = p @ theta
    return mean, np.sqrt(p @ (theta - mean) ** 2)


@pytest.mark.parametrize(("dimension", "cells"), [(2, 16), (3, 8)])
def test_grid_posterior_against_a_dense_grid(dimension: int, cells: int) -> None:
    simulator = GaussianField(dimension=dimension, cells=cells, box_length=float(cells))
    prior = Prior(simulator.parameters)
    field = observed(simulator, (0.5, -1.5), 1)
    n = 40_000
    samples = grid_posterior(simulator, SIGMA, field, prior, n, seed=0, points=200)
    mean, std = dense(simulator, field, prior, 700)
    assert len(samples) == n
    assert np.abs(samples.mean - mean).max() < 5 * std.max() / np.sqrt(n)
    np.testing.assert_allclose(samples.std, std, rtol=5 / np.sqrt(2 * n) + 0.002)
    assert (std < 0.25 * prior.std).all(), "a field that says something"
    again = grid_posterior(simulator, SIGMA, field, prior, n, seed=0, points=200)
    assert again.values.tobytes() == samples.values.tobytes()


def test_the_posterior_ends_at_the_edge_of_the_prior() -> None:
    simulator = GaussianField(cells=16, box_length=16.0)
    field = observed(simulator, (0.5, -1.5), 1)
    prior = Prior.from_ranges(simulator.parameters, {"log_amplitude": (-3.0, 0.4), "slope": (-1.4, 1.0)})
    samples = grid_posterior(simulator, SIGMA, field, prior, 20_000, seed=0, points=200)
    assert prior.contains(samples.values).all()
    assert (samples.parameters[0].low, samples.parameters[0].high) == (-3.0, 0.4)
    mean, std = dense(simulator, field, prior, 900)
    assert (np.abs(samples.mean - mean) < 6 * std / np.sqrt(20_000) + 0.002 * std).all()
    assert samples.values[:, 1].min() < -1.395, "it reaches the edge"
