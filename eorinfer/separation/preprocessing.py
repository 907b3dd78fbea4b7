"""Line separation between survey and embedding: frozen, and a part of the posterior that was trained behind it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from eorinfer.core.errors import InputError
from eorinfer.separation.model import Separator
from eorinfer.settings.separation import PreprocessingSettings
from simulators import Observable

#: Maps that pass the separator at once.
BATCH = 64


class LineSeparation(nn.Module):
    """Preprocessing for a posterior's networks: gives the lines in observed maps, or maps and lines.

    Parameters
    ----------
    separator
        Trained on other realisations than the posterior.
    keep
        ``"lines"``, or ``"both"``: the observed channels first.
    """

    def __init__(self, separator: Separator, keep: Literal["lines", "both"]) -> None:
        super().__init__()
        self.separator, self.keep = separator, keep

    @classmethod
    def of(cls, settings: PreprocessingSettings, observable: Observable, beside: Path) -> "LineSeparation":
        """As a config asks for it; paths count from `beside`.

        Raises
        ------
        InputError
            If there is no separator, or it is for other maps than `observable`.
        """
        separator = Separator.load(beside / settings.model)
        trained = separator.meaning.observable
        for name in ("shape", "unit", "axes", "cell_size", "channels"):
            if getattr(trained, name) != getattr(observable, name):
                raise InputError(
                    f"{settings.model}: this separator was trained on maps with {name} {getattr(trained, name)}, "
                    f"the simulator's have {getattr(observable, name)}"
                )
        return cls(separator, settings.keep)

    @torch.no_grad()
    def forward(self, observed: Tensor) -> Tensor:
        """Observed maps (B, C, *cells) to (B, L, *cells) or (B, C + L, *cells)."""
        lines = torch.cat([self.separator(part) for part in observed.split(BATCH)])
        return torch.cat([observed, lines], dim=1) if self.keep == "both" else lines

    def observable(self, image: Observable) -> Observable:
        """Describe what `forward` makes of an image."""
        found = [image.channels[target.channel] for target in self.separator.meaning.targets]
        channels = (*image.channels, *found) if self.keep == "both" else tuple(found)
        return replace(image, shape=(len(channels), *image.cells), channels=channels)

    def seeds(self) -> set[int]:
        """Realisations that the separator has learned from or was chosen by."""
        known = self.separator.meaning.facts.get("seeds", {})
        return {int(seed) for part in ("training", "validation") for seed in known.get(part, [])}

    def digest(self) -> str:
        """Hash of what it does."""
        made = hashlib.sha256(self.keep.encode())
        for name, value in sorted(self.separator.state_dict().items()):
            made.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
        return made.hexdigest()
