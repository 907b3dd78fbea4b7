"""The power-spectrum baseline: a Gaussian likelihood from the same bank and the same survey."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank import Bank
from eorinfer.inference.data import Cubes
from eorinfer.inference.emulator import Emulator, observe_spectra, train_emulator
from eorinfer.inference.flow import as_theta, build_power_spectrum
from eorinfer.inference.settings import PowerSpectrumSettings
from eorinfer.observation import Observation
from eorinfer.prior import Prior
from eorinfer.progress import Progress
from eorinfer.rows import Rows
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey.base import Survey
from simulators import Observable


@dataclass(frozen=True)
class PowerSpectrumLikelihood:
    """ln N(P_obs | mean(theta), C(theta)) with the emulated mean and covariance.

    The determinant is included. A Gaussian with a covariance that depends on theta
    counts some information twice (Carron 2013, arXiv 1204.4724); ``benchmarks/known_answer.py``
    prints how far it is from the exact posterior.
    """

    emulator: Emulator
    power_spectrum: PowerSpectrum

    @classmethod
    def trained(
        cls,
        bank: Bank,
        rows: Rows,
        prior: Prior,
        observable: Observable,
        survey: Survey,
        settings: PowerSpectrumSettings,
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
        bank, rows
            Valid rows.
        prior, observable, survey, settings
            As for the posterior.
        draws
            Survey draws of each row.
        folder
            Where the emulator is kept.
        seed
            Of noise, folds and weights.
        key
            Hash of all that the rows and the survey depend on.
        progress
            Where it is told.
        """
        spectrum = build_power_spectrum(observable, settings)
        key = hashlib.sha256(f"{key} {draws} {seed}".encode()).hexdigest()[:16]
        if (folder / "emulator.json").exists():
            emulator, facts = Emulator.load(folder)
            if facts["key"] == key:
                return cls(emulator, spectrum)
        spectra = observe_spectra(
            Cubes(bank, observable.name, rows), rows.seed, survey, observable.symmetry, spectrum, draws, seed
        )
        checkpoints = folder.with_name(f"{folder.name}-checkpoints-{key}")
        emulator = train_emulator(spectra, prior, folder=checkpoints, seed=seed, progress=progress)
        emulator.save(folder, {"key": key, "rows": len(rows)})
        shutil.rmtree(checkpoints, ignore_errors=True)
        return cls(emulator, spectrum)

    @torch.no_grad()
    def observed(self, observation: Observation) -> torch.Tensor:
        """P(k) of the observation, all channels one after the other, (D,) float64."""
        return self.power_spectrum(torch.from_numpy(observation.values[None])).flatten().double()

    def of(self, observation: Observation) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """The log likelihood of theta (n, P), (n,), for one observation."""
        power = self.observed(observation)

        def log_likelihood(theta: NDArray[np.float64]) -> NDArray[np.float64]:
            with torch.no_grad():
                return self.emulator.log_likelihood(power, as_theta(theta)).numpy()

        return log_likelihood

    def key(self, observation: Observation) -> str:
        """Hash of the likelihood: weights and data."""
        digest = hashlib.sha256(self.observed(observation).numpy().tobytes())
        for name, value in self.emulator.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()
