"""Noise from a file: drawn at random, moved as the sky allows, and checked."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.settings.survey import survey_key
from eorinfer.survey import SkaLow, build_survey, check_survey
from eorinfer.survey.ska import SkaLowSurvey
from simulators.base import Observable, Symmetry
from tests.survey.test_ska_lightcone import lightcone

QUICK = {"integration": 900.0}
SKY = (-3, -2)
BOX = Observable(
    "brightness_temp", (2, 12, 12, 8), "mK", ("redshift", "x", "y", "z"), (8.0, 8.0, 8.0), (7.0, 9.0),
    Symmetry((True, True, True), "all"),
)  # fmt: skip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field(n: int, observable: Observable) -> Tensor:
    return torch.randn(n, *observable.shape, generator=seeded(1))


def noise_file(path: Path, cubes: np.ndarray, unit: str | None = "mK", name: str = "noise") -> Path:
    with h5py.File(path, "w") as file:
        file[name] = cubes
        if unit is not None:
            file[name].attrs["unit"] = unit
    return path


def test_noise_is_drawn_from_the_file_and_moved(tmp_path: Path) -> None:
    """Each draw of one cube is the cube itself, rolled along all axes of a box and turned by 180 degrees or not."""
    coverage = build_survey(SkaLow(**QUICK), BOX).mask
    cube = torch.fft.irfft2(torch.fft.rfft2(field(1, BOX), dim=SKY) * coverage, s=(12, 12), dim=SKY)
    path = noise_file(tmp_path / "cubes.h5", cube.numpy())
    survey = build_survey(SkaLow(**QUICK, noise=path), BOX)
    draws = survey(torch.zeros(24, *BOX.shape), seeded(0))
    turned = {False: 0, True: 0}
    for draw in draws:
        for turn in turned:
            start = cube[0].flip((1, 2)) if turn else cube[0]
            together = torch.fft.fftn(draw[0]) * torch.fft.fftn(start[0]).conj()
            shift = np.unravel_index(int(torch.fft.ifftn(together).real.argmax()), BOX.cells)
            turned[turn] += torch.allclose(start.roll(shift, dims=(1, 2, 3)), draw, atol=1e-4)
    assert sum(turned.values()) == 24
    assert min(turned.values()) > 3
    signal = field(24, BOX)
    plain = SkaLowSurvey(SkaLow(**QUICK), BOX.cells, BOX.cell_size, BOX.channels)
    expected = plain(signal, seeded(2)) - plain(torch.zeros_like(signal), seeded(2))
    torch.testing.assert_close(survey(signal, seeded(0)) - draws, expected, rtol=0, atol=1e-3)


def test_noise_of_a_lightcone_stays_at_its_redshift(tmp_path: Path) -> None:
    observable = lightcone()
    cubes = np.random.default_rng(1).normal(size=(2, *observable.shape)) * np.arange(1, 13)
    survey = build_survey(SkaLow(**QUICK, noise=noise_file(tmp_path / "n.h5", cubes)), observable)
    draws = survey(torch.zeros(16, *observable.shape), seeded(0))[:, 0]
    spread = draws.std(dim=(1, 2)) / draws.std(dim=(0, 1, 2))
    assert (spread - 1).abs().max() < 0.3
    assert len({round(float(draw.abs().sum()), 2) for draw in draws}) == 2


@pytest.mark.parametrize(
    ("cubes", "unit", "name", "message"),
    [
        (np.zeros((3, 2, 12, 12, 9)), "mK", "noise", r"has shape \(3, 2, 12, 12, 9\), expected \(N, 2, 12, 12, 8\)"),
        (np.zeros((3, 2, 12, 12, 8)), "K", "noise", "has unit = 'K', expected unit = 'mK'"),
        (np.zeros((3, 2, 12, 12, 8)), None, "noise", "has no attribute unit, expected unit = 'mK'"),
        (np.zeros((3, 2, 12, 12, 8), dtype=int), "mK", "noise", "expected real numbers"),
        (np.zeros((3, 2, 12, 12, 8)), "mK", "cubes", r"has no dataset noise, \(N, 2, 12, 12, 8\)"),
        (np.full((3, 2, 12, 12, 8), np.nan), "mK", "noise", "some numbers are not finite"),
    ],
)
def test_files_of_noise_that_are_refused(
    tmp_path: Path, cubes: np.ndarray, unit: str | None, name: str, message: str
) -> None:
    path = noise_file(tmp_path / "n.h5", cubes, unit, name)
    with pytest.raises(ValueError, match=message):
        build_survey(SkaLow(**QUICK, noise=path), BOX)
    with pytest.raises(ValueError, match=r"noise: .*none\.h5"):
        check_survey(SkaLow(noise=tmp_path / "none.h5"), BOX)


def test_what_noise_is_counts_and_not_where_it_lies(tmp_path: Path) -> None:
    one, same, other = (
        survey_key(SkaLow(noise=noise_file(tmp_path / name, np.full((1, *BOX.shape), value))))
        for name, value in (("a.h5", 1.0), ("b.h5", 1.0), ("c.h5", 2.0))
    )
    assert one == same != other
    assert not {"noise", "beam", "taper", "residual"} & set(survey_key(SkaLow()))
