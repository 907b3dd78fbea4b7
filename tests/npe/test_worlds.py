"""Features across worlds: the penalty on what tells them apart, and the error model of what is left."""

import numpy as np
import pytest
import torch

from eorinfer.npe.aligned import Labelled, joint_discrepancy
from eorinfer.npe.error_model import spread_between
from eorinfer.npe.world_odds import WorldOdds, _fit, calibration, odds_line


def draws(n: int, seed: int, shift: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that follow theta, in two worlds that differ by a shift of them."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(n, 1, generator=generator) * 3.4 - 1.7
    world = torch.arange(n) % 2
    features = torch.cat([torch.sin(theta), theta**2], 1) + 0.3 * torch.randn(n, 2, generator=generator)
    return features + shift * world[:, None], theta, world


def test_the_discrepancy_is_that_of_worlds_and_not_of_theta() -> None:
    same = [float(joint_discrepancy(*draws(32, seed, 0.0))) for seed in range(200)]
    other = [float(joint_discrepancy(*draws(32, seed, 1.0))) for seed in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5, "unbiased"
    assert np.mean(other) > np.mean(same) + 2 * np.std(same)
    features, theta, world = draws(400, 1, 1.0)
    assert joint_discrepancy(10 * features, theta, world) == pytest.approx(
        float(joint_discrepancy(features, theta, world)), rel=1e-3
    ), "no cheaper by shrinking"
    assert joint_discrepancy(features, theta, torch.zeros(400)) == 0


@pytest.mark.job
def test_the_penalty_takes_weight_from_what_worlds_do_not_share() -> None:
    """Two measurements of theta, of which the better one is shifted in one world."""
    generator = torch.Generator().manual_seed(1)
    theta = torch.rand(2000, 1, generator=generator) * 3.4 - 1.7
    world = torch.arange(2000) % 2
    fair = theta[:, 0] + 0.5 * torch.randn(2000, generator=generator)
    shifted = theta[:, 0] + 0.3 * torch.randn(2000, generator=generator) + 1.0 * world

    def weights(strength: float) -> torch.Tensor:
        w = torch.tensor([0.5, 0.5], requires_grad=True)
        optimiser = torch.optim.Adam([w], 0.02)
        for step in range(150):
            rows = slice(64 * (step % 30), 64 * (step % 30 + 1))
            read = w[0] * fair[rows] + w[1] * shifted[rows]
            loss = (read - read.mean() - theta[rows, 0] + theta[rows, 0].mean()).square().mean()
            loss = loss + strength * joint_discrepancy(read[:, None], theta[rows], world[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return w.detach()

    free, aligned = weights(0.0), weights(10.0)
    assert aligned[1] / aligned[0] < 0.5 * free[1] / free[0]


def test_the_error_model_has_the_spread_between_worlds() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.normal(size=(8, 2)) * [1.0, 0.2]
    world = np.arange(1600) % 8
    theta = rng.random((1600, 1))
    features = np.stack([np.sin(3 * theta[:, 0]), theta[:, 0]], 1) + offsets[world] + 0.1 * rng.normal(size=(1600, 2))
    found = spread_between(theta, features, world)
    np.testing.assert_allclose(found, np.cov(offsets.T) * (1 + 1 / 8), atol=0.05)


def test_labelled_rows_keep_their_world() -> None:
    class Three:
        slow = False

        def __len__(self) -> int:
            return 3

        def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.arange(3.0)[indices, None], torch.arange(3.0)[indices]

    rows = Labelled(Three(), torch.tensor([2, 0, 1]))  # type: ignore[arg-type]
    theta, clean, world = rows.__getitems__([2, 0])
    assert (theta[:, 0].tolist(), clean.tolist(), world.tolist()) == ([2.0, 0.0], [2.0, 0.0], [1, 2])


def test_odds_of_worlds_are_calibrated_and_wrong_ones_are_found() -> None:
    """Two normal distributions, whose odds are known: a softmax regression is their form."""
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(0, 2, (4000,), generator=generator)
    inputs = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    inputs[:, 0] += label
    design = torch.cat([inputs, torch.ones(4000, 1, dtype=torch.float64)], 1)
    weights = _fit(design[:3000], label[:3000], 2, 1e-4)
    learned = torch.softmax(design[3000:] @ weights.T, 1).numpy()
    exact = torch.sigmoid(inputs[3000:, 0] - 0.5).numpy()
    assert np.abs(learned[:, 1] - exact).max() < 0.08
    truth = label[3000:].numpy()
    scores = calibration(learned, truth)
    assert scores["p_calibrated"] > 0.01
    assert scores["accuracy"] == pytest.approx(0.69, abs=0.04)
    assert scores["log_score"] > scores["log_score_of_chance"]
    sure = learned**4 / (learned**4).sum(1, keepdims=True)
    assert calibration(sure, truth)["p_calibrated"] < 1e-4
    odds = WorldOdds(("a", "b"), torch.zeros(3).double(), torch.ones(3).double(), weights)
    assert torch.equal(WorldOdds.from_content(odds.content()).weights, weights)
    assert odds_line(("a", "b"), np.array([0.25, 0.75])) == "odds of the worlds: b 75.0%, a 25.0%"
