"""Checks of imported simulations: theta is spread as the prior is, and no row is far from all others."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.prior import Prior

#: Probability below which theta is said not to be drawn from the prior.
UNLIKELY = 1e-4
#: Draws from the prior that theta is compared with, and their seed.
DRAWS, SEED = 100_000, 0
#: Rows in each cell of a plane of two parameters, on average, and most cells along a side.
ROWS_IN_CELL, SIDE = 8, 16
#: Standard deviations beyond which a row is far from all others.
FAR = 1e6
#: Rows that a message names.
NAMED = 5


def unlike_prior(theta: NDArray[np.float64], seed: NDArray[np.uint64], prior: Prior) -> str | None:
    """Say how theta (n, P), inside the prior, differs from draws from it; None if it does not.

    Rows with the theta and seed (n,) of an earlier one are views of its run, and count once. Each parameter is compared
    by Kolmogorov and Smirnov's test, and each plane of two parameters by the share that is filled: of a grid with
    `ROWS_IN_CELL` rows in a cell on average, few cells stay empty by chance.
    """
    from scipy import stats

    runs = {(*row.tolist(), int(own)): i for i, (row, own) in enumerate(zip(theta, seed, strict=True))}
    theta = theta[list(runs.values())]
    draws = prior.sample(DRAWS, np.random.default_rng(SEED))
    names, problems = prior.names, []
    for i, name in enumerate(names):
        p = float(stats.ks_2samp(theta[:, i], draws[:, i], method="asymp").pvalue)
        if p < UNLIKELY / len(names):
            low, high = prior.low[i], prior.high[i]
            problems.append(
                f"{name} is not spread over [{low:g}, {high:g}] as the prior is (Kolmogorov-Smirnov p = {p:.1g})"
            )
    # Ranks among the draws: each parameter is flat in them, whatever the prior's density.
    ranks = [(_ranks(x, np.sort(draw)), _ranks(draw, np.sort(draw))) for x, draw in zip(theta.T, draws.T, strict=True)]
    planes, shares = list(combinations(range(len(names)), 2)), []
    for i, j in planes:
        filled, p = _filled(*(np.stack(pair, -1) for pair in zip(ranks[i], ranks[j], strict=True)))
        shares.append(filled)
        if p < UNLIKELY / len(planes):
            problems.append(f"{filled:.0%} of the prior's plane of {names[i]} and {names[j]} is filled")
    if problems and shares and "%" not in problems[-1]:
        problems.append(f"{min(shares):.0%} of the emptiest plane of two parameters is filled")
    return "; ".join(problems) or None


def prior_warning(problem: str) -> str:
    """Say what follows for posteriors from theta that was not drawn from the prior."""
    return (
        f"theta was not drawn from the prior of the config: {problem}. The prior of a neural posterior is then the "
        "distribution of the theta that were imported, and not that of the config, which the power-spectrum MCMC has"
    )


def far_rows(
    lowest: Sequence[float], highest: Sequence[float], mean: Sequence[float], std: Sequence[float]
) -> list[int]:
    """Find rows with a value more than `FAR` deviations from the middle of all rows.

    Parameters
    ----------
    lowest, highest, mean, std
        Least and largest value, mean and standard deviation of each row's cells; the medians over rows of the last two
        are what a row is compared with.
    """
    centre, scale = float(np.median(mean)), float(np.median(std))
    if not scale > 0:
        scale = float(np.median(np.abs(np.asarray(mean) - centre)))
    reach = np.maximum(np.asarray(highest) - centre, centre - np.asarray(lowest))
    return np.flatnonzero(reach > FAR * scale).tolist() if scale > 0 else []


def far_warning(name: str, rows: Sequence[str]) -> str:
    """Say which rows of an array are far from all others, and what to do."""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return (
        f"{name}: {', '.join(rows[:NAMED])}{more}: more than {FAR:.0e} deviations from all others. One such row can "
        "spoil a training; leave it out if a value is wrong"
    )


def _ranks(x: NDArray[np.float64], ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of ordered draws below each x, in [0, 1)."""
    return np.searchsorted(ordered, x, side="right") / (len(ordered) + 1)


def _filled(given: NDArray[np.float64], draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return the share of a plane that points (n, 2) fill, and the chance of draws to fill as little."""
    from scipy import stats

    side = int(np.clip(np.sqrt(len(given) / ROWS_IN_CELL), 1, SIDE))
    count, expected = (
        np.bincount((np.floor(points * side) @ [side, 1]).astype(int), minlength=side**2) for points in (given, draws)
    )
    share = expected / expected.sum()
    empty = share[count == 0]
    chance = np.exp(-len(given) * share)
    return float(1 - empty.sum()), float(stats.poisson.sf(np.count_nonzero(empty > 0) - 1, chance[share > 0].sum()))
