"""A U-Net for maps and cubes: the generator of a conditional GAN, a posterior mean, the velocity of a flow."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.networks.layout import to_channels_last
from eorinfer.networks.padding import pad

#: Largest ratio of the cell sizes of axes that are halved together.
ALIKE = 1.5
#: Number of levels of the published network.
DEEPEST = 8
#: Number of groups of a normalisation by groups, at most.
GROUPS = 8

Strides = tuple[tuple[int, ...], ...]


class UNet(nn.Module):
    """Turn maps (B, inputs, *cells) into (B, outputs, *cells), in two or three dimensions.

    The encoder halves the axes level by level and the decoder doubles them again, with a link across at every level:
    the generator of pix2pix (Isola et al. 2017, arXiv 1611.07004, section 6.1) as Moriwaki & Yoshida 2021 use it.
    Unlike theirs it ends without a tanh. A convolution also links the input to the output, and the decoder weights this
    link cell by cell: a line is mostly a share of the observed cell, and bright cells need not be drawn anew from
    coarser maps.

    Parameters
    ----------
    inputs, outputs
        Number of channels.
    strides
        1 or 2 for each level and cell axis, see `halvings`. A kernel has 4 cells along an axis that is halved, else 3.
    periodic
        Whether convolutions wrap around along each cell axis, or maps are mirrored.
    width, widest
        Channels of the first level, doubled at each one up to `widest`.
    dropout
        Share of the values that each level of the decoder but the outermost drops if a generator is given. In the
        innermost three levels alone, as in pix2pix, it hardly changes the output.
    guess
        Number of the first input channel that the link copies to the outputs at the start; None for no such start.
    conditions
        Length of a vector that scales and shifts the features of every level (FiLM, Perez et al. 2018, arXiv
        1709.07871), such as an embedding of the time of a flow; 0 for none.
    grouped
        Normalise groups of channels map by map (Wu & He 2018, arXiv 1803.08494) in place of the batch: maps at
        different times of a flow have different statistics.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        strides: Strides,
        periodic: tuple[bool, ...],
        *,
        width: int = 64,
        widest: int = 512,
        dropout: float = 0.2,
        guess: int | None = 0,
        conditions: int = 0,
        grouped: bool = False,
    ) -> None:
        super().__init__()
        widths = [min(width * 2**level, widest) for level in range(len(strides))]
        last = len(strides) - 1
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level, stride in enumerate(strides):
            before = widths[level - 1] if level else inputs
            inner = 0 < level < last
            down = Down(before, widths[level], stride, periodic, normalised=inner, grouped=grouped)
            up = Up(
                widths[level] * (1 if level == last else 2),
                widths[level - 1] if level else 2 * outputs,
                stride,
                periodic,
                normalised=level > 0,
                grouped=grouped,
            )
            self.encoder.append(down)
            self.decoder.append(up)
        self.link = Down(inputs, outputs, (1,) * len(periodic), periodic, normalised=False)
        _begin_with_input(self.link.convolution, guess)
        self.modulations = nn.ModuleList(_modulation(conditions, n) for n in widths) if conditions else None
        self._strides, self._dropout = strides, dropout
        self._layout = to_channels_last(self, len(periodic))

    def forward(
        self,
        x: Tensor,
        generator: torch.Generator | None = None,
        draws: int = 1,
        condition: Tensor | None = None,
        paired: int | None = None,
    ) -> Tensor:
        """Compute (draws * B, outputs, *cells), one draw of the whole batch after the other; fewer with `paired`.

        Parameters
        ----------
        x
            (B, inputs, *cells) maps.
        generator
            Source of the dropout, in training and application: each call gives another draw. None for no dropout.
        draws
            Number of draws; the encoder, which drops nothing, runs once for all.
        condition
            (B, conditions) vector of each map, where the network takes one.
        paired
            Number of maps of the batch, from its first on, of which further draws are made: each draw but the first has
            as many maps. None for all.

        Raises
        ------
        ValueError
            If an axis cannot be halved as often as there are levels; the message says what must divide it.
        """
        refuse_indivisible(tuple(x.shape[2:]), self._strides)
        x = x.contiguous(memory_format=self._layout)
        maps, links = x, []
        for level, down in enumerate(self.encoder):
            maps = self._modulated(down(F.leaky_relu(maps, 0.2) if level else maps), level, condition)
            links.append(maps)
        maps = _repeated(maps, draws, paired)
        for level in reversed(range(len(self.decoder))):
            if level < len(links) - 1:
                maps = torch.cat([maps, _repeated(links[level], draws, paired)], dim=1)
            maps = self.decoder[level](F.relu(maps))
            if generator is not None and level:
                maps = dropped(maps, self._dropout, generator)
        more, gain = maps.chunk(2, dim=1)
        out: Tensor = more + (1 + gain) * _repeated(self.link(x), draws, paired)
        return out

    def _modulated(self, maps: Tensor, level: int, condition: Tensor | None) -> Tensor:
        """Scale and shift the features of a level of the encoder, which the decoder sees through its links."""
        if self.modulations is None or condition is None:
            return maps
        scale, shift = self.modulations[level](condition)[(..., *(None,) * (maps.ndim - 2))].chunk(2, dim=1)
        return maps * (1 + scale) + shift


class Down(nn.Module):
    """Convolution that halves some axes, with optional normalisation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: tuple[int, ...],
        periodic: tuple[bool, ...],
        *,
        normalised: bool,
        grouped: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = self._layer(inputs, outputs, stride, bias=not normalised)
        self.normalisation = _normalisation(outputs, len(stride), grouped) if normalised else nn.Identity()
        self._periodic = periodic

    def _layer(self, inputs: int, outputs: int, stride: tuple[int, ...], bias: bool) -> Any:
        layer: Any = {2: nn.Conv2d, 3: nn.Conv3d}[len(stride)]
        return layer(inputs, outputs, [2 + s for s in stride], stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, inputs, *cells) into (B, outputs, *cells), whose sides are divided or multiplied by the stride."""
        out: Tensor = self.normalisation(self.convolution(pad(x, self._periodic)))
        return out


class Up(Down):
    """Transposed convolution that doubles some axes, with optional normalisation."""

    def _layer(self, inputs: int, outputs: int, stride: tuple[int, ...], bias: bool) -> Any:
        layer: Any = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[len(stride)]
        # The layer's own padding cuts off the outputs of padded cells alone.
        return layer(inputs, outputs, [2 + s for s in stride], stride, [1 + s for s in stride], bias=bias)


def halvings(cells: tuple[int, ...], cell_size: Sequence[float], depth: int | None = None) -> Strides:
    """List the axes that each level halves: those along which cells are shortest, and more than one.

    A channel of a spectral cube is a hundred times as deep as a pixel is wide. It is not halved until the pixels have
    become as large.

    Parameters
    ----------
    cells
        Number of cells along each axis.
    cell_size
        Lengths of the cells; if one is zero, which is no length, all are taken as equal.
    depth
        Number of levels; by default as many as the cells allow, at most 8.

    Raises
    ------
    ValueError
        If the cells allow fewer levels; the message says what would be right.
    """
    left = list(cells)
    size = list(cell_size) if all(cell_size) else [1.0] * len(cells)
    strides: list[tuple[int, ...]] = []
    while len(strides) < (DEEPEST if depth is None else depth):
        shortest = min((s for s, n in zip(size, left, strict=True) if n > 1), default=None)
        if shortest is None:
            break
        stride = tuple(2 if n > 1 and s <= ALIKE * shortest else 1 for s, n in zip(size, left, strict=True))
        if any(n % s for n, s in zip(left, stride, strict=True)):
            break
        strides.append(stride)
        left = [n // s for n, s in zip(left, stride, strict=True)]
        size = [c * s for c, s in zip(size, stride, strict=True)]
    if not strides or (depth is not None and len(strides) < depth):
        raise ValueError(
            f"{' x '.join(map(str, cells))} cells can be halved {len(strides)} times"
            + (f", not {depth}" if depth is not None else "")
            + ": a network of n levels needs sides that are divisible by 2^n"
        )
    return tuple(strides)


def refuse_indivisible(cells: tuple[int, ...], strides: Strides) -> None:
    """Raise ValueError where an axis is not divisible by all strides along it."""
    factors = [1] * len(cells)
    for stride in strides:
        factors = [f * s for f, s in zip(factors, stride, strict=True)]
    if any(n % f for n, f in zip(cells, factors, strict=True)):
        raise ValueError(
            f"a network of {len(strides)} levels needs sides that are divisible by {' x '.join(map(str, factors))}: "
            f"got {' x '.join(map(str, cells))} cells"
        )


def dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the values to zero and scale the others, so that the mean stays."""
    kept = torch.rand(x.shape, generator=generator, device=generator.device) >= share
    return x * kept.to(x) / (1 - share)


def _repeated(x: Tensor, times: int, of: int | None) -> Tensor:
    """Repeat (B, ...) to (times * B, ...), or all but the first time the first `of` maps, in the same layout."""
    return torch.cat([x, *[x[:of]] * (times - 1)]) if times > 1 else x


def _begin_with_input(layer: Any, first: int | None) -> None:
    """Start a convolution as a copy: output i is the input `first` + i modulo their number; as zero for None."""
    nn.init.zeros_(layer.bias)
    nn.init.zeros_(layer.weight)
    if first is None:
        return
    outputs, inputs, *kernel = layer.weight.shape
    with torch.no_grad():
        for i in range(outputs):
            layer.weight[(i, (first + i) % inputs, *(n // 2 for n in kernel))] = 1.0


def _modulation(conditions: int, channels: int) -> nn.Linear:
    """Build a layer that begins with neither scale nor shift."""
    layer = nn.Linear(conditions, 2 * channels)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _normalisation(channels: int, dimension: int, grouped: bool) -> nn.Module:
    if grouped:
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    return {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimension](channels)
