"""Model the details of one scale given the coarser map: each value by a mixture of normals, group by group."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.networks.padding import pad


@dataclass(frozen=True)
class Group:
    """Details that are independent of each other given those of the groups before, and the coarser map.

    Attributes
    ----------
    row
        Number of the detail among the S * C of a cell.
    cells
        (n,) flat indices of the cells.
    known
        (n, (1 + S) * C * K): 1 where a value in the cells around belongs to the coarser map or to an earlier group.
    """

    row: int
    cells: Tensor
    known: Tensor


class DetailNetwork(nn.Module):
    """Network that gives the parameters of the mixtures of one scale's details.

    Cells are grouped by the parity of their indices into colours. A colour's S * C details follow one another, then
    comes the next colour. Convolutions see the coarser map. A network for each group sees their features at its cell,
    and the values around it that are known.

    Parameters
    ----------
    channels, details
        Number of channels C, and of details S of each channel.
    cells
        Cells of the coarser map.
    condition
        Length P of the condition.
    width
        Channels of the convolutions, and of the groups' networks.
    depth
        Number of convolutions after the first.
    components
        Number of components of each mixture.
    """

    _around: Tensor

    def __init__(
        self,
        channels: int,
        details: int,
        cells: tuple[int, ...],
        condition: int,
        *,
        width: int,
        depth: int,
        components: int,
    ) -> None:
        super().__init__()
        self.channels, self.rows, self.cells = channels, channels * details, cells
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[len(cells)]
        self.first = convolution(channels, width, 3)
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList([convolution(width, width, 3) for _ in range(depth)])
        around, self._colours = neighbours(cells), parities(cells)
        self.register_buffer("_around", around, persistent=False)
        self.groups = _groups(around, self._colours, channels, self.rows)
        inputs = (channels + self.rows) * around.shape[1]
        # One for each colour: from the features at its cells to all of its groups.
        self.given = nn.ModuleList([nn.Linear(width, self.rows * width) for _ in self._colours])
        self.inputs = nn.ModuleList([nn.Linear(inputs, width, bias=False) for _ in self.groups])
        self.middle = nn.ModuleList([nn.Linear(width, width) for _ in self.groups])
        self.outputs = nn.ModuleList([nn.Linear(width, 3 * components) for _ in self.groups])
        # Means linear in the known values around, to which the networks add.
        self.lines = nn.ModuleList([nn.Linear(inputs, components, bias=False) for _ in self.groups])
        for layer in self.lines:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        for layer in self.outputs:
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def walk(self, known: Tensor, u: Tensor, *, filling: bool = False) -> Iterator[tuple[Group, Tensor]]:
        """Yield each group with the parameters of its mixtures (B, n, 3 K), in the order of the factorisation.

        Parameters
        ----------
        known
            (B, (1 + S) * C, N) scaled coarser map and details. Each group reads only the values it may know.
        u
            (B, P) conditions.
        filling
            Whether the caller fills in each group's details before taking the next one.
        """
        features = self._features(known[:, : self.channels].unflatten(2, self.cells), u)
        for colour, cells in enumerate(self._colours):
            given = self.given[colour](features[:, cells]).unflatten(2, (self.rows, -1))
            around = self._around_cells(known, cells)
            for number in range(colour * self.rows, (colour + 1) * self.rows):
                yield self.groups[number], self._mixtures(number, given, around)
                if filling:
                    around = self._around_cells(known, cells)

    def values_of(self, group: Group, known: Tensor) -> Tensor:
        """Return the details (B, n) of a group."""
        return known[:, self.channels + group.row, group.cells]

    def _features(self, coarse: Tensor, u: Tensor) -> Tensor:
        """Compute features (B, N, width) of the coarser map (B, C, *cells) and the condition (B, P)."""
        wrap = (True,) * len(self.cells)
        out = self.first(pad(coarse, wrap)) + self.condition(u).view(len(u), -1, *(1,) * len(self.cells))
        for block in self.blocks:
            out = out + block(pad(F.silu(out), wrap))
        return F.silu(out).flatten(2).transpose(1, 2)

    def _around_cells(self, known: Tensor, cells: Tensor) -> Tensor:
        """Gather the values (B, n, inputs) in and around each of the cells (n,)."""
        return known[:, :, self._around[cells]].movedim(1, 2).flatten(2)

    def _mixtures(self, number: int, given: Tensor, around: Tensor) -> Tensor:
        """Compute a group's parameters (B, n, 3 K) from features (B, n, S * C, width) and the values around."""
        group = self.groups[number]
        known = around * group.known.to(around)
        hidden = F.silu(given[:, :, group.row] + self.inputs[number](known))
        hidden = F.silu(hidden + self.middle[number](hidden))
        logits, means, scales = self.outputs[number](hidden).chunk(3, dim=-1)
        return torch.cat([logits, means + self.lines[number](known), scales], dim=-1)


def parities(cells: tuple[int, ...]) -> list[Tensor]:
    """List the flat indices of the cells of each colour: those whose indices are even along the same axes."""
    grid = torch.arange(math.prod(cells)).view(cells)
    colours = [
        grid[tuple(slice(start, None, 2) for start in starts)].flatten()
        for starts in product((0, 1), repeat=len(cells))
    ]
    return [colour for colour in colours if len(colour)]


def neighbours(cells: tuple[int, ...]) -> Tensor:
    """List the flat indices of the cells in and around each cell of a periodic grid, (N, 3^d)."""
    grid = torch.arange(math.prod(cells)).view(cells)
    axes = tuple(range(len(cells)))
    return torch.stack([grid.roll(shift, axes).flatten() for shift in product((1, 0, -1), repeat=len(cells))], dim=1)


def _groups(around: Tensor, colours: list[Tensor], channels: int, rows: int) -> list[Group]:
    # Number of the group that each value belongs to; -1 for the coarser map.
    order = torch.full((channels + rows, len(around)), -1)
    for colour, cells in enumerate(colours):
        for row in range(rows):
            order[channels + row, cells] = colour * rows + row
    groups = []
    for colour, cells in enumerate(colours):
        when = order[:, around[cells]].movedim(0, 1).flatten(1)
        for row in range(rows):
            groups.append(Group(row, cells, (when < colour * rows + row).float()))
    return groups
