"""Posterior samples and densities of many truths, written in blocks so that a stopped command loses little."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.files import whole_hdf5
from eorinfer.core.hdf5 import opened
from eorinfer.likelihood.sampled import PosteriorSample

FORMAT = 1
#: Arrays of a file; only posteriors on the whole prior are written, so that the others follow.
WRITTEN = ("values", "at_truth", "at_samples", "good", "seconds")


@dataclass(frozen=True)
class TruthPosteriors:
    """Posteriors of T observations, with n samples of each.

    Attributes
    ----------
    values
        Samples of theta, (T, n, P).
    at_truth
        Log posterior density, normalised over the whole prior, at the true parameters, (T,).
    at_samples
        The same at the samples, (T, n).
    good
        Whether the chain was long enough and the weights even enough to be relied on, (T,).
    seconds
        Seconds that each observation took, (T,).
    mass_inside
        Share of each posterior inside a truncated prior, (T,); 1 for the whole prior.
    resampled
        Whether samples were chosen among draws from the truncated prior, (T,).
    """

    values: NDArray[np.float64]
    at_truth: NDArray[np.float64]
    at_samples: NDArray[np.float64]
    good: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    mass_inside: NDArray[np.float64]
    resampled: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.at_truth)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "TruthPosteriors":
        return TruthPosteriors(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def entropy(self) -> NDArray[np.float64]:
        """Entropy of each posterior in nats, (T,); its exponential is the volume."""
        return -self.at_samples.mean(1)

    @classmethod
    def on_whole_prior(
        cls,
        values: NDArray[np.float64],
        at_truth: NDArray[np.float64],
        at_samples: NDArray[np.float64],
        good: NDArray[np.bool_],
        seconds: NDArray[np.float64],
    ) -> "TruthPosteriors":
        """Collect posteriors that no truncation cuts."""
        n = len(at_truth)
        return cls(values, at_truth, at_samples, good, seconds, np.ones(n), np.zeros(n, bool))

    @classmethod
    def from_samples(cls, samples: Sequence[PosteriorSample], seconds: Sequence[float]) -> "TruthPosteriors":
        """Collect T posteriors that were sampled one after the other."""
        return cls.on_whole_prior(
            np.array([sample.values for sample in samples]),
            np.array([sample.at_truth for sample in samples]),
            np.array([sample.at_samples for sample in samples]),
            np.array([sample.good for sample in samples]),
            np.array(seconds),
        )

    @classmethod
    def concatenate(cls, blocks: Sequence["TruthPosteriors"]) -> "TruthPosteriors":
        """Join blocks of truths in their order."""
        return cls(*(np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(cls)))

    def write(self, path: Path, key: str) -> None:
        """Write the whole file at once; `key` is the hash of the method, its training and the truths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_hdf5(path) as file:
            file.attrs["format"] = FORMAT
            file.attrs["key"] = key
            for name in WRITTEN:
                file[name] = getattr(self, name)

    @classmethod
    def read(cls, path: Path, key: str) -> "TruthPosteriors | None":
        """Read what `write` wrote; None if there is no such file or it has another key."""
        try:
            with opened(path) as file:
                if file.attrs.get("format") != FORMAT or file.attrs.get("key") != key:
                    return None
                return cls.on_whole_prior(*(file[name][()] for name in WRITTEN))
        except (OSError, KeyError):
            return None
