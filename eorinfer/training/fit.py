"""Lightning runs every fit: checkpoints, resume, the best weights kept, a stop at the first NaN."""

import json
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Advance, Progress, Silent
from eorinfer.core.seeds import WorkStream, second_item_seed, stream_seed
from eorinfer.settings.npe import TrainingSettings
from eorinfer.training.data import Batches, loader

#: Passes over the validation rows, each with its own fixed noise.
VALIDATION_DRAWS = 2
#: Validations and resumable checkpoints in the course of a fit.
VALIDATIONS, CHECKPOINTS = 40, 40


class Fittable(Protocol):
    """A module that can be fitted: it says what a batch costs."""

    def losses(self, batch: Any, generator: torch.Generator) -> Tensor:
        """Loss of each row (B,); all randomness (noise, symmetries) comes from the generator."""


@dataclass(frozen=True)
class FitRecord:
    """What a fit gave.

    Attributes
    ----------
    validation_loss
        The smallest mean loss on validation rows; the weights are those that had it.
    epochs
        Epochs trained.
    history
        For each validation: epoch, training loss and validation loss.
    """

    validation_loss: float
    epochs: int
    history: list[dict[str, float]]


def fit(
    module: nn.Module,
    training: Batches,
    validation: Batches,
    settings: TrainingSettings,
    *,
    folder: Path,
    seed: int,
    title: str = "fit",
    progress: Progress | None = None,
) -> FitRecord:
    """Fit a module in place, on from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    module
        A `Fittable`, freshly built.
    training, validation
        Rows of different realisations.
    settings
        Steps and epochs, rate and batch size.
    folder
        Where checkpoints stand; the caller deletes it.
    seed
        Of shuffling and of the generator given to `losses`.
    title, progress
        What is fitted, and where that is told.

    Raises
    ------
    WorkError
        If the loss is not finite.
    """
    batches = max(1, len(training) // min(settings.batch_size, len(training)))
    epochs = min(math.ceil(settings.steps / batches), settings.epochs)
    runner = _Runner(module, settings, epochs * batches, seed)
    every = max(1, epochs // VALIDATIONS)
    best = ModelCheckpoint(folder, filename="best", monitor="validation", save_weights_only=True)
    last = ModelCheckpoint(
        folder,
        filename="last",
        every_n_epochs=max(every, epochs // CHECKPOINTS),
        enable_version_counter=False,
    )
    resume = folder / "last.ckpt"
    with quiet(), (progress or Silent()).bar(title, epochs) as advance:
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            precision=settings.precision,
            max_epochs=epochs,
            check_val_every_n_epoch=every,
            gradient_clip_val=1.0,
            callbacks=[best, last, _StopAtNaN(), Tell(advance)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        with ctrl_c():
            trainer.fit(
                runner,
                loader(training, settings.batch_size, shuffle_seed=seed),
                loader(validation, 256),
                ckpt_path=resume if resume.exists() else None,
                weights_only=True,
            )
    runner.cpu()
    runner.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    module.eval()
    return FitRecord(min(h["validation"] for h in runner.history), epochs, runner.history)


class _Runner(LightningModule):
    def __init__(self, module: nn.Module, settings: TrainingSettings, steps: int, seed: int) -> None:
        super().__init__()
        self.module = module
        self._settings, self._steps, self._seed = settings, steps, seed
        self._losses: list[Tensor] = []
        self._validation_losses: list[Tensor] = []
        self.history: list[dict[str, float]] = []

    def on_train_epoch_start(self) -> None:
        # By epoch, so that a resumed training sees the noise that it would have seen.
        seed = second_item_seed(self._seed, self.current_epoch)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._losses = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss: Tensor = self.module.losses(batch, self._generator).mean()  # type: ignore[operator]
        self._losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        self._fixed = torch.Generator(self.device).manual_seed(stream_seed(self._seed, WorkStream.VALIDATION_NOISE))
        self._validation_losses = []

    def validation_step(self, batch: Any, _: int) -> None:
        for _ in range(VALIDATION_DRAWS):
            self._validation_losses.append(self.module.losses(batch, self._fixed))  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        loss = torch.cat(self._validation_losses).mean()
        self.log("validation", loss)
        training = torch.stack(self._losses).mean().item()
        self.history.append({"epoch": self.current_epoch, "training": training, "validation": loss.item()})

    def note(self) -> str:
        """The last losses, for the progress bar."""
        if not self.history:
            return ""
        last = self.history[-1]
        return f"loss {last['training']:.2f}, in validation {last['validation']:.2f}"

    def configure_optimizers(self) -> Any:
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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = json.dumps(self.history)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = json.loads(checkpoint["history"])


class _StopAtNaN(Callback):
    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        if not torch.isfinite(outputs["loss"]):
            raise WorkError(
                "training: the loss is not finite; the last checkpoint is kept. "
                "A lower [training] learning_rate usually cures it"
            )


class Tell(Callback):
    """Tells how many epochs are done, and the module's own ``note()``."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._told = advance, 0

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        # After a resume the first call makes up for the epochs done before.
        self._advance(trainer.current_epoch + 1 - self._told, module.note())
        self._told = trainer.current_epoch + 1


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt: Lightning makes it a SystemExit and ignores the next one."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice and its list of devices."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
