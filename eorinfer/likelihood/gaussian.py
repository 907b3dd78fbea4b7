"""Power-spectrum baseline: a Gaussian likelihood from the same bank and the same survey."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.arrays import as_theta, state_hash
from eorinfer.core.likelihood import LogLikelihood
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.cubes.observation import Observation
from eorinfer.likelihood.emulator import Emulator, observe_spectra, train_emulator
from eorinfer.survey.base import Survey
from eorinfer.training.data import Cubes
from eorinfer.training.kept import load_or_train
from simulators import Observable


@dataclass(frozen=True)
class PowerSpectrumLikelihood:
    """ln N(P_obs | mean(theta), C(theta)) with the emulated mean and covariance.

    The determinant is included. A Gaussian with a covariance that depends on theta
    counts some information twice (Carron 2013, arXiv 1204.4724); ``benchmarks/known_answer.py``
    prints how far it is from the exact posterior.

    Attributes
    ----------
    emulator
        Emulator of mean and covariance.
    power_spectrum
        (B, C, *cells) to (B, C, ...): what the data are.
    seconds
        Seconds that spectra and training took.
    """

    emulator: Emulator
    power_spectrum: nn.Module
    seconds: float = 0.0

    @classmethod
    def from_bank(
        cls,
        bank: Bank,
        rows: Rows,
        prior: Prior,
        observable: Observable,
        survey: Survey,
        power_spectrum: nn.Module,
        *,
        draws: int,
        folder: Path,
        seed: int,
        key: str,
        progress: Progress | None = None,
    ) -> "PowerSpectrumLikelihood":
        """Train the emulator, or load it when `folder` has the one of this `key`.

        Parameters
        ----------
        bank, rows, prior, observable, survey
            Valid rows and the rest, as for the posterior.
        power_spectrum
            (B, C, *cells) to (B, C, ...), e.g. from `build_power_spectrum`.
        draws, seed
            Survey draws of each row; seed of noise, folds and weights.
        folder, key
            Folder that keeps the emulator, and hash of all that the rows and the survey depend on.
        """
        key = hashlib.sha256(f"{key} {draws} {seed}".encode()).hexdigest()[:16]

        def train(checkpoints: Path) -> Emulator:
            cubes = Cubes(bank, observable.name, rows)
            spectra = observe_spectra(cubes, rows.seed, survey, observable.symmetry, power_spectrum, draws, seed)
            emulator = train_emulator(spectra, prior, folder=checkpoints, seed=seed, progress=progress)
            emulator.facts["rows"] = len(rows)
            return emulator

        emulator = load_or_train(Emulator, folder, key, train, f"{folder.name}-checkpoints")
        return cls(emulator, power_spectrum, emulator.facts.get("seconds", 0.0))

    @torch.no_grad()
    def observed(self, observation: Observation) -> torch.Tensor:
        """P(k) of the observation, all channels one after the other, (D,) float64."""
        power: torch.Tensor = self.power_spectrum(torch.from_numpy(observation.values[None]))
        return power.flatten().double()

    def for_observation(self, observation: Observation) -> LogLikelihood:
        """Log likelihood of one observation."""
        return self.for_spectrum(self.observed(observation))

    def for_spectrum(self, power: torch.Tensor) -> LogLikelihood:
        """Log likelihood of one spectrum (D,) float64."""

        def log_likelihood(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.no_grad():
                return self.emulator.log_likelihood(power, as_theta(theta)).numpy()

        return log_likelihood

    def key(self, observation: Observation) -> str:
        """Hash of the likelihood: weights and data."""
        return state_hash(self.observed(observation).numpy().tobytes(), self.emulator.state_dict().items())
