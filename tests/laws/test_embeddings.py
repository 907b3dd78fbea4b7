"""Laws of every embedding that the settings can ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eorinfer.npe.network import build_embedding
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.npe import EmbeddingSettings
from simulators import GaussianField, Observable, Symmetry
from tests.laws.laws import cubes, random_state_untouched, through_a_file

MAP = GaussianField(cells=16, box_length=16.0).observables[0]
BOX = Observable(
    "t", (2, 8, 8, 8), "mK", ("redshift", "x", "y", "z"), (2.0, 2.0, 2.0), (7.0, 8.0), Symmetry((True,) * 3, "all")
)
LIGHTCONE = Observable(
    "t", (1, 8, 8, 12), "mK", ("channel", "x", "y", "z"), (2.0, 2.0, 2.0), (0.0,),
    Symmetry((True, True, False), "transverse"), tuple(7 + 0.1 * i for i in range(12)),
)  # fmt: skip
TABLE: dict[str, tuple[Observable, dict[str, Any]]] = {
    "map": (MAP, {}),
    "image-alone": (MAP, {"power_spectrum": False}),
    "power-alone": (MAP, {"convolution": False}),
    "scattering": (MAP, {"scattering": True}),
    "box": (BOX, {}),
    "volumes": (BOX, {"redshifts": "volumes"}),
    "lightcone": (LIGHTCONE, {"features": 5}),
}
Case = tuple[nn.Module, Callable[[], nn.Module], Observable, int]


@pytest.fixture(scope="module", params=TABLE)
def case(request: pytest.FixtureRequest) -> Case:
    observable, settings = TABLE[request.param]

    def build() -> nn.Module:
        return build_embedding(2, observable, EmbeddingSettings(width=4, bins=3, **settings), PowerSpectrumSettings())[
            0
        ]

    torch.manual_seed(1)
    made: Any = build()
    made.fit_scaling(cubes(20, observable.shape, seed=5))
    return made.eval(), build, observable, settings.get("features", 8)


def test_features_of_a_cube_are_its_own(case: Case) -> None:
    embedding, _, observable, length = case
    x = cubes(4, observable.shape)
    with random_state_untouched(), torch.no_grad():
        features = embedding(x)
        assert features.shape == (4, length)
        assert features.dtype == torch.float32
        assert features.isfinite().all()
        for i in range(4):
            torch.testing.assert_close(embedding(x[i : i + 1])[0], features[i], rtol=1e-3, atol=1e-4)
        assert not torch.allclose(embedding(1.5 * x), features, rtol=1e-2), "the amplitude is not normalised away"


def test_every_weight_learns(case: Case) -> None:
    embedding, _, observable, _ = case
    embedding.zero_grad()
    embedding(cubes(4, observable.shape)).square().sum().backward()
    for name, parameter in embedding.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_it_goes_through_a_file(case: Case, tmp_path: Path) -> None:
    embedding, build, observable, _ = case
    x = cubes(2, observable.shape)
    with torch.no_grad():
        assert torch.equal(through_a_file(embedding, build, tmp_path)(x), embedding(x))
