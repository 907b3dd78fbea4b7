"""Trained things are kept: loaded if their key fits, else trained under checkpoints, timed and saved."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from eorinfer.core.sole import sole_worker
from eorinfer.training.bundle import BundleKind


class Trained(Protocol):
    """A trained thing that is saved as a bundle."""

    bundle: ClassVar[BundleKind]

    @property
    def facts(self) -> dict[str, Any]:
        """Notes on its training, saved with it."""

    def save(self, folder: Path) -> None:
        """Write the bundle whole."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""


T = TypeVar("T", bound=Trained)


def load_or_train(
    kind: type[T],
    folder: Path,
    key: str,
    train: Callable[[Path], T],
    checkpoints: str = "checkpoints",
    *,
    load: Callable[[Path], T] | None = None,
) -> T:
    """Load what `folder` keeps if it was trained under this key; otherwise train, save and return it.

    Parameters
    ----------
    kind
        Class of the trained thing.
    folder
        Folder of its bundle.
    key
        Hash of all that the training depends on, in the facts as ``key``.
    train
        Trains it, on from what the given folder of checkpoints has.
    checkpoints
        Beginning of the names of the folders of checkpoints, which stand beside `folder`.
    load
        Reads the bundle, in place of ``kind.load``.
    """
    trained = load_kept(kind, folder, key, load)
    return train_and_keep(folder, key, train, checkpoints) if trained is None else trained


def load_kept(kind: type[T], folder: Path, key: str, load: Callable[[Path], T] | None = None) -> T | None:
    """Load what `folder` keeps if it was trained under this key; None otherwise."""
    # The key first: what was made with another version of a user's module cannot be loaded with this one.
    if not kind.bundle.is_in(folder) or kind.bundle.facts(folder).get("key") != key:
        return None
    return (load or kind.load)(folder)


def train_and_keep(folder: Path, key: str, train: Callable[[Path], T], checkpoints: str = "checkpoints") -> T:
    """Train, note key and seconds in the facts, save, and delete the checkpoints; parameters as for `load_or_train`."""
    start = time.monotonic()
    with sole_worker(folder):
        trained = train(folder.parent / f"{checkpoints}-{key}")
        trained.facts.update(key=key, seconds=time.monotonic() - start)
        trained.save(folder)
        # Checkpoints of a training that was stopped, and whose settings were then changed, go too.
        for left_over in folder.parent.glob(f"{checkpoints}-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    return trained
