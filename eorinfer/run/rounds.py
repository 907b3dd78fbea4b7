"""The rounds of sequential inference: what each simulates, and its posterior; what is done is found in the folder."""

import shutil
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import simulators
from eorinfer.bank.rows import Plan, Rows
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.observation import Observation
from eorinfer.core.progress import Progress
from eorinfer.core.seeds import RoundStream, round_seed
from eorinfer.run.config import Config
from eorinfer.run.simulations import Simulations
from simulators.base import fingerprint_of


def find_preprocessing(config: Config) -> Any:
    """What is done to observed maps before the networks see them; None for nothing.

    Raises
    ------
    InputError
        If there is no such separator, or it is for other maps.
    """
    settings = config.tables.preprocessing
    if settings is None:
        return None
    from eorinfer.separation.preprocessing import LineSeparation

    try:
        return LineSeparation.of(settings, config.observable, config.folder)
    except InputError as error:
        raise InputError(f"{config.file}: [preprocessing] {error}") from error


class Rounds:
    """Plans, simulations and posteriors of the rounds of one run.

    Parameters
    ----------
    config, out, bank
        Of the run.
    simulations
        Fills the bank.
    progress
        Where progress is told.
    preprocessing
        From `find_preprocessing`.
    """

    def __init__(
        self,
        config: Config,
        out: Path,
        bank: Bank,
        simulations: Simulations,
        progress: Progress,
        preprocessing: Any,
    ) -> None:
        self._config, self._out, self._bank = config, out, bank
        self._simulations, self._progress = simulations, progress
        self.preprocessing = preprocessing

    @cached_property
    def survey(self) -> Any:
        """What the telescope does, as a torch module."""
        from eorinfer.survey import build_survey

        return build_survey(self._config.tables.survey, self._config.observable)

    def simulate(self) -> list[tuple[Plan, int]]:
        """Fill the bank with the rows of the first round: plans, and how many rows of each the run uses."""
        plans = self.first()
        self._simulations.fill(plans, "round 1")
        return plans

    def first(self) -> list[tuple[Plan, int]]:
        """Plans of the prior's round; the same ones for ever, whatever others add to a shared bank."""
        from eorinfer.campaign.plans import prior_plans, prior_rows

        n = self._config.tables.inference.rounds[0]
        if known := self.recorded(1):
            return known
        if self._config.simulator.kind == "imported" and (there := prior_rows(self._bank, self._config.prior)) < n:
            raise InputError(
                f"{self._config.file}: [inference] rounds = [{n}], but {self._bank.path} holds {there} imported cubes "
                "with this prior; import more with `eorinfer bank import`, or ask for fewer"
            )
        plans = prior_plans(self._bank, self._config.prior, self._config.simulator, n, self._config.tables.seed)
        self._record(1, plans, self._config.prior.hash(), 1.0)
        return plans

    def _record(self, number: int, plans: list[tuple[Plan, int]], proposal: str, volume: float) -> None:
        path = self._round_file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"plans": [[plan.id, n] for plan, n in plans], "proposal": proposal, "volume": volume}
        write_json(path, content | {"simulations": sum(n for _, n in plans)})

    def recorded(self, number: int) -> list[tuple[Plan, int]]:
        """Plans of a round that was begun, if the bank has them."""
        path = self._round_file(number)
        if not path.exists():
            return []
        known = {plan.id: plan for plan in self._bank.plans()}
        plans = read_json(path)["plans"]
        return [(known[id], n) for id, n in plans] if all(id in known for id, _ in plans) else []

    def recorded_later(self) -> list[tuple[Plan, int]]:
        """Plans of the later rounds that were begun."""
        return [plan for i in range(2, len(self._config.tables.inference.rounds) + 1) for plan in self.recorded(i)]

    def _round_file(self, number: int) -> Path:
        return self._out / "rounds" / f"{number:02d}" / "round.json"

    def known(self) -> list[tuple[Plan, int]]:
        """Plans of the prior's round and of the later ones that have been simulated."""
        later = [one for one in self.recorded_later() if not self._simulations.lacking([one])]
        return [*self.simulate(), *later]

    def propose(self, number: int, posterior: Any, observation: Observation) -> list[tuple[Plan, int]]:
        """Draw theta from the prior truncated by the last posterior, or from that posterior, and simulate."""
        from eorinfer.campaign.plans import plan_round
        from eorinfer.npe.posterior import draw_truncated

        n = self._config.tables.inference.rounds[number - 1]
        truncated = self._config.tables.inference.proposal == "truncated"
        proposal = fingerprint_of(
            {
                "after": posterior.facts["key"],
                "n": n,
                "truncation": self._config.tables.inference.truncation if truncated else None,
                "observation": observation.digest,
            }
        )
        plans = self.recorded(number)
        if not plans or read_json(self._round_file(number))["proposal"] != proposal:
            if truncated:
                regions = self._regions(posterior, observation, number)
                rng = np.random.default_rng([self._config.tables.seed, number])
                theta, volume = draw_truncated(self._config.prior, regions, n, rng)
            else:
                theta = posterior.sample(
                    observation, n, round_seed(self._config.tables.seed, number, RoundStream.PROPOSAL)
                ).values
                volume = 1.0
            plan = self._bank.add(plan_round(number, proposal, theta, self._config.simulator, self._config.tables.seed))
            plans = [(plan, n)]
            self._record(number, plans, proposal, volume)
        volume = read_json(self._round_file(number))["volume"]
        if truncated:
            self._progress.line(f"round {number}: the truncated prior has {volume:.3g} of the prior's volume")
        self._simulations.fill(plans, f"round {number}")
        return plans

    def _regions(self, posterior: Any, observation: Observation, number: int) -> tuple[Any, ...]:
        region = posterior.region(
            observation,
            self._config.tables.inference.truncation,
            round_seed(self._config.tables.seed, number, RoundStream.PROPOSAL),
        )
        return (*posterior.regions, region)

    def train(self, number: int, plans: list[tuple[Plan, int]], before: Any, observation: Observation) -> Any:
        """The posterior of one round: loaded when it is there, else trained."""
        from eorinfer.campaign.plans import planned_rows
        from eorinfer.npe.posterior import Architecture, Posterior
        from eorinfer.npe.trainer import Trainer

        folder = self._out / "rounds" / f"{number:02d}"
        rows = self.training_rows(plans, observation)
        key = self.training_key(rows)
        if (folder / "posterior" / "posterior.json").exists():
            posterior = Posterior.load(folder / "posterior")
            if posterior.facts.get("key") == key:
                return posterior
        trainer = Trainer(
            self._config.prior,
            self._config.observable,
            self._config.tables.survey,
            self.survey,
            Architecture(self._config.tables.embedding, self._config.tables.flow, self._config.tables.power_spectrum),
            self._config.tables.training,
            self.preprocessing,
        )
        truncated = self._config.tables.inference.proposal == "truncated"
        regions = () if before is None or not truncated else self._regions(before, observation, number)
        start = time.monotonic()
        checkpoints = folder / f"checkpoints-{key}"
        posterior = trainer.train(
            self._bank,
            rows,
            folder=checkpoints,
            seed=round_seed(self._config.tables.seed, number, RoundStream.TRAINING),
            regions=regions,
            atoms=None if before is None or truncated else self._config.tables.inference.atoms,
            title=f"round {number}",
            progress=self._progress,
        )
        if before is not None and not truncated:
            posterior = replace(posterior, only_for=observation.digest)
        volume = read_json(self._round_file(number))["volume"]
        left_out = {status: n for status, n in planned_rows(self._bank, plans).counts().items() if status != "ok"}
        if left_out:
            kinds = ", ".join(f"{n} {status}" for status, n in left_out.items())
            self._progress.line(
                f"round {number}: {kinds} simulations are left out; the posterior is conditional on a valid simulation"
            )
        posterior.facts.update(
            key=key, round=number, volume=volume, seconds=time.monotonic() - start, simulations=len(rows)
        )
        posterior.facts.update(left_out=left_out, conditional_on="a valid simulation" if left_out else "nothing else")
        posterior.save(folder / "posterior")
        # Those of a fit that was stopped and then changed, too.
        for checkpoints in folder.glob("checkpoints-*"):
            shutil.rmtree(checkpoints, ignore_errors=True)
        return posterior

    def training_rows(self, plans: list[tuple[Plan, int]], observation: Observation) -> Rows:
        """Valid rows of the plans, without any whose realisation the observation or the separator has."""
        from eorinfer.campaign.plans import planned_rows

        rows = planned_rows(self._bank, plans).ok
        known = self.preprocessing.seeds() if self.preprocessing else set()
        known |= set() if observation.seed is None else {observation.seed}
        return rows[~np.isin(rows.seed, list(known))] if known else rows

    def training_key(self, rows: Rows) -> str:
        """Hash of all that a training depends on."""
        tables = self._config.content()
        inference = self._config.tables.inference
        used = ("seed", "simulator", "prior", "survey", "embedding", "flow", "training", "power_spectrum")
        return fingerprint_of(
            {name: tables[name] for name in used}
            | {"atoms": inference.atoms if inference.proposal == "posterior" else None}
            | {"bank": simulators.fingerprint(self._config.simulator), "theta": rows.theta.tolist()}
            | {"seeds": rows.seed.tolist()}
            | ({"preprocessing": self.preprocessing.digest()} if self.preprocessing else {})
        )
