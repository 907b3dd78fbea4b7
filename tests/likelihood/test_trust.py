"""When an emulator of P(k) is not trusted: where spectra fit elsewhere better than at their own theta; not of noise."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.likelihood.trust import LEAST, MOST, distrust, information

ROWS = np.arange(400, dtype=np.uint64)


def line(theta: Tensor, sigma: float = 0.1) -> tuple[Tensor, Tensor]:
    """A mean that is theta itself (n, 1), with one standard deviation."""
    return theta, torch.eye(1, dtype=torch.float64).expand(len(theta), 1, 1) / sigma


def sample(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Theta (n, 1), flat in [-1, 1], and power with a scatter of 0.1."""
    rng = np.random.default_rng(seed)
    theta = torch.from_numpy(rng.uniform(-1, 1, (n, 1)))
    return theta, theta + 0.1 * torch.from_numpy(rng.normal(size=(n, 1)))


def test_a_perfect_emulator_gains_what_the_posterior_does() -> None:
    theta, power = sample(400)
    draws = sample(4000, 2)[0]
    gains = information(line, theta, power, draws)
    # a normal of 0.1 in a box of length 2: ln 2 - ln(0.1 sqrt(2 pi e)), and a little less at the edges
    assert float(gains.mean()) == pytest.approx(np.log(2 / (0.1 * np.sqrt(2 * np.pi * np.e))), abs=0.15)
    assert distrust(gains, ROWS) == ""


def test_noise_that_tells_nothing_is_no_fault() -> None:
    theta, power = sample(400)
    gains = information(lambda v: (0 * v, line(v, 1.0)[1]), theta, power, sample(500, 2)[0])
    assert gains.abs().max() < 1e-9
    assert distrust(gains - 0.9 * LEAST, ROWS) == ""


def test_spectra_that_fit_elsewhere_are_seen() -> None:
    """As near to their own means as is said, and nearer still to those of other theta, where the emulator is wrong."""
    theta, power = sample(400)

    def wrong(v: Tensor) -> tuple[Tensor, Tensor]:
        mean, w = line(v, 0.3)
        return torch.where((v * 40).sin() > 0.9, power.mean() + 0 * mean, mean), w * torch.where(v < -0.5, 100.0, 1.0)[
            ..., None
        ]

    gains = information(wrong, theta, power, sample(2000, 2)[0])
    assert float(gains.min()) >= -MOST
    said = distrust(gains, ROWS)
    assert said.startswith("of 400 held-out simulations the emulator's likelihood makes their own parameters less")
    assert said.endswith("Simulate more ([inference] rounds), or take fewer [power_spectrum] bins")


def test_one_realisation_does_not_count_often() -> None:
    gains = torch.full((400,), 2.0, dtype=torch.float64)
    gains[:300] = -MOST
    assert distrust(gains, ROWS) != ""
    assert distrust(gains, np.maximum(ROWS, 299)) == ""
