"""The likelihood of one observation, as a function of theta."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.errors import WorkError


class LogLikelihood(Protocol):
    """Log likelihood of one observation, up to a constant."""

    def __call__(self, theta: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Log likelihood (n,) at theta (n, P)."""


def evaluated(log_likelihood: LogLikelihood, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate a log likelihood (n,) at theta (n, P); -inf is a likelihood of nothing.

    Raises
    ------
    WorkError
        If a value is NaN or +inf; names the first theta.
    """
    values = np.asarray(log_likelihood(theta), np.float64)
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        where = ", ".join(f"{x:.4g}" for x in theta[np.argmax(bad)])
        raise WorkError(
            f"the log likelihood is {values[np.argmax(bad)]} at {int(bad.sum())} of {len(values)} points, the first is "
            f"theta = ({where}): the observation, or what the likelihood was trained on, is far from what it can tell"
        )
    return values


def refuse_nothing(values: NDArray[np.float64], where: str) -> None:
    """Refuse log likelihoods (n,) of which none is finite: nothing could be sampled from them.

    Raises
    ------
    WorkError
        Saying where they were evaluated.
    """
    if not np.isfinite(values).any():
        raise WorkError(
            f"the likelihood is zero at all of {len(values)} {where}: no parameters of the prior explain the "
            "observation; check its unit and noise, or widen [prior]"
        )
