"""Trained things are kept: loaded if their key fits, else trained under checkpoints, timed and saved."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from eorinfer.core.files import read_json, remove_leftovers, write_json
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
    kind, load
        Class of the trained thing, and what reads it in place of ``kind.load``.
    key
        Hash of all that the training depends on, in the facts as ``key``.
    train
        Trains it, on from what the given folder of checkpoints has.
    checkpoints
        Beginning of the names of the folders of checkpoints, which stand beside `folder`.
    """
    trained = load_kept(kind, folder, key, checkpoints, load=load)
    return train_and_keep(folder, key, train, checkpoints) if trained is None else trained


def load_kept(
    kind: type[T],
    folder: Path,
    key: str,
    checkpoints: str = "checkpoints",
    *,
    load: Callable[[Path], T] | None = None,
) -> T | None:
    """Load what `folder` keeps if it was trained under this key; None otherwise; parameters as for `load_or_train`."""
    # The key first: what was made with another version of a user's module cannot be loaded with this one.
    if not kind.bundle.is_in(folder) or kind.bundle.facts(folder).get("key") != key:
        return None
    trained = (load or kind.load)(folder)
    # A kill after the training was saved leaves them.
    shutil.rmtree(folder.parent / f"{checkpoints}-{key}", ignore_errors=True)
    return trained


def train_and_keep(folder: Path, key: str, train: Callable[[Path], T], checkpoints: str = "checkpoints") -> T:
    """Train, note key and seconds in the facts, save, and delete the checkpoints; parameters as for `load_or_train`."""
    start = time.monotonic()
    with sole_worker(folder):
        remove_leftovers(folder.parent)
        made = folder.parent / f"{checkpoints}-{key}"
        spent = _seconds_before(made)
        trained = train(made)
        trained.facts.update(key=key, seconds=spent + time.monotonic() - start)
        trained.save(folder)
        # Checkpoints of a training that was stopped, and whose settings were then changed, go too.
        for left_over in folder.parent.glob(f"{checkpoints}-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    return trained


def _seconds_before(checkpoints: Path) -> float:
    """Give the seconds that stopped calls of this training took up to their last checkpoints; note that one begins."""
    path, seconds = checkpoints / "begun.json", 0.0
    if path.exists():
        before = read_json(path)
        written = [file.stat().st_mtime for file in checkpoints.rglob("*.ckpt")]
        seconds = before["seconds"] + max(0.0, max(written, default=0.0) - before["begun"])
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_json(path, {"seconds": seconds, "begun": time.time()})
    return seconds
