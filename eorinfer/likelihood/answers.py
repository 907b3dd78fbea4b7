"""What a method says of many truths: samples, densities, cost; kept in parts, so that a stop loses little."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from eorinfer.core.files import whole_hdf5
from eorinfer.likelihood.sampled import PosteriorSample

FORMAT = 1


@dataclass(frozen=True)
class Answers:
    """Posteriors of T observations with n samples each.

    Attributes
    ----------
    values
        (T, n, P) samples of theta.
    at_truth
        (T,) log posterior density, normalised, at the parameters that the observation was made with.
    at_samples
        (T, n) the same at the samples.
    good
        (T,) whether the chain was long enough and the weights even enough to be relied on.
    seconds
        (T,) that each observation took.
    """

    values: NDArray[np.float64]
    at_truth: NDArray[np.float64]
    at_samples: NDArray[np.float64]
    good: NDArray[np.bool_]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.at_truth)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> "Answers":
        return Answers(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def entropy(self) -> NDArray[np.float64]:
        """(T,) of each posterior in nats; its exponential is the volume."""
        return -self.at_samples.mean(1)

    @classmethod
    def of(cls, found: Sequence[PosteriorSample], seconds: Sequence[float]) -> "Answers":
        """Of T posteriors that were sampled one after the other."""
        return cls(
            np.array([one.values for one in found]),
            np.array([one.at_truth for one in found]),
            np.array([one.at_samples for one in found]),
            np.array([one.good for one in found]),
            np.array(seconds),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Answers"]) -> "Answers":
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def write(self, path: Path, key: str) -> None:
        """Write whole; `key` says of which method, trained how, and of which truths."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_hdf5(path) as file:
            file.attrs["format"] = FORMAT
            file.attrs["key"] = key
            for field in fields(self):
                file[field.name] = getattr(self, field.name)

    @classmethod
    def read(cls, path: Path, key: str) -> "Answers | None":
        """What `write` wrote with the same key, else None."""
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FORMAT or file.attrs.get("key") != key:
                    return None
                return cls(*(file[field.name][()] for field in fields(cls)))
        except (OSError, KeyError):
            return None
