"""Training of an image flow on rows of a bank: by -log p(x | y), and optionally by -log p(y | x) after that."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.arrays import white_noise
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
    slicing_symmetry,
    theta_columns,
)
from eorinfer.imageflow.density import ImageDensity
from eorinfer.imageflow.model import Build, ImageFlow, build_network, dequantised
from eorinfer.imageflow.scaled import ScaledDensity
from eorinfer.networks.scaling import nonzero_deviation
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import SurveySettings
from eorinfer.survey.base import Survey
from eorinfer.survey.symmetry import augment
from eorinfer.training.data import Batches, Cubes, split_rows
from eorinfer.training.fit import fit
from simulators import Observable, Symmetry

#: Number of images, and of cells of all of them together, from which the flow is started.
START_ROWS, START_CELLS = 1024, 2**24
#: Dequantisation in standard deviations of the images, where the survey draws no noise of its own.
DEQUANTISATION = 0.01
#: Limits of the scale of the discriminative loss's candidates, in units of the conditions' range.
NEAREST, FARTHEST = 0.02, 1.0
#: Number of rows whose neutral fraction is read at once.
BATCH = 64


class Conditioned(Batches):
    """Rows of a bank with their conditions.

    Parameters
    ----------
    cubes
        Clean cubes.
    y
        (n, S, P) conditions, of the whole image (S = 1) or of each of its slices.
    """

    def __init__(self, cubes: Cubes, y: Tensor) -> None:
        self._cubes, self.y = cubes, y
        self.slow = cubes.slow

    def __len__(self) -> int:
        return len(self.y)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Read conditions (B, S, P) and clean cubes (B, C, *cells)."""
        return self.y[indices], self._cubes.__getitems__(indices)[1]

    def row_names(self, indices: list[int]) -> list[str]:
        """Name rows by their place in the bank."""
        return self._cubes.row_names(indices)


class ImageFlowTask(nn.Module):
    """Training of a flow through augmentation, survey and dequantisation.

    Parameters
    ----------
    flow, survey, symmetry
        Flow to train, survey that observes clean cubes, and symmetry of these.
    sigma
        Standard deviation of the dequantisation, in the unit of the images.
    candidates
        Number of conditions among which the loss seeks the right one; None for the density of the image.
    slice_first
        Whether slices are taken before augmentation and survey, with the symmetry of a slice, or after.
    """

    def __init__(
        self,
        flow: ImageDensity,
        survey: Survey,
        symmetry: Symmetry,
        sigma: float,
        candidates: int | None = None,
        *,
        slice_first: bool = False,
    ) -> None:
        super().__init__()
        self.flow, self.survey, self.symmetry, self.sigma, self.candidates = flow, survey, symmetry, sigma, candidates
        self.slice_first = slice_first

    def observe(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Observe a batch of clean cubes: conditions (B, P) and images of the flow's shape."""
        y, images = batch
        if self.slice_first:
            y, images = self._one_of_each(y, images, generator)
        images = self.survey(augment(images, self.symmetry, generator), generator)
        y, images = self._one_of_each(y, images, generator)
        return y[:, 0], dequantised(images, self.sigma, generator)

    def _one_of_each(self, y: Tensor, cubes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Take a random slice of each cube with its condition; leave cubes alone where the flow is one on cubes."""
        if cubes.ndim - 1 == len(self.flow.shape):
            return y, cubes
        row = torch.arange(len(y), device=y.device)
        chosen = torch.randint(cubes.shape[-1], (len(y),), generator=generator, device=generator.device).to(y.device)
        return y[row, chosen if y.shape[1] > 1 else 0][:, None], cubes.movedim(-1, 1)[row, chosen]

    def losses(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Compute the losses (B,): -ln p(x | y) in nats per cell, or -ln p(y | x) in nats."""
        y, images = self.observe(batch, generator)
        if self.candidates is None:
            return -self.flow.log_prob(images, y).float() / images[0].numel()
        candidates = near_candidates(y, self.flow.low, self.flow.high, self.candidates, generator)
        inside = ((candidates >= self.flow.low) & (candidates <= self.flow.high)).all(-1)
        inside[:, 0] = True
        # A flow far outside of its conditions may not be finite, and an infinity that is masked still has a gradient.
        candidates = torch.where(inside[..., None], candidates, y[:, None])
        repeated = images.repeat_interleave(self.candidates, dim=0)
        log_p = self.flow.log_prob(repeated, candidates.flatten(0, 1)).view(len(y), -1)
        return (torch.logsumexp(log_p.masked_fill(~inside, -torch.inf), dim=1) - log_p[:, 0]).float()


def near_candidates(y: Tensor, low: Tensor, high: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw candidates (B, n, P): y (B, P) first, then n - 1 conditions near it.

    All are draws around one centre, which is itself drawn around y. So each of them might have been the first, and
    only p(x | y) and the prior tell which is the more probable. Uniform draws would soon be told apart without effort.
    The scale is drawn anew for each row.
    """
    noise = white_noise(y, generator, (len(y), n, y.shape[1]))
    scale = torch.rand(len(y), generator=generator, device=generator.device, dtype=y.dtype).to(y.device)
    width = (NEAREST * (FARTHEST / NEAREST) ** scale)[:, None] * (high - low)
    centre = y + width * noise[:, 0]
    return torch.cat([y[:, None], centre[:, None] + width[:, None] * noise[:, 1:]], dim=1)


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
    build
        Builds the untrained flow.
    """

    prior: Prior
    observable: Observable
    survey_settings: SurveySettings
    survey: Survey
    settings: ImageFlowSettings
    validation_fraction: float
    build: Build = build_network

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
        y, held = row_conditions(bank, rows, self.prior, self.settings), torch.from_numpy(validate)
        conditions = condition_space(y[~held], self.prior, self.observable, self.settings)
        cubes = Cubes(bank, self.observable.name, rows[~validate])
        if progress is not None and (text := cubes.warning()):
            progress.line(f"image flow: {text}")
        training = Conditioned(cubes, y[~held])
        validation = Conditioned(Cubes(bank, self.observable.name, rows[validate]), y[held])
        image = image_flow_observable(self.settings, self.observable)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build(self.settings, self.survey_settings, image, conditions)
        task = self._start(network, training, stream_seed(seed, ImageFlowStream.START))
        fits: dict[str, Any] = {}
        for stage in ("generative", "discriminative")[: 2 if self.settings.discriminative_steps else 1]:
            discriminative = stage == "discriminative"
            task.candidates = self.settings.candidates if discriminative else None
            record = fit(
                task,
                training,
                validation,
                self.settings.training(self.validation_fraction, discriminative=discriminative),
                folder=folder / stage,
                seed=stream_seed(seed, ImageFlowStream.STAGE, len(fits)),
                title=f"image flow, {'-ln p(y|x)' if discriminative else '-ln p(x|y) per cell'}",
                progress=progress,
            )
            fits[stage] = asdict(record)
        counts = {"training_rows": len(training), "validation_rows": len(validation)}
        facts = {"bank": bank.fingerprint, **counts, "fits": fits}
        return ImageFlow(conditions, image, self.survey_settings, self.settings, task.flow, task.sigma, facts)

    def _start(self, network: ImageDensity, training: Conditioned, seed: int) -> ImageFlowTask:
        """Start the flow so that the first images become white noise, and choose the dequantisation."""
        first = self.settings.image == "slices" and acts_on_cells(self.survey_settings)
        symmetry = slicing_symmetry(self.settings, self.observable.symmetry)
        if first:
            symmetry = image_flow_observable(self.settings, self.observable).symmetry
        task = ImageFlowTask(network, self.survey, symmetry, 0.0, slice_first=first)
        n = min(START_ROWS, max(16, START_CELLS // int(np.prod(self.observable.shape))), len(training))
        generator = torch.Generator().manual_seed(seed)
        y, images = task.observe(training.__getitems__(list(range(n))), generator)
        spread = float(images.std())
        if not 1e-12 < spread < 1e12:  # squares may be lost
            spread = float(nonzero_deviation(images.flatten(), (0,)))
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


def row_conditions(bank: Bank, rows: Rows, prior: Prior, settings: ImageFlowSettings) -> Tensor:
    """Read conditions (n, S, P) float64 of rows of a bank: of the whole image (S = 1), or of each of its slices."""
    columns = theta_columns(settings, prior)
    if columns:
        return torch.from_numpy(rows.theta[:, columns])[:, None]
    sliced = settings.image == "slices"
    conditions = []
    for start in range(0, len(rows), BATCH):
        neutral = bank.read(NEUTRAL_FRACTION, rows[start : start + BATCH]).astype(np.float64)
        means = neutral.mean(axis=tuple(range(2, neutral.ndim - sliced)))
        conditions.append(np.moveaxis(means, -1, 1) if sliced else means[:, None])
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
