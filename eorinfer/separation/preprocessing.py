"""Line separation between survey and embedding: frozen, and stored with the posterior trained on its output."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import state_hash
from eorinfer.core.errors import InputError
from eorinfer.separation.model import Separator
from eorinfer.settings.separation import PreprocessingSettings
from simulators import Observable

#: Number of maps that pass the separator at once.
BATCH = 64


class LineSeparation(nn.Module):
    """Replace observed maps by the lines in them, or append the lines, before a posterior's networks.

    Parameters
    ----------
    separator
        Separator trained on other realisations than the posterior.
    keep
        ``"lines"``, or ``"both"`` for the observed channels followed by the lines.
    """

    def __init__(self, separator: Separator, keep: Literal["lines", "both"]) -> None:
        super().__init__()
        self.separator, self.keep = separator, keep

    @classmethod
    def from_settings(cls, settings: PreprocessingSettings, observable: Observable, beside: Path) -> "LineSeparation":
        """Load the separator that ``[preprocessing]`` names; its path is relative to `beside`.

        Raises
        ------
        InputError
            If there is no separator, or it was trained on other maps than `observable`.
        """
        separator = Separator.load(beside / settings.model)
        trained = separator.spec.observable
        for name in ("shape", "unit", "axes", "cell_size", "channels"):
            if getattr(trained, name) != getattr(observable, name):
                raise InputError(
                    f"{settings.model}: this separator was trained on maps with {name} {getattr(trained, name)}, "
                    f"the simulator's have {getattr(observable, name)}"
                )
        return cls(separator, settings.keep)

    @torch.no_grad()
    def forward(self, observed: Tensor) -> Tensor:
        """Turn observed maps (B, C, *cells) into (B, L, *cells) or (B, C + L, *cells)."""
        lines = torch.cat([self.separator(batch) for batch in observed.split(BATCH)])
        return torch.cat([observed, lines], dim=1) if self.keep == "both" else lines

    def observable(self, image: Observable) -> Observable:
        """Describe the result of `forward` for an image."""
        lines = [image.channels[target.channel] for target in self.separator.spec.targets]
        channels = (*image.channels, *lines) if self.keep == "both" else tuple(lines)
        return replace(image, shape=(len(channels), *image.cells), channels=channels)

    def seeds(self) -> set[int]:
        """Return the realisations that trained or validated the separator."""
        seeds = self.separator.spec.facts.get("seeds", {})
        return {int(seed) for part in ("training", "validation") for seed in seeds.get(part, [])}

    def digest(self) -> str:
        """Hash `keep` and the weights."""
        return state_hash(self.keep.encode(), sorted(self.separator.state_dict().items()))
