"""NPE whose features cannot tell worlds apart at the same theta: a penalty on the embedding.

Where several simulators stand for one theta, a network may use what one of them alone does, and what no other world
does. The penalty compares features of the worlds in a batch by their maximum mean discrepancy (Gretton et al. 2012,
JMLR 13, 723, eq. 3), with a kernel over features and theta together: theta has the same distribution in all worlds, so
that the joint distributions are the same only where the conditional ones are.
"""

import torch
from torch import Tensor

from eorinfer.npe.task import PosteriorTask
from eorinfer.training.data import Batches, Part

#: Width of the kernel in theta, in units of the prior's standard deviation; those in features, of theirs in a batch.
THETA_WIDTH, FEATURE_WIDTHS = 0.5, (0.5, 1.0, 2.0)


class Labelled(Batches):
    """Rows with the number of the world that made each.

    Parameters
    ----------
    rows
        Theta and clean cubes.
    world
        (n,) numbers.
    """

    def __init__(self, rows: Part, world: Tensor) -> None:
        self._rows, self._world, self.slow = rows, world, rows.slow

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Theta (B, P), clean cubes (B, C, *cells) and worlds (B,)."""
        return (*self._rows.__getitems__(indices), self._world[indices])

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        return self._rows.row_names(indices)


class AlignedTask(PosteriorTask):
    """A posterior network that pays `strength` nats for each unit of discrepancy between the worlds of a batch."""

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """`ThetaDensity.loss` and the penalty, (B,), for theta (B, P), clean cubes (B, C, *cells) and worlds (B,)."""
        theta, clean, world = batch
        features = self.features(clean, generator)
        own = -self.network.log_ratio(theta[None], features)[0]
        return own + self.strength * joint_discrepancy(features, self.network.to_box(theta).float(), world)


def joint_discrepancy(features: Tensor, theta: Tensor, world: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of (features, theta) between each world and the others, summed; unbiased.

    Parameters
    ----------
    features
        (B, F)
    theta
        (B, P) in units of the prior's standard deviation.
    world
        (B,) numbers; those with fewer than two rows do not count.
    """
    # Features in units of their scatter in the batch: shrinking them all would otherwise be the cheapest way to agree.
    standard = (features - features.mean(0)) / (features.std(0) + 1e-6)
    apart = torch.cdist(standard, standard).square() / features.shape[1]
    near = sum(torch.exp(-0.5 * apart / width**2) for width in FEATURE_WIDTHS) / len(FEATURE_WIDTHS)
    kernel = near * torch.exp(-0.5 * torch.cdist(theta, theta).square() / THETA_WIDTH**2)
    total = features.new_zeros(())
    for one in world.unique():
        own = world == one
        n, m = int(own.sum()), int((~own).sum())
        if n < 2 or m < 2:
            continue
        within = _mean_apart(kernel[own][:, own], n) + _mean_apart(kernel[~own][:, ~own], m)
        total = total + within - 2 * kernel[own][:, ~own].mean()
    return total


def _mean_apart(kernel: Tensor, n: int) -> Tensor:
    """Mean of a kernel's matrix (n, n) without its diagonal."""
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))
