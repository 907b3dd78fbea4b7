"""Statistics of simulated images against theta, for the check of an observation.

A posterior carries one, so that each observation that it is asked about can be compared with the
simulations it was trained on. Two distances are compared with those of simulations that
training held out:

- how far the image's statistics are from the ones that simulations have at the parameters which
  the posterior allows, at the best of them. Statistics that the network does not look at count too;
- how far what the networks read from the image is from what they read in training, at the
  `NEIGHBOUR`-th nearest of it (Schmitt et al. 2021, arXiv 2112.08719, compare distributions of
  it for a whole set of observations; here there is one).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from eorinfer.core.errors import WorkError
from eorinfer.summaries.power import PowerSpectrum
from simulators import Observable

#: Bins of P(k), from the largest mode to the corner of Fourier space.
BINS = 10
#: Scatter below which a statistic counts as exact: means that a survey sets to zero, and rounding.
FLOOR = 1e-3
#: Power and variance below this share of the mean one count as none: empty boxes, modes without baselines.
NOTHING = 1e-6
#: Neighbour to which a distance is taken: near enough for the corners of a prior to be no outliers.
NEIGHBOUR = 5
#: Rows that the regression on theta is made of, at most.
ROWS = 1000
#: Length scales, in units of the diagonal of the prior's box, and noise that the regression chooses from.
LENGTHS, NOISES = (0.25, 0.5, 1.0, 2.0, 4.0), (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class ImageStatistics:
    """Numbers that describe an image, whatever a network makes of it.

    For each channel the mean in units of the standard deviation, the logarithm of the variance,
    skewness, the logarithm of the kurtosis, and the logarithm of P(k) up to the corner of Fourier space.
    Of a data vector its elements.

    Parameters
    ----------
    observable
        The image.
    unit
        Power of two that images are divided by first.

    Attributes
    ----------
    names
        Names of the S statistics, in plain words.
    """

    def __init__(self, observable: Observable, unit: float = 1.0) -> None:
        self._unit = unit
        self._of_vectors = len(observable.cells) == 1
        if self._of_vectors:
            places = [(c, i) for c in range(observable.shape[0]) for i in range(observable.shape[1])]
            self.names = [f"element {i}" + (f" of channel {c}" if observable.shape[0] > 1 else "") for c, i in places]
            return
        self._power = PowerSpectrum(observable.cells, observable.box_length, n_bins=BINS)
        self._volume = float(np.prod(observable.cell_size))
        bins = [f"power at k = {k:.2g}/Mpc" for k in self._power.k.tolist()]
        of_channel = ["mean", "variance", "skewness", "kurtosis", *bins]
        several = len(observable.channels) > 1
        name = "z" if observable.axes[0] == "redshift" else observable.axes[0]
        self.names = [f"{s}{f' at {name} = {c:g}' if several else ''}" for c in observable.channels for s in of_channel]

    @torch.no_grad()
    def __call__(self, observed: Tensor) -> Tensor:
        """Statistics (B, S) float64 of cubes (B, C, *cells)."""
        observed = observed if self._unit == 1 else observed / self._unit
        if self._of_vectors:
            return observed.flatten(1).double()
        cells = observed.flatten(2).double()
        mean = cells.mean(-1, keepdim=True)
        delta = cells - mean
        # Empty images have no scale; a variance this small occurs in no other.
        variance = delta.square().mean(-1, keepdim=True) + NOTHING * mean.square() + torch.finfo(torch.float32).tiny
        delta = delta / variance.sqrt()
        kurtosis = delta.pow(4).mean(-1, keepdim=True)
        power = torch.log(self._power(observed) + NOTHING * self._volume * variance)
        return torch.cat(
            [
                mean / variance.sqrt(),
                variance.log(),
                delta.pow(3).mean(-1, keepdim=True),
                torch.log(kurtosis + NOTHING),
                power,
            ],
            dim=-1,
        ).flatten(1)


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
        (n, F) of all networks together, white.
    feature_centre, feature_scale, feature_whiten
        (F,), (F,), (F, F): make features white.
    held_out
        (2, m) log distances of simulations that training held out: of statistics and of features.
    realisations
        () how many realisations these are of.
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

    def feature_distances(self, features: Tensor) -> Tensor:
        """Squared distances (B,) of features (B, F) from those of training."""
        white = (features - self.feature_centre) / self.feature_scale @ self.feature_whiten.T
        nearest = torch.cdist(white, self.features).kthvalue(min(NEIGHBOUR, len(self.features)), dim=1)
        return nearest.values.square()

    def p_values(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the share of simulations (2, B) beyond squared distances (2, B) of statistics and features."""
        logs = np.log(np.maximum(distances, 1e-30))
        n = max(4, int(self.realisations))
        return np.stack([_p_value(held, n, far) for held, far in zip(self.held_out.numpy(), logs, strict=True)])


def regression(theta: Tensor, statistics: Tensor, features: Tensor) -> Reference:
    """Learn how statistics follow theta, from rows of simulations; `held_out` is still empty.

    Kernel ridge regression, whose length scale and noise have the smallest leave-one-out error.

    Parameters
    ----------
    theta
        (n, P), in units of the prior's box.
    statistics
        (n, S)
    features
        (n, F)
    """
    theta, statistics, features = theta[:ROWS], statistics[:ROWS], features[:ROWS]
    centre, scale = statistics.mean(0), statistics.std(0).clamp_min(FLOOR)
    standard = (statistics - centre) / scale
    best: tuple[float, Tensor, Tensor, Tensor] | None = None
    for share in LENGTHS:
        length = torch.tensor(share * theta.shape[1] ** 0.5, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(_kernel(theta, theta, length))
        turned = vectors.T @ standard
        for noise in NOISES:
            inverse = 1 / (values.clamp_min(0) + noise)
            weights = vectors @ (inverse[:, None] * turned)
            left_out = weights / (vectors.square() @ inverse)[:, None]
            error = float(left_out.square().mean(0).clamp_min(1e-12).log().mean())
            if best is None or error < best[0]:
                best = (error, length, weights, left_out)
    assert best is not None
    _, length, weights, left_out = best
    feature_centre, feature_scale = features.mean(0), features.std(0).clamp_min(1e-6)
    standard_features = (features - feature_centre) / feature_scale
    feature_whiten = _whitening(standard_features, torch.full_like(feature_scale, FLOOR))
    floor = (FLOOR / scale).clamp_max(1.0)
    return Reference(
        theta,
        weights,
        length,
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
    )


def _p_value(held: NDArray[np.float64], n: int, far: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate the share of simulations beyond `far` (B,), from log distances `held` (m,) of n realisations.

    The largest of three. A rank among the held-out ones needs no assumption, and says nothing
    beyond the largest of them. There Student's t continues, which heeds that they are few: with mean and spread of
    all, and with median and upper half alone, for distances whose upper tail is the longer one.
    """
    spread = max(float(held.std(ddof=1)), 0.1) * np.sqrt(1 + 1 / n)
    p = student.sf((far - held.mean()) / spread, n - 1)
    median = np.median(held)
    upper = max(float(np.sqrt(np.mean((held[held >= median] - median) ** 2))), 0.1) * np.sqrt(1 + 2 / n)
    p = np.maximum(p, student.sf((far - median) / upper, n / 2 - 1))
    above = (held >= far[:, None]).sum(1)
    return np.asarray(np.where(above > 0, np.maximum(p, (1 + above) / (len(held) + 1)), p))


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
