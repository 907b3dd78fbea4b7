"""A trained separator: networks, scalings and what it holds for, as a folder without pickle."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eorinfer.bank.store import observable_from_json
from eorinfer.core.errors import InputError
from eorinfer.networks.scaling import AsinhScaling
from eorinfer.networks.unet import Strides, UNet, halvings
from eorinfer.separation.data import Target
from eorinfer.separation.wiener import WienerFilter
from eorinfer.settings.separation import SeparationSettings
from eorinfer.settings.survey import SurveySettings
from eorinfer.training.bundle import BundleKind
from simulators import Observable

#: No pixel of the result is fainter than the faintest one of training, which emission leaves at zero, or brighter than
#: the brightest one by more than this factor.
BRIGHTER = 2.0


@dataclass(frozen=True)
class SeparatorSpec:
    """Input and output of a separator.

    Attributes
    ----------
    observable
        The image: shape, unit, axes and pixels of what it was trained on.
    targets
        Lines that it finds, in this order.
    survey
        Survey of its training.
    settings
        Settings of its networks and their training.
    facts
        Free notes: simulator and its fingerprint, seeds of the realisations, how training went.
    """

    observable: Observable
    targets: tuple[Target, ...]
    survey: SurveySettings
    settings: SeparationSettings
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """Names of what it finds; with the channel where one line is found in several."""
        names = [target.name for target in self.targets]
        return [t.name if names.count(t.name) == 1 else f"{t.name}_{t.channel}" for t in self.targets]

    @property
    def strides(self) -> Strides:
        """Axes that each level of the networks halves."""
        return halvings(self.observable.cells, self.observable.cell_size, self.settings.depth)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether the networks wrap around each cell axis."""
        if self.settings.padding == "auto":
            return self.observable.symmetry.periodic
        return (self.settings.padding == "periodic",) * len(self.observable.cells)


class Separator(nn.Module):
    """Observed maps (B, C, *cells) to the lines in them (B, L, *cells), both in physical units.

    The generator sees the observed map and what a Wiener filter makes of it, and begins with the latter: the best
    linear answer, of modes as long as the map is wide, is known and need not be learned.

    Frozen: it has no gradient of its own, and what it was made with does not change.

    Parameters
    ----------
    meaning
        Input and output; the networks are built from it, with torch's global random state.
    """

    bundle: ClassVar[BundleKind] = BundleKind("separator", "separator.json", 3)

    floor: Tensor
    ceiling: Tensor

    def __init__(self, meaning: SeparatorSpec) -> None:
        super().__init__()
        self.meaning = meaning
        observable, settings = meaning.observable, meaning.settings
        channels, lines, dimension = observable.shape[0], len(meaning.targets), len(observable.cells)
        self.source_scaling = AsinhScaling(channels, dimension)
        self.target_scaling = AsinhScaling(lines, dimension)
        self.register_buffer("floor", torch.full((lines, *(1,) * dimension), -torch.inf))
        self.register_buffer("ceiling", torch.full((lines, *(1,) * dimension), torch.inf))
        self.generator = UNet(
            channels + lines,
            lines,
            meaning.strides,
            meaning.periodic,
            width=settings.width,
            widest=settings.widest,
            dropout=settings.dropout,
            guess=channels,
        )
        self.wiener = WienerFilter(channels, lines, observable.cells, observable.cell_size)
        self.requires_grad_(False)
        self.eval()

    @property
    def facts(self) -> dict[str, Any]:
        """Notes on its training, saved with it."""
        return self.meaning.facts

    def forward(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The lines (B, L, *cells).

        Parameters
        ----------
        observed
            (B, C, *cells) in the unit of the observable, of its number of cells.
        generator
            Generator of a draw; None gives the one result without dropout.
        """
        scaled = self.generator(self.scaled(observed), generator)
        # sinh of a strange output is a very large number, of either sign
        return self.target_scaling.inverse(scaled.float()).clamp(self.floor, self.ceiling)

    def scaled(self, observed: Tensor) -> Tensor:
        """Stack observed maps (B, C, *cells) and the filter's lines, scaled for the generator: (B, C + L, *cells)."""
        with torch.autocast(observed.device.type, enabled=False):
            lines = self.target_scaling(self.wiener(observed))
            return torch.cat([self.source_scaling(observed), lines], dim=1)

    def fit_scalings(self, observed: Tensor, lines: Tensor) -> None:
        """Set scalings, floor and ceiling from observed maps (B, C, *cells) and lines (B, L, *cells)."""
        self.source_scaling.fit(observed, self.meaning.settings.softening)
        self.target_scaling.fit(lines, self.meaning.settings.softening)
        faintest, brightest = (x.view_as(self.ceiling) for x in lines.transpose(0, 1).flatten(1).aminmax(dim=1))
        self.floor.copy_(faintest)
        self.ceiling.copy_(BRIGHTER * brightest.clamp(min=torch.finfo(torch.float32).tiny))

    def train(self, mode: bool = True) -> "Separator":
        """Stay as it is: what contains a separator and is trained does not change it."""
        return super().train(False)

    def save(self, folder: Path) -> None:
        """Write ``separator.json`` and ``weights.safetensors`` whole."""
        meaning = self.meaning
        description = {
            "observable": asdict(meaning.observable),
            "targets": [asdict(target) for target in meaning.targets],
            "survey": meaning.survey.model_dump(mode="json"),
            "separation": meaning.settings.model_dump(mode="json"),
            "facts": meaning.facts,
        }
        self.bundle.write(folder, description, self.state_dict())

    @classmethod
    def load(cls, folder: Path) -> "Separator":
        """Read what `save` wrote, on the CPU.

        Raises
        ------
        InputError
            If the folder has no separator of this format.
        """
        with cls.bundle.reading(folder) as bundle:
            meaning = SeparatorSpec(
                observable_from_json(bundle["observable"]),
                tuple(Target(**target) for target in bundle["targets"]),
                bundle.survey,
                SeparationSettings(**bundle["separation"]),
                bundle["facts"],
            )
            with torch.random.fork_rng(devices=[]):
                separator = cls(meaning)
            separator.load_state_dict(bundle.weights)
            return separator

    def observable_of(self, shape: tuple[int, ...], where: str) -> Observable:
        """Describe an observed map of this shape (C, *cells), which may have more pixels than in training.

        Raises
        ------
        InputError
            If channels or slices differ, or fewer pixels are seen.
        """
        trained = self.meaning.observable
        fits = len(shape) == len(trained.shape) and shape[0] == trained.shape[0] and shape[3:] == trained.shape[3:]
        if not fits or shape[1] < trained.shape[1] or shape[2] < trained.shape[2]:
            raise InputError(
                f"{where}: the map has shape {shape}, the separator takes {trained.shape} "
                f"({', '.join(trained.axes)}) or more pixels across the sky"
            )
        view = trained.field_of_view * shape[1] / trained.shape[1]
        return replace(trained, shape=shape, field_of_view=view)
