"""Scattering coefficients of maps, by kymatio's 2D transform on torch."""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.core.errors import InputError
from eorinfer.settings.likelihood import PowerSpectrumSettings
from simulators import Observable

#: Orientations of the wavelets, and scales at most: powers of two of a cell.
ANGLES, MOST_SCALES = 4, 3
#: A scale that fewer cells hold than this has too few of its waves.
CELLS_OF_SCALE = 4


class Scattering(nn.Module):
    """First- and second-order coefficients, averaged over a map, and over the maps across a cube's last axis.

    Mallat 2012 (arXiv 1101.2286); of 21cm maps Greig et al. 2022 (arXiv 2204.02544). The mean of the map itself,
    of order zero, is left out.

    Parameters
    ----------
    cells
        Along two or three axes; cubes are cut into maps across the last one.
    periodic
        Whether each axis is periodic; maps are continued periodically, else mirrored.

    Raises
    ------
    ImportError
        If kymatio is not installed.
    ValueError
        If maps are too small.
    """

    positive = True

    def __init__(self, cells: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
        super().__init__()
        from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D

        across = cells[:2]
        scales = min(MOST_SCALES, int(np.log2(min(across) / CELLS_OF_SCALE)))
        while scales > 0 and any(n % 2**scales for n in across):
            scales -= 1
        if scales < 1:
            raise ValueError(
                f"maps of {across[0]} x {across[1]} cells are too small, or odd, for scattering coefficients"
            )
        self._transform = ScatteringTorch2D(scales, across, L=ANGLES, pre_pad=True)
        padded = self._transform._M_padded, self._transform._N_padded
        #: As `F.pad` takes it: the last axis first.
        self._padding: list[int] = []
        for n, m in zip(across[::-1], padded[::-1], strict=True):
            self._padding += [(m - n) // 2, m - n - (m - n) // 2]
        self._mode = "circular" if all(periodic[:2]) else "reflect"

    def forward(self, x: Tensor) -> Tensor:
        """Compute coefficients (B, C, K), all positive, of cubes (B, C, *cells)."""
        maps = x.movedim(-1, 2) if x.ndim == 5 else x.unsqueeze(2)
        flat = F.pad(maps.flatten(0, 2).unsqueeze(1), self._padding, mode=self._mode).squeeze(1)
        coefficients: Tensor = self._transform(flat.contiguous())
        return coefficients[:, 1:].mean((-2, -1)).unflatten(0, maps.shape[:3]).mean(2)


def build_scattering(observable: Observable, bins: PowerSpectrumSettings | None = None) -> Scattering:
    """Scattering coefficients of an observable; they have no bins of k.

    Raises
    ------
    InputError
        If kymatio is not installed, or the maps are too small.
    """
    try:
        return Scattering(observable.cells, observable.symmetry.periodic)
    except ImportError as error:
        raise InputError("scattering coefficients need kymatio: pip install 'eorinfer[scattering]'") from error
    except ValueError as error:
        raise InputError(str(error)) from error
