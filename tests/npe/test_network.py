"""The posterior network: a density that integrates to one, and samples that are drawn from it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.core.marginals import LogUniform, Marginal, Normal
from eorinfer.core.prior import Prior
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from simulators import GaussianField

SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR = Prior.from_ranges(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})
KINDS = ["none", "zuko_nsf", "zuko_maf"]


def network(kind: str, shake: float = 0.0) -> PosteriorNetwork:
    """Fresh, or with weights moved at random so that it is far from the prior."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = PosteriorNetwork(
            PRIOR,
            SIMULATOR.observables[0],
            EmbeddingSettings(width=4),
            FlowSettings(kind=kind, transforms=2, hidden=(16,)),
            PowerSpectrumSettings(bins=3),
        )
        if shake:
            if kind == "none":  # else it is hardly moved
                made.widening = 1.3
            for parameter in [*made.normal.parameters(), *made.flow.parameters()]:
                parameter.data += shake * torch.randn_like(parameter)
            # Narrower than the prior: a wider one has integrable poles at the edges of the box.
            made.normal.log_width.bias.data -= 2.0
    return made.eval()


def observed(n: int = 1) -> Tensor:
    theta = PRIOR.sample(n, np.random.default_rng(0))
    return torch.from_numpy(np.stack([SIMULATOR.simulate(t, i)["field"] for i, t in enumerate(theta)]))


def grid(points: int) -> tuple[Tensor, float]:
    """Centres (points^2, 2) of cells that fill the prior's box, and the area of one."""
    axes = [
        torch.from_numpy(low + (high - low) * (np.arange(points) + 0.5) / points)
        for low, high in zip(PRIOR.low, PRIOR.high, strict=True)
    ]
    area = float(np.prod(PRIOR.high - PRIOR.low)) / points**2
    return torch.cartesian_prod(*axes), area


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_density_integrates_to_one_and_samples_follow_it(kind: str) -> None:
    made = network(kind, shake=0.15)
    features = made.embedding(observed())
    theta, area = grid(300)
    density = made.log_prob(theta[:, None], features)[:, 0].exp()
    assert abs(float(density.sum() * area) - 1) < 0.01
    prior = np.exp(PRIOR.log_density)
    assert (density - prior).abs().max() > 0.2 * prior, "a density that is not the prior, else this test is easy"

    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = made.sample(20000, features)[:, 0]
    assert drawn.dtype == torch.float64
    assert PRIOR.contains(drawn.numpy()).all()
    # Counts in 6 x 6 cells against the mass that the density has there.
    expected = 20000 * area * density.view(6, 50, 6, 50).sum((1, 3)).numpy().ravel()
    edges = [np.linspace(low, high, 7) for low, high in zip(PRIOR.low, PRIOR.high, strict=True)]
    counts = np.histogram2d(*drawn.numpy().T, edges)[0].ravel()
    filled = expected > 20
    chi2 = float((((counts - expected) ** 2) / expected)[filled].sum())
    assert chi2 < filled.sum() + 5 * np.sqrt(2 * filled.sum()), (chi2, filled.sum())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_loss_is_the_density_against_the_priors(kind: str) -> None:
    made = network(kind, shake=0.1)
    x = observed(5)
    theta = torch.from_numpy(PRIOR.sample(5, np.random.default_rng(3)))
    features = made.embedding(x)
    log_q = made.log_prob(theta[None], features)[0]
    torch.testing.assert_close(made.loss(theta, x).double(), PRIOR.log_density - log_q, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_outside_the_prior_there_is_nothing_and_its_edge_is_finite() -> None:
    made = network("zuko_nsf")
    features = made.embedding(observed())
    outside = torch.tensor([[-2.01, -1.0], [0.0, 0.01], [3.5, -3.5]], dtype=torch.float64)
    assert made.log_prob(outside[:, None], features)[:, 0].tolist() == [-torch.inf] * 3
    edge = torch.tensor([[-2.0, -3.0], [3.0, 0.0]], dtype=torch.float64)
    assert made.log_prob(edge[:, None], features).isfinite().all()
    assert made.loss(edge, observed(2)).isfinite().all()


@torch.no_grad()
def test_samples_of_a_posterior_at_the_edge_stay_inside() -> None:
    made = network("zuko_nsf")
    made.normal.mean.bias.fill_(8.0)
    with torch.random.fork_rng():
        drawn = made.sample(2000, made.embedding(observed()))[:, 0]
    assert PRIOR.contains(drawn.numpy()).all()


def test_gradients_reach_every_weight() -> None:
    made = network("zuko_nsf", shake=0.1).train()
    theta = torch.from_numpy(PRIOR.sample(8, np.random.default_rng(1)))
    made.loss(theta, observed(8)).mean().backward()
    for name, parameter in made.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_many_observations_at_once_are_each_by_itself() -> None:
    made = network("zuko_nsf", shake=0.15)
    features = made.embedding(observed(4))
    theta = torch.from_numpy(PRIOR.sample(12, np.random.default_rng(2))).view(3, 4, 2)
    together = made.log_prob(theta, features)
    for i in range(4):
        alone = made.log_prob(theta[:, i : i + 1], features[i : i + 1])[:, 0]
        torch.testing.assert_close(together[:, i], alone, rtol=1e-4, atol=1e-4)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = made.sample(4000, features)
        means = torch.cat([made.sample(4000, f[None]).mean(0) for f in features])
    assert drawn.shape == (4000, 4, 2)
    assert PRIOR.contains(drawn.reshape(-1, 2).numpy()).all()
    torch.testing.assert_close(drawn.mean(0), means, rtol=0, atol=0.15)


def test_a_fresh_network_is_close_to_a_prior_that_is_not_flat() -> None:
    marginals: dict[str, Marginal] = {"log_amplitude": LogUniform(0.1, 3.0), "slope": Normal(-3.0, 0.0, -1.0, 0.2)}
    prior = Prior.from_marginals(SIMULATOR.parameters, marginals)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = PosteriorNetwork(
            prior,
            SIMULATOR.observables[0],
            EmbeddingSettings(width=4),
            FlowSettings(transforms=1, hidden=(8,)),
            PowerSpectrumSettings(bins=3),
        )
        with torch.no_grad():
            theta = network.sample(4000, torch.zeros(1, network.normal.mean.in_features))[:, 0].numpy()
    truth = prior.sample(4000, np.random.default_rng(1))
    assert abs(theta[:, 1].mean() + 1.0) < 0.2  # the box is 1.8 wide; a fresh flow is not the identity
    assert 0.5 < theta[:, 1].std() / truth[:, 1].std() < 2.0
    assert 0.7 < np.log(theta[:, 0]).std() / np.log(truth[:, 0]).std() < 1.3
    # Densities are of theta: with the prior's they differ by what the network is off, not by the logarithm's slope.
    log_q = network.log_prob(torch.from_numpy(truth[:, None]), torch.zeros(1, network.normal.mean.in_features))
    assert abs(float(log_q.detach().mean()) - prior.log_prob(truth).mean()) < 1.0
