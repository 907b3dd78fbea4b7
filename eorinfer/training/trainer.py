"""Lightning's trainer, set up so that nothing guesses its surroundings: one process, one device, checkpoints."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader

from eorinfer.core.progress import Advance, Progress
from eorinfer.training.checkpoints import LAST, WholeCheckpoints, newest_checkpoint


class Noting(Protocol):
    """A Lightning module that describes its training in a few words."""

    def note(self) -> str:
        """Last losses, for the progress bar."""

    def state_dict(self) -> dict[str, Any]:
        """State by name, as `torch.nn.Module` gives it."""


def run_trainer(
    runner: Noting,
    training: DataLoader[tuple[Tensor, ...]],
    validation: DataLoader[tuple[Tensor, ...]],
    *,
    folder: Path,
    epochs: int,
    title: str,
    progress: Progress,
    checkpoint_every: int = 1,
    callbacks: tuple[Callback, ...] = (),
    **settings: Any,
) -> None:
    """Train a module, on from the newest checkpoint in `folder` if there is one.

    Parameters
    ----------
    runner
        Lightning module, whose note stands beside the progress bar.
    training, validation
        Batches.
    folder
        Folder of the checkpoints; the caller deletes it.
    epochs
        Epochs in all.
    title
        Name of the progress bar.
    progress
        Receives the bar.
    checkpoint_every
        Epochs between two checkpoints.
    callbacks
        More callbacks.
    settings
        More settings of Lightning's `Trainer`.

    Raises
    ------
    WorkError
        If the disk is full, or a checkpoint cannot be read.
    """
    # Lightning would take a SLURM job with --ntasks, or an MPI library, for a request to train in several processes.
    surroundings = [LightningEnvironment(), WholeCheckpoints()]
    last = ModelCheckpoint(
        folder, filename=LAST.removesuffix(".ckpt"), every_n_epochs=checkpoint_every, enable_version_counter=False
    )
    with quiet(), progress.bar(title, epochs) as advance:
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            plugins=surroundings,
            max_epochs=epochs,
            callbacks=[last, *callbacks, EpochProgress(advance)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            **settings,
        )
        start = newest_checkpoint(folder, runner.state_dict(), progress)
        with ctrl_c():
            trainer.fit(runner, training, validation, ckpt_path=start, weights_only=True)


class EpochProgress(Callback):
    """Advances a progress bar after each epoch, with the ``note()`` of the module."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._done = advance, 0

    def on_train_epoch_end(self, trainer: Trainer, module: "Noting") -> None:
        """Advance the bar."""
        # After a resume the first call makes up for the epochs done before.
        self._advance(trainer.current_epoch + 1 - self._done, module.note())
        self._done = trainer.current_epoch + 1


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Keep Ctrl-C a KeyboardInterrupt: Lightning makes it a SystemExit and ignores the next one."""
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
    """Leave out Lightning's advice and its list of devices."""
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
