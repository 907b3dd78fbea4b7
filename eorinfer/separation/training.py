"""Training of a separator of any kind; the GAN by two optimisers that take turns."""

import json
import math
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from eorinfer.bank.store import Bank
from eorinfer.core.arrays import white_noise
from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import WorkStream, second_item_seed, stream_seed
from eorinfer.networks.discriminator import Discriminator
from eorinfer.separation.calibration import MAPS, calibrate
from eorinfer.separation.data import Lines, Pairs, Split
from eorinfer.separation.health import diagnose, refuse_not_finite, too_sure, warn_once
from eorinfer.separation.losses import PENALTY, distance, penalty
from eorinfer.separation.model import Separator, SeparatorSpec
from eorinfer.separation.regression import Material, stages_of, train_flow, train_mean, validation_due
from eorinfer.survey.base import Survey
from eorinfer.training.average import averaging

#: Size of a logit beyond which the discriminator's gradient vanishes in single precision.
CONFIDENT = 60.0
#: Number of maps for the scalings, for the spectra of the Wiener filter, and for validation.
SCALING_ROWS, WIENER_ROWS, VALIDATION_ROWS = 512, 1024, 128
#: Maps of a batch for each one of which the GAN makes more than one draw. The distance of draws, an average over all
#: maps, is estimated from these, since the decoder is most of a step.
MAPS_A_PAIR = 4
#: Share of the steps in which the posterior mean is trained, where a flow about it follows.
MEAN_SHARE = 0.5


def train(
    spec: SeparatorSpec,
    bank: Bank,
    rows: Split,
    survey: Survey,
    *,
    folder: Path,
    seed: int,
    progress: Progress | None = None,
) -> Separator:
    """Train a separator on rows of a bank, from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    spec
        Input, output and settings; facts of the training are added.
    bank, rows
        Bank of clean lines, and its rows split by realisation.
    survey
        Survey that observes the lines, with fresh noise for each batch.
    folder
        Folder of the checkpoints; the caller deletes it.
    seed
        Seed of initial weights, order, noise, symmetries and dropout.
    progress
        Receives lines, bars and warnings.

    Raises
    ------
    WorkError
        If a loss is not finite; the last good checkpoint is kept.
    """
    settings, progress = spec.settings, progress or Silent()
    training, validation = Lines(bank, rows.training), Lines(bank, rows.validation[:VALIDATION_ROWS])
    pairs = Pairs(survey, spec.observable.symmetry, training.names, spec.targets, settings.mix)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        separator = Separator(spec)
        discriminator = (
            Discriminator(
                spec.observable.shape[0] + len(spec.targets),
                spec.strides,
                spec.periodic,
                width=settings.width,
                widest=settings.widest,
            )
            if settings.kind == "cgan"
            else None
        )
    prepare(separator, training, pairs, seed)
    material = Material(training, validation, pairs, folder, seed, progress)
    if discriminator is not None:
        history = _train_gan(separator, discriminator, material)
    else:
        of_mean = settings.steps if settings.kind == "mean" else max(1, round(MEAN_SHARE * settings.steps))
        history = train_mean(separator, material, of_mean)
    if settings.kind == "flow-matching":
        history = history + train_flow(separator, material, max(1, settings.steps - of_mean))
    calibrated = calibrate(separator, Lines(bank, rows.validation[:MAPS]), pairs, seed)
    warnings = [*diagnose(history, spec.lines), *too_sure(calibrated["sureness"])]
    spec.facts.update(calibrated, history=history, warnings=warnings, steps=settings.steps)
    return separator


def _train_gan(separator: Separator, discriminator: Discriminator, material: Material) -> list[dict[str, Any]]:
    """Train the generator of a separator against a discriminator; return the history."""
    settings = separator.spec.settings
    stage, stages = stages_of(settings.steps)
    runner = Adversaries(separator, discriminator, material.pairs, stages * stage, material.seed, material.progress)
    material.run(runner, settings, stage, stages, material.folder, "separation")
    separator.generator.load_state_dict(runner.average.module.state_dict())
    return runner.history


def prepare(separator: Separator, training: Lines, pairs: Pairs, seed: int) -> None:
    """Set scalings and the Wiener filter of a separator from training rows."""
    generator = torch.Generator().manual_seed(stream_seed(seed, WorkStream.SEPARATOR_SCALING))
    numbers = list(range(min(WIENER_ROWS, len(training))))
    observed = []
    for start in range(0, len(numbers), 64):
        (lines,) = training.__getitems__(numbers[start : start + 64])
        observed.append(pairs(lines, generator))
    sources, targets = (torch.cat([pair[i] for pair in observed[: SCALING_ROWS // 64]]) for i in range(2))
    separator.fit_scalings(sources, targets)
    separator.wiener.fit(observed)


class Adversaries(LightningModule):
    """Train generator and discriminator, a step each for every batch, by one pass of the discriminator.

    Losses as in the talk (Moriwaki & Yoshida 2021, ApJL 923 L7; Isola et al. 2017, arXiv 1611.07004): the
    discriminator's is the cross entropy, -log D(x, y) - log[1 - D(x, G(x))], the generator's the non-saturating
    -log D(x, G(x)) + lambda <|y - G(x)|>. The latter is divided by lambda, which Adam does not feel and the clipping of
    gradients does. For several draws see `distance`. ``"wasserstein"``: Gulrajani et al. 2017 (arXiv 1704.00028).

    Parameters
    ----------
    separator
        Separator whose scalings and Wiener filter are set; its generator is copied.
    discriminator
        Network that tells true lines from made ones.
    pairs
        Makes observed maps and targets from clean lines.
    steps
        Number of steps in all.
    seed
        Seed of noise, symmetries, mixing and dropout.
    progress
        Receives the warnings.
    """

    def __init__(
        self,
        separator: Separator,
        discriminator: Discriminator,
        pairs: Pairs,
        steps: int,
        seed: int,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = deepcopy(separator.generator).requires_grad_(True)
        self.discriminator = discriminator
        self.average = AveragedModel(
            self.generator, multi_avg_fn=averaging(separator.spec.settings.average), use_buffers=True
        )
        self.average.requires_grad_(False)
        self.separator, self.pairs = separator, pairs
        self._channels = separator.spec.observable.shape[0]
        self._settings, self._lines = separator.spec.settings, separator.spec.lines
        self._draws = 1 if self._settings.loss == "l1" else self._settings.draws
        self._steps, self._seed, self._progress = steps, seed, progress
        self._warned: set[str] = set()
        self._training: list[Tensor] = []
        self._validation: list[Tensor] = []
        self._finite: list[Tensor] = []
        self.history: list[dict[str, Any]] = []

    # -- training --------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        # By epoch, so that a resumed training sees the same noise as one without a stop.
        seed = second_item_seed(self._seed, self.current_epoch)
        self._random = torch.Generator(self.device).manual_seed(seed)
        self._training = []

    def training_step(self, batch: tuple[Tensor], _: int) -> None:
        generator_optimizer, discriminator_optimizer = self.optimizers()
        observed, true = self.pairs(batch[0], self._random, training=True)
        inputs, target = self.separator.scaled(observed), self.separator.target_scaling(true)
        paired = -(-len(target) // MAPS_A_PAIR)
        made = self.generator(inputs, self._random, self._draws, paired=paired).float()
        first, further = made[: len(target)], made[len(target) :].unflatten(0, (self._draws - 1, paired))
        figures = torch.zeros(3, device=self.device)
        error = distance(first, target, further)
        loss = error
        if self._settings.loss != "l1":
            # Draws are alike, so that one of them is enough to judge.
            judged = first.detach().requires_grad_(True)
            against, figures, logits = self._discriminator_loss(inputs[:, : self._channels], target, judged)
            self._step(discriminator_optimizer, against, self.discriminator, "discriminator")
            pull = self._pull(judged, logits)
            loss = error + (first * pull).sum() / self._settings.weight
        self._step(generator_optimizer, loss, self.generator, "generator")
        self.average.update_parameters(self.generator)
        for schedule in self.lr_schedulers()[: 1 if self._settings.loss == "l1" else 2]:
            schedule.step()
        self._training.append(torch.cat([error.detach()[None], figures]))

    def _discriminator_loss(self, source: Tensor, target: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the discriminator's loss; accuracy, logit gap and loss (3,); and the logits (B,) of made lines."""
        real = self.discriminator(source, blurred := self._blurred(target)).float()
        fake = self.discriminator(source, drawn := self._blurred(made)).float()
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        gap = real.mean() - fake.mean()
        if self._settings.loss == "talk":
            loss = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        else:
            loss = -gap + PENALTY * penalty(self.discriminator, source, blurred, drawn.detach(), self._random)
        return loss, torch.stack([accuracy, gap, loss]).detach(), fake.detach()

    def _pull(self, judged: Tensor, logits: Tensor) -> Tensor:
        """Compute the gradient of the generator's adversarial loss by its lines from that of the discriminator's.

        Each map has one logit f, and both losses depend on the map by it alone: softplus(f) / 2 for the one and
        softplus(-f) for the other, whose derivatives by f have the ratio -2 exp(-f); -f and f for a critic, with the
        ratio -1. So the discriminator runs once for both.
        """
        assert judged.grad is not None
        if self._settings.loss == "talk":
            ratio = -2 * torch.exp(-logits.clamp(min=-CONFIDENT))
        else:
            ratio = -torch.ones_like(logits)
        return judged.grad * ratio.view(-1, *(1,) * (judged.ndim - 1))

    def _blurred(self, lines: Tensor) -> Tensor:
        """Add instance noise (Soenderby et al. 2017, arXiv 1610.04490), in single precision."""
        if not self._settings.instance_noise:
            return lines
        return lines.float() + self._settings.instance_noise * white_noise(lines.float(), self._random)

    def _step(self, optimizer: LightningOptimizer, loss: Tensor, network: nn.Module, name: str) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self._settings.clip)
        if not torch.isfinite(loss + norm):
            step = self.current_epoch * self.trainer.num_training_batches + len(self._training) + 1
            raise WorkError(
                f"separation: the {name}'s loss is not finite at step {step} of {self._steps}; the last checkpoint, of "
                f"step {self.current_epoch * self.trainer.num_training_batches}, is kept. A lower [separation] "
                "learning_rate or discriminator_rate usually cures it"
            )
        optimizer.step()

    def configure_optimizers(self) -> Any:
        settings = self._settings
        rates = ((self.generator, settings.learning_rate), (self.discriminator, settings.discriminator_rate))
        optimizers = [torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.999), fused=True) for net, rate in rates]
        schedules = [torch.optim.lr_scheduler.LambdaLR(o, self._rate) for o in optimizers]
        return optimizers, schedules

    def _rate(self, step: int) -> float:
        """Compute the factor on the learning rate: constant for half of the steps, then falling to zero."""
        return min(1.0, max(0.0, 2 * (1 - step / self._steps)))

    # -- validation ------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._fixed = torch.Generator(self.device).manual_seed(stream_seed(self._seed, WorkStream.VALIDATION_NOISE))
        self._validation, self._finite = [], []

    def validation_step(self, batch: tuple[Tensor], _: int) -> None:
        if not validation_due(self.trainer):
            return
        observed, true = self.pairs(batch[0], self._fixed)
        source, target = self.separator.scaled(observed), self.separator.target_scaling(true)
        first, second = (self.average(source, self._fixed).float() for _ in range(2))
        made = self.average(source).float()
        each = [
            (made - target).abs(),
            *_moments(made),
            *_moments(target),
            (first - second).square() / 2,
            (first - target).square(),
        ]
        self._finite.append(torch.isfinite(each[0]).flatten(1).all(1))
        self._validation.append(torch.stack([x.transpose(0, 1).flatten(1).mean(1) for x in each]))

    def on_validation_epoch_end(self) -> None:
        if not validation_due(self.trainer):
            return
        refuse_not_finite(torch.cat(self._finite), self.trainer.val_dataloaders)
        error, m1, m2, t1, t2, between, off = torch.stack(self._validation).mean(0).tolist()
        stage = torch.stack(self._training).mean(0).tolist()
        self.history.append(
            {
                "stage": self.current_epoch,
                "error": stage[0],
                "accuracy": stage[1],
                "gap": stage[2],
                "discriminator": stage[3],
                "validation": sum(error) / len(error),
                # For each line: variance over that of the true maps, and spread of draws over their error.
                "variance": [(b - a * a) / max(d - c * c, 1e-30) for a, b, c, d in zip(m1, m2, t1, t2, strict=True)],
                "spread": [math.sqrt(a / max(b, 1e-30)) for a, b in zip(between, off, strict=True)],
                "adversarial": self._settings.loss == "talk",
                "draws": self._settings.dropout > 0,
            }
        )
        step = (self.current_epoch + 1) * self.trainer.num_training_batches
        warn_once(self.history, self._lines, self._warned, self._progress, step)

    def note(self) -> str:
        """Write the last figures for the progress bar."""
        if not self.history:
            return ""
        last = self.history[-1]
        judged = f", discriminator right {last['accuracy']:.0%}" if last["adversarial"] else ""
        return f"error {last['error']:.3f}, in validation {last['validation']:.3f}{judged}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = json.dumps(self.history)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Older checkpoints call the discriminator "judge".
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {re.sub(r"^judge\.", "discriminator.", name): w for name, w in weights.items()}
        self.history = [
            {"discriminator" if key == "judge" else key: value for key, value in stage.items()}
            for stage in json.loads(checkpoint["history"])
        ]


def _moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps, maps.square()
