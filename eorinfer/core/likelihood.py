"""The likelihood of one observation, as a function of theta."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class LogLikelihood(Protocol):
    """Log likelihood of one observation, up to a constant."""

    def __call__(self, theta: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Log likelihood (n,) at theta (n, P)."""
