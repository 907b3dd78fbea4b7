"""A posterior as simple as the data call for: the densities that a training tries one after the other."""

import math
from dataclasses import dataclass

from torch import Tensor

from eorinfer.npe.density import ThetaDensity
from eorinfer.settings.npe import AUTO, EFFORTS, FlowSettings, TrainingSettings
from eorinfer.training.fit import planned

#: Length of the second stage, as a share of the first, and its learning rate.
LENGTH, RATE = 1 / 3, 0.3


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
    """

    name: str
    flow: FlowSettings
    training: TrainingSettings


def stages(flow: FlowSettings, training: TrainingSettings) -> tuple[Stage, ...]:
    """List the fits of each network, which begin with the weights of the one before.

    With ``kind = "auto"`` the truncated normal is trained alone. Then a flow joins it for a third of the steps, at a
    lower rate. With few simulations a flow that is there from the beginning learns them by heart.
    """
    if flow.kind != "auto":
        return (Stage("flow", flow, training),)
    later = {
        "steps": math.ceil(LENGTH * training.steps),
        "epochs": math.ceil(LENGTH * training.epochs),
        "learning_rate": RATE * training.learning_rate,
    }
    return (
        Stage("normal", flow.model_copy(update={"kind": "none"}), training),
        Stage("flow", flow.model_copy(update={"kind": AUTO}), training.model_copy(update=later)),
    )


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


def go_on_from(network: ThetaDensity, before: ThetaDensity) -> None:
    """Give a network the weights of an earlier stage, as far as that has them."""
    network.load_state_dict(before.state_dict(), strict=False)
    network.embedding.unit = before.embedding.unit


@dataclass(frozen=True)
class Comparison:
    """Losses of a network with a flow beside those without, on rows that neither was trained on.

    Attributes
    ----------
    rows
        Number of held-out rows.
    nats, error
        Nats that the flow gains on average, and the standard error of that.
    """

    rows: int
    nats: float
    error: float

    @classmethod
    def from_losses(cls, simple: Tensor, richer: Tensor) -> "Comparison":
        """Compare losses (n,) without and with the flow, row by row."""
        gains = (simple - richer).double()
        return cls(len(gains), float(gains.mean()), float(gains.std() / len(gains) ** 0.5) if len(gains) > 1 else 0.0)

    @property
    def pays(self) -> bool:
        """True if the flow gains more than one standard error (Breiman et al. 1984, section 3.4.3)."""
        return math.isfinite(self.nats) and self.nats > self.error

    def line(self) -> str:
        """Say whether the flow is kept, and why."""
        kept = "kept" if self.pays else "left out: a truncated normal is enough"
        return f"on {self.rows} held-out rows the flow gains {self.nats:.3f} ± {self.error:.3f} nats and is {kept}"
