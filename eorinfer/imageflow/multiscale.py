"""A normalizing flow on maps, scale by scale: p(x | y) is p(coarsest | y) times p(details | coarser map, y) of each.

After Multiscale Flow (Dai & Seljak 2023, arXiv 2306.04689): a pyramid of orthonormal Haar wavelets. The coarsest map
goes through an isotropic flow; the details of a scale, group after group, through monotone maps whose
parameters a small network makes of the coarser map, the condition and the details before. So the flow is triangular:
its log-determinant is a sum over the values, and it is inverted scale by scale. It takes maps to be periodic, and no
symmetry is built in: shifts, rotations and reflections have to be learned.

The details of a block of 2^m cells are given as all its cells but the last, each less the block's mean, which is linear
in the wavelets' coefficients. What a cell may be like, ionised or neutral, is then about the same for each of them.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eorinfer.imageflow.density import ImageDensity, log_normal
from eorinfer.imageflow.detail import DetailNetwork
from eorinfer.imageflow.haar import corners, join, pyramid, split
from eorinfer.imageflow.isotropic import IsotropicFlow
from eorinfer.imageflow.mixture import from_normal, log_density, to_normal

#: Cells that the coarsest map keeps along each axis.
SMALLEST = 2
#: The networks of coarser scales, of which there are fewer examples, are narrower, but not below this.
NARROWEST = 16


class MultiscaleFlow(ImageDensity):
    """Density p(x | y) of maps, the coarsest scale by an isotropic flow and the others by `DetailNetwork`.

    Parameters
    ----------
    shape, cell_size, low, high
        See `IsotropicFlow`.
    width
        Width of the networks of the finest scale, halved at each coarser one.
    depth, components
        See `DetailNetwork`.
    base
        Settings of the `IsotropicFlow` of the coarsest map.
    """

    _mean: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        cell_size: tuple[float, ...],
        low: Tensor,
        high: Tensor,
        *,
        width: int = 48,
        depth: int = 3,
        components: int = 8,
        **base: object,
    ) -> None:
        super().__init__(shape, low, high)
        channels, *cells = shape
        self.steps = pyramid(tuple(cells), SMALLEST)
        self.register_buffer("_mean", torch.zeros(channels))
        networks, size = [], tuple(cell_size)
        for i, (axes, coarse) in enumerate(self.steps):
            size = tuple(2 * d if a in axes else d for a, d in enumerate(size))
            details = 2 ** len(axes) - 1
            network = DetailNetwork(
                channels,
                details,
                coarse,
                len(low),
                width=max(min(NARROWEST, width), width >> i),
                depth=depth,
                components=components,
            )
            networks.append(network)
            self.register_buffer(f"_coarse_{i}", torch.ones(channels))
            self.register_buffer(f"_details_{i}", torch.ones(details, channels))
        self.networks: Sequence[DetailNetwork] = nn.ModuleList(networks)  # type: ignore[assignment]
        coarsest = self.steps[-1][1] if self.steps else tuple(cells)
        self.base = IsotropicFlow((channels, *coarsest), size, low, high, **base)  # type: ignore[arg-type]

    @property
    def scales(self) -> tuple[tuple[int, ...], ...]:
        """Return the cells of the coarsest map and of each finer one."""
        return (*(coarse for _, coarse in reversed(self.steps)), self.shape[1:])

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn maps x (B, C, *cells) of conditions y (B, P) into white noise z, and return ln |dz/dx| (B,) float64."""
        u, (z, inputs) = self.unit(y, x.dtype), self._pyramid(x)
        z, log_det = self.base(z, y)
        for i, network in reversed(list(enumerate(self.networks))):
            white = torch.zeros_like(inputs[i][:, network.channels :])
            for group, parameters in network.walk(inputs[i], u):
                values = network.values_of(group, inputs[i])
                normal = to_normal(values, parameters)
                log_det = log_det + log_density(values, parameters).sum(-1, dtype=torch.float64) - log_normal(normal)
                white[:, group.row, group.cells] = normal.to(white.dtype)
            log_det = log_det - self._log_scale(i)
            z = join(z, self._as_details(i, white), self.steps[i][0])
        return z, log_det

    @torch.no_grad()
    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn white noise z (B, C, *cells) into maps of conditions y (B, P)."""
        u, whites = self.unit(y, z.dtype), []
        for axes, _ in self.steps:
            z, white = split(z, axes)
            whites.append(white.flatten(3).flatten(1, 2))
        x = self.base.inverse(z, y)
        for i, network in reversed(list(enumerate(self.networks))):
            inputs = torch.cat([self._normed(i, x).flatten(2), torch.zeros_like(whites[i])], dim=1)
            for group, parameters in network.walk(inputs, u, filling=True):
                values = from_normal(whites[i][:, group.row, group.cells], parameters)
                inputs[:, network.channels + group.row, group.cells] = values.to(x.dtype)
            details = self._as_details(i, inputs[:, network.channels :])
            x = join(x, self._mix(i, details * self._spread(i, details), back=True), self.steps[i][0])
        return x

    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute ln p in nats of the coarsest map and of the details of each finer one, (B, S) float64."""
        u, (coarsest, inputs) = self.unit(y, x.dtype), self._pyramid(x)
        out = [self.base.log_prob(coarsest, y)]
        for i, network in reversed(list(enumerate(self.networks))):
            logs = [
                log_density(network.values_of(group, inputs[i]), parameters).sum(-1, dtype=torch.float64)
                for group, parameters in network.walk(inputs[i], u)
            ]
            out.append(torch.stack(logs).sum(0) - self._log_scale(i))
        return torch.stack(out, dim=1)

    @torch.no_grad()
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Scale each kind of detail of maps x (n, C, *cells) to unit variance, and start the flow of the coarsest map.

        Raises
        ------
        ValueError
            If a kind of detail, or a mode of the coarsest maps, never varies.
        """
        self._mean.copy_(x.transpose(0, 1).flatten(1).mean(1))
        coarse = x
        for i, (axes, _) in enumerate(self.steps):
            coarse, details = split(coarse, axes)
            spread = self._mix(i, details).movedim(0, -1).flatten(2).std(-1)
            if bool((spread <= 1e-6 * coarse.std()).any()):
                raise ValueError(f"there are details of scale {i + 1} that never vary")
            getattr(self, f"_details_{i}").copy_(spread)
            getattr(self, f"_coarse_{i}").copy_(coarse.transpose(0, 1).flatten(1).std(1))
        self.base.fit_start(coarse, y)

    def _pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the coarsest map, and the input (B, (1 + S) * C, N) of each scale's network, the finest first."""
        inputs = []
        for i, (axes, _) in enumerate(self.steps):
            x, details = split(x, axes)
            details = self._mix(i, details) / self._spread(i, details)
            inputs.append(torch.cat([self._normed(i, x).flatten(2), details.flatten(3).flatten(1, 2)], dim=1))
        return x, inputs

    def _as_details(self, i: int, rows: Tensor) -> Tensor:
        """Reshape rows (B, S * C, N) to details (B, S, C, *coarse cells)."""
        return rows.unflatten(2, self.steps[i][1]).unflatten(1, (-1, self.shape[0]))

    def _mix(self, i: int, details: Tensor, *, back: bool = False) -> Tensor:
        """Turn details (B, S, C, *cells) into the cells of each block, without its last cell and mean; or back."""
        matrix = corners(len(self.steps[i][0]))
        matrix = torch.linalg.inv(matrix) if back else matrix
        return torch.tensordot(matrix.to(details), details, dims=([1], [1])).movedim(0, 1)

    def _normed(self, i: int, coarse: Tensor) -> Tensor:
        """Subtract the mean of a coarse map and scale it to about unit variance, as the networks see it."""
        below = math.prod(2 ** len(axes) for axes, _ in self.steps[: i + 1])
        shape = (-1, *(1,) * (coarse.ndim - 2))
        return (coarse - math.sqrt(below) * self._mean.view(shape)) / getattr(self, f"_coarse_{i}").view(shape)

    def _spread(self, i: int, details: Tensor) -> Tensor:
        spread: Tensor = getattr(self, f"_details_{i}")
        return spread.view(*spread.shape, *(1,) * (details.ndim - 3))

    def _log_scale(self, i: int) -> Tensor:
        """Compute the contribution of the scaling of one scale's details to ln |dx/dz|."""
        axes, cells = self.steps[i]
        mixing = self._mean.numel() * 0.5 * len(axes) * math.log(2)
        return (getattr(self, f"_details_{i}").double().log().sum() + mixing) * math.prod(cells)
