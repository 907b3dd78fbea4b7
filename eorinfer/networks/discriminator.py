"""The discriminator of a conditional GAN: tells whether lines are the true ones of an observed map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.core.arrays import asinh
from eorinfer.networks.layout import to_channels_last
from eorinfer.networks.unet import Down, Strides

#: Number of convolutions that halve the maps, before the last one.
CONVOLUTIONS = 4


class Discriminator(nn.Module):
    """Give one logit for a source and a target together, the mean over their patches.

    Four convolutions that halve the maps and one more (Isola et al. 2017, arXiv 1611.07004, section 6.1.2), but without
    their batch normalisation: since true and made maps are separate batches, it would remove most of the difference
    between them. A Wasserstein critic must do without it anyway.

    Parameters
    ----------
    channels
        Number of channels of source and target together.
    strides, periodic
        See `UNet`; only the first four levels are used.
    width, widest
        Channels of the first convolution, doubled at each one up to `widest`.
    """

    def __init__(
        self,
        channels: int,
        strides: Strides,
        periodic: tuple[bool, ...],
        *,
        width: int = 64,
        widest: int = 512,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for level, stride in enumerate(strides[:CONVOLUTIONS]):
            after = min(width * 2**level, widest)
            layers.append(Down(before, after, stride, periodic, normalised=False))
            before = after
        self.layers = nn.ModuleList(layers)
        self.last = Down(before, 1, (1,) * len(periodic), periodic, normalised=False)
        self._layout = to_channels_last(self, len(periodic))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Compute logits (B,) for sources (B, C, *cells) and targets (B, L, *cells), both scaled to unit variance."""
        # A few bright cells would outshine all others in what convolutions and normalisations see.
        maps = torch.cat([asinh(source), asinh(target)], dim=1).contiguous(memory_format=self._layout)
        for layer in self.layers:
            maps = F.leaky_relu(layer(maps), 0.2)
        logits: Tensor = self.last(maps).flatten(1).mean(1)
        return logits
