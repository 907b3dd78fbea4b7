"""Line separation between survey and embedding: frozen, and stored with the posterior trained on its output."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import state_hash
from eorinfer.core.errors import InputError
from eorinfer.separation.apply import draw_each, estimate
from eorinfer.separation.model import Separator
from eorinfer.settings.separation import Data, Estimate, Keep, PreprocessingSettings
from eorinfer.summaries.power import JointPowerSpectrum
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
    estimate
        ``"mean"``, ``"draw"``, or ``"both"`` for means followed by a draw of each line.
    spectra
        Data of power-spectrum likelihoods: ``"observed"``, or ``"lines"``.
    """

    def __init__(
        self, separator: Separator, keep: Keep, estimate: Estimate = "mean", spectra: Data = "observed"
    ) -> None:
        super().__init__()
        self.separator, self.keep, self.estimate, self.spectra = separator, keep, estimate, spectra

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
        if settings.estimate != "mean" and separator.spec.settings.kind == "mean":
            raise InputError(
                f'{settings.model}: estimate = "{settings.estimate}": a separator of kind = "mean" makes no draws'
            )
        return cls(separator, settings.keep, settings.estimate, settings.power_spectrum)

    @torch.no_grad()
    def forward(self, observed: Tensor) -> Tensor:
        """Turn observed maps (B, C, *cells) into (B, L, *cells), after C observed channels where these are kept."""
        lines = torch.cat([self._lines(batch) for batch in observed.split(BATCH)])
        return torch.cat([observed, lines], dim=1) if self.keep == "both" else lines

    def _lines(self, observed: Tensor) -> Tensor:
        if self.estimate == "mean":
            return estimate(self.separator, observed)
        # What a map gives must not change, nor with those beside it.
        seeds = [int.from_bytes(hashlib.sha256(x.tobytes()).digest()[:4]) for x in observed.cpu().numpy()]
        mean, draw = draw_each(self.separator, observed, seeds)
        return draw if self.estimate == "draw" else torch.cat([mean, draw], dim=1)

    def observable(self, image: Observable) -> Observable:
        """Describe the result of `forward` for an image."""
        lines = [image.channels[target.channel] for target in self.separator.spec.targets]
        lines = lines * (2 if self.estimate == "both" else 1)
        channels = (*image.channels, *lines) if self.keep == "both" else tuple(lines)
        return replace(image, shape=(len(channels), *image.cells), channels=channels)

    def seeds(self) -> set[int]:
        """Return the realisations that trained or validated the separator."""
        seeds = self.separator.spec.facts.get("seeds", {})
        return {int(seed) for part in ("training", "validation") for seed in seeds.get(part, [])}

    @property
    def choices(self) -> dict[str, str]:
        """Return what it was made with besides the separator."""
        return {"keep": self.keep, "estimate": self.estimate, "spectra": self.spectra}

    def digest(self) -> str:
        """Hash what is given, and the weights."""
        # As it was where there is only what there used to be, so that what was trained is found.
        more = "" if (self.estimate, self.spectra) == ("mean", "observed") else f" {self.estimate} {self.spectra}"
        more += "" if self.estimate == "mean" else " by map"
        return state_hash((self.keep + more).encode(), sorted(self.separator.state_dict().items()))


class LineSpectra(nn.Module):
    """P(k) of the separated lines of observed maps, with their cross spectra.

    Parameters
    ----------
    separation
        Separation of the maps; what it keeps beside the posterior means is left out.
    spectrum
        Auto and cross spectra of maps.
    """

    def __init__(self, separation: LineSeparation, spectrum: JointPowerSpectrum) -> None:
        super().__init__()
        self.separation, self.spectrum = LineSeparation(separation.separator, "lines"), spectrum

    def forward(self, observed: Tensor) -> Tensor:
        """Measure observed maps (B, C, *cells): (B, L (L + 1) / 2, n_bins)."""
        power: Tensor = self.spectrum(self.separation(observed))
        return power
