"""Training of one round: an ensemble of posterior networks on rows of a bank."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.bank.store import Bank
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress, Silent
from eorinfer.core.seeds import WorkStream, item_seed, stream_seed
from eorinfer.npe.aligned import AlignedTask, Labelled
from eorinfer.npe.architecture import Architecture
from eorinfer.npe.candidates import Stage, choose, network_count, stages
from eorinfer.npe.check import HeldOut, learn_reference
from eorinfer.npe.density import ThetaDensity
from eorinfer.npe.emulated import emulated_rows, row_count
from eorinfer.npe.held_out import after_training
from eorinfer.npe.posterior import Posterior
from eorinfer.npe.region import Region, draw_truncated, inside_all
from eorinfer.npe.summarised import SummarisedTask, draws_of, reads_summaries, summarised_rows
from eorinfer.npe.task import PosteriorTask
from eorinfer.separation.preprocessing import LineSeparation
from eorinfer.settings.npe import TrainingSettings
from eorinfer.settings.survey import SurveySettings
from eorinfer.survey.base import Survey
from eorinfer.training.data import Batches, Cubes, Part, choosing_rows, fold_count, loader, split_rows
from eorinfer.training.fit import FitRecord, fit, planned
from simulators import Observable

#: Cubes that the scalings of a network's inputs are taken from.
SCALING_ROWS = 512
#: Share of the averaged weights that a step keeps.
AVERAGE = 0.99
#: Draws of noise, and rows at once, by which candidates are compared.
DRAWS, BATCH = 4, 64


@dataclass(frozen=True)
class Trainer:
    """Settings and modules of a round's training; rows, seed and folder are given to `train`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from eorinfer import Architecture, Bank, EmbeddingSettings, FlowSettings, PowerSpectrumSettings
    >>> from eorinfer import Trainer, TrainingSettings, WhiteNoise, build_survey, load_config
    >>> prior = load_config("examples/gaussian.toml").prior
    >>> bank, noise = Bank.open("runs/gaussian/bank"), WhiteNoise(sigma=0.3)
    >>> image = bank.observables[0]
    >>> networks = Architecture(EmbeddingSettings(width=4), FlowSettings(transforms=1), PowerSpectrumSettings(bins=3))
    >>> settings = TrainingSettings(steps=4, batch_size=16, ensemble=1)
    >>> trainer = Trainer(prior, image, noise, build_survey(noise, image), networks, settings)
    >>> posterior = trainer.train(bank, bank.rows().ok, folder=Path("runs/networks"), seed=1)
    >>> len(posterior.networks)
    1
    """

    prior: Prior
    observable: Observable
    survey_settings: SurveySettings
    survey: Survey
    architecture: Architecture
    training: TrainingSettings
    preprocessing: LineSeparation | None = None
    mask: NDArray[np.bool_] | None = None
    #: Nats that features pay for telling worlds apart at the same theta, see `eorinfer.npe.aligned`; 0 for none.
    alignment: float = 0.0

    def train(
        self,
        bank: Bank,
        rows: Rows,
        *,
        folder: Path,
        seed: int,
        regions: tuple[Region, ...] = (),
        atoms: int | None = None,
        title: str = "training",
        progress: Progress | None = None,
    ) -> Posterior:
        """Train the ensemble on rows of a bank: each network holds out another fold of realisations.

        Parameters
        ----------
        bank, rows
            Bank and rows, all ``ok``; they are split by realisation.
        folder
            Folder for checkpoints; a member that is trained already is taken from there.
        seed
            Seed of initial weights, order, noise and symmetries.
        regions
            Truncations that later rows were drawn from.
        atoms
            Candidates of the atomic loss, when later rows were drawn from a posterior; None for the plain loss.
        title, progress
            Name of what is trained; receives lines and bars.
        """
        fraction, members = self.training.validation_fraction, network_count(self.training, len(rows))
        held = [split_rows(rows, fraction, member) for member in range(members)]
        cubes = Cubes(bank, self.observable.name, rows)
        say = (progress or Silent()).line
        if progress is not None and (text := cubes.warning()):
            say(f"{title}: {text}")
        # Rows of earlier rounds lie outside of the regions, too. A network that learns from emulated rows, all of which
        # are inside, knows nothing of them: they neither choose nor are moved.
        inside = inside_all(self.prior, regions, rows.theta)
        # Half of the rows that a network holds out choose, the others say how good the choice is.
        choosing = [new & choosing_rows(rows.seed, new) for new in held]
        choosing = [by_one & inside if np.any(by_one & inside) else by_one for by_one in choosing]
        of_prior = atoms is None and not self.alignment
        batch = self.training.emulated_batch(self.observable, self.architecture.embedding) if of_prior else 0
        chosen, fits = stages(self.architecture.flow, self.training, batch, len(self.prior.parameters)), []

        def new_theta(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
            return draw_truncated(self.prior, regions, n, rng)[0]

        for member, new in enumerate(held):
            one = Member(
                Part(cubes, ~new),
                rows[~new],
                inside[~new],
                self._side(cubes, rows, ~new),
                self._side(cubes, rows, choosing[member]),
                folder / f"{member:02d}",
                item_seed(seed, member),
                f"{title}, network {member + 1} of {members}",
            )
            fits.append(self._train_member(chosen, one, atoms, new_theta, progress))
        losses = [torch.cat([one[stage].losses for one in fits]) for stage in range(len(chosen))]
        of_losses = torch.cat([cubes.theta[torch.from_numpy(by_one)] for by_one in choosing])
        best, compared, lines = choose(chosen, losses, of_losses)
        for line in lines:
            say(f"{title}: {line}")
        posterior = Posterior(
            self.prior,
            self.observable,
            self.survey_settings,
            replace(self.architecture, flow=chosen[best].flow),
            tuple(of_member[best].network for of_member in fits),
            regions,
            {"bank": bank.fingerprint, "training_rows": int((~held[0]).sum()), "validation_rows": int(held[0].sum())}
            | {"folds": {"fraction": fraction, "networks": fold_count(fraction, members)}}
            | {"fits": [asdict(of_member[best].record) for of_member in fits]}
            | {"gains": {name: asdict(one) for name, one in compared.items()}, "emulated": chosen[best].emulated},
            preprocessing=self.preprocessing,
            mask=self.mask,
        )
        folds = [
            (one, Part(cubes, held_by_it & chooses), Part(cubes, held_by_it & ~chooses))
            for (one, held_by_it), chooses in zip(posterior.folds(rows.seed), choosing, strict=False)
        ]
        facts, lines = after_training(folds, self.survey, seed, rows.seed, atoms is None)
        posterior.facts.update(facts)
        for network in posterior.networks:
            network.widening = facts["widening"]
        for line in lines:
            say(f"{title}: {line}")
        own = held[: fold_count(fraction, members)]
        unseen = [HeldOut((member,), Part(cubes, new), rows.seed[new]) for member, new in enumerate(own)]
        reference = learn_reference(posterior, Part(cubes, ~np.any(own, axis=0)), unseen, self.survey, seed)
        return replace(posterior, reference=reference)

    def _side(self, cubes: Cubes, rows: Rows, chosen: NDArray[np.bool_]) -> Batches:
        """Some of the rows, with their worlds where features are aligned across these."""
        part = Part(cubes, chosen)
        return Labelled(part, torch.from_numpy(rows.world[chosen])) if self.alignment else part

    def _train_member(
        self,
        chosen: tuple[Stage, ...],
        member: "Member",
        atoms: int | None,
        new_theta: Callable[[int, np.random.Generator], NDArray[np.float64]],
        progress: Progress | None,
    ) -> list["Fit"]:
        """Train one network through all stages on one part of the rows, and validate it on the other."""
        seen = self.preprocessing.observable(self.observable) if self.preprocessing else self.observable
        fits: list[Fit] = []
        made: Batches | None = None
        for stage in chosen:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(member.seed)
                network = replace(self.architecture, flow=stage.flow).build(self.prior, seen)
            kind = AlignedTask if self.alignment else PosteriorTask
            task = kind(network, self.survey, self.observable.symmetry, atoms, self.preprocessing, self.prior)
            task.strength = self.alignment
            generator = torch.Generator().manual_seed(member.seed)
            first = list(range(min(SCALING_ROWS, len(member.training))))
            observed = task.observe(member.training.__getitems__(first)[1], generator)
            network.embedding.refuse_nan(observed)
            network.embedding.fit_scaling(observed)
            title = member.title if len(chosen) == 1 else f"{member.title}, {stage.name}"
            if stage.emulated and made is None:
                made = emulated_rows(
                    member.simulations,
                    member.rows.seed,
                    member.inside,
                    self.observable,
                    network,
                    new_theta,
                    row_count(stage.training),
                    folder=member.folder / "emulator",
                    seed=member.seed,
                    title=f"{member.title}, emulator",
                    chunks=self.architecture.power_spectrum.chunks,
                    progress=progress,
                )
            training = made if stage.emulated and made is not None else member.training
            learner, parts = self._read_once(task, stage, training, member, progress)
            record = fit(
                learner,
                *parts,
                stage.training,
                folder=member.folder / stage.name,
                seed=member.seed,
                title=title,
                progress=progress,
                average=AVERAGE,
            )
            fits.append(Fit(network, record, row_losses(task, member.validation, member.seed)))
        return fits

    def _read_once(
        self, task: PosteriorTask, stage: Stage, training: Batches, member: "Member", progress: Progress | None
    ) -> tuple[PosteriorTask, tuple[Batches, Batches]]:
        """Task and rows of a fit: of cubes that are summarised beforehand, where their summaries are all it reads."""
        if self.alignment or not reads_summaries(task):
            return task, (training, member.validation)
        passes, _ = planned(stage.training, len(training))
        rows = [("emulated rows" if stage.emulated else "simulations", training, draws_of(len(training), passes))]
        rows.append(("held-out rows", member.validation, DRAWS))
        read = [
            summarised_rows(
                task,
                part,
                draws,
                file=member.folder / f"{name.replace(' ', '-')}.safetensors",
                seed=stream_seed(member.seed, WorkStream.SUMMARY_NOISE, number),
                title=f"{member.title}, summaries of {name}",
                progress=progress,
            )
            for number, (name, part, draws) in enumerate(rows)
        ]
        learner = SummarisedTask(
            task.network, self.survey, self.observable.symmetry, task.atoms, task.preprocessing, task.prior
        )
        return learner, (read[0], read[1])


@dataclass(frozen=True)
class Member:
    """What one network of an ensemble is trained on, and where.

    Attributes
    ----------
    simulations, rows, inside
        Its training rows as cubes, and as rows of the bank; which of them (n,) are inside all regions.
    training, validation
        Batches that it trains on, and those that choose its weights and its stage.
    folder, seed, title
        Folder of checkpoints, seed, and name in progress bars.
    """

    simulations: Part
    rows: Rows
    inside: NDArray[np.bool_]
    training: Batches
    validation: Batches
    folder: Path
    seed: int
    title: str


@dataclass(frozen=True)
class Fit:
    """A trained network.

    Attributes
    ----------
    network
        With the weights that validated best.
    record
        Losses of its training.
    losses
        (n,) of the rows that it held out.
    """

    network: ThetaDensity
    record: FitRecord
    losses: Tensor


@torch.no_grad()
def row_losses(task: PosteriorTask, rows: Batches, seed: int) -> Tensor:
    """Loss (n,) of each row, the mean over `DRAWS` draws of noise that the seed fixes."""
    draws = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(stream_seed(seed, WorkStream.VALIDATION_NOISE, draw))
        draws.append([task.losses(batch, generator) for batch in loader(rows, BATCH)])
    return torch.stack([torch.cat(of_draw) for of_draw in draws]).mean(0)
