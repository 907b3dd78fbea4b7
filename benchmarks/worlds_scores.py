"""Rows that a world left out is asked about, and scores on them, for `benchmarks.worlds`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.contest.method import Method
from eorinfer.core.prior import Prior
from eorinfer.npe.check import ObservationCheck
from eorinfer.run.truths import observed_rows
from eorinfer.validation.sharpness import NO_DENSITY

#: Round of the rows that came later.
LATER = 2
#: Posterior samples of each truth.
SAMPLES = 500


def question(every: Rows, number: int) -> tuple[Rows, NDArray[np.uint64]]:
    """Rows to train on where a world is left out, none of them later ones, and seeds of what is asked about."""
    every = every[every.round != LATER]
    asked = np.unique(every.seed[every.world == 0])[::3]
    return every[~np.isin(every.seed, asked) & (every.world != number)], asked


def once(rows: Rows) -> Rows:
    """Rows of one draw of noise each."""
    key = np.stack([rows.theta[:, 0], rows.theta[:, 1], rows.seed.astype(float)], 1)
    return rows[np.sort(np.unique(key, axis=0, return_index=True)[1])]


def scores(
    run: Run, method: Method, truths: Rows, checks: list[ObservationCheck] | None, prior: Prior
) -> dict[str, Any]:
    """Nats gained over the prior, bias and rms in sigma, and coverage, of all and of those without a warning.

    Errors are by realisation, since its rows err together. Without checks there are no warnings.
    """
    drawn, at_truth, start = [], [], 0
    for observed in observed_rows(run.context, truths):
        posteriors = method.evaluate(observed, truths.theta[start : start + len(observed)], SAMPLES, 1)
        drawn.append(posteriors.values)
        at_truth.append(posteriors.at_truth)
        start += len(observed)
    values, names = np.concatenate(drawn), prior.names
    gain = np.maximum(np.concatenate(at_truth), NO_DENSITY) - prior.log_prob(truths.theta)
    pull = (values.mean(1) - truths.theta) / values.std(1)
    low, high = np.quantile(values, [0.16, 0.84], axis=1)
    inside = (truths.theta >= low) & (truths.theta <= high)
    off = (np.abs(pull) > 2).any(1)

    def of(which: NDArray[np.bool_]) -> dict[str, Any]:
        each = np.array([gain[which & (truths.seed == seed)].mean() for seed in np.unique(truths.seed[which])])
        return {
            "truths": int(which.sum()),
            "realisations": len(each),
            "gain": float(gain[which].mean()),
            "gain_error": float(each.std(ddof=1) / len(each) ** 0.5),
            "bias": dict(zip(names, pull[which].mean(0).tolist(), strict=True)),
            "rms": dict(zip(names, np.sqrt((pull[which] ** 2).mean(0)).tolist(), strict=True)),
            "inside_68": dict(zip(names, inside[which].mean(0).tolist(), strict=True)),
            "off_by_2_sigma": int(off[which].sum()),
        }

    found = of(np.ones(len(gain), bool))
    if checks is None:
        return found
    warned = np.array([check.unlike for check in checks])
    return found | {"not warned of": of(~warned), "warned_and_off": int((warned & off).sum())}
