"""The posterior network: a density that integrates to one, and samples that are drawn from it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.inference.flow import ConditionalAffine, PosteriorNetwork
from eorinfer.inference.settings import EmbeddingSettings, FlowSettings, PowerSpectrumSettings
from eorinfer.prior import Prior
from simulators import GaussianField

SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR = Prior.of(SIMULATOR.parameters, {"log_amplitude": (-2.0, 3.0), "slope": (-3.0, 0.0)})
KINDS = ["zuko_nsf", "zuko_maf"]


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
            for parameter in [*made.affine.parameters(), *made.flow.parameters()]:
                parameter.data += shake * torch.randn_like(parameter)
            # Narrower than the prior: a wider one has integrable poles at the edges of the box.
            made.affine.log_diagonal.bias.data += 0.7
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
    features = made.embedding(observed())[0]
    theta, area = grid(300)
    density = made.log_prob(theta, features).exp()
    assert abs(float(density.sum() * area) - 1) < 0.01
    prior = np.exp(PRIOR.log_density)
    assert (density - prior).abs().max() > 0.2 * prior, "a density that is not the prior, else this test is easy"

    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = made.sample(20000, features)
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
    log_q = torch.stack([made.log_prob(t[None], f)[0] for t, f in zip(theta, features, strict=True)])
    torch.testing.assert_close(made.loss(theta, x).double(), PRIOR.log_density - log_q, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_outside_the_prior_there_is_nothing_and_its_edge_is_finite() -> None:
    made = network("zuko_nsf")
    features = made.embedding(observed())[0]
    outside = torch.tensor([[-2.01, -1.0], [0.0, 0.01], [3.5, -3.5]], dtype=torch.float64)
    assert made.log_prob(outside, features).tolist() == [-torch.inf] * 3
    edge = torch.tensor([[-2.0, -3.0], [3.0, 0.0]], dtype=torch.float64)
    assert made.log_prob(edge, features).isfinite().all()
    assert made.loss(edge, observed(2)).isfinite().all()


@torch.no_grad()
def test_samples_of_a_posterior_at_the_edge_stay_inside() -> None:
    made = network("zuko_nsf")
    made.affine.mean.bias.fill_(8.0)
    with torch.random.fork_rng():
        drawn = made.sample(2000, made.embedding(observed())[0])
    assert PRIOR.contains(drawn.numpy()).all()


def test_gradients_reach_every_weight() -> None:
    made = network("zuko_nsf", shake=0.1).train()
    theta = torch.from_numpy(PRIOR.sample(8, np.random.default_rng(1)))
    made.loss(theta, observed(8)).mean().backward()
    for name, parameter in made.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def affine(shake: float, features: int = 5, parameters: int = 3) -> ConditionalAffine:
    made = ConditionalAffine(features, parameters)
    generator = torch.Generator().manual_seed(4)
    for parameter in made.parameters():
        parameter.data += shake * torch.randn(parameter.shape, generator=generator)
    return made.double()


def test_the_affine_map_begins_as_the_identity() -> None:
    u, features = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    z, log_det = affine(0.0)(u, features)
    assert torch.equal(z, u)
    assert torch.equal(log_det, torch.zeros(7, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("parameters", [1, 3])
def test_the_affine_map_against_autograd(parameters: int) -> None:
    generator = torch.Generator().manual_seed(5)
    made = affine(0.5, parameters=parameters)
    u = torch.randn(6, parameters, dtype=torch.float64, generator=generator)
    features = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    z, log_det = made(u, features)
    assert (z - u).abs().max() > 0.1
    torch.testing.assert_close(made.inverse(z, features), u)
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda v: made(v[None], features[[i]])[0][0], u[i])  # noqa: B023
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])
        assert torch.equal(jacobian, jacobian.tril())
    # One x for many u, as in sampling.
    z, log_det = made(u, features[:1])
    assert log_det.shape == (1,)
    torch.testing.assert_close(made.inverse(z, features[:1]), u)
