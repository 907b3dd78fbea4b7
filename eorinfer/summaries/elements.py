"""The elements of a data vector, for networks that read them as they are."""

from torch import Tensor, nn


class Elements(nn.Module):
    """Data vectors (B, C, n) as (B, C * n); of either sign, so that networks see their standardised asinh."""

    signed = True

    def forward(self, vectors: Tensor) -> Tensor:
        """Put all channels one after the other."""
        return vectors.flatten(1)
