"""Sharpness of a posterior: its widths against those of other methods.

Calibration does not test it: a posterior as wide as the prior is calibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.samples import Samples

#: Log of the smallest number of single precision: networks give no density below it but zero.
NO_DENSITY = float(np.log(np.finfo(np.float32).smallest_subnormal))


@dataclass(frozen=True)
class RelativeWidths:
    """Widths of a posterior over those of a reference, for the same observations.

    Attributes
    ----------
    label
        Name of the reference.
    std, interval
        (T, P) ratios of the standard deviations and of the central 68% intervals.
    volume
        (T,) ratios of the square root of the covariance's determinant.
    short
        (T,) whether the reference's chain is too short to be relied on.
    """

    label: str
    std: NDArray[np.float64]
    interval: NDArray[np.float64]
    volume: NDArray[np.float64]
    short: NDArray[np.bool_]

    @classmethod
    def from_samples(
        cls, ours: NDArray[np.float64], references: Sequence[Samples], short: Sequence[bool]
    ) -> "RelativeWidths":
        """Compare samples (T, n, P) with T references."""
        std = np.array([o.std(0, ddof=1) / r.std for o, r in zip(ours, references, strict=True)])
        interval, volume = [], []
        for samples, reference in zip(ours, references, strict=True):
            low, high = reference.interval(0.68)
            interval.append(np.subtract(*np.quantile(samples, [0.84, 0.16], axis=0)) / (high - low))
            covariances = np.atleast_2d(np.cov(samples, rowvar=False)), reference.covariance
            volume.append(np.sqrt(np.linalg.det(covariances[0]) / np.linalg.det(covariances[1])))
        return cls(references[0].label, std, np.array(interval), np.array(volume), np.array(short))

    def content(self, names: Sequence[str]) -> dict[str, Any]:
        """Write the median over the observations, and their central 68%, for JSON."""
        return {
            "observations": len(self.std),
            "short_chains": int(self.short.sum()),
            "std": {name: _spread(self.std[:, i]) for i, name in enumerate(names)},
            "interval_68": {name: _spread(self.interval[:, i]) for i, name in enumerate(names)},
            "volume": _spread(self.volume),
        }


def with_floor(log_density: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Give log densities (B,) at truths that are all finite, and how many truths have none.

    A posterior without density at a truth has failed there. It counts with `NO_DENSITY`, or the lowest of the others
    where that is lower, since a mean with -inf would not tell one such posterior from another.
    """
    finite = np.isfinite(log_density)
    lowest = min(NO_DENSITY, float(log_density[finite].min(initial=NO_DENSITY)))
    return np.where(finite, log_density, lowest), int((~finite).sum())


def mean_and_error(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean of values (B,), and its standard error."""
    return {"mean": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values)))}


def _spread(ratios: NDArray[np.float64]) -> dict[str, float]:
    low, middle, high = np.quantile(ratios, [0.16, 0.5, 0.84])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def gained_over(content: Mapping[str, Any]) -> str:
    """Say over what ``validation.json`` counts the information gained: truths are from the part that rounds left."""
    volume = content.get("prior_volume", 1.0)
    return "the prior" if volume == 1 else f"the truncated prior ({volume:.2g} of it)"
