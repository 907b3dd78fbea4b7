"""Statistics of simulated images against theta, for the check of an observation.

A posterior carries one, so that each observation that it is asked about can be compared with the
simulations it was trained on. Two distances are compared with those of simulations that
training held out:

- how far the image's statistics are from the ones that simulations have at the parameters which
  the posterior allows, at the best of them. Statistics that the network does not look at count too;
- how far what each network reads from the image is from what it read in training, at the
  `NEIGHBOUR`-th nearest of it (Schmitt et al. 2021, arXiv 2112.08719, compare distributions of
  it for a whole set of observations; here there is one); of several networks the geometric mean.

Each network of an ensemble holds out another fold of realisations. The distances to compare with are those of all
folds, as an observation would have them: from the regression and the features without the row's realisation, at
parameters that the network allows which never saw it. The networks that saw the row know it too well: what they read
is moved to the median and the spread of what the others read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from eorinfer.core.errors import WorkError

#: Scatter below which a statistic counts as exact: means that a survey sets to zero, and rounding.
FLOOR = 1e-3
#: Neighbour to which a distance is taken: near enough for the corners of a prior to be no outliers.
NEIGHBOUR = 5
#: Power of a squared distance that is nearly normal: 1/3 is right for chi^2 (Wilson & Hilferty 1931), whose tail is
#: lighter than that of images whose scatter changes with theta; a logarithm has too light a tail itself.
POWER = 0.2
#: Smallest spread of log distances, for held-out ones that are all the same.
LEAST_SPREAD = 0.1
#: Rows that the regression on theta is made of, at most.
ROWS = 1000
#: Length scales, in units of the diagonal of the prior's box, and noise that the regression chooses from.
LENGTHS, NOISES = (0.25, 0.5, 1.0, 2.0, 4.0), (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Reference:
    """Statistics and features of simulations, and how far held-out ones are from them.

    Attributes
    ----------
    theta
        (n, P) of the regression's rows, in units of the prior's box.
    weights
        (n, S) kernel weights: standardised statistics at t are k(t, theta) @ weights.
    length
        () length scale of the kernel.
    centre, scale
        (S,) each: statistics are (s - centre) / scale.
    whiten
        (S, S): makes residuals of the regression white.
    residual
        (S,) their standard deviations.
    features
        (n, F) of all networks, those of each network white.
    feature_centre, feature_scale, feature_whiten
        (F,), (F,), (F, F): make features white.
    held_out
        (2, m) log distances of simulations that training held out: of statistics and of features.
    realisations
        () how many realisations these are of.
    blocks
        () number of networks, whose features are F / blocks each; older versions compare all together, as one.
    """

    theta: Tensor
    weights: Tensor
    length: Tensor
    centre: Tensor
    scale: Tensor
    whiten: Tensor
    residual: Tensor
    features: Tensor
    feature_centre: Tensor
    feature_scale: Tensor
    feature_whiten: Tensor
    held_out: Tensor
    realisations: Tensor
    blocks: Tensor = field(default_factory=lambda: torch.tensor(1))

    def arrays(self) -> dict[str, Tensor]:
        """Give all arrays by name."""
        return {name: getattr(self, name).contiguous() for name in self.__dataclass_fields__}

    def predicted(self, theta: Tensor) -> Tensor:
        """Standardised statistics (n, S) expected at theta (n, P), in units of the prior's box."""
        return _kernel(theta, self.theta, self.length) @ self.weights

    def residuals(self, statistics: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Compare images with simulations at the best of several theta.

        Parameters
        ----------
        statistics
            (B, S)
        theta
            (B, n, P) draws from each image's posterior, in units of the prior's box.

        Returns
        -------
        distance, deviation
            (B,) squared distance, and (B, S) by how many standard deviations each statistic is off there.
        """
        standard = (statistics - self.centre) / self.scale
        distances, deviations = [], []
        for image, draws in zip(standard, theta, strict=True):
            residual = image - self.predicted(draws)
            squared = (residual @ self.whiten.T).square().sum(-1)
            best = squared.argmin()
            distances.append(squared[best])
            deviations.append(residual[best] / self.residual)
        return torch.stack(distances), torch.stack(deviations)

    def feature_logs(self, features: Tensor) -> Tensor:
        """Log squared distances (B, K) of features (B, F) from those of training, for each of K networks."""
        white = (features - self.feature_centre) / self.feature_scale @ self.feature_whiten.T
        width = white.shape[1] // int(self.blocks)
        logs = []
        for network in range(int(self.blocks)):
            columns = slice(network * width, (network + 1) * width)
            apart = torch.cdist(white[:, columns], self.features[:, columns])
            logs.append(
                apart.kthvalue(min(NEIGHBOUR, len(self.features)), dim=1).values.square().clamp_min(1e-30).log()
            )
        return torch.stack(logs, dim=1)

    def without(self, left_out: Tensor, noise: float) -> Iterator["Reference"]:
        """Give the reference without each of several groups of rows, by the identity of a block left out.

        Parameters
        ----------
        left_out
            (n,) number of the group, from 0, of each row; -1 for rows that stay.
        noise
            That of the regression's kernel.
        """
        matrix = _kernel(self.theta, self.theta, self.length)
        inverse = torch.linalg.inv(matrix + noise * torch.eye(len(matrix), dtype=matrix.dtype))
        for group in range(int(left_out.max()) + 1):
            rows = left_out == group
            change = inverse[:, rows] @ torch.linalg.solve(inverse[rows][:, rows], self.weights[rows])
            yield replace(self, weights=self.weights - change, features=self.features[~rows])

    def p_values(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the share of simulations (2, B) beyond squared distances (2, B) of statistics and features."""
        logs = np.log(np.maximum(distances, 1e-30))
        n = int(self.realisations)
        return np.stack([tail_p(held, n, far) for held, far in zip(self.held_out.numpy(), logs, strict=True)])

    def tests(self) -> float:
        """Count how many independent p-values the two are worth, from 1 to 2.

        The smallest of c independent p-values is below p with a chance of 1 - (1 - p)^c. The held-out simulations
        say which c: it is the one under which theirs are most probable.
        """
        m = self.held_out.shape[1]
        if m == 0:
            return 2.0
        ranks = 1 - (self.held_out.argsort(dim=1).argsort(dim=1).double() + 0.5) / m
        return float((m / -torch.log1p(-ranks.min(0).values).sum()).clamp(1.0, 2.0))


@dataclass(frozen=True)
class Kernel:
    """Length scale and noise of the regression.

    Attributes
    ----------
    length
        () in units of the prior's box.
    noise
        Variance over that of the kernel.
    """

    length: Tensor
    noise: float


def regression(
    theta: Tensor, statistics: Tensor, features: Tensor, blocks: int = 1, kernel: Kernel | None = None
) -> Reference:
    """Learn how statistics follow theta, from rows of simulations; `held_out` is still empty.

    Parameters
    ----------
    theta
        (n, P), in units of the prior's box.
    statistics
        (n, S)
    features
        (n, F)
    blocks
        Number of networks, which have F / blocks features each.
    kernel
        Kernel of the regression; by default that of `best_kernel`.
    """
    theta, statistics, features = theta[:ROWS], statistics[:ROWS], features[:ROWS]
    centre, scale, standard = _standardised(statistics)
    kernel = kernel or best_kernel(theta, statistics)
    values, vectors = torch.linalg.eigh(_kernel(theta, theta, kernel.length))
    weights, left_out = _ridge(values, vectors, standard, kernel.noise)
    feature_centre, feature_scale = features.mean(0), features.std(0).clamp_min(1e-6)
    standard_features = (features - feature_centre) / feature_scale
    width = features.shape[1] // blocks
    each = [standard_features[:, i * width : (i + 1) * width] for i in range(blocks)]
    feature_whiten = torch.block_diag(*(_whitening(one, torch.full_like(one[0], FLOOR)) for one in each))
    floor = (FLOOR / scale).clamp_max(1.0)
    return Reference(
        theta,
        weights,
        kernel.length,
        centre,
        scale,
        _whitening(left_out, floor),
        torch.maximum(left_out.std(0), floor),
        standard_features @ feature_whiten.T,
        feature_centre,
        feature_scale,
        feature_whiten,
        torch.zeros(2, 0, dtype=torch.float64),
        torch.tensor(0),
        torch.tensor(blocks),
    )


def best_kernel(theta: Tensor, statistics: Tensor) -> Kernel:
    """Choose the kernel whose leave-one-out error of statistics (n, S) at theta (n, P) is smallest."""
    standard = _standardised(statistics)[2]
    best: tuple[float, Kernel] | None = None
    for share in LENGTHS:
        length = torch.tensor(share * theta.shape[1] ** 0.5, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(_kernel(theta, theta, length))
        for noise in NOISES:
            left_out = _ridge(values, vectors, standard, noise)[1]
            error = float(left_out.square().mean(0).clamp_min(1e-12).log().mean())
            if best is None or error < best[0]:
                best = (error, Kernel(length, noise))
    assert best is not None
    return best[1]


def _standardised(statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre and scale (S,) of statistics (n, S), and these in units of them."""
    centre, scale = statistics.mean(0), statistics.std(0).clamp_min(FLOOR)
    return centre, scale, (statistics - centre) / scale


def _ridge(values: Tensor, vectors: Tensor, standard: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Weights and leave-one-out residuals (n, S) of kernel ridge regression, from the spectrum of the kernel."""
    inverse = 1 / (values.clamp_min(0) + noise)
    weights = vectors @ (inverse[:, None] * (vectors.T @ standard))
    return weights, weights / (vectors.square() @ inverse)[:, None]


def tail_p(held: NDArray[np.float64], n: int, far: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate the share of simulations beyond `far` (B,), from log distances `held` (m,) of n realisations.

    Nearer than the median it is a rank. Farther it is Student's t of the distances' `POWER`, with the spread of the
    upper half alone: that half decides, and the lower one, long where a few images are like their neighbours, says
    nothing of it. The n realisations leave the spread open as n / 2 values do.
    """
    n = max(4, n)
    own, asked = np.sort(np.exp(POWER * held)), np.exp(POWER * far)
    median = np.median(own)
    spread = float(np.sqrt(np.mean((own[own >= median] - median) ** 2)))
    spread = max(spread, POWER * LEAST_SPREAD * float(median)) * np.sqrt(1 + 2 / n)
    rank = np.interp(asked, own, 1 - (np.arange(len(own)) + 0.5) / len(own), left=1.0)
    return np.where(asked < median, rank, student.sf((asked - median) / spread, n / 2))


def as_unseen(logs: Tensor, unseen: Tensor) -> Tensor:
    """Mean over networks (m,) of log distances (m, K), of which each network has seen the rows that are not `unseen`.

    Those are moved to the median of the unseen ones, and stretched to the spread of their upper half.
    """

    def upper(values: Tensor) -> tuple[Tensor, Tensor]:
        median = values.median()
        return median, (values[values >= median] - median).square().mean().sqrt()

    if unseen.all():
        return logs.mean(1)
    (of_new, new_spread), (of_seen, seen_spread) = upper(logs[unseen]), upper(logs[~unseen])
    moved = of_new + (logs - of_seen) * (new_spread / seen_spread.clamp_min(1e-12))
    return torch.where(unseen, logs, moved).mean(1)


def _kernel(a: Tensor, b: Tensor, length: Tensor) -> Tensor:
    return torch.exp(-0.5 * (torch.cdist(a, b) / length).square())


def _whitening(rows: Tensor, floor: Tensor) -> Tensor:
    """W (D, D) with W C W^T = 1 for the covariance C of rows (n, D); shrunk to its diagonal where rows are few."""
    n, d = rows.shape
    covariance = torch.cov(rows.T).reshape(d, d)
    diagonal = torch.diag(covariance.diagonal())
    shrink = d / (n + d)
    covariance = (1 - shrink) * covariance + shrink * diagonal + torch.diag(floor.square())
    try:
        factor = torch.linalg.cholesky(covariance)
    except torch.linalg.LinAlgError as error:
        lost = torch.nonzero(~torch.isfinite(rows).all(0)).flatten().tolist()
        what = f"{len(lost)} of {d} are not numbers" if lost else "they are multiples of each other"
        raise WorkError(
            f"the check of an observation: the statistics of {n} simulations have no covariance to compare with "
            f"({what}); look at the cubes (`eorinfer bank export`) and at [survey]"
        ) from error
    return torch.linalg.solve_triangular(factor, torch.eye(d, dtype=rows.dtype), upper=False)
