"""A posterior as simple as the data call for: the densities that a training tries one after the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eorinfer.settings.npe import AUTO, EFFORTS, FlowSettings, TrainingSettings
from eorinfer.training.fit import planned

#: Largest learning rate on emulated rows.
RATE = 3e-3
#: Least number of hidden units for each parameter of a flow on emulated rows. An autoregressive network shares its
#: units out among the parameters; with nine, 28 for each gain 0.2 to 0.3 nats over 4 for each.
UNITS = 28
#: As many times as many steps on emulated rows as on simulations: with 6,000 simulations of nine parameters three times
#: as many gain 0.10 nats, for 1.7 times the time of the whole training.
LONGER = 3


@dataclass(frozen=True)
class Stage:
    """One fit of a network.

    Attributes
    ----------
    name
        Name of its folder of checkpoints.
    flow
        What follows the truncated normal.
    training
        Length and rate of the fit.
    emulated
        Whether it trains on rows of an emulator, see `eorinfer.npe.emulated`.
    least
        Standard errors that it has to gain more than.
    """

    name: str
    flow: FlowSettings
    training: TrainingSettings
    emulated: bool = False
    least: float = 1.0

    @property
    def what(self) -> str:
        """Say in words what it has beside a truncated normal that is trained on simulations."""
        return " with ".join(["training on emulated rows"] * self.emulated + ["a flow"] * (self.flow.kind != "none"))


def stages(
    flow: FlowSettings, training: TrainingSettings, emulated_batch: int = 0, parameters: int = 1
) -> tuple[Stage, ...]:
    """List the fits of each network, of which held-out rows choose one.

    With ``kind = "auto"`` the truncated normal is trained, and a network that has a flow from its first step on: one
    that joins a trained truncated normal finds features that do not tell branches apart. The flow is tried once more
    with rows of an emulator, in batches of at least `emulated_batch`; not at all if that is 0. It is wider there, with
    `UNITS` for each of the `parameters`.

    A flow learns simulations by heart, so that it has to gain more than a standard error. Emulated rows are as many as
    one likes: of cubes, whose shapes they have wrong, they have to gain at all. Batches of more than one row say that
    networks read nothing but what is emulated. Then these rows are left out only where they lose more than an error:
    with a hundred held-out rows chance would decide.
    """
    kinds = {"flow": flow.kind} if flow.kind != "auto" else {"normal": "none", "normal-flow": AUTO}
    tried = [Stage(name, flow.model_copy(update={"kind": kind}), training) for name, kind in kinds.items()]
    if emulated_batch:
        # There are as many rows as one likes: a flow has nothing to learn by heart.
        many = {
            "steps": LONGER * training.steps,
            "batch_size": max(emulated_batch, training.batch_size),
            "learning_rate": min(RATE, training.learning_rate),
        }
        wide = {"kind": AUTO, "hidden": tuple(max(UNITS * parameters, width) for width in flow.hidden)}
        richest = flow.model_copy(update=wide) if flow.kind == "auto" else flow
        least = -1.0 if emulated_batch > 1 else 0.0
        tried.append(Stage("emulated-flow", richest, training.model_copy(update=many), True, least))
    return tuple(tried)


def network_count(training: TrainingSettings, rows: int) -> int:
    """Count the networks of an ensemble: as given, or as `effort` says.

    Epochs end the fit of few rows early. A thorough training makes more networks of the steps that are left: their mean
    loses less, and each holds out another fold.
    """
    if training.ensemble is not None:
        return training.ensemble
    epochs, batches = planned(training, round(rows * (1 - training.validation_fraction)))
    effort = EFFORTS[training.effort]
    return min(effort["most"], max(effort["networks"], effort["networks"] * training.steps // (epochs * batches)))


@dataclass(frozen=True)
class Comparison:
    """Losses of one candidate beside those of a simpler one, on rows that neither was trained on.

    Attributes
    ----------
    rows
        Number of held-out rows.
    nats, error
        Nats that the candidate gains on average, and the standard error of that.
    least
        Standard errors that a gain has to be more than.
    """

    rows: int
    nats: float
    error: float
    least: float = 1.0

    @classmethod
    def from_losses(cls, simple: Tensor, richer: Tensor, theta: Tensor, least: float = 1.0) -> "Comparison":
        """Compare losses (n,) of the two, row by row; rows of one theta (n, P), views of a run, err together."""
        gains = (simple - richer).double()
        runs, run = torch.unique(theta, dim=0, return_inverse=True)
        left = gains.new_zeros(len(runs)).index_add(0, run, gains - gains.mean())
        error = float(left.square().sum().sqrt()) / len(gains) * math.sqrt(len(runs) / max(1, len(runs) - 1))
        return cls(len(gains), float(gains.mean()), error, least)

    @property
    def pays(self) -> bool:
        """True if the gain is more than `least` standard errors: one by Breiman et al. (1984, section 3.4.3)."""
        return math.isfinite(self.nats) and self.nats > self.least * self.error

    def line(self, what: str, instead: str) -> str:
        """Say whether the candidate is kept, and what is enough where it is not."""
        kept = "kept" if self.pays else f"left out: {instead} is enough"
        return f"on {self.rows} held-out rows {what} gains {self.nats:.3f} ± {self.error:.3f} nats and is {kept}"


def choose(
    candidates: Sequence[Stage], losses: Sequence[Tensor], theta: Tensor
) -> tuple[int, dict[str, Comparison], list[str]]:
    """Choose a candidate: each in its turn takes the place of the best before it where that pays.

    Parameters
    ----------
    candidates
        The stages, the simplest one first.
    losses
        (n,) of each, for the same held-out rows.
    theta
        (n, P) of these rows.

    Returns
    -------
    best, found, lines
        Place of the best, comparisons by name of the stage, and what they say in words.
    """
    best, found, lines = 0, {}, []
    for place, stage in enumerate(candidates[1:], start=1):
        found[stage.name] = one = Comparison.from_losses(losses[best], losses[place], theta, stage.least)
        lines.append(one.line(stage.what, candidates[best].what or "a truncated normal"))
        best = place if one.pays else best
    return best, found, lines
