"""The interpolation of ln p between conditions."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import BANDS
from eorinfer.imageflow.interpolated import ROUGHER, InterpolatedLikelihood
from simulators import Parameter

#: Standard deviation of the posterior.
WIDTH = 0.008


def steep(peak: float, cliff: float, slope: float, levels_wide: float) -> Any:
    """A density whose ln p spans tens of thousands of nats, with a known error of its levels that goes with y."""

    def gauss(x: Tensor, y: Tensor) -> Tensor:
        u = y[:, 0].double()
        return -cliff * (torch.relu(peak - u) / 0.5) ** 4 - slope * ((u - peak) / 0.4).square()

    def levels(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        total = -((y[:, 0].double() - peak) / WIDTH).square() / 2 - gauss(x, y)
        share = torch.exp(-((((torch.arange(n) + 0.5) / n - 0.4) / levels_wide) ** 2) / 2).double()
        return gauss(x, y), total[:, None] * share / share.sum()

    def excess(y: Tensor, n: int) -> Tensor:
        noise = torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return 20 * (1 - y[:, 0].double())[:, None] ** 2 * noise / n

    return SimpleNamespace(log_prob_gauss=gauss, log_prob_levels=levels, excess_levels=excess)


@pytest.mark.parametrize(
    ("peak", "cliff", "slope", "levels_wide"), [(0.544, 28000.0, 800.0, 0.05), (0.7, 100000.0, 300.0, 0.1)]
)
def test_the_last_box_holds_the_peak_of_a_steep_density(
    peak: float, cliff: float, slope: float, levels_wide: float
) -> None:
    conditions = Prior((Parameter("y", "y", 0.0, 1.0, 0.5),))
    flow = steep(peak, cliff, slope, levels_wide)
    found = InterpolatedLikelihood(flow, torch.zeros(1, 1, 4, 4), conditions, depth=60.0)
    grid = np.sort(found.points(512)[0][:, 0])
    weight = np.exp((values := found(grid[:, None])) - values.max())
    mean = (weight * grid).sum() / weight.sum()
    assert mean == pytest.approx(peak, abs=0.3 * WIDTH)
    assert np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum()) == pytest.approx(WIDTH, rel=0.3)


def test_the_error_is_that_of_the_weighted_density() -> None:
    """An error of what counts for nothing is none: with the weights of a bad density 66 nats were said before."""
    conditions = Prior((Parameter("y", "y", 0.0, 1.0, 0.5),))

    def levels(x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        rough = 300 * torch.sin(40 * y[:, :1].double())
        return y[:, 0], rough.expand(-1, n) / n

    flow: Any = SimpleNamespace(
        log_prob_gauss=lambda x, y: -50 * (y[:, 0].double() - 0.5).square(),
        log_prob_levels=levels,
        excess_levels=lambda y, n: torch.zeros(len(y), n, dtype=torch.float64),
    )
    whole, hundredth = (
        InterpolatedLikelihood(flow, torch.zeros(1, 1, 4, 4), conditions, np.full(1 + BANDS, w)).residual
        for w in (1.0, 0.01)
    )
    assert hundredth < ROUGHER < whole / 10
