"""What the power of one noisy map says of the power of its signal: a Wiener filter that is not told all by y.

Maps of one condition y differ in power, by the amplitude of a mixture or by how long ago their bubbles began to grow. A
convolution sees that only in part, and what it sees counts little in its loss: it makes maps of too equal power. Here
the power in shells of k, over that of the Gaussian field, goes through a small network to a correction of ln P(k).
"""

import torch
from torch import Tensor, nn

#: Channels of the network, and the largest correction of ln P.
WIDTH, LARGEST = 64, 4.0
#: What is added to the power in a shell, over that of the Gaussian field, before its logarithm is taken.
LEAST = 1e-2


class MapPower(nn.Module):
    """Turn modes (B, C, *half plane) of unit variance under the Gaussian field into a correction of ln P at each mode.

    Parameters
    ----------
    channels
        Number of channels C.
    basis
        (K, M) splines over the M modes; the first one is that of the zero mode.
    count
        (*half plane) number of modes of the full FFT that each mode stands for.
    condition
        Length P of the condition.
    """

    _basis: Tensor
    _shells: Tensor

    def __init__(self, channels: int, basis: Tensor, count: Tensor, condition: int) -> None:
        super().__init__()
        self._half = tuple(count.shape)
        weights = basis.clamp_min(0) * count.flatten().to(basis)
        self.register_buffer("_basis", basis, persistent=False)
        self.register_buffer("_shells", weights / weights.sum(1, keepdim=True).clamp_min(1e-12), persistent=False)
        #: How many numbers describe a map.
        self.size = channels * len(basis)
        self.network = nn.Sequential(
            nn.Linear(self.size + condition + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()
        )
        self.last = nn.Linear(WIDTH, self.size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, modes: Tensor, log_sigma: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute numbers (B, `size`) that describe the map, and the corrections (B, C, *half plane) of ln P.

        Parameters
        ----------
        modes
            (B, C, *half plane) complex, white under the Gaussian field.
        log_sigma
            (B,) logarithm of the noise level.
        u
            (B, P) conditions in [-1, 1].
        """
        flat = modes.flatten(2)
        shells = flat.abs().square() @ self._shells.T
        # Of the zero mode the sign counts, and it is a single one.
        known = torch.cat([flat[..., :1].real.clamp(-8, 8), torch.log(shells[..., 1:] + LEAST)], dim=2).flatten(1)
        hidden = self.network(torch.cat([known, log_sigma[:, None] / 4, u], dim=1).to(known.dtype))
        knots = LARGEST * torch.tanh(self.last(hidden).view(len(modes), modes.shape[1], -1) / LARGEST)
        return known, (knots @ self._basis).view(len(modes), -1, *self._half)
