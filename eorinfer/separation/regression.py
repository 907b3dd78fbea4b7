"""Training of networks by a squared error: the posterior mean, and the velocity of a flow about it."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import WorkStream, second_item_seed, stream_seed
from eorinfer.separation.data import Lines, Pairs
from eorinfer.separation.flow import ResidualFlow
from eorinfer.separation.health import refuse_not_finite, warn_once
from eorinfer.separation.model import Separator
from eorinfer.separation.precision import precision
from eorinfer.settings.separation import SeparationSettings
from eorinfer.training.average import averaging
from eorinfer.training.data import loader
from eorinfer.training.trainer import Noting, run_trainer

#: Number of stages of a training; each ends with a checkpoint.
STAGES = 40
#: Steps between two validations, and how many there are at least.
VALIDATION_STEPS, VALIDATIONS = 200, 10
#: Number of maps whose residuals give the noise that a flow begins with, and of maps at once.
RESIDUAL_ROWS, BATCH = 512, 32

#: Loss (B, L) of a network on observed maps (B, C, *cells) and lines (B, L, *cells).
Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Material:
    """What a training takes besides its networks.

    Attributes
    ----------
    training, validation
        Clean lines.
    pairs
        Makes observed maps and targets from them.
    folder
        Folder of the checkpoints.
    seed
        Seed of order, noise, symmetries, times and dropout.
    progress
        Receives lines, bars and warnings.
    """

    training: Lines
    validation: Lines
    pairs: Pairs
    folder: Path
    seed: int
    progress: Progress

    def run(
        self, runner: "Runner", settings: SeparationSettings, stage: int, stages: int, folder: Path, title: str
    ) -> None:
        """Run `stages` stages of `stage` steps each, on from the last checkpoint in a folder."""
        run_trainer(
            runner,
            loader(self.training, settings.batch_size, shuffle_seed=self.seed, batches=stage),
            loader(self.validation, settings.batch_size),
            folder=folder,
            epochs=stages,
            title=f"{title}, in stages of {stage} step{'s' if stage > 1 else ''}",
            progress=self.progress,
            precision=precision(settings),
        )
        runner.cpu()


class Runner(Noting, Protocol):
    """A Lightning module that can leave an accelerator."""

    def cpu(self) -> object:
        """Move to the CPU."""


def stages_of(steps: int) -> tuple[int, int]:
    """Divide steps into stages: steps of one stage, and number of stages."""
    stage = max(1, math.ceil(steps / STAGES))
    return stage, math.ceil(steps / stage)


def validation_due(trainer: Trainer) -> bool:
    """Tell whether the present stage ends with a validation: the last one does."""
    stages, done = trainer.max_epochs or 1, trainer.current_epoch + 1
    every = min(math.ceil(VALIDATION_STEPS / int(trainer.num_training_batches)), max(1, stages // VALIDATIONS))
    return done % every == 0 or done == stages


def train_mean(separator: Separator, material: Material, steps: int) -> list[dict[str, Any]]:
    """Train the generator of a separator to give the posterior mean; return the history.

    Parameters
    ----------
    separator
        Separator whose scalings and Wiener filter are set.
    material
        Maps, seed and folder.
    steps
        Number of steps.
    """

    def loss(network: nn.Module, observed: Tensor, true: Tensor, _: torch.Generator) -> Tensor:
        made = network(separator.scaled(observed)).float()
        return (made - separator.target_scaling(true)).square().flatten(2).mean(2)

    average, history = _fit(separator, separator.generator, loss, material, steps, "mean")
    separator.generator.load_state_dict(average)
    return history


def train_flow(separator: Separator, material: Material, steps: int) -> list[dict[str, Any]]:
    """Train the flow of a separator about its posterior mean, and return the history; parameters as `train_mean`."""
    flow = separator.flow
    assert flow is not None
    generator = torch.Generator().manual_seed(stream_seed(material.seed, WorkStream.SEPARATOR_RESIDUALS))
    numbers = np.arange(min(RESIDUAL_ROWS, len(material.training)))
    residuals = []
    with torch.no_grad():
        for rows in np.array_split(numbers, max(1, len(numbers) // BATCH)):
            observed, true = material.pairs(material.training.__getitems__(rows.tolist())[0], generator, training=True)
            residuals.append(true - separator(observed))
    flow.fit(torch.cat(residuals))

    def loss(network: nn.Module, observed: Tensor, true: Tensor, generator: torch.Generator) -> Tensor:
        assert isinstance(network, ResidualFlow)
        mean = separator(observed)
        return network.losses(separator.context(observed, mean), network.white(true - mean), generator)

    average, history = _fit(separator, flow, loss, material, steps, "flow")
    flow.load_state_dict(average)
    return history


def _fit(
    separator: Separator, network: nn.Module, loss: Loss, material: Material, steps: int, name: str
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Train a network of a separator: the state of its best average, and the history with the network's name."""
    stage, stages = stages_of(steps)
    runner = Regression(separator, network, loss, material, stages * stage)
    settings = separator.spec.settings
    material.run(runner, settings, stage, stages, material.folder / name, f"separation, {name}")
    return runner.best.state_dict(), [{"network": name} | entry for entry in runner.history]


class Regression(LightningModule):
    """Train one network, and keep the moving average of its weights that was best in validation.

    With few maps a network learns them by heart, and is worse on others towards the end.

    Parameters
    ----------
    separator
        Separator that the network is a part of.
    network
        Network to train; it is copied.
    loss
        Loss of each map and line.
    material
        Pairs of maps, seed, and where warnings go.
    steps
        Number of steps in all.
    """

    def __init__(self, separator: Separator, network: nn.Module, loss: Loss, material: Material, steps: int) -> None:
        super().__init__()
        self._settings, self._lines = separator.spec.settings, separator.spec.lines
        self.network = deepcopy(network).requires_grad_(True)
        self.average = AveragedModel(self.network, multi_avg_fn=averaging(self._settings.average), use_buffers=True)
        self.average.requires_grad_(False)
        self.best = deepcopy(self.average.module)
        # It moves to the device with this module.
        self.separator, self.pairs = separator, material.pairs
        self._loss, self._steps = loss, steps
        self._seed, self._progress = material.seed, material.progress
        self._warned: set[str] = set()
        self._training: list[Tensor] = []
        self._validation: list[Tensor] = []
        self.history: list[dict[str, Any]] = []

    def on_train_epoch_start(self) -> None:
        # By epoch, so that a resumed training sees the same noise as one without a stop.
        self._random = torch.Generator(self.device).manual_seed(second_item_seed(self._seed, self.current_epoch))
        self._training = []

    def training_step(self, batch: tuple[Tensor], _: int) -> Tensor:
        observed, true = self.pairs(batch[0], self._random, training=True)
        loss = self._loss(self.network, observed, true, self._random).mean()
        if not torch.isfinite(loss):
            raise self._not_finite("loss", len(self._training) + 1)
        self._training.append(loss.detach())
        return loss

    def _not_finite(self, what: str, step: int) -> WorkError:
        step += self.current_epoch * self.trainer.num_training_batches
        return WorkError(
            f"separation: the {what} is not finite at step {step} of {self._steps}; the last checkpoint is kept. A "
            "lower [separation] learning_rate usually cures it"
        )

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        self.average.update_parameters(self.network)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        # Lightning refuses to clip beside a fused optimiser, lest it scales gradients: without a scaler it does not.
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self._settings.clip)
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", len(self._training))

    def configure_optimizers(self) -> Any:
        rate = self._settings.learning_rate
        optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=0.0, betas=(0.9, 0.99), fused=True)
        # Its rise of a tenth would end at step zero of ten, and divide by it.
        steps = max(self._steps, 11)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_validation_epoch_start(self) -> None:
        self._fixed = torch.Generator(self.device).manual_seed(stream_seed(self._seed, WorkStream.VALIDATION_NOISE))
        self._validation = []

    def validation_step(self, batch: tuple[Tensor], _: int) -> None:
        if not validation_due(self.trainer):
            return
        observed, true = self.pairs(batch[0], self._fixed)
        self._validation.append(self._loss(self.average.module, observed, true, self._fixed))

    def on_validation_epoch_end(self) -> None:
        if not validation_due(self.trainer):
            return
        each = torch.cat(self._validation)
        refuse_not_finite(torch.isfinite(each).all(1), self.trainer.val_dataloaders)
        self.history.append(
            {
                "stage": self.current_epoch,
                "error": torch.stack(self._training).mean().item(),
                "validation": each.mean().item(),
                "lines": each.mean(0).tolist(),
            }
        )
        if self.history[-1]["validation"] <= min(entry["validation"] for entry in self.history):
            self.best.load_state_dict(self.average.module.state_dict())
        step = (self.current_epoch + 1) * self.trainer.num_training_batches
        warn_once(self.history, self._lines, self._warned, self._progress, step)

    def note(self) -> str:
        """Write the last figures for the progress bar."""
        if not self.history:
            return ""
        return f"error {self.history[-1]['error']:.3f}, in validation {self.history[-1]['validation']:.3f}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = json.dumps(self.history)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = json.loads(checkpoint["history"])
        # Checkpoints of older versions have the last average alone.
        weights, of_average = checkpoint["state_dict"], "average.module."
        for name in [name for name in weights if name.startswith(of_average)]:
            weights.setdefault(f"best.{name.removeprefix(of_average)}", weights[name])
