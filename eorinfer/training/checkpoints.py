"""Checkpoints of a fit: written whole in the fit's own folder, the last two of them kept."""

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from eorinfer.core.errors import WorkError
from eorinfer.core.files import whole_file
from eorinfer.core.progress import Progress

#: The newest checkpoint, and the one that it followed.
LAST, BEFORE = "last.ckpt", "before.ckpt"
#: Errors that torch raises when a file is not the checkpoint that was written.
BROKEN = (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError)


class WholeCheckpoints(CheckpointIO):
    """Writes checkpoints beside their final name and renames them.

    Lightning's own writer goes through the folder for temporary files and copies from there when that is
    another file system: a kill in the copy would leave half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint whole; the one of this name becomes the one before."""
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"new-{path.name}")
        try:
            with whole_file(new) as temporary:
                temporary.write_bytes(buffer.getvalue())  # a view that an error keeps alive crashes Python 3.12.1
        except WorkError as error:
            raise WorkError(str(error).replace(str(new), str(path))) from error
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(BEFORE))
        os.replace(new, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; nothing in it runs code."""
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return content

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def newest_checkpoint(folder: Path, state: Mapping[str, Any], progress: Progress) -> Path | None:
    """Find the newest checkpoint of a fit's folder that can be read; say which ones cannot.

    Parameters
    ----------
    folder
        Folder of the fit.
    state
        State by name of the module that is fitted: another version's network may have had other weights.
    progress
        Receives the lines.

    Raises
    ------
    WorkError
        If the operating system cannot read a file that is there.
    """
    for name, next_try in ((LAST, "the one before it"), (BEFORE, "the beginning")):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            raise WorkError(f"{path}: the checkpoint cannot be read ({error.strerror})") from error
        try:
            kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            if _shapes(kept["state_dict"]) == _shapes(state):
                return path
            progress.line(f"{path}: the checkpoint is of another version's network; the fit begins anew")
            return None
        except BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            progress.line(f"{path}: the checkpoint is broken ({reason}); the fit continues from {next_try}")
    return None


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shape of each tensor of a state, by name."""
    return {name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor)}
