"""Laws of every summary: a cube's own, unchanged by what the model's symmetries do to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eorinfer.summaries.power import CylindricalPowerSpectrum, PowerSpectrum
from eorinfer.summaries.scattering import Scattering
from tests.laws.laws import cubes, random_state_untouched, through_a_file

#: How each is built, the shape of its cubes, and the power of the amplitude that it goes with.
TABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "power-2d": (lambda: PowerSpectrum((8, 8), (16.0, 16.0), n_bins=3), (2, 8, 8), 2.0),
    "power-3d": (lambda: PowerSpectrum((6, 6, 8), (12.0, 12.0, 8.0), n_bins=3), (1, 6, 6, 8), 2.0),
    "cylindrical": (
        lambda: CylindricalPowerSpectrum((8, 8, 8), (16.0, 16.0, 8.0), [0.1, 1.0, 2.5], [0.1, 2.0, 4.0]),
        (2, 8, 8, 8),
        2.0,
    ),
    "scattering-2d": (lambda: Scattering((16, 16), (True, True)), (2, 16, 16), 1.0),
    "scattering-3d": (lambda: Scattering((16, 16, 3), (True, True, False)), (1, 16, 16, 3), 1.0),
}
Case = tuple[nn.Module, Callable[[], nn.Module], tuple[int, ...], float]


@pytest.fixture(scope="module", params=TABLE)
def case(request: pytest.FixtureRequest) -> Case:
    build, shape, power = TABLE[request.param]
    return build(), build, shape, power


def close(a: Tensor, b: Tensor, tolerance: float = 2e-4) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-6 * float(b.abs().max()), check_dtype=False)


def test_each_channel_of_each_cube_has_its_own(case: Case) -> None:
    summary, _, shape, _ = case
    x = cubes(3, shape)
    with random_state_untouched():
        together = summary(x)
    assert together.shape[:2] == (3, shape[0])
    assert together.isfinite().all()
    assert (together > 0).all()
    for i in range(3):
        close(together[i : i + 1], summary(x[i : i + 1]))
    close(together[:, :1], summary(x[:, :1]))


def test_it_goes_with_the_amplitude(case: Case) -> None:
    summary, _, shape, power = case
    x = cubes(2, shape)
    close(summary(3 * x), 3**power * summary(x))


def test_shifts_and_turns_of_a_periodic_cube_change_nothing(case: Case) -> None:
    summary, _, shape, power = case
    x = cubes(2, shape)
    expected = summary(x)
    # Coefficients of scattering are averaged over every few cells, and for a few orientations.
    close(summary(x.roll((1, 2), dims=(2, 3))), expected, 2e-4 if power == 2.0 else 0.05)
    if power == 2.0:
        close(summary(x.transpose(2, 3)), expected)
        close(summary(x.flip(2)), expected)
        close(summary(x.flip(-1)), expected)


def test_it_goes_through_a_file(case: Case, tmp_path: Path) -> None:
    summary, build, shape, _ = case
    x = cubes(2, shape)
    assert torch.equal(through_a_file(summary, build, tmp_path)(x), summary(x))
