"""Posterior odds of worlds: which simulator an observation looks like, marginalised over theta.

A softmax regression on what the networks read and on the statistics of the image, whose ridge and temperature are
chosen on realisations that it did not see. Trained on the rows of a bank, it gives p(world | observation) under worlds
that are as likely as their share of the rows. It says nothing of worlds that are not among these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor
from torch.nn.functional import cross_entropy

from eorinfer.bank.rows import Rows
from eorinfer.npe.check import observed_rows
from eorinfer.npe.density import Ensemble
from eorinfer.npe.image_statistics import ImageStatistics
from eorinfer.survey.base import Survey
from eorinfer.training.data import Part, realisation_ranks

#: Rows at most, and draws of the noise of each.
ROWS, NOISE_DRAWS = 3000, 2
#: Strengths of the ridge, and folds of realisations to choose among them.
RIDGES, FOLDS = (1e-4, 1e-3, 1e-2, 1e-1), 4
#: Factors on the log odds: regressions on few realisations are too sure (Guo et al. 2017, arXiv 1706.04599).
TEMPERS = np.geomspace(0.2, 1.5, 30).tolist()
#: Steps of L-BFGS.
STEPS = 60


@dataclass(frozen=True)
class WorldOdds:
    """A trained softmax regression.

    Attributes
    ----------
    names
        Names of the K worlds.
    centre, scale
        (D,) each, of the inputs.
    weights
        (K, D + 1), the last column for a constant.
    """

    names: tuple[str, ...]
    centre: Tensor
    scale: Tensor
    weights: Tensor

    def probabilities(self, posterior: Ensemble, observed: Tensor) -> NDArray[np.float64]:
        """Give p(world) (B, K) of observed cubes (B, C, *cells)."""
        inputs = (inputs_of(posterior, observed) - self.centre) / self.scale
        probabilities: NDArray[np.float64] = torch.softmax(_with_one(inputs) @ self.weights.T, dim=1).numpy()
        return probabilities

    def content(self) -> dict[str, Any]:
        """Write it for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("centre", "scale", "weights")}
        return {"names": list(self.names), **arrays}

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> "WorldOdds":
        """Read what `content` wrote."""
        arrays = (torch.tensor(content[name], dtype=torch.float64) for name in ("centre", "scale", "weights"))
        return cls(tuple(content["names"]), *arrays)


def inputs_of(posterior: Ensemble, observed: Tensor) -> Tensor:
    """Features of all networks and statistics of the image, (B, D) float64."""
    statistics = ImageStatistics(posterior.observable, posterior.networks[0].embedding.unit)(observed)
    return torch.cat([*(read.double() for read in posterior.read(observed)), statistics], dim=1)


def learn_odds(
    posterior: Ensemble, cubes: Part, rows: Rows, names: Sequence[str], survey: Survey, seed: int
) -> WorldOdds:
    """Learn to tell worlds apart.

    Parameters
    ----------
    posterior
        Just trained.
    cubes, rows
        Rows of its training, each with its world.
    names
        Names of all worlds; those without rows have no odds.
    survey
        Observes them.
    seed
        Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:ROWS])
    there = np.unique(rows.world)
    inputs = torch.cat(
        [
            inputs_of(posterior, observed)
            for _ in range(NOISE_DRAWS)
            for observed in observed_rows(cubes, chosen, survey, generator)
        ]
    )
    label = torch.from_numpy(np.tile(np.searchsorted(there, rows.world[chosen]), NOISE_DRAWS))
    rank = np.tile(realisation_ranks(rows.seed[chosen]), NOISE_DRAWS)
    centre, scale = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    standard = _with_one((inputs - centre) / scale)
    out = [torch.from_numpy((rank * FOLDS).astype(int) == fold) for fold in range(FOLDS)]
    out = [rows for rows in out if rows.any() and not rows.all()]
    best = (np.inf, RIDGES[-1], 1.0)
    for ridge in RIDGES:
        logits = [standard[rows] @ _fit(standard[~rows], label[~rows], len(there), ridge).T for rows in out]
        for temper in TEMPERS if out else []:
            tempered = [temper * of_fold for of_fold in logits]
            losses = [cross_entropy(x, label[rows], reduction="sum") for x, rows in zip(tempered, out, strict=True)]
            best = min(best, (float(sum(losses)), ridge, temper))
    _, ridge, temper = best
    return WorldOdds(tuple(names[i] for i in there), centre, scale, temper * _fit(standard, label, len(there), ridge))


def calibration(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Accuracy, mean log score in nats, and p-value of calibration, of probabilities (n, K) and true numbers (n,).

    The p-value is that of Spiegelhalter's z (1986, Statistics in Medicine 5, 421) of each world against the others,
    the smallest times their number.
    """
    n, k = probabilities.shape
    hit = truth[:, None] == np.arange(k)
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    z = ((hit - p) * (1 - 2 * p)).sum(0) / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum(0) + 1e-300)
    return {
        "accuracy": float((p.argmax(1) == truth).mean()),
        "log_score": float(np.log(p[np.arange(n), truth]).mean()),
        "log_score_of_chance": float(-np.log(k)),
        "p_calibrated": float(min(1.0, k * 2 * norm.sf(np.abs(z)).min())),
    }


def odds_line(names: Sequence[str], probabilities: NDArray[np.float64]) -> str:
    """Say the odds of one observation (K,) in words."""
    order = np.argsort(-probabilities)
    return "odds of the worlds: " + ", ".join(f"{names[i]} {probabilities[i]:.1%}" for i in order)


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)


def _fit(inputs: Tensor, label: Tensor, worlds: int, ridge: float) -> Tensor:
    """Weights (K, D + 1) of the smallest cross entropy and ridge."""
    weights = torch.zeros(worlds, inputs.shape[1], dtype=inputs.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(inputs @ weights.T, label)
        loss = loss + 0.5 * ridge * weights[:, :-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()
