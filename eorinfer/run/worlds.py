"""What a posterior does on each world of a simulator, those that it was not trained on included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.targets import target_rows
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.npe.batched import draw
from eorinfer.npe.check import LEVEL, ObservationCheck, check_images, check_together
from eorinfer.npe.ensemble import log_density
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.world_odds import WorldOdds, calibration
from eorinfer.run.context import RunContext
from eorinfer.run.truths import observed_rows, simulated_truths, simulates
from eorinfer.validation.sharpness import NO_DENSITY

#: Numbers of observations that are checked together.
TOGETHER = (1, 5, 20)
#: Draws of so many truths, to see how often several together are warned of.
GROUPS = 200


@dataclass(frozen=True)
class WorldScore:
    """A posterior's scores on one world.

    Attributes
    ----------
    name, trained
        Name of the world, and whether the posterior was trained on it.
    truths, left_out
        Number of test observations, and of further ones whose targets are beyond those of all simulations trained on.
    gain, gain_error
        Information gained over the prior in nats: mean over the truths, and its error.
    bias, rms, inside_68
        By parameter: mean and rms of (mean − truth) / std, and the share of truths in the central 68%.
    warned
        Share of single observations, and of groups of several, that the check warns of, by their number.
    """

    name: str
    trained: bool
    truths: int
    left_out: int
    gain: float
    gain_error: float
    bias: dict[str, float]
    rms: dict[str, float]
    inside_68: dict[str, float]
    warned: dict[str, float]

    def line(self) -> str:
        """Say it on one line."""
        seen = "trained on" if self.trained else "NOT trained on"
        each = "; ".join(
            f"{name} bias {self.bias[name]:+.2f} sigma, rms {self.rms[name]:.2f} sigma, "
            f"{self.inside_68[name]:.0%} inside 68%"
            for name in self.bias
        )
        warned = ", ".join(f"{share:.0%} of {n}" for n, share in self.warned.items())
        beyond = f"; {self.left_out} more have targets beyond those of the training" if self.left_out else ""
        return f"world {self.name} ({seen}): {self.gain:.2f} +- {self.gain_error:.2f} nats gained; {each}{beyond}" + (
            f"; warned of: {warned} observation(s) together" if warned else ""
        )


def score_worlds(context: RunContext, posterior: Posterior, rows: Rows) -> list[WorldScore]:
    """Score a posterior on test observations of each world that the config names.

    Nothing is scored where there are no worlds, for a posterior of a part of the prior, and where truths are not
    simulated.

    Parameters
    ----------
    context
        Run whose posterior it is.
    posterior
        Of its last round.
    rows
        Rows of its training; no truth shares a realisation with them.
    """
    worlds, settings = context.config.worlds, context.config.tables.validation
    if worlds is None or posterior.regions or not simulates(context):
        return []
    trained = set(rows.world.tolist())
    scores = []
    for name in settings.worlds or (worlds.names if len(worlds.names) > 1 else ()):
        number = worlds.number(name)
        truths = simulated_truths(context, rows, settings.world_truths, world=number)
        if targets := context.config.targets:
            truths = target_rows(context.bank, truths, targets)
        inside = truths[posterior.contains(truths.theta)]
        if len(inside) < 2:
            context.progress.line(f"world {name}: its targets are beyond those of the training; nothing is scored")
            continue
        scores.append(score_world(context, posterior, inside, name, number in trained, len(truths) - len(inside)))
        context.progress.line(scores[-1].line())
    return scores


def score_odds(context: RunContext, posterior: Posterior, rows: Rows) -> dict[str, Any] | None:
    """Test the odds of worlds on the truths of `score_worlds`, as many of each; None where there are no odds."""
    worlds, content = context.config.worlds, posterior.facts.get("world_odds")
    if worlds is None or content is None or not simulates(context):
        return None
    odds = WorldOdds.from_content(content)
    found, truth = [], []
    for number, name in enumerate(odds.names):
        n = context.config.tables.validation.world_truths
        truths = simulated_truths(context, rows, n, world=worlds.number(name))
        found += [odds.probabilities(posterior, observed) for observed in observed_rows(context, truths)]
        truth.append(np.full(len(truths), number))
    scores = calibration(np.concatenate(found), np.concatenate(truth))
    context.progress.line(
        f"odds of {len(odds.names)} worlds: right for {scores['accuracy']:.0%} of {sum(map(len, truth))} truths; "
        f"log score {scores['log_score']:.2f} (chance {scores['log_score_of_chance']:.2f}); "
        f"calibrated with p = {scores['p_calibrated']:.2g}"
    )
    return {"names": list(odds.names), "truths": sum(map(len, truth)), **scores}


def score_world(
    context: RunContext, posterior: Posterior, truths: Rows, name: str, trained: bool, left_out: int
) -> WorldScore:
    """Score a posterior on the truths of one world; parameters as in `WorldScore`."""
    prior, seed = posterior.prior, context.config.tables.seed
    features: list[list[torch.Tensor]] = []
    checks: list[ObservationCheck] = []
    for observed in observed_rows(context, truths):
        features.append(posterior.read(observed))
        if posterior.reference is not None:
            checks += check_images(posterior, observed)
    read = [torch.cat(blocks) for blocks in zip(*features, strict=True)]
    samples = context.config.tables.validation.samples
    values = draw(posterior, read, samples, run_seed(seed, RunStream.VALIDATION_SAMPLES)).values
    at_truth = log_density(posterior.networks, truths.theta[:, None], read)[:, 0]
    # A truth without density counts as a failure, as in the contest.
    gain = np.maximum(at_truth, NO_DENSITY) - prior.log_prob(truths.theta)
    pull = (values.mean(1) - truths.theta) / values.std(1)
    low, high = np.quantile(values, [0.16, 0.84], axis=1)
    inside = (truths.theta >= low) & (truths.theta <= high)
    return WorldScore(
        name,
        trained,
        len(truths),
        left_out,
        float(gain.mean()),
        float(gain.std(ddof=1) / len(gain) ** 0.5),
        _by_name(prior.names, pull.mean(0)),
        _by_name(prior.names, np.sqrt((pull**2).mean(0))),
        _by_name(prior.names, inside.mean(0)),
        {str(n): warned_of(checks, n, seed) for n in TOGETHER if checks and n <= len(checks) // 2 + 1},
    )


def warned_of(checks: Sequence[ObservationCheck], together: int, seed: int) -> float:
    """Share of groups of so many observations that are warned of, their p-values taken together."""
    if together == 1:
        return float(np.mean([check.unlike for check in checks]))
    rng = np.random.default_rng(seed)
    groups = [rng.choice(len(checks), together, replace=False) for _ in range(GROUPS)]
    return float(np.mean([check_together([checks[i] for i in group]) < LEVEL for group in groups]))


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
