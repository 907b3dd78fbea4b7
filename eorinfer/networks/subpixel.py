"""A U-Net that never works on maps of full resolution: for a posterior mean, or the velocity of a flow."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.networks.bfloat16 import whole_gradients
from eorinfer.networks.layout import to_channels_last
from eorinfer.networks.padding import wrap
from eorinfer.networks.unet import Strides, refuse_indivisible

#: Number of groups of a normalisation, at most; and cells of the longest axis of the coarsest maps, at least.
GROUPS, COARSEST = 8, 4


class SubpixelUNet(nn.Module):
    """Turn maps (B, inputs, *cells) into (B, outputs, *cells), in two or three dimensions.

    The cells that the first level joins become channels, and channels become cells again at the end (Shi et al. 2016,
    arXiv 1609.05158). So all convolutions see maps of half the resolution, and there are none of the transposed ones,
    which processors are slow at. Each level has a residual block on the way down and one on the way up (He et al. 2016,
    arXiv 1603.05027), with the features of both added. To the result, cell by cell, a share of an input is added, as in
    `UNet`: bright cells need not be drawn anew.

    Parameters
    ----------
    inputs, outputs
        Number of channels.
    strides
        1 or 2 for each level and cell axis, see `halvings`.
    periodic
        Whether convolutions wrap around along each cell axis, or see zeros beyond its ends.
    shared
        Number of the first of the `outputs` input channels of which a share is added.
    width, widest
        Channels of the first level, doubled at each one up to `widest`.
    start
        Share of these inputs that the network begins with; the rest of its output begins at zero.
    conditions
        Length of a vector that scales and shifts the features of every block (FiLM, Perez et al. 2018, arXiv
        1709.07871), such as an embedding of the time of a flow; 0 for none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        strides: Strides,
        periodic: tuple[bool, ...],
        *,
        shared: int,
        width: int = 64,
        widest: int = 512,
        start: float = 0.0,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        widths = [min(width * 2**level, widest) for level in range(len(strides))]
        threes = (3,) * len(periodic)
        joined = math.prod(strides[0])
        self.stem = Convolution(inputs * joined, widths[0], threes, periodic)
        self.last = Convolution(widths[0], 2 * outputs * joined, threes, periodic)
        nn.init.zeros_(self.last.convolution.weight)
        nn.init.zeros_(self.last.convolution.bias)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for stride, before, after in zip(strides[1:], widths, widths[1:], strict=False):
            self.down.append(Convolution(before, after, tuple(2 + s for s in stride), periodic, stride))
            self.up.append(Convolution(after, before * math.prod(stride), (1,) * len(stride), periodic))
        self.before, self.after = (
            nn.ModuleList(
                Block(n, threes, periodic, conditions, normalised=level > 0) for level, n in enumerate(widths)
            )
            for _ in range(2)
        )
        self._strides, self._shared, self._start, self._outputs = strides, shared, start, outputs
        self._layout = to_channels_last(self, len(periodic))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute (B, outputs, *cells) of maps (B, inputs, *cells) and, where the network takes one, of a condition.

        Raises
        ------
        ValueError
            If an axis cannot be halved as often as there are levels; the message says what must divide it.
        """
        refuse_indivisible(tuple(x.shape[2:]), self._strides)
        maps = self.stem(cells_to_channels(x, self._strides[0]).contiguous(memory_format=self._layout))
        links = []
        for level, block in enumerate(self.before):
            maps = block(self.down[level - 1](maps) if level else maps, condition)
            links.append(maps)
        for level in reversed(range(len(links))):
            if level < len(links) - 1:
                maps = links[level] + channels_to_cells(self.up[level](maps), self._strides[level + 1])
            maps = self.after[level](maps, condition)
        more, share = channels_to_cells(self.last(F.silu(maps)).float(), self._strides[0]).chunk(2, dim=1)
        return more + (self._start + share) * x[:, self._shared : self._shared + self._outputs]


def shallow(cells: tuple[int, ...], strides: Strides) -> Strides:
    """Leave out the last levels of `halvings`, on maps that no axis of four cells is left of."""
    kept = list(strides)
    while len(kept) > 1 and max(n // math.prod(s[i] for s in kept) for i, n in enumerate(cells)) < COARSEST:
        kept.pop()
    return tuple(kept)


class Convolution(nn.Module):
    """Convolution that wraps around along periodic axes, and sees zeros beyond the others."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        periodic: tuple[bool, ...],
        stride: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        layer: Any = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
        self._wrapped = tuple(wraps and n > 1 for wraps, n in zip(periodic, kernel, strict=True))
        beyond = [int(n > 1 and not wraps) for wraps, n in zip(self._wrapped, kernel, strict=True)]
        self.convolution = layer(inputs, outputs, kernel, stride or 1, beyond)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, inputs, *cells) into (B, outputs, *cells / stride)."""
        with whole_gradients(x) as whole:
            out: Tensor = self.convolution(wrap(whole, self._wrapped))
            return out


class Block(nn.Module):
    """Add to features what a convolution makes of them, scaled and shifted by a condition, and normalised in groups."""

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, ...],
        periodic: tuple[bool, ...],
        conditions: int,
        *,
        normalised: bool,
    ) -> None:
        super().__init__()
        self.normalisation = nn.GroupNorm(math.gcd(GROUPS, channels), channels) if normalised else nn.Identity()
        self.convolution = Convolution(channels, channels, kernel, periodic)
        self.modulation = nn.Linear(conditions, 2 * channels) if conditions else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, maps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Turn (B, channels, *cells) into the same."""
        made = self.normalisation(maps)
        if self.modulation is not None and condition is not None:
            scale, shift = self.modulation(condition)[(..., *(None,) * (maps.ndim - 2))].chunk(2, dim=1)
            made = made * (1 + scale) + shift
        return maps + self.convolution(F.silu(made))


def cells_to_channels(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Turn (B, C, *cells) into (B, C * prod(stride), *cells / stride)."""
    n, d = len(stride), x.ndim
    x = x.reshape(*x.shape[:2], *(m for c, s in zip(x.shape[2:], stride, strict=True) for m in (c // s, s)))
    return x.permute(0, 1, *range(3, 2 + 2 * n, 2), *range(2, 2 + 2 * n, 2)).flatten(1, d - 1)


def channels_to_cells(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Undo `cells_to_channels`."""
    n = len(stride)
    x = x.reshape(len(x), -1, *stride, *x.shape[2:])
    order = [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
    x = x.permute(0, 1, *order)
    return x.reshape(*x.shape[:2], *(x.shape[2 + 2 * i] * s for i, s in enumerate(stride)))
