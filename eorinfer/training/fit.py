"""Lightning runs every fit: checkpoints, resume, the best weights kept, a stop at the first NaN."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT, LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import Tensor

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import WorkStream, second_item_seed, stream_seed
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.average import kept_share
from eorinfer.training.data import Batches, loader, named_rows
from eorinfer.training.trainer import run_trainer

#: Passes over the validation rows, each with its own fixed noise.
VALIDATION_DRAWS = 2
#: Validations and resumable checkpoints in the course of a fit.
VALIDATIONS, CHECKPOINTS = 40, 40
#: Rows of a validation batch.
VALIDATION_BATCH = 256
#: What to do about rows whose loss is not finite.
CURE = "Look at their cubes (`eorinfer bank export`); if they are right, lower [training] learning_rate"


class Fittable(Protocol):
    """A torch module that can be fitted: it has a loss."""

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Loss of each row (B,); all randomness (noise, symmetries) comes from the generator."""

    def state_dict(self) -> dict[str, Any]:
        """State by name, as `torch.nn.Module` gives it."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object:
        """Take a state, as `torch.nn.Module` does."""

    def eval(self) -> object:
        """Leave training mode, as `torch.nn.Module` does."""


@dataclass(frozen=True)
class FitRecord:
    """Losses of a fit.

    Attributes
    ----------
    validation_loss
        Smallest mean loss on validation rows, which the weights that are kept had.
    epochs
        Epochs trained.
    history
        Epoch, training loss and validation loss at each validation.
    """

    validation_loss: float
    epochs: int
    history: list[dict[str, float]]


def fit(
    module: Fittable,
    training: Batches,
    validation: Batches,
    settings: TrainingSettings,
    *,
    folder: Path,
    seed: int,
    title: str = "fit",
    progress: Progress | None = None,
    average: float = 0.0,
) -> FitRecord:
    """Fit a module in place, on from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    module
        Freshly built torch module.
    training, validation
        Rows of different realisations.
    settings
        Steps and epochs, rate and batch size.
    folder
        Folder of checkpoints; the caller deletes it.
    seed
        Seed of shuffling and of the generator given to `losses`.
    title
        Name of the fit in its progress bar.
    progress
        Receives the bar.
    average
        Share of the last average that each step keeps where weights are averaged over the steps (Polyak & Juditsky
        1992, exponential), as validation and the result then are; 0 for the weights of single steps.

    Raises
    ------
    WorkError
        If the loss is not finite.
    """
    epochs, batches = planned(settings, len(training))
    runner = _Runner(module, settings, epochs * batches, seed, average)
    every = max(1, epochs // VALIDATIONS)
    run_trainer(
        runner,
        loader(training, settings.batch_size, shuffle_seed=seed),
        loader(validation, VALIDATION_BATCH),
        folder=folder,
        epochs=epochs,
        title=title,
        progress=progress or Silent(),
        checkpoint_every=max(every, epochs // CHECKPOINTS),
        callbacks=(_StopAtNaN(),),
        precision=settings.precision,
        check_val_every_n_epoch=every,
        gradient_clip_val=1.0,
    )
    runner.cpu()
    module.load_state_dict(runner.best)
    module.eval()
    return FitRecord(min(h["validation"] for h in runner.history), epochs, runner.history)


def planned(settings: TrainingSettings, rows: int) -> tuple[int, int]:
    """Count the epochs of a fit on some rows, and the steps of each; `steps` or `epochs` end it, whichever is first."""
    batches = max(1, rows // min(settings.batch_size, max(1, rows)))
    return min(math.ceil(settings.steps / batches), settings.epochs), batches


class _Runner(LightningModule):
    """Trains a module, with the loss of its training rows and of fixed validation rows.

    Parameters
    ----------
    module
        Module that is trained.
    settings
        Rates and precision.
    steps
        Steps of the whole fit.
    seed
        Seed of noise and symmetries.
    average
        Share of the averaged weights that a step keeps; 0 for none.
    """

    def __init__(self, module: Fittable, settings: TrainingSettings, steps: int, seed: int, average: float) -> None:
        super().__init__()
        self.module = module
        self._settings, self._steps, self._seed, self._share = settings, steps, seed, average
        #: Averaged parameters; empty until the first step, and without averaging.
        self._averaged: list[Tensor] = []
        self._losses: list[Tensor] = []
        #: Losses (B,) of the last batch.
        self.each = torch.empty(0)
        self._validation_losses: list[Tensor] = []
        self.history: list[dict[str, float]] = []
        #: State of the module at its smallest validation loss.
        self.best: dict[str, Tensor] = {}

    def on_train_epoch_start(self) -> None:
        # By epoch, so that a resumed training sees the noise that it would have seen.
        seed = second_item_seed(self._seed, self.current_epoch)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._losses = []

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        each = self.module.losses(batch, self._generator)
        loss = each.mean()
        self.each = each.detach()
        self._losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: object, batch_idx: int) -> None:
        if not self._share:
            return
        weights = [p.detach() for p in self.parameters()]
        if not self._averaged:
            self._averaged = [w.clone() for w in weights]
            return
        torch._foreach_lerp_(self._averaged, weights, 1 - kept_share(self._share, self.global_step))

    @contextmanager
    def _with_averaged_weights(self) -> Iterator[None]:
        """Put the averaged weights in the place of the last step's."""
        last = [p.detach().clone() for p in self.parameters()] if self._averaged else []
        self._set(self._averaged)
        try:
            yield
        finally:
            self._set(last)

    @torch.no_grad()
    def _set(self, weights: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters(), weights, strict=False):
            parameter.copy_(value)

    def on_validation_epoch_start(self) -> None:
        self._fixed = torch.Generator(self.device).manual_seed(stream_seed(self._seed, WorkStream.VALIDATION_NOISE))
        self._validation_losses = []

    def validation_step(self, batch: tuple[Tensor, ...], _: int) -> None:
        with self._with_averaged_weights():
            for _ in range(VALIDATION_DRAWS):
                self._validation_losses.append(self.module.losses(batch, self._fixed))

    def on_validation_epoch_end(self) -> None:
        losses = torch.cat(self._validation_losses)
        loss = losses.mean()
        if not torch.isfinite(loss):
            raise WorkError(f"training: {self._bad_rows()}")
        training = torch.stack(self._losses).mean().item()
        if not self.history or loss.item() < min(past["validation"] for past in self.history):
            with self._with_averaged_weights():
                self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        self.history.append({"epoch": self.current_epoch, "training": training, "validation": loss.item()})

    def _bad_rows(self) -> str:
        """Name the validation rows whose loss is not finite."""
        rows, first = set(), 0
        for i, losses in enumerate(self._validation_losses):
            rows |= {first + int(row) for row in torch.nonzero(~torch.isfinite(losses))}
            if i % VALIDATION_DRAWS == VALIDATION_DRAWS - 1:
                first += len(losses)
        named = named_rows(self.trainer.val_dataloaders, sorted(rows))
        return f"the validation loss is not finite for {len(rows)} of {first} validation rows: {named}. {CURE}"

    def note(self) -> str:
        """Last losses, for the progress bar."""
        if not self.history:
            return ""
        last = self.history[-1]
        return f"loss {last['training']:.2f}, in validation {last['validation']:.2f}"

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        s = self._settings
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=s.learning_rate,
            weight_decay=s.weight_decay,
            fused=s.precision == "32-true",  # Lightning clips no gradients of a fused one otherwise
        )
        # Its rise of a fifth would end at step zero of five, and divide by it.
        steps = max(self._steps, 6)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, s.learning_rate, total_steps=steps, pct_start=0.2)
        each_step = LRSchedulerConfigType(scheduler=schedule, interval="step")
        return OptimizerLRSchedulerConfig(optimizer=optimizer, lr_scheduler=each_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = json.dumps(self.history)
        checkpoint["best"] = self.best
        checkpoint["averaged"] = self._averaged

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = json.loads(checkpoint["history"])
        self._averaged = [w.to(self.device) for w in checkpoint.get("averaged", [])]
        self.best = checkpoint["best"] if "best" in checkpoint else self._best_of_old(checkpoint)

    def _best_of_old(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Read the best weights from the file of their own that version 0.1.0 wrote beside its checkpoints."""
        paths = [state.get("best_model_path", "") for state in checkpoint["callbacks"].values()]
        name = next(Path(path).name for path in paths if Path(path).name.startswith("best"))
        kept = torch.load(Path(self.trainer.default_root_dir) / name, weights_only=True)["state_dict"]
        return {key.removeprefix("module."): value for key, value in kept.items()}


class _StopAtNaN(Callback):
    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(outputs, Mapping)
        if torch.isfinite(outputs["loss"]):
            return
        assert isinstance(module, _Runner)
        bad, size = torch.nonzero(~torch.isfinite(module.each)).flatten().tolist(), len(module.each)
        # Where all of a batch are lost, it is the weights that are.
        if not 0 < len(bad) < size:
            raise WorkError(
                "training: the loss is not finite; the last checkpoint is kept. "
                "A lower [training] learning_rate usually cures it"
            )
        rows: Any = trainer.train_dataloader
        order = [*rows.sampler][batch_idx * size : (batch_idx + 1) * size]
        named = named_rows(rows, sorted(order[i] for i in bad))
        raise WorkError(f"training: the loss is not finite for {len(bad)} of {size} rows of a batch: {named}. {CURE}")
