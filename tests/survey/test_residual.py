"""Residuals of foregrounds are Gaussian modes of the given power."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from eorinfer.survey import SkaLow, build_survey
from eorinfer.survey.ska import SkaLowSurvey
from simulators.base import Observable, Symmetry

QUICK = {"integration": 900.0}
BOX = Observable(
    "brightness_temp", (2, 12, 12, 8), "mK", ("redshift", "x", "y", "z"), (8.0, 8.0, 8.0), (7.0, 9.0),
    Symmetry((True, True, True), "all"),
)  # fmt: skip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(observable: Observable, clean: Tensor, **table: object) -> Tensor:
    return build_survey(SkaLow(**QUICK | table), observable)(clean, seeded(3))


def test_residuals_are_gaussian_modes_of_their_power() -> None:
    """Thermal noise of one seed is the same: the difference is the residuals."""
    table = {"amplitude": 5.0, "index": -2.0, "k_par_scale": 0.1}
    nothing = torch.zeros(48, *BOX.shape)
    left = observed(BOX, nothing, residual=table) - observed(BOX, nothing)
    survey = build_survey(SkaLow(**QUICK, residual=table), BOX)
    assert isinstance(survey, SkaLowSurvey)
    assert survey.residual is not None
    power = torch.fft.fftn(left.double(), dim=(-3, -2, -1)).abs().square().mean(dim=0)
    k = 2 * np.pi * np.fft.fftfreq(12, 8.0)
    across, along = np.hypot(k[:, None], k), 2 * np.pi * np.fft.fftfreq(8, 8.0)
    law = np.where(across > 0, across, np.inf)[..., None] ** -2.0 * np.exp(-((along / 0.1) ** 2) / 2)
    law *= 25.0 * law.size**2 / law.sum()
    for channel in range(2):
        seen = torch.zeros(12, 12, dtype=torch.bool)
        seen[:, :7] = survey.mask[channel, ..., 0] > 0
        assert seen.sum() > 10
        ratio = power[channel, seen].numpy() / law[seen.numpy()]
        assert ratio.mean() == pytest.approx(1, abs=0.05)
        assert abs(ratio - 1).max() < 1.2  # 48 draws
    assert abs((left[:, 0] * left[:, 1]).mean() / left.square().mean()) < 0.1
    torch.testing.assert_close(observed(BOX, nothing), observed(BOX, nothing, residual=None))


@pytest.mark.parametrize(
    "table",
    [
        {"residual": {"index": -2.0}},
        {"residual": {"amplitude": 1.0, "k_perp": 1.0}},
        {"taper": "kaiser"},
        {"beam": "step"},
        {"layout": "a.csv", "antennas": [[0, 0, 0], [9, 0, 0]], "latitude": -30.0, "sefd": 2000.0, "beam": "airy"},
    ],
)
def test_settings_refuse(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SkaLow(**table)
