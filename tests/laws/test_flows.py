"""Laws of every density: of parameters given an image, and of images given parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.isotropic import IsotropicFlow
from eorinfer.imageflow.multiscale import MultiscaleFlow
from eorinfer.npe.network import PosteriorNetwork
from eorinfer.npe.regression import RegressionNetwork
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings, FlowSettings
from simulators import GaussianField
from tests.laws.laws import cubes, random_state_untouched, seeded, through_a_file

SIMULATOR = GaussianField(cells=8, box_length=8.0)
PRIOR, IMAGE = Prior(SIMULATOR.parameters), SIMULATOR.observables[0]
EMBEDDING, POWER = EmbeddingSettings(width=4, bins=3), PowerSpectrumSettings()
POSTERIORS: dict[str, Callable[[], Any]] = {
    **{
        kind: lambda kind=kind: PosteriorNetwork(
            PRIOR, IMAGE, EMBEDDING, FlowSettings(kind=kind, transforms=1, hidden=(8,)), POWER
        )
        for kind in ("zuko_nsf", "zuko_maf")
    },
    "regression": lambda: RegressionNetwork(PRIOR, IMAGE, EMBEDDING, POWER),
}


def shaken(module: Any) -> Any:
    """A module whose parameters are all away from where they start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded(3), dtype=parameter.dtype))
    return module.eval()


@pytest.fixture(scope="module", params=POSTERIORS)
def posterior(request: pytest.FixtureRequest) -> tuple[Any, Callable[[], Any]]:
    build = POSTERIORS[request.param]
    torch.manual_seed(1)
    network = build()
    network.embedding.fit_scaling(cubes(20, IMAGE.shape, seed=5))
    return shaken(network), build


@torch.no_grad()
def test_densities_of_parameters(posterior: tuple[Any, Callable[[], Any]]) -> None:
    network, _ = posterior
    features = network.embedding(cubes(3, IMAGE.shape))
    torch.manual_seed(2)
    draws = network.sample(500, features)
    assert draws.shape == (500, 3, 2)
    assert draws.dtype == torch.float64
    torch.manual_seed(2)
    assert torch.equal(network.sample(500, features), draws), "torch's global state decides"
    log_q = network.log_prob(draws, features)
    assert log_q.shape == (500, 3)
    assert log_q.dtype == torch.float64
    for i in range(3):
        alone = network.log_prob(draws[:, i : i + 1], features[i : i + 1])[:, 0]
        torch.testing.assert_close(alone, log_q[:, i], rtol=1e-4, atol=1e-4)
    # The mean of 1 / (V q) over draws from q is the share of the box in which q has its mass: one.
    low, high = network.low, network.high
    grid = torch.cartesian_prod(
        *[low[i] + (high - low)[i] * (torch.arange(100).double() + 0.5) / 100 for i in range(2)]
    )
    volume = torch.log(high - low).sum()
    mass = (network.log_prob(grid[:, None], features[:1]) + volume).exp().mean()
    inside = ((draws[:, 0] >= low) & (draws[:, 0] <= high)).all(-1).double().mean()
    assert mass.item() == pytest.approx(inside.item(), abs=0.08), "the density is normalised"


@torch.no_grad()
def test_a_posterior_goes_through_a_file(posterior: tuple[Any, Callable[[], Any]], tmp_path: Path) -> None:
    network, build = posterior
    x, theta = cubes(2, IMAGE.shape), torch.from_numpy(PRIOR.low)[None] + torch.tensor([[0.3, 0.2], [0.5, 0.1]])
    again: Any = through_a_file(network, build, tmp_path)
    assert torch.equal(again.loss(theta, x), network.loss(theta, x))


LOW, HIGH = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])
IMAGE_FLOWS: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "isotropic-2d": ((1, 6, 8), lambda: IsotropicFlow((1, 6, 8), (1.0, 1.0), LOW, HIGH, hidden=(8,))),
    "isotropic-3d": ((2, 4, 4, 6), lambda: IsotropicFlow((2, 4, 4, 6), (1.0,) * 3, LOW, HIGH, hidden=(8,))),
    "multiscale-2d": (
        (1, 8, 4),
        lambda: MultiscaleFlow((1, 8, 4), (1.0, 1.0), LOW, HIGH, width=8, depth=1, components=2, hidden=(8,)),
    ),
    "diffusion-2d": ((2, 6, 8), lambda: DiffusionFlow((2, 6, 8), (1.0, 1.0), LOW, HIGH, width=8, hidden=(8,))),
}


def conditions(n: int) -> Tensor:
    return LOW + (HIGH - LOW) * torch.rand(n, 2, generator=seeded(4), dtype=torch.float64)


@pytest.fixture(scope="module", params=IMAGE_FLOWS)
def image_flow(request: pytest.FixtureRequest) -> tuple[Any, Callable[[], Any], tuple[int, ...]]:
    shape, build = IMAGE_FLOWS[request.param]
    torch.manual_seed(1)
    flow = build()
    flow.fit_start(cubes(40, shape, seed=6), conditions(40))
    return shaken(flow), build, shape


@torch.no_grad()
def test_densities_of_images(image_flow: tuple[Any, Callable[[], Any], tuple[int, ...]]) -> None:
    flow, _, shape = image_flow
    x, y = cubes(3, shape), conditions(3)
    with random_state_untouched():
        z, log_det = flow(x, y)
        scales = flow.log_prob_scales(x, y)
        made, again, other = (flow.sample(y, seeded(seed)) for seed in (1, 1, 2))
    assert z.shape == x.shape
    assert log_det.shape == (3,)
    assert log_det.dtype == torch.float64
    assert scales.shape == (3, len(flow.terms))
    assert scales.dtype == torch.float64
    torch.testing.assert_close(flow.log_prob(x, y), scales.sum(1))
    torch.testing.assert_close(flow.inverse(z, y), x, rtol=1e-3, atol=1e-3 * float(x.std()))
    assert made.shape == x.shape
    assert made.dtype == torch.float32
    assert torch.equal(made, again)
    assert not torch.equal(made, other)
    for i in range(3):
        torch.testing.assert_close(flow.log_prob(x[i : i + 1], y[i : i + 1])[0], scales[i].sum(), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_an_isotropic_flow_knows_no_place_and_no_direction(
    image_flow: tuple[Any, Callable[[], Any], tuple[int, ...]],
) -> None:
    flow, _, shape = image_flow
    x, y = cubes(2, shape), conditions(2)
    if isinstance(flow, IsotropicFlow):
        expected = flow.log_prob(x, y)
        for moved in (x.roll((1, 2), dims=(2, 3)), x.flip(2), x.flip(-1)):
            torch.testing.assert_close(flow.log_prob(moved, y), expected, rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_an_image_flow_goes_through_a_file(
    image_flow: tuple[Any, Callable[[], Any], tuple[int, ...]], tmp_path: Path
) -> None:
    flow, build, shape = image_flow
    x, y = cubes(2, shape), conditions(2)
    again: Any = through_a_file(flow, build, tmp_path)
    assert torch.equal(again.log_prob(x, y), flow.log_prob(x, y))
