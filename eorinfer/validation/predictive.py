"""Posterior-predictive check: bands of simulations at posterior samples, and whether the observation is one of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Shares of simulations that the two bands hold, where there are enough of them.
OUTER, INNER = 0.95, 0.68
#: p-value below which the observation is called unlike.
UNLIKE = 0.05


@dataclass(frozen=True)
class PredictiveCheck:
    """Statistics of n simulations, and of the observation, in C channels of m bins.

    Attributes
    ----------
    simulations
        n.
    levels
        Shares of further simulations that the outer and the inner band hold in each bin: `OUTER` and `INNER`, or as
        much as n simulations can say.
    quantiles
        (5, C, m): lower ends of the outer and inner band, median, upper ends of the inner and outer band.
    inside
        (C, m) whether the observed value is in the outer band.
    p
        Share of simulations, the observation counted as one, whose farthest bin is as far from the others as the
        observation's: uniform if the observation is one of them.
    farthest
        Channel and bin of that distance of the observation, from 0.
    """

    simulations: int
    levels: tuple[float, float]
    quantiles: NDArray[np.float64]
    inside: NDArray[np.bool_]
    p: float
    farthest: tuple[int, int]

    @classmethod
    def of(cls, simulated: NDArray[Any], observed: NDArray[Any], seed: int) -> "PredictiveCheck":
        """Compare observed values (C, m) with simulated ones (n, C, m).

        The ends of a band are order statistics: a further draw lies below the r-th of n with probability r / (n + 1),
        whatever the distribution. Quantiles of the n draws themselves would make the "95%" band hold 82% of further
        draws with n = 12. The distance of each simulation is from the others and the observation, as that of the
        observation is from the simulations, so that all n + 1 are on a par; the posterior has seen the observation,
        which can only make p larger.

        Parameters
        ----------
        simulated, observed
            Any statistic, all numbers.
        seed
            Seed that decides among simulations as far off as the observation.
        """
        n = len(simulated)
        levels = tuple(min(level, (n - 1) / (n + 1)) for level in (OUTER, INNER))
        tails = [(1 - level) / 2 for level in levels]
        shares = [*tails, 0.5, *(1 - tail for tail in tails[::-1])]
        quantiles = np.quantile(simulated.astype(np.float64), shares, axis=0, method="weibull")
        inside = (observed >= quantiles[0]) & (observed <= quantiles[-1])
        all_ = np.concatenate([simulated, observed[None]]).astype(np.float64).reshape(n + 1, -1)
        if (all_ > 0).all():
            all_ = np.log(all_)  # powers: a Gaussian's tails
        distances = _distances(all_)
        of_each = distances.max(1)
        ties = np.random.default_rng(seed).random(n + 1)
        farther = (of_each[:-1] > of_each[-1]) | ((of_each[:-1] == of_each[-1]) & (ties[:-1] > ties[-1]))
        channel, bin_ = np.unravel_index(int(distances[-1].argmax()), observed.shape)
        return cls(
            n,
            (levels[0], levels[1]),
            quantiles,
            inside,
            float((farther.sum() + 1) / (n + 1)),
            (int(channel), int(bin_)),
        )

    @property
    def unlike(self) -> bool:
        """Whether the observation is unlike the simulations."""
        return self.p < UNLIKE

    def verdict(self, what: str) -> str:
        """Say the result in plain words; `what` names the statistic."""
        channel, bin_ = self.farthest
        place = f"bin {bin_ + 1}" + (f" of channel {channel + 1}" if len(self.inside) > 1 else "")
        share = f"{int(self.inside.sum())} of {self.inside.size} bins are inside the {self.levels[0]:.0%} band"
        least = 1 / (self.simulations + 1)
        weak = f" ({self.simulations} simulations give {least:.2g} at the least)" if least >= UNLIKE else ""
        said = f"UNLIKE simulations at the posterior: p = {self.p:.2g}, farthest {place}"
        if not self.unlike:
            said = f"like simulations at the posterior: p = {self.p:.2g}{weak}"
        return f"the observed {what} is {said}; {share}"

    def content(self, what: str) -> dict[str, Any]:
        """Write it for ``summary.json``."""
        return {
            "simulations": self.simulations,
            "band": self.levels[0],
            "bins_inside": float(self.inside.mean()),
            "p": self.p,
            "unlike": self.unlike,
            "verdict": self.verdict(what),
        }


def _distances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n, m) of each of n vectors from the mean of the others, in standard deviations of the others."""
    n = len(values)
    values = values - values.mean(0)
    total, squares = values.sum(0), np.square(values).sum(0)
    mean = (total - values) / (n - 1)
    variance = np.maximum((squares - values**2) / (n - 1) - mean**2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.abs(values - mean) / np.sqrt(variance), nan=0.0, posinf=np.inf)
