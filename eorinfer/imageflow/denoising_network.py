"""A U-Net on a periodic grid that knows the noise level and the condition: what a diffusion adds to a Wiener filter."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.networks.bfloat16 import has_bfloat16
from eorinfer.networks.layout import to_channels_last
from eorinfer.networks.padding import pad

#: Sides up to which axes are not halved, and levels at most.
SMALLEST, LEVELS = 4, 3
#: Channels that are normalised together.
GROUP = 16
#: Sines and cosines of each condition, and of the logarithm of the noise.
WAVES = 4


class DenoisingNetwork(nn.Module):
    """Turn maps (B, inputs, *cells) into (B, outputs, *cells), in two or three dimensions; zero at the start.

    Blocks of 2 cells along each axis become channels first, which makes it four times as quick in two dimensions. The
    arithmetic is in bfloat16 where the device has units of its own for that.

    Parameters
    ----------
    inputs, outputs
        Number of channels.
    cells
        Cells along each axis.
    condition
        Length P of the condition.
    width
        Channels of the first level; the others have half as many again.
    known
        Length K of what is known of the whole map, if any.
    """

    def __init__(
        self, inputs: int, outputs: int, cells: tuple[int, ...], condition: int, width: int, known: int = 0
    ) -> None:
        super().__init__()
        strides = [_stride(cells)]
        left = [n // s for n, s in zip(cells, strides[0], strict=True)]
        while len(strides) < LEVELS and any(s > 1 for s in _stride(tuple(left))):
            strides.append(_stride(tuple(left)))
            left = [n // s for n, s in zip(left, strides[-1], strict=True)]
        widths = [width] + [width * 3 // 2] * (len(strides) - 1)
        embedding = 2 * width
        convolution: Any = {2: nn.Conv2d, 3: nn.Conv3d}[len(cells)]
        transposed: Any = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[len(cells)]
        self.embed = nn.Sequential(
            nn.Linear(2 * WAVES * (condition + 1) + condition + 1 + known, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.shrink = nn.ModuleList(
            convolution(before, after, stride, stride)
            for before, after, stride in zip((inputs, *widths), widths, strides, strict=False)
        )
        self.down = nn.ModuleList(Block(w, w, embedding, len(cells)) for w in widths)
        self.up = nn.ModuleList(Block(w if i else 2 * w, w, embedding, len(cells)) for i, w in _last_apart(widths))
        self.grow = nn.ModuleList(
            transposed(after, before, stride, stride)
            for before, after, stride in zip(widths, widths[1:], strides[1:], strict=False)
        )
        self.norm = _norm(width)
        self.out = transposed(width, outputs, strides[0], strides[0])
        for parameter in (self.out.weight, self.out.bias):
            nn.init.zeros_(parameter)
        self._layout = to_channels_last(self, len(cells))

    def forward(self, x: Tensor, log_sigma: Tensor, u: Tensor, of_map: Tensor) -> Tensor:
        """Compute (B, outputs, *cells).

        Parameters
        ----------
        x
            (B, inputs, *cells), each of about unit variance.
        log_sigma
            (B,) logarithm of the noise level.
        u
            (B, P) conditions in [-1, 1].
        of_map
            (B, K) what is known of the whole map.
        """
        known = torch.cat([log_sigma[:, None] / 4, u], dim=1).to(x.dtype)
        angles = known[..., None] * (math.pi / 2 * 2.0 ** torch.arange(WAVES, device=x.device, dtype=x.dtype))
        e = self.embed(torch.cat([known, angles.sin().flatten(1), angles.cos().flatten(1), of_map.to(x.dtype)], dim=1))
        device = x.device.type
        with torch.autocast(device, torch.bfloat16, enabled=x.dtype == torch.float32 and has_bfloat16(device)):
            maps, links = x.contiguous(memory_format=self._layout), []
            for shrink, block in zip(self.shrink, self.down, strict=True):
                maps = block(shrink(maps), e)
                links.append(maps)
            maps = self.up[-1](maps, e)
            for i in reversed(range(len(self.grow))):
                maps = self.up[i](torch.cat([self.grow[i](maps), links[i]], dim=1), e)
            out = self.out(F.silu(self.norm(maps)))
        return out.to(x.dtype).contiguous()


class Block(nn.Module):
    """Two convolutions of 3 cells a side beside a link; the embedding scales and shifts what is between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dimension: int) -> None:
        super().__init__()
        convolution: Any = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.norm = _norm(inputs)
        self.first, self.second = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.film = nn.Linear(embedding, 2 * outputs)
        self.link = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)
        self._periodic = (True,) * dimension
        for parameter in (self.film.weight, self.film.bias, self.second.weight, self.second.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Turn (B, inputs, *cells) into (B, outputs, *cells) for embeddings e (B, embedding)."""
        h = self.first(pad(F.silu(self.norm(x)), self._periodic))
        scale, shift = self.film(e).view(len(e), 2, -1, *(1,) * (x.ndim - 2)).unbind(1)
        out: Tensor = self.link(x) + self.second(pad(F.silu(h * (1 + scale) + shift), self._periodic))
        return out


def _norm(channels: int) -> nn.GroupNorm:
    """Normalise about `GROUP` channels together."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels)


def _stride(cells: tuple[int, ...]) -> tuple[int, ...]:
    """Halve each axis that is even and long enough."""
    return tuple(2 if n % 2 == 0 and n > SMALLEST else 1 for n in cells)


def _last_apart(widths: list[int]) -> list[tuple[bool, int]]:
    """Mark the last level, which has no link."""
    return [(i == len(widths) - 1, w) for i, w in enumerate(widths)]
