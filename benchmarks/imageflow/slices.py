"""Slices of 21cm boxes of a run, observed in white noise: what maps_21cm.py and its parts look at."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.imageflow.conditions import spread_evenly
from eorinfer.imageflow.training import row_conditions
from eorinfer.settings.survey import WhiteNoise
from eorinfer.training.data import validation_rows


@dataclass(frozen=True)
class Maps:
    """Observed maps x (n, 1, *cells) float32 of conditions y (n, 1), and the boxes (n,) that they are from."""

    x: torch.Tensor
    y: torch.Tensor
    box: NDArray[np.int64]

    def __getitem__(self, chosen: Any) -> "Maps":
        return Maps(self.x[chosen], self.y[chosen], self.box[np.asarray(chosen)])

    def evenly(self, n: int) -> NDArray[np.int64]:
        """Numbers of `n` maps at most, spread evenly over the neutral fractions."""
        return spread_evenly(self.y[:, 0].numpy(), n, np.random.default_rng(17))


def unseen(run: Run) -> tuple[Rows, Rows]:
    """Rows that the run trains on, and the other whole rows of its bank."""
    rows = run.training_rows(run.observe())
    every = run.context.bank.rows().ok
    return rows, every[~np.isin(every.seed, rows.seed)]


def observed(run: Run, *, only: bool, noise: float | None = None) -> Maps:
    """All slices of the held-out boxes (`only`), or of all, with one fixed draw of noise, in mK."""
    rows = run.training_rows(run.observe())
    if only:
        rows = rows[validation_rows(rows.seed, run.config.tables.training.validation_fraction)]
    return observed_rows(run, rows, noise)


def observed_rows(run: Run, rows: Rows, noise: float | None = None, axes: int = 1) -> Maps:
    """All slices of rows of the run's bank, across its last axes."""
    config = run.config
    y = row_conditions(run.context.bank, rows, config.prior, config.tables.image_flow, axes)
    cubes = torch.from_numpy(run.context.bank.read(config.observable.name, rows))
    clean = torch.cat([cubes.movedim(-1 - a, 1) for a in range(axes)], dim=1).flatten(0, 1)
    survey = config.tables.survey
    assert isinstance(survey, WhiteNoise)
    sigma = survey.sigma if noise is None else noise
    x = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    return Maps(x, y.flatten(0, 1), np.repeat(np.arange(len(rows)), y.shape[1]))
