"""Training of an image flow on rows of a bank: by -log p(x | y) or by denoising, and what it needs of the rows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.numbers import unit_of
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import ImageFlowStream, stream_seed
from eorinfer.imageflow.conditions import (
    NEUTRAL_FRACTION,
    acts_on_cells,
    draws_noise_everywhere,
    image_flow_observable,
    neutral_fraction_parameters,
    noise_of_cells,
    slicing_axes,
    slicing_symmetry,
    theta_columns,
)
from eorinfer.imageflow.density import ImageDensity
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.model import ImageFlow, build_network, dequantised
from eorinfer.imageflow.scaled import ScaledDensity
from eorinfer.imageflow.task import Conditioned, DiffusionTask, ImageFlowTask
from eorinfer.networks.scaling import nonzero_deviation
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import SurveySettings
from eorinfer.survey.base import Identity, Survey
from eorinfer.training.data import Cubes, split_rows
from eorinfer.training.fit import fit
from simulators import Observable, Symmetry

#: Number of the one stage of training, in its seed.
GENERATIVE = 0
#: Number of images, and of cells of all of them together, from which the flow is started.
START_ROWS, START_CELLS = 1024, 2**24
#: Dequantisation in standard deviations of the images, where the survey draws no noise of its own.
DEQUANTISATION = 0.01
#: Number of images from which a diffusion is started: there are few of each condition, and their power scatters.
DRAWS = 16384
#: Share of a denoiser's averaged weights that a step keeps: single steps have far more noise.
AVERAGE = 0.999
#: Number of rows whose neutral fraction is read at once.
BATCH = 64


@dataclass(frozen=True)
class ImageFlowTrainer:
    """Training of an image flow on any rows of a bank.

    Attributes
    ----------
    prior
        Prior of the simulator's parameters.
    observable
        Image of the simulator.
    survey_settings, survey
        Settings of the survey, and the survey built from them.
    settings
        ``[image_flow]``.
    validation_fraction
        Share of the realisations held out, from ``[training]``.
    """

    prior: Prior
    observable: Observable
    survey_settings: SurveySettings
    survey: Survey
    settings: ImageFlowSettings
    validation_fraction: float

    def train(self, bank: Bank, rows: Rows, *, folder: Path, seed: int, progress: Progress | None = None) -> ImageFlow:
        """Train a flow on rows of a bank.

        Parameters
        ----------
        bank, rows
            Bank, and rows of status ``ok``, which are split by realisation.
        folder
            Folder of the checkpoints; the caller deletes it.
        seed
            Seed of initial weights, order, noise and symmetries.
        progress
            Receives lines and bars.

        Raises
        ------
        InputError
            If there are Fourier modes without power and no dequantisation, or conditions that do not vary.
        WorkError
            If there are too few realisations.
        """
        validate = split_rows(rows, self.validation_fraction)
        axes, held = self._axes, torch.from_numpy(validate)
        y = row_conditions(bank, rows, self.prior, self.settings, axes)
        conditions = condition_space(y[~held], self.prior, self.observable, self.settings)
        cubes = Cubes(bank, self.observable.name, rows[~validate])
        if progress is not None and (text := cubes.warning()):
            progress.line(f"image flow: {text}")
        training = Conditioned(cubes, y[~held])
        validation = Conditioned(Cubes(bank, self.observable.name, rows[validate]), y[held])
        image = image_flow_observable(self.settings, self.observable)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(self.settings, self.survey_settings, image, conditions)
        task = self._start(network, training, stream_seed(seed, ImageFlowStream.START))
        record = fit(
            task,
            training,
            validation,
            self.settings.training(self.validation_fraction),
            folder=folder / "generative",
            seed=stream_seed(seed, ImageFlowStream.STAGE, GENERATIVE),
            title=f"image flow, {task.title}",
            progress=progress,
            average=AVERAGE if isinstance(task, DiffusionTask) else 0.0,
        )
        counts = {"training_rows": len(training), "validation_rows": len(validation)}
        facts = {"bank": bank.fingerprint, **counts, "fits": {"generative": asdict(record)}}
        return ImageFlow(conditions, image, self.survey_settings, self.settings, task.flow, task.sigma, facts)

    @property
    def _axes(self) -> int:
        """Number of axes, from the last one on, across which slices are taken in training."""
        return slicing_axes(self.settings, self.survey_settings, self.observable)

    def _start(self, network: ImageDensity, training: Conditioned, seed: int) -> ImageFlowTask:
        """Start the flow so that the first images become white noise, and choose the dequantisation."""
        first = self.settings.image == "slices" and acts_on_cells(self.survey_settings)
        symmetry = slicing_symmetry(self.settings, self.observable.symmetry)
        if first:
            symmetry = image_flow_observable(self.settings, self.observable).symmetry
        slices: dict[str, Any] = {"slice_first": first, "axes": self._axes}
        generator = torch.Generator().manual_seed(seed)
        if isinstance(network, DiffusionFlow):
            return self._start_diffusion(network, training, symmetry, slices, seed)
        task = ImageFlowTask(network, self.survey, symmetry, 0.0, **slices)
        y, images = task.observe(training.__getitems__(list(range(self._start_rows(training)))), generator)
        spread = _spread(images)
        if (scale := unit_of(spread)) != 1:
            network = task.flow = ScaledDensity(network, scale)
        usual = DEQUANTISATION * spread
        task.sigma = 0.0 if draws_noise_everywhere(self.survey_settings) else usual
        if self.settings.dequantisation is not None:
            task.sigma = self.settings.dequantisation
        try:
            network.fit_start(dequantised(images, task.sigma, generator), y)
        except (ValueError, torch.linalg.LinAlgError) as error:
            unit = f" {self.observable.unit}".rstrip()
            raise InputError(
                f"[image_flow] dequantisation = {task.sigma:g}: {error}; "
                f"leave dequantisation out, which is {usual:.2g}{unit} then, or give more"
            ) from error
        return task

    def _start_diffusion(
        self,
        network: DiffusionFlow,
        training: Conditioned,
        symmetry: Symmetry,
        slices: dict[str, Any],
        seed: int,
    ) -> DiffusionTask:
        """Start a diffusion as the Gaussian field of images without noise; its noise is the survey's where it is white.

        Noise that is not white counts as part of the images, and the dequantisation is the noise.
        """
        white = noise_of_cells(self.survey_settings) if network.whitening is None else 1.0
        task = DiffusionTask(network, Identity() if white is not None else self.survey, symmetry, 0.0, **slices)
        rows, generator = list(range(self._start_rows(training))), torch.Generator().manual_seed(seed)
        draws = max(1, min(DRAWS, START_CELLS // int(np.prod(network.shape))) // len(rows))
        parts = [task.signals(training.__getitems__(rows), generator) for _ in range(draws)]
        y, images = (torch.cat(part) for part in zip(*parts, strict=True))
        sigma = self.settings.dequantisation
        if sigma is None:
            sigma = 0.0 if white else DEQUANTISATION * _spread(images)
        noise = float(np.hypot(white or 0.0, sigma))
        if not noise:
            raise InputError("[image_flow] dequantisation = 0: a diffusion needs noise; leave dequantisation out")
        if network.whitening is None:
            network.set_noise(noise)
        else:
            sigma = 0.0
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network.keep(network.whitening.enough(images))
        network.fit_start(images, y)
        network.fit_map_power(images, y)
        return DiffusionTask(network, task.survey, symmetry, sigma, **slices)

    def _start_rows(self, training: Conditioned) -> int:
        return min(START_ROWS, max(16, START_CELLS // int(np.prod(self.observable.shape))), len(training))


def _spread(images: Tensor) -> float:
    """Standard deviation of images, also where squares are lost."""
    spread = float(images.std())
    return spread if 1e-12 < spread < 1e12 else float(nonzero_deviation(images.flatten(), (0,)))


def row_conditions(bank: Bank, rows: Rows, prior: Prior, settings: ImageFlowSettings, axes: int = 1) -> Tensor:
    """Read conditions (n, S, P) float64 of rows of a bank: of the whole image (S = 1), or of each of its slices.

    `axes` is the number of axes, from the last one on, across which there are slices: S / `axes` of each.
    """
    columns = theta_columns(settings, prior)
    if columns:
        return torch.from_numpy(rows.theta[:, columns])[:, None]
    sliced = settings.image == "slices"
    conditions = []
    for start in range(0, len(rows), BATCH):
        neutral = bank.read(NEUTRAL_FRACTION, rows[start : start + BATCH]).astype(np.float64)
        cells = range(2, neutral.ndim)
        if not sliced:
            conditions.append(neutral.mean(axis=tuple(cells))[:, None])
            continue
        means = [neutral.mean(axis=tuple(set(cells) - {neutral.ndim - 1 - a})) for a in range(axes)]
        conditions.append(np.moveaxis(np.concatenate(means, axis=-1), -1, 1))
    return torch.from_numpy(np.concatenate(conditions))


def condition_space(y: Tensor, prior: Prior, observable: Observable, settings: ImageFlowSettings) -> Prior:
    """Describe the names and ranges of the conditions y (n, S, P) of training.

    Raises
    ------
    InputError
        If a neutral fraction is the same in all of them.
    """
    if columns := theta_columns(settings, prior):
        return prior.only(columns)
    flat = y.flatten(0, 1)
    low, high = flat.min(0).values, flat.max(0).values
    if bool((high <= low).any()):
        raise InputError('[image_flow] condition = "neutral-fraction": it is the same in all simulations')
    return Prior(neutral_fraction_parameters(observable, low.tolist(), high.tolist()))
