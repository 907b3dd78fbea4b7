"""Whether another world is seen, for `benchmarks.worlds`: the warning, and the odds of worlds."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kstest, kstwo, norm
from torch import Tensor

from benchmarks.worlds_scores import LATER, once
from eorinfer import Run
from eorinfer.bank.rows import Rows
from eorinfer.contest.method import ContestSetup
from eorinfer.contest.networks import trained_posterior
from eorinfer.npe.check import HeldOut, ObservationCheck, check_images, image_distances, learn_reference, of_smallest
from eorinfer.npe.image_statistics import Statistics
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.world_odds import calibration, learn_odds
from eorinfer.run.truths import observed_rows
from eorinfer.run.worlds import TOGETHER, warned_of
from eorinfer.training.data import Cubes, Part, fold_count, split_rows

#: Elements of the summaries that describe an image as `ImageStatistics` does: P(k), spread, skewness and kurtosis.
OF_IMAGE = 11
#: P-values below which shares are counted, and choices of realisations to compare with.
LEVELS, REFERENCES = (0.5, 0.1, 0.05, 0.02, 0.01), 200
#: Parts of the realisations by which odds are tested, each on the others.
PARTS = 4
#: Bins of the probability of a world.
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


class FirstElements:
    """The statistics of an image, which the vector of summaries begins with, or P(k) where it has nothing else."""

    def __init__(self) -> None:
        self.names = [f"element {i}" for i in range(OF_IMAGE)]

    def __call__(self, observed: Tensor) -> Tensor:
        """Elements (B, 11), or (B, 8) of P(k), of vectors (B, 1, S)."""
        return observed[:, 0, :OF_IMAGE].double()


def with_reference(run: Run, posterior: Posterior, rows: Rows, statistics: Statistics) -> Posterior:
    """Give a posterior the reference of the rows of its training, by statistics of vectors."""
    noted, members = posterior.facts["folds"], len(posterior.networks)
    held = [split_rows(rows, noted["fraction"], member) for member in range(fold_count(noted["fraction"], members))]
    cubes = Cubes(run.bank, "image", rows)
    folds = [HeldOut((member,), Part(cubes, new), rows.seed[new]) for member, new in enumerate(held)]
    rest = Part(cubes, ~np.any(held, axis=0))
    reference = learn_reference(posterior, rest, folds, run.context.survey, 1, statistics)
    return replace(posterior, reference=reference)


def checks(
    run: Run, posterior: Posterior, truths: Rows, statistics: Statistics | None = None
) -> list[ObservationCheck]:
    """Check truths by statistics of vectors, or those of an image."""
    seen = observed_rows(run.context, truths)
    return [check for observed in seen for check in check_images(posterior, observed, 0, statistics)]


def over_references(run: Run, posterior: Posterior, truths: Rows, statistics: Statistics) -> dict[str, float]:
    """Shares of truths below p-values, on average over which of their realisations they are compared with."""
    reference = posterior.reference
    assert reference is not None
    blocks = [
        image_distances(posterior, reference, observed, 0, statistics)[0]
        for observed in observed_rows(run.context, truths)
    ]
    distances = np.concatenate(blocks, axis=1)
    n, rng = int(reference.realisations), np.random.default_rng(1)
    shares = []
    for _ in range(REFERENCES):
        known = np.isin(truths.seed, rng.permutation(np.unique(truths.seed))[:n])
        own = replace(reference, held_out=torch.from_numpy(np.log(distances[:, known])))
        p = np.array([of_smallest(one, own.tests()) for one in own.p_values(distances[:, ~known]).min(0)])
        shares.append([(p < level).mean() for level in LEVELS])
    return {str(level): float(share) for level, share in zip(LEVELS, np.mean(shares, axis=0), strict=True)}


def of_checks(found: list[ObservationCheck]) -> dict[str, Any]:
    """Shares that are warned of, alone and together, and whether p-values are spread evenly."""
    p = np.array([check.p for check in found])
    distance = float(kstest(p, "uniform").statistic)
    n = found[0].realisations
    return {
        "observations": len(found),
        "realisations": n,
        "tests": found[0].tests,
        "warned": {str(together): warned_of(found, together, 1) for together in TOGETHER},
        "kolmogorov_smirnov": distance,
        # What they are compared with errs too: as two samples, of the held-out realisations and of these.
        "p_uniform": float(kstwo.sf(distance, max(1, round(1 / (1 / n + 1 / len(found)))))),
        "below": {str(level): float((p < level).mean()) for level in LEVELS},
    }


def odds(run: Run, rows: Rows, asked: NDArray[np.uint64]) -> dict[str, Any]:
    """Test odds of worlds, all as likely: each part of the realisations by a regression on the others.

    The features are those of a posterior of the first world alone, which has seen neither the truths nor what the
    regressions learn from: features of rows that a network was trained on are unlike those of a new observation. The
    later rows, if there are any, are asked of one regression on all of the earlier ones.
    """
    worlds = run.config.worlds
    assert worlds is not None
    setup = ContestSetup(run.context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    posterior = trained_posterior(setup, "npe-power", rows=rows[rows.world == 0], place="npe-one-world")
    every = run.bank.rows()
    later, every = every[every.round == LATER], every[every.round != LATER]
    every = _of_each_world(every[(every.world > 0) | np.isin(every.seed, asked)])

    def told(truths: Rows, seed: int) -> NDArray[np.float64]:
        learned = every[~np.isin(every.seed, truths.seed)]
        cubes = Part(Cubes(run.bank, "image", learned), np.ones(len(learned), bool))
        model = learn_odds(posterior, cubes, learned, worlds.names, run.context.survey, seed)
        return np.concatenate([model.probabilities(posterior, seen) for seen in observed_rows(run.context, truths)])

    part = np.searchsorted(np.unique(every.seed), every.seed) % PARTS
    truths = [every[part == number] for number in range(PARTS)]
    found = [told(own, number) for number, own in enumerate(truths)]
    content = scored_odds(np.concatenate(found), Rows.concatenate(truths), worlds.names)
    if len(later):
        new = _of_each_world(later)
        content["later"] = scored_odds(told(new, PARTS), new, worlds.names)
    return content


def scored_odds(probabilities: NDArray[np.float64], truths: Rows, names: Sequence[str]) -> dict[str, Any]:
    """Score odds (n, K) of truths, with errors of one sigma by realisation, since its rows err together.

    Returns
    -------
    dict
        Accuracy, in all and by world; log score; the most probable world's mean probability, beside how often it is
        right; in bins of the probability, how often a world of that probability is true; and p-values of calibration,
        with rows as independent and by realisation.
    """
    numbers, k = truths.world, len(names)
    right = probabilities.argmax(1) == numbers
    hit = numbers[:, None] == np.arange(k)
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)

    def by_realisation(values: NDArray[np.float64], which: NDArray[np.bool_] | None = None) -> dict[str, float]:
        which = np.ones(len(values), bool) if which is None else which
        own, seed = values[which], truths.seed[which]
        sums = [(own[seed == one] - own.mean()).sum() for one in np.unique(seed)]
        return {"mean": float(own.mean()), "error": float(np.sqrt(np.square(sums).sum()) / len(own))}

    # Spiegelhalter's z of each world, whose variance is that between realisations.
    off = (hit - p) * (1 - 2 * p)
    of_seed = np.stack([off[truths.seed == one].sum(0) for one in np.unique(truths.seed)])
    z = of_seed.sum(0) / np.sqrt((of_seed**2).sum(0))
    bins = []
    for low, high in pairwise(BINS):
        within = (p >= low) & (p < high)
        if within.any():
            seed = np.repeat(truths.seed[:, None], k, 1)[within]
            gap = (hit - p)[within]
            error = np.sqrt(sum((gap[seed == one].sum()) ** 2 for one in np.unique(seed))) / len(gap)
            found = {"said": float(p[within].mean()), "true": float(hit[within].mean()), "error": float(error)}
            bins.append({"pairs": len(gap)} | found)
    return {
        "truths": len(numbers),
        "realisations": len(of_seed),
        "right": {name: by_realisation(right, numbers == i) for i, name in enumerate(names) if (numbers == i).any()},
        "accuracy_by_realisation": by_realisation(right),
        "log_score_by_realisation": by_realisation(np.log(p[np.arange(len(p)), numbers])),
        "said_less_right": by_realisation(p.max(1) - right),
        "reliability": bins,
        "z_by_realisation": z.tolist(),
        "p_by_realisation": float(min(1.0, k * 2 * norm.sf(np.abs(z)).min())),
        "confusion": [[float((probabilities[numbers == i].argmax(1) == j).sum()) for j in range(k)] for i in range(k)],
        **calibration(probabilities, numbers),
    }


def _of_each_world(rows: Rows) -> Rows:
    """Rows of one draw of noise each, as many of each world: the odds are those of worlds that are as likely."""
    worlds = [once(rows[rows.world == world]) for world in np.unique(rows.world)]
    return Rows.concatenate([of_world[: min(map(len, worlds))] for of_world in worlds])
