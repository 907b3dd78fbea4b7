"""Gaussian fields: their power, their determinism, and classes derived from them."""

import inspect
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from simulators import GaussianField, SimulationError, Simulator
from simulators.gaussian import LognormalField


@pytest.mark.parametrize("settings", [{"dimension": 2, "cells": 9}, {"dimension": 2}, {"dimension": 3, "cells": 8}])
def test_power_of_many_realisations(settings: dict[str, Any]) -> None:
    simulator = GaussianField(box_length=20.0, **settings)
    theta = np.array([0.7, -1.5])
    d, n, volume = simulator.dimension, 600, 20.0**simulator.dimension
    fields = np.stack([simulator.simulate(theta, seed)["field"][0] for seed in range(n)]).astype(np.float64)
    delta = np.fft.fftn(fields, axes=range(1, d + 1)) / fields[0].size
    power = volume * (np.abs(delta) ** 2).mean(0).ravel()

    axis = 2 * np.pi * np.fft.fftfreq(simulator.cells, 20.0 / simulator.cells)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*[axis] * d))).ravel()
    expected = np.exp(0.7) * (k[k > 0] / 0.785) ** -1.5
    assert power[k == 0] < 1e-10 * power.max(), "the zero mode is 0"
    ratio = power[k > 0] / expected
    # Exponential for pairs, chi^2 of one degree for the few modes that are their own conjugate.
    assert np.abs(ratio - 1).max() < 5.5 * np.sqrt(2 / n)
    assert abs(ratio.mean() - 1) < 5 * np.sqrt(2 / n / ratio.size)


def test_deterministic_in_theta_and_seed() -> None:
    simulator, theta = GaussianField(), np.array([0.0, -2.0])
    first = simulator.simulate(theta, 1)["field"]
    assert first.dtype == np.float32
    assert first.shape == simulator.observables[0].shape == (1, 32, 32)
    np.random.seed(5)  # noqa: NPY002 - the global state shall not matter
    assert first.tobytes() == GaussianField().simulate(theta, 1)["field"].tobytes()
    assert (first != simulator.simulate(theta, 2)["field"]).all()
    louder = simulator.simulate(theta + np.array([np.log(4.0), 0.0]), 1)["field"]
    np.testing.assert_allclose(louder, 2 * first, rtol=1e-5, atol=1e-6)


def test_box_in_other_units_is_the_same_field() -> None:
    """Scaling every length scales V, and so the field, by a known factor."""
    one = GaussianField(box_length=32.0, pivot=0.8).simulate(np.array([0.0, -1.0]), 3)["field"]
    two = GaussianField(box_length=64.0, pivot=0.4).simulate(np.array([np.log(4.0), -1.0]), 3)["field"]
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_refusals() -> None:
    simulator = GaussianField()
    assert isinstance(simulator, Simulator)
    with pytest.raises(SimulationError, match="slope = nan: every parameter must be a finite number"):
        simulator.simulate(np.array([0.0, np.nan]), 1)
    with pytest.raises(SimulationError, match=r"shape \(3,\), expected \(2,\): log_amplitude, slope"):
        simulator.check(np.zeros(3))
    for wrong in ({"dimension": 4}, {"cells": 2}, {"box_length": 0}, {"box_length": np.inf}, {"pivots": 1.0}):
        with pytest.raises(ValidationError):
            GaussianField(**wrong)


def test_every_setting_changes_the_fingerprint() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"dimension": 3},
        {"cells": 16},
        {"box_length": 16.0},
        {"pivot": 1.0},
    ]
    prints = [GaussianField(**change).fingerprint() for change in changes]
    assert len(set(prints)) == len(changes) == len(GaussianField.model_fields)
    assert prints[0] == GaussianField(**GaussianField().settings()).fingerprint()
    assert inspect.signature(GaussianField.simulate).parameters.keys() == {"self", "theta", "seed"}


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_variance_of_a_cell_and_the_lognormal_of_it(dimension: int) -> None:
    settings: dict[str, Any] = {"dimension": dimension, "cells": 8, "box_length": 8.0}
    theta = np.array([-0.5, -1.0])
    simulator = GaussianField(**settings)
    g = np.stack([simulator.gaussian(theta, seed) for seed in range(400)])
    assert abs(g.var() / simulator.variance(theta) - 1) < 0.05
    x = np.stack([LognormalField(**settings).simulate(theta, seed)["field"][0] for seed in range(400)])
    np.testing.assert_allclose(x, np.exp(g - simulator.variance(theta) / 2) - 1, rtol=1e-4, atol=1e-5)
    assert abs(x.mean()) < 0.05
