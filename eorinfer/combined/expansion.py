"""How ln p(x | theta) of an image flow changes about another posterior: a quadratic through few evaluations."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.arrays import as_theta
from eorinfer.core.prior import Prior
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import less_noise
from eorinfer.imageflow.model import ImageFlow

Array = NDArray[np.float64]
#: Standard deviations about the mean beyond which the quadratic is not continued.
REACH = 5.0
#: Standard deviation of ln p among the draws, in nats, that it may have at most. Where it is hundreds, ln p contradicts
#: the other posterior; one such image of 288 halved what all are worth. Between 16 and 64 nats nothing changed.
SPREAD = 30.0
#: Cells of all points together that pass the network at once.
CELLS = 2**17


@dataclass(frozen=True)
class Expansion:
    """A quadratic in theta, in nats, which is zero at the mean.

    Attributes
    ----------
    mean, root
        (P,) mean of the posterior that it is about, and (P, P) Cholesky factor of its covariance.
    coefficients
        (P + P (P + 1) / 2,) of `monomials` in standard deviations.
    """

    mean: Array
    root: Array
    coefficients: Array

    def __call__(self, theta: Array) -> Array:
        """Evaluate the quadratic at theta (n, P): (n,)."""
        delta = np.linalg.solve(self.root, (theta - self.mean).T).T
        return np.asarray(monomials(delta.clip(-REACH, REACH)) @ self.coefficients)


def expanded(flow: ImageFlow, x: Tensor, drawn: Array) -> Expansion:
    """Expand ln p(x | theta) of a diffusion about draws from another posterior, and bound its spread, see `SPREAD`.

    It is evaluated at their mean and, along the axes and diagonals of their covariance, one standard deviation to each
    side: 1 + P (P + 1) evaluations.

    Parameters
    ----------
    flow
        Diffusion whose conditions are theta.
    x
        (1, C, *cells) prepared image.
    drawn
        (n, P) draws.
    """
    mean, root, points = points_about(drawn, flow.conditions)
    delta = np.asarray(np.linalg.solve(root, (points - mean).T).T, np.float64)
    values = _log_p(flow, x, as_theta(points))
    return bounded(Expansion(mean, root, np.linalg.pinv(monomials(delta)) @ (values - values[0])), drawn)


def points_about(drawn: Array, inside: Prior) -> tuple[Array, Array, Array]:
    """Give mean (P,) and Cholesky factor of the covariance (P, P) of draws (n, P), and points (m, P) of a quadratic.

    The points are the mean and, to each side of it, one standard deviation along axes and diagonals, inside a prior.
    """
    mean, root = drawn.mean(0), np.linalg.cholesky(np.atleast_2d(np.cov(drawn, rowvar=False)))
    one = np.eye(len(mean))
    ways = [*one, *((one[i] + one[j]) / np.sqrt(2) for i in range(len(mean)) for j in range(i))]
    delta = np.concatenate([np.zeros((1, len(mean))), ways, -np.array(ways)])
    return mean, root, np.clip(mean + delta @ root.T, inside.low, inside.high)


def bounded(expansion: Expansion, drawn: Array) -> Expansion:
    """Shrink an expansion where its values at the draws (n, P) spread by more than `SPREAD`."""
    return replace(expansion, coefficients=expansion.coefficients / np.hypot(1, expansion(drawn).std() / SPREAD))


def monomials(delta: Array) -> Array:
    """Linear and quadratic monomials (n, P + P (P + 1) / 2) of delta (n, P)."""
    p = delta.shape[1]
    square = [delta[:, i] * delta[:, j] for i in range(p) for j in range(i + 1)]
    return np.concatenate([delta, np.stack(square, axis=1)], axis=1)


@torch.no_grad()
def _log_p(flow: ImageFlow, x: Tensor, y: Tensor) -> Array:
    """Compute ln p(x | y) (n,) at conditions y (n, P), with the same noise for all, and less what it is known to do."""
    network = flow.network
    assert isinstance(network, DiffusionFlow)
    size = max(1, CELLS // x[0].numel())
    parts = [network.log_prob_levels(x.expand(len(some), *x.shape[1:]), some) for some in y.split(size)]
    gauss, added = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
    known = network.excess_levels(y).numpy()
    return np.asarray(gauss + less_noise(added, known - known[0]).sum(1))
