"""A lognormal field whose exact density is known, noise included: the simulator of a part of known_answer.py."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simulators import GaussianField


class NoisyLognormal(GaussianField):
    """exp(g - s^2 / 2) - 1 of a Gaussian field g with white noise, so that each mode has power."""

    kind: str = "noisy_lognormal:NoisyLognormal"
    noise: float = Field(0.3, gt=0.0)

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """One map (1, *cells)."""
        noise = self.noise * np.random.default_rng([seed, 1]).standard_normal((self.cells,) * self.dimension)
        g = self.gaussian(theta, seed) + noise
        return {"field": np.expm1(g - self.variance(theta) / 2).astype(np.float32)[None]}
