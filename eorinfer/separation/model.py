"""A trained separator: networks, scalings and their description, as a folder without pickle."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eorinfer.core.errors import InputError
from eorinfer.networks.scaling import AsinhScaling
from eorinfer.networks.subpixel import SubpixelUNet, shallow
from eorinfer.networks.unet import Strides, UNet, halvings
from eorinfer.separation.correction import Correction
from eorinfer.separation.data import Target
from eorinfer.separation.flow import CONDITIONS, ResidualFlow
from eorinfer.separation.spectra import ModeBins, whitening
from eorinfer.separation.wiener import WienerFilter
from eorinfer.settings.separation import SeparationSettings
from eorinfer.settings.survey import SurveySettings
from eorinfer.training.bundle import BundleKind
from eorinfer.training.declared import no_larger_than
from simulators import Observable

#: Factor over the brightest pixel of training beyond which results are clipped; the faintest one is the lower limit.
BRIGHTER = 2.0
#: Buffers that older separators have not.
LATER = ("correction.", "flow.kept")
#: Softening of lines whose mean is learned: a mean must be one in physical units, so the scaling is linear.
LINEAR = 1e4


@dataclass(frozen=True)
class SeparatorSpec:
    """Input and output of a separator.

    Attributes
    ----------
    observable
        Image that it was trained on: shape, unit, axes and pixels.
    targets
        Lines that it finds, in this order.
    survey
        Survey of the training maps.
    settings
        Settings of its networks and their training.
    facts
        Free notes: simulator and its fingerprint, seeds of the realisations, history of the training.
    earlier
        Whether it is a separator from before means and flows had networks of their own: theirs are the GAN's.
    """

    observable: Observable
    targets: tuple[Target, ...]
    survey: SurveySettings
    settings: SeparationSettings
    facts: dict[str, Any] = field(default_factory=dict)
    earlier: bool = False

    @property
    def subpixel(self) -> bool:
        """Tell whether the networks are `SubpixelUNet`s, which see sharpened maps too."""
        return self.settings.kind != "cgan" and not self.earlier

    @property
    def lines(self) -> list[str]:
        """Return the names of the targets, with the channel where a line is found in several."""
        names = [target.name for target in self.targets]
        return [t.name if names.count(t.name) == 1 else f"{t.name}_{t.channel}" for t in self.targets]

    @property
    def strides(self) -> Strides:
        """Return the axes that each level of the networks halves."""
        cells, depth = self.observable.cells, self.settings.depth
        strides = halvings(cells, self.observable.cell_size, depth)
        return shallow(cells, strides) if self.subpixel and not depth else strides

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Tell for each cell axis whether the networks wrap around."""
        if self.settings.padding == "auto":
            return self.observable.symmetry.periodic
        return (self.settings.padding == "periodic",) * len(self.observable.cells)


class Separator(nn.Module):
    """Turn observed maps (B, C, *cells) into the lines in them (B, L, *cells), both in physical units.

    The generator sees the observed map and its Wiener-filtered lines, and begins with the latter. So the best linear
    answer, up to modes as long as the map is wide, need not be learned. What it gives depends on the kind: a draw with
    its dropout for ``"cgan"``, else the posterior mean. `eorinfer.separation.apply` makes draws of every kind, and
    corrects them.

    Its weights are frozen and need no gradients.

    Parameters
    ----------
    spec
        Input and output; the networks are built from it with torch's global random state.

    Examples
    --------
    >>> from eorinfer import Separator
    >>> separator = Separator.load("runs/separation/separator")  # doctest: +SKIP
    >>> lines = separator(maps)  # (B, C, *cells) to (B, L, *cells)  # doctest: +SKIP
    """

    bundle: ClassVar[BundleKind] = BundleKind("separator", "separator.json", 3)

    floor: Tensor
    ceiling: Tensor
    sharpening: Tensor

    def __init__(self, spec: SeparatorSpec) -> None:
        super().__init__()
        self.spec = spec
        observable, settings = spec.observable, spec.settings
        channels, lines, dimension = observable.shape[0], len(spec.targets), len(observable.cells)
        self.source_scaling = AsinhScaling(channels, dimension)
        self.target_scaling = AsinhScaling(lines, dimension, linear=settings.kind != "cgan")
        self.register_buffer("floor", torch.full((lines, *(1,) * dimension), -torch.inf))
        self.register_buffer("ceiling", torch.full((lines, *(1,) * dimension), torch.inf))
        self.generator = _generator(spec)
        bins = self._bins = ModeBins(observable.cells, observable.cell_size)
        if spec.subpixel:
            self.register_buffer("sharpening", torch.ones(bins.count, channels))
        self.flow = _flow(spec) if settings.kind == "flow-matching" else None
        self.correction = Correction(bins, tuple(target.channel for target in spec.targets), channels)
        self.wiener = WienerFilter(channels, lines, observable.cells, observable.cell_size)
        self.requires_grad_(False)
        self.eval()

    @property
    def facts(self) -> dict[str, Any]:
        """Notes on its training, saved with it."""
        return self.spec.facts

    def forward(self, observed: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Find the lines (B, L, *cells).

        Parameters
        ----------
        observed
            (B, C, *cells) maps in the unit and with the cells of the observable.
        generator
            Source of the dropout of a draw; None for the result without dropout.
        """
        scaled = self.generator(self.scaled(observed), generator)
        lines = self.target_scaling.inverse(scaled.float())
        # sinh of an extreme output is a huge number of either sign; a linear scaling has no such outputs.
        return lines.clamp(self.floor, self.ceiling) if self.spec.settings.kind == "cgan" else lines

    def scaled(self, observed: Tensor) -> Tensor:
        """Scale observed maps (B, C, *cells) and their Wiener-filtered lines for the generator: (B, inputs, *cells)."""
        with torch.autocast(observed.device.type, enabled=False):
            lines = self.target_scaling(self.wiener(observed))
            return torch.cat([self.source_scaling(observed), lines, *self._sharpened(observed)], dim=1)

    def context(self, observed: Tensor, mean: Tensor) -> Tensor:
        """Scale observed maps and means of their lines for the flow: (B, inputs, *cells)."""
        assert self.flow is not None
        maps = [self.source_scaling(observed), self.target_scaling(mean)]
        if self.spec.subpixel:
            maps += [*self._sharpened(observed), self.flow.white(mean - self.wiener.mean_lines)]
        return torch.cat(maps, dim=1)

    def _sharpened(self, observed: Tensor) -> list[Tensor]:
        """Give all modes of observed maps the same power, so that what a beam has blurred need not be learned."""
        return (
            [self._bins.filtered(observed - self.wiener.mean_observed, self.sharpening)] if self.spec.subpixel else []
        )

    def fit_scalings(self, observed: Tensor, lines: Tensor) -> None:
        """Set scalings, floor and ceiling from observed maps (B, C, *cells) and lines (B, L, *cells)."""
        self.source_scaling.fit(observed, self.spec.settings.softening)
        self.target_scaling.fit(lines, self.spec.settings.softening if self.spec.settings.kind == "cgan" else LINEAR)
        faintest, brightest = (x.view_as(self.ceiling) for x in lines.transpose(0, 1).flatten(1).aminmax(dim=1))
        if self.spec.subpixel:
            deviation = observed - observed.mean((0, *range(2, observed.ndim)), keepdim=True)
            self.sharpening.copy_(whitening(self._bins.spectra(deviation, deviation)))
        self.floor.copy_(faintest)
        self.ceiling.copy_(BRIGHTER * brightest.clamp(min=torch.finfo(torch.float32).tiny))

    def train(self, mode: bool = True) -> "Separator":
        """Stay in evaluation mode, also inside a module that is trained."""
        return super().train(False)

    def save(self, folder: Path) -> None:
        """Write ``separator.json`` and ``weights.safetensors`` whole."""
        spec = self.spec
        description = {
            "observable": asdict(spec.observable),
            "targets": [asdict(target) for target in spec.targets],
            "survey": spec.survey.model_dump(mode="json"),
            "separation": spec.settings.model_dump(mode="json"),
            "facts": spec.facts,
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
            weights = bundle.weights
            spec = SeparatorSpec(
                bundle.observable,
                tuple(Target(**target) for target in bundle["targets"]),
                bundle.survey,
                SeparationSettings(**bundle["separation"]),
                bundle["facts"],
            )
            if spec.subpixel and "sharpening" not in weights:
                spec = replace(spec, earlier=True)
            with torch.random.fork_rng(devices=[]), no_larger_than(weights, {"separation": bundle["separation"]}):
                separator = cls(spec)
            # Of before there was a correction, or one of the steps of a flow.
            later = {name: x for name, x in separator.state_dict().items() if name.startswith(LATER)}
            weights = later | weights
            separator.load_state_dict(weights)
            return separator

    def observable_of(self, shape: tuple[int, ...], where: str) -> Observable:
        """Describe an observed map of this shape (C, *cells), which may have more pixels than in training.

        Raises
        ------
        InputError
            If channels or slices differ, or there are fewer pixels.
        """
        trained = self.spec.observable
        fits = len(shape) == len(trained.shape) and shape[0] == trained.shape[0] and shape[3:] == trained.shape[3:]
        if not fits or shape[1] < trained.shape[1] or shape[2] < trained.shape[2]:
            raise InputError(
                f"{where}: the map has shape {shape}, the separator takes {trained.shape} "
                f"({', '.join(trained.axes)}) or more pixels across the sky"
            )
        view = trained.field_of_view * shape[1] / trained.shape[1]
        return replace(trained, shape=shape, field_of_view=view)


def _generator(spec: SeparatorSpec) -> nn.Module:
    """Build the network that turns an observed map and its Wiener-filtered lines into lines, from the latter on."""
    settings, channels, lines = spec.settings, spec.observable.shape[0], len(spec.targets)
    size: dict[str, Any] = {"width": settings.width, "widest": settings.widest}
    if spec.subpixel:
        inputs = 2 * channels + lines
        return SubpixelUNet(inputs, lines, spec.strides, spec.periodic, shared=channels, start=1.0, **size)
    adversarial = settings.kind == "cgan"
    more: dict[str, Any] = {"dropout": settings.dropout if adversarial else 0.0, "grouped": not adversarial}
    return UNet(channels + lines, lines, spec.strides, spec.periodic, guess=channels, **more, **size)


def _flow(spec: SeparatorSpec) -> ResidualFlow:
    """Build the flow, whose network turns an observed map, means and residuals into the velocity of the latter."""
    settings, image = spec.settings, spec.observable
    channels, lines = image.shape[0], len(spec.targets)
    size: dict[str, Any] = {"width": settings.width, "widest": settings.widest, "conditions": CONDITIONS}
    known = 2 * (channels + lines)
    network: nn.Module
    if spec.subpixel:
        network = SubpixelUNet(known + lines, lines, spec.strides, spec.periodic, shared=known, **size)
    else:
        more: dict[str, Any] = {"dropout": 0.0, "guess": None, "grouped": True}
        network = UNet(channels + 2 * lines, lines, spec.strides, spec.periodic, **more, **size)
    mirrored = spec.subpixel and not any(image.symmetry.periodic)
    return ResidualFlow(network, lines, ModeBins(image.cells, image.cell_size, mirrored=mirrored), settings.flow_steps)
