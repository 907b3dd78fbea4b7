"""NPE with an error model of the features, whose size is learned from the spread between worlds.

The sky is no draw of any of the simulators. Robust NPE (Ward et al. 2022, arXiv 2210.06564) takes observed features to
be simulated ones plus an error, and marginalises over it. Here the error is normal, with the covariance by which the
mean features of a further world would differ, as far as the spread between the worlds of the training tells. The
posterior's flow is trained once more on features with such errors, which marginalises over them. The embedding stays.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import item_seed
from eorinfer.npe.check import observed_rows
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.reference import ROWS, best_kernel, regression
from eorinfer.npe.task import PosteriorTask
from eorinfer.settings.npe import TrainingSettings
from eorinfer.survey.base import Survey
from eorinfer.training.data import Cubes, Part, split_rows
from eorinfer.training.fit import fit

#: Share of the steps of a training that a flow takes on features alone.
STEPS = 0.5


class ErrorModelTask(PosteriorTask):
    """A posterior network whose flow sees features with errors; its embedding is fixed."""

    factor: Tensor

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Give -log q + log of a flat density, (B,), for theta (B, P) and clean cubes (B, C, *cells)."""
        theta, clean = batch
        with torch.no_grad():
            features = self.features(clean, generator)
            errors = torch.randn(features.shape, generator=generator, device=generator.device).to(features)
        return -self.network.log_ratio(theta[None], features + errors @ self.factor.T.to(features))[0]


def spread_between(
    theta: NDArray[np.float64], features: NDArray[np.float64], world: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Covariance (F, F) by which the mean features of a world not seen differ from those of the W seen ones.

    The mean features of each world at theta come from a kernel regression on its rows. For a world drawn like the
    others the covariance is (1 + 1/W) times theirs, averaged over theta.

    Parameters
    ----------
    theta
        (n, P) in units of the prior's box.
    features
        (n, F)
    world
        (n,) numbers, of at least two worlds.
    """
    means = []
    for one in np.unique(world):
        own = np.flatnonzero(world == one)[:ROWS]
        at, read = torch.from_numpy(theta[own]), torch.from_numpy(features[own])
        learned = regression(at, read, read, kernel=best_kernel(at, read))
        means.append((learned.predicted(torch.from_numpy(theta)) * learned.scale + learned.centre).numpy())
    each = np.stack(means)
    off = each - each.mean(0)
    worlds = len(each)
    return np.asarray(np.einsum("wni,wnj->ij", off, off) / (len(theta) * (worlds - 1)) * (1 + 1 / worlds))


def with_error_model(
    posterior: Posterior,
    cubes: Cubes,
    rows: Rows,
    survey: Survey,
    settings: TrainingSettings,
    *,
    strength: float = 1.0,
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> Posterior:
    """Train a posterior's flow once more, on features with errors of the size of the spread between worlds.

    Parameters
    ----------
    posterior
        Trained on several worlds.
    cubes, rows
        Rows of its training, of at least two worlds.
    survey
        Observes them.
    settings
        Those of its training; `STEPS` of its steps are taken.
    strength
        Factor on the errors.
    folder
        Folder of checkpoints.
    seed
        Seed of errors, noise and order.
    progress
        Receives bars.
    """
    settings = settings.model_copy(update={"steps": max(1, int(STEPS * settings.steps))})
    networks = []
    for member, network in enumerate(deepcopy(list(posterior.networks))):
        own = item_seed(seed, member)
        features = _features(network, posterior, Part(cubes, np.ones(len(rows), bool)), survey, own)
        spread = spread_between(posterior.prior.unit(rows.theta), features, rows.world)
        task = ErrorModelTask(network, survey, posterior.observable.symmetry, None, posterior.preprocessing)
        # A square root of the covariance, which has no full rank where worlds are few.
        values, vectors = np.linalg.eigh(spread)
        factor = strength * vectors * np.sqrt(np.maximum(values, 0))
        task.register_buffer("factor", torch.from_numpy(factor), persistent=False)
        network.embedding.requires_grad_(False)
        network.widening = 1.0
        validate = split_rows(rows, settings.validation_fraction, member)
        fit(
            task,
            Part(cubes, ~validate),
            Part(cubes, validate),
            settings,
            folder=folder / f"{member:02d}",
            seed=own,
            title=f"error model, network {member + 1} of {len(posterior.networks)}",
            progress=progress,
        )
        networks.append(network)
    return replace(posterior, networks=tuple(networks), reference=None)


def _features(
    network: ThetaDensity, posterior: Posterior, rows: Part, survey: Survey, seed: int
) -> NDArray[np.float64]:
    """Features (n, F) of a network, read from all rows observed once."""
    generator, one = torch.Generator().manual_seed(seed), replace(posterior, networks=(network,))
    read = [one.read(observed)[0] for observed in observed_rows(rows, np.arange(len(rows)), survey, generator)]
    return torch.cat(read).double().numpy()
