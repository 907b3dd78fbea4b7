"""Ensembles: the mean of their members, the same in one batch as in many, in the order of the observations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.npe import ensemble
from eorinfer.npe.regression import RegressionNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings
from simulators import GaussianField

SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})


def members() -> tuple[list[RegressionNetwork], list[Tensor]]:
    """Return two networks whose posteriors differ, and their features of three observations."""
    networks, observed = [], torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = RegressionNetwork(
                PRIOR, SIMULATOR.observables[0], EmbeddingSettings(width=4), PowerSpectrumSettings(bins=3)
            )
            torch.nn.init.normal_(network.mean.weight, std=0.2)
            torch.nn.init.constant_(network.log_width.bias, -1.0)
        networks.append(network.eval())
    with torch.no_grad():
        return networks, [network.embedding(observed) for network in networks]


@pytest.mark.parametrize("batch", [1, 5, 7, 50000])
def test_the_density_is_the_mean_of_the_members(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, features = members()
    theta = PRIOR.sample(21, np.random.default_rng(1)).reshape(3, 7, 2)
    monkeypatch.setattr(ensemble, "BATCH", batch)
    log_q = ensemble.log_density(networks, theta, features)
    assert log_q.shape == (3, 7)
    for i in range(3):
        with torch.no_grad():
            logs = [
                network.log_prob(torch.from_numpy(theta[i])[:, None], read[i : i + 1])[:, 0].numpy()
                for network, read in zip(networks, features, strict=True)
            ]
        np.testing.assert_allclose(log_q[i], np.logaddexp(*logs) - np.log(2), rtol=1e-5, atol=1e-5)


def test_draws_come_from_all_members() -> None:
    networks, features = members()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        drawn = ensemble.draw(networks, 20000, features)
    assert drawn.shape == (3, 20000, 2)
    with torch.no_grad():
        centres = [
            network.from_box(network.mean(read).double()) for network, read in zip(networks, features, strict=True)
        ]
    expected = torch.stack(centres).mean(0).numpy()
    assert (np.abs(torch.diff(torch.stack(centres), dim=0).numpy()) > 0.1).any(), "members differ, else this is easy"
    error = drawn.std(1) / np.sqrt(20000)
    assert (np.abs(drawn.mean(1) - expected) < 5 * error).all()
