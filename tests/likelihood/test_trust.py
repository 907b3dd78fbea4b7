"""When an emulator of P(k) is not trusted: where it knows less than the scatter over the prior, and not of noise."""

import numpy as np
import torch

from eorinfer.core.prior import Prior
from eorinfer.likelihood.emulator import MeanNetwork
from eorinfer.likelihood.trust import TRUSTED, distrust, information
from simulators import GaussianField

PRIOR = Prior(GaussianField(cells=8).parameters)


def test_a_perfect_emulator_tells_what_the_scatter_exceeds_its_own_by() -> None:
    """Large power that is lognormal over the prior, and scatters by 1% of it at a theta: ln(0.5 / 0.01) nats."""
    rng = np.random.default_rng(2)
    mean = torch.from_numpy(np.exp(rng.normal(12.0, 0.5, (4000, 1))))
    z = torch.from_numpy(rng.normal(size=(4000, 2, 1)))
    power, one = mean[:, None] * (1 + 0.01 * z), torch.ones(1, dtype=torch.float64)
    nats = information(power, z, 0.01 * mean, one, torch.asinh(power).mean((0, 1)), torch.asinh(power).std((0, 1)))
    assert abs(nats - np.log(0.5 / 0.01)) < 0.03


def test_noise_alone_is_trusted_and_means_that_are_wrong_are_not() -> None:
    """Power of noise tells nothing of theta, and is skew, which is no fault of an emulator."""
    power = torch.from_numpy(np.random.default_rng(1).gamma([1.0, 3.0, 30.0, 300.0], size=(400, 4, 4)))
    power = torch.cat([power, torch.zeros(400, 4, 1)], -1)  # and a bin that is always empty
    network = MeanNetwork(2, 5)
    network.fit_scaling(PRIOR, power.flatten(0, 1))
    of_all = network.unit, network.centre, network.spread
    std = power.std((0, 1)).clamp_min(1e-3)
    z = (power - power.mean((0, 1))) / std
    assert TRUSTED < information(power, z, std.expand(400, 5), *of_all) < 0
    assert distrust(power, z, std.expand(400, 5), *of_all) == ""
    said = distrust(power, 3 * z, (std / 3).expand(400, 5), *of_all)
    assert said.startswith("the emulator tells less of the P(k) of held-out simulations than their scatter")
