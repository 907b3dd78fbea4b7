"""A contest method of one's own: linear regression on the logarithm of P(k), with Gaussian errors."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer import PowerSpectrum
from eorinfer.contest.method import ContestSetup, OwnMethod
from eorinfer.likelihood.truth_posteriors import TruthPosteriors


class LinearRegression(OwnMethod):
    """theta = A log P(k) + b + normal errors of constant covariance."""

    label = "linear regression on log P(k)"

    def __init__(self, setup: ContestSetup, name: str) -> None:
        image = setup.context.config.observable
        self.power = PowerSpectrum(image.cells, image.box_length, n_bins=3)
        clean = torch.from_numpy(setup.context.bank.read(image.name, setup.rows))
        x = self.features(setup.context.survey(clean, torch.Generator().manual_seed(1)))
        self.coefficients = np.linalg.lstsq(x, setup.rows.theta, rcond=None)[0]
        self.covariance = np.atleast_2d(np.cov(setup.rows.theta - x @ self.coefficients, rowvar=False))

    def features(self, cubes: Tensor) -> NDArray[np.float64]:
        """(B, C, *cells) to (B, 1 + C K) float64."""
        logs = torch.log(self.power(cubes).flatten(1)).double().numpy()
        return np.column_stack([np.ones(len(logs)), logs])

    def evaluate(self, observed: Tensor, theta: NDArray[np.float64], n: int, seed: int) -> TruthPosteriors:
        mean, root = self.features(observed) @ self.coefficients, np.linalg.cholesky(self.covariance)
        white = np.random.default_rng(seed).standard_normal((len(mean), n, theta.shape[1]))
        values = mean[:, None] + white @ root.T
        return TruthPosteriors.on_whole_prior(
            values,
            self.log_density((theta - mean)[:, None], root)[:, 0],
            self.log_density(values - mean[:, None], root),
            np.ones(len(mean), bool),
            np.full(len(mean), 1e-4),
        )

    def log_density(self, offset: NDArray[np.float64], root: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the log density (...) at offsets (..., P) from the mean."""
        white = np.linalg.solve(root, offset[..., None])[..., 0]
        constant = np.log(np.diag(root)).sum() + 0.5 * offset.shape[-1] * np.log(2 * np.pi)
        return -0.5 * (white**2).sum(-1) - constant
