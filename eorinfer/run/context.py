"""Context that all steps of a run share: config, folder, bank, simulations, survey and preprocessing."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError, naming
from eorinfer.core.files import make_folder
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.mask import read_mask
from eorinfer.cubes.observation import Observation
from eorinfer.run.config import Config
from eorinfer.run.folder import as_begun, refuse_other_config
from eorinfer.run.simulations import Simulations

if TYPE_CHECKING:
    from torch import nn

    from eorinfer.combined.posterior import CombinedPosterior
    from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
    from eorinfer.npe.architecture import Architecture
    from eorinfer.npe.posterior import Posterior
    from eorinfer.npe.trainer import Trainer
    from eorinfer.separation.preprocessing import LineSeparation
    from eorinfer.survey.base import Survey


@dataclass(frozen=True)
class RunContext:
    """A config bound to a folder, with what every step needs; made once for each run.

    Attributes
    ----------
    config
        Checked config.
    folder
        Run folder.
    bank
        Simulations on disk.
    simulations
        Runs the simulator and fills the bank.
    preprocessing
        Separation of observed maps before networks see them; None without one.
    progress
        Receives lines and bars.
    """

    config: Config
    folder: Path
    bank: Bank
    simulations: Simulations
    preprocessing: "LineSeparation | None"
    progress: Progress

    @classmethod
    def open(cls, config: Config, folder: Path, progress: Progress) -> "RunContext":
        """Make or find the folder and its bank; nothing is written for a config that is refused.

        Raises
        ------
        InputError
            If the folder cannot be written or belongs to another config, the bank to another simulator, or the
            separator to other maps.
        """
        folder = make_folder(folder)
        if not config.received:  # it is the folder's own
            config = as_begun(config, folder)
            refuse_other_config(config, folder)
        preprocessing = find_preprocessing(config)
        bank = Bank.create(config.bank_path(folder), config.simulator)
        for note in (*config.notes, *(f"bank: {text}" for text in bank.notes(config.prior.hash()))):
            progress.line(note)
        return cls(config, folder, bank, Simulations(config, bank, progress), preprocessing, progress)

    @property
    def simulator_table(self) -> dict[str, Any]:
        """Table ``[simulator]`` for keys of what is trained; see `Config.simulator_key`."""
        return self.config.simulator_key(self.bank.description["simulator"])

    @cached_property
    def survey(self) -> "Survey":
        """The telescope, as a torch module, without masked cells; built at first use, because it loads torch."""
        from eorinfer.survey import build_survey

        survey = build_survey(self.config.tables.survey, self.config.observable)
        if self.mask is None:
            return survey
        from eorinfer.survey.masked import MaskedSurvey

        return MaskedSurvey(survey, self.mask)

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """Cells (C, *cells) that the observation lacks, and simulations as well; None without any.

        They are those of the kept observation, or of ``[observation] mask`` before there is one.
        """
        kept = self.folder / "observation.h5"
        if self.config.tables.observation.mask is not None and kept.exists():
            return Observation.read_unchecked(kept).mask
        return find_mask(self.config)

    def power_spectrum(self) -> "nn.Module":
        """Build what the power-spectrum likelihoods see of observed maps (B, C, *cells): (B, ..., bins)."""
        from eorinfer.summaries.power import build_joint_power_spectrum, build_power_spectrum

        observable, settings = self.config.observable, self.config.tables.power_spectrum
        if self.preprocessing is None or self.preprocessing.spectra == "observed":
            return build_power_spectrum(observable, settings)
        from eorinfer.separation.preprocessing import LineSpectra

        return LineSpectra(self.preprocessing, build_joint_power_spectrum(observable, settings))

    def likelihood(self, rows: Rows, spectrum: "nn.Module", folder: Path, key: str) -> "PowerSpectrumLikelihood":
        """Train the Gaussian likelihood of a spectrum on these rows, or load it where `folder` has that of this key."""
        from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood

        config, tables = self.config, self.config.tables
        return PowerSpectrumLikelihood.from_bank(
            self.bank,
            rows,
            config.prior,
            config.observable,
            self.survey,
            spectrum,
            draws=tables.mcmc.draws,
            folder=folder,
            seed=run_seed(tables.seed, RunStream.EMULATOR),
            key=key,
            progress=self.progress,
        )

    def trainer(self, prior: Prior, architecture: "Architecture", alignment: float = 0.0) -> "Trainer":
        """Build the trainer of networks that see what this run observes; parameters as of `Trainer`."""
        from eorinfer.npe.trainer import Trainer

        observable, tables = self.config.observable, self.config.tables
        seen = (tables.survey, self.survey, architecture, tables.training, self.preprocessing, self.mask)
        return Trainer(prior, observable, *seen, alignment)

    def load_posterior(self, folder: Path) -> "Posterior":
        """Load a posterior of this run, which may have parts of the user's own."""
        from eorinfer.npe.posterior import Posterior

        return Posterior.load(folder, self.config.modules, self.config.own_names)

    def load_combined(self) -> "CombinedPosterior":
        """Load the combined posterior of this run."""
        from eorinfer.combined.posterior import CombinedPosterior

        return CombinedPosterior.load(self.folder, self.config.modules, self.config.own_names)

    def refuse_vectors(self, method: str) -> None:
        """Refuse a method that needs images where the simulator gives data vectors.

        Raises
        ------
        InputError
            If there are data vectors.
        """
        if len(self.config.observable.cells) == 1:
            raise InputError(
                f"{self.config.file}: {method} is for images; the simulator gives data vectors "
                f"({self.config.observable.name}), which `eorinfer infer` and `validate` take"
            )

    def refuse_mask(self, method: str) -> None:
        """Refuse a method that needs all cells.

        Raises
        ------
        InputError
            If there is a mask.
        """
        if self.config.tables.observation.mask is not None:
            raise InputError(
                f"{self.config.file}: [observation] mask: {method} is of whole images and cannot leave cells out; "
                'take [inference] method = "npe", or eorinfer mcmc'
            )


def find_mask(config: Config) -> NDArray[np.bool_] | None:
    """Read the cells (C, *cells) that ``[observation] mask`` leaves out; None without any.

    Raises
    ------
    InputError
        If the file cannot be read, or is of another cube.
    """
    settings = config.tables.observation
    if settings.mask is None:
        return None
    if not settings.nan_masks:
        return read_mask(config.folder / settings.mask, config.observable)
    assert settings.file is not None
    mask = Observation.open(config.folder / settings.file, config.observable, "nan").mask
    return mask if mask is not None and mask.any() else None


def find_preprocessing(config: Config) -> "LineSeparation | None":
    """Load the separator that ``[preprocessing]`` names; None without that table.

    Raises
    ------
    InputError
        If there is no such separator, or it is for other maps.
    """
    settings = config.tables.preprocessing
    if settings is None:
        return None
    from eorinfer.separation.preprocessing import LineSeparation

    with naming(f"{config.file}: [preprocessing] ", InputError):
        return LineSeparation.from_settings(settings, config.observable, config.folder)
