"""Numbers that describe an image, whatever a network makes of it."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eorinfer.summaries.power import PowerSpectrum
from simulators import Observable

#: Bins of P(k), from the largest mode to the corner of Fourier space.
BINS = 10
#: Power and variance below this share of the mean one count as none: empty boxes, modes without baselines.
NOTHING = 1e-6


class Statistics(Protocol):
    """Numbers that describe an image, with their names."""

    names: list[str]

    def __call__(self, observed: Tensor) -> Tensor:
        """Statistics (B, S) float64 of cubes (B, C, *cells)."""


class ImageStatistics:
    """Numbers that describe an image, whatever a network makes of it.

    For each channel the mean in units of the standard deviation, the logarithm of the variance,
    skewness, the logarithm of the kurtosis, and the logarithm of P(k) up to the corner of Fourier space.
    Of a data vector its elements.

    Parameters
    ----------
    observable
        The image.
    unit
        Power of two that images are divided by first.

    Attributes
    ----------
    names
        Names of the S statistics, in plain words.
    """

    def __init__(self, observable: Observable, unit: float = 1.0) -> None:
        self._unit = unit
        self._of_vectors = len(observable.cells) == 1
        if self._of_vectors:
            places = [(c, i) for c in range(observable.shape[0]) for i in range(observable.shape[1])]
            self.names = [f"element {i}" + (f" of channel {c}" if observable.shape[0] > 1 else "") for c, i in places]
            return
        self._power = PowerSpectrum(observable.cells, observable.box_length, n_bins=BINS)
        self._volume = float(np.prod(observable.cell_size))
        bins = [f"power at k = {k:.2g}/Mpc" for k in self._power.k.tolist()]
        of_channel = ["mean", "variance", "skewness", "kurtosis", *bins]
        several = len(observable.channels) > 1
        name = "z" if observable.axes[0] == "redshift" else observable.axes[0]
        self.names = [f"{s}{f' at {name} = {c:g}' if several else ''}" for c in observable.channels for s in of_channel]

    @torch.no_grad()
    def __call__(self, observed: Tensor) -> Tensor:
        """Statistics (B, S) float64 of cubes (B, C, *cells)."""
        observed = observed if self._unit == 1 else observed / self._unit
        if self._of_vectors:
            return observed.flatten(1).double()
        cells = observed.flatten(2).double()
        mean = cells.mean(-1, keepdim=True)
        delta = cells - mean
        # Empty images have no scale; a variance this small occurs in no other.
        variance = delta.square().mean(-1, keepdim=True) + NOTHING * mean.square() + torch.finfo(torch.float32).tiny
        delta = delta / variance.sqrt()
        kurtosis = delta.pow(4).mean(-1, keepdim=True)
        power = torch.log(self._power(observed) + NOTHING * self._volume * variance)
        return torch.cat(
            [
                mean / variance.sqrt(),
                variance.log(),
                delta.pow(3).mean(-1, keepdim=True),
                torch.log(kurtosis + NOTHING),
                power,
            ],
            dim=-1,
        ).flatten(1)
