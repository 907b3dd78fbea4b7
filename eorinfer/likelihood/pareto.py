"""Tail of importance weights: the shape k of a generalized Pareto distribution (Vehtari et al. 2024, arXiv 1507.02646).

Above 1 the weights have no mean, above 1/2 no variance. Estimates are unreliable above about 0.7, however many weights
seem to count.
"""

import numpy as np
from numpy.typing import NDArray

#: k above which no number of draws is enough.
TOO_HEAVY = 0.7
#: Fewest weights in a tail that can be fitted.
FEWEST = 5


def largest_k(draws: int) -> float:
    """Return the k up to which the mean of so many weights can be trusted (section 3.2.4)."""
    return float(min(TOO_HEAVY, 1 - 1 / np.log10(max(draws, 11))))


def pareto_k(log_weight: NDArray[np.float64]) -> float:
    """Fit k to the tail of weights.

    Parameters
    ----------
    log_weight
        (m,) log weights; draws with a weight of zero count in m.

    Returns
    -------
    float
        k; infinite where too few weights are not zero, or all of the tail are the same but for one.
    """
    finite = np.sort(log_weight[np.isfinite(log_weight)])
    tail = int(np.ceil(min(0.2 * len(log_weight), 3 * np.sqrt(len(log_weight)))))
    if tail < FEWEST or len(finite) <= tail:
        return np.inf
    weights = np.exp(finite - finite[-1])
    over = weights[-tail:] - weights[-tail - 1]
    if over[0] == over[-1]:
        return -np.inf  # all alike: no tail
    return fit_shape(over)


def fit_shape(x: NDArray[np.float64]) -> float:
    """Fit the shape k of a generalized Pareto distribution to excesses x (n,), sorted, none below zero.

    The posterior mean of theta = -k / sigma on a grid of its profile likelihood (Zhang & Stephens 2009, Technometrics
    51, 316, doi:10.1198/tech.2009.08017, equations 2 to 6; their k has the other sign), drawn towards 1/2 by ten
    observations' worth (arXiv 1507.02646, appendix C).
    """
    n = len(x)
    points = 20 + int(np.sqrt(n))
    quartile = x[max(int(n / 4 + 0.5) - 1, 0)]
    if quartile <= 0:
        quartile = x[x > 0][0]
    theta = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.log1p(-theta[:, None] * x).mean(1)
        log_profile = n * (np.log(-theta / shape) - shape - 1)
    log_profile = np.where(np.isfinite(log_profile), log_profile, -np.inf)
    weights = np.exp(log_profile - log_profile.max())
    best = (theta * weights).sum() / weights.sum()
    k = np.log1p(-best * x).mean()
    return float((n * k + 10 * 0.5) / (n + 10))
