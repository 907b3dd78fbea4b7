"""Rounds of sequential inference: each one's simulations and posterior, kept in the run folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eorinfer.bank.rows import Rows
from eorinfer.bank.targets import target_prior, target_rows
from eorinfer.campaign.plans import Used, plan_round, planned_rows, plans_of, prior_plans, prior_rows, read_used
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.own import own_key
from eorinfer.core.seeds import PRIOR_ROUND, RoundStream, round_rng, round_seed
from eorinfer.cubes.mask import mask_digest
from eorinfer.cubes.observation import Observation
from eorinfer.report.run_folder import LEFT_OUT
from eorinfer.run.context import RunContext
from simulators.base import fingerprint_of

if TYPE_CHECKING:
    from eorinfer.npe.posterior import Posterior
    from eorinfer.npe.region import Region


class Rounds:
    """Plans, simulations and posteriors of the rounds of one run.

    Parameters
    ----------
    context
        Run that the rounds belong to.
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._config, self._bank = context, context.config, context.bank
        self._simulations, self._progress = context.simulations, context.progress

    def simulate(self) -> list[Used]:
        """Fill the bank with the rows of the first round, and give them."""
        plans = self.first()
        # Elsewhere this machine may be one that jobs are submitted from.
        local = self._config.tables.executor.kind == "local"
        if local and self._simulations.missing(plans) == sum(len(of.places) for of in plans):
            plan = plans[0].plan
            world = None if plan.world is None else int(plan.world[0])
            self._simulations.try_seed(plan.theta[0], int(plan.seed[0]), int(plan.seed[-1]), world)
        self._simulations.fill(plans, "round 1")
        return plans

    def first(self) -> list[Used]:
        """Plan the first round, on the prior; later additions to a shared bank do not change it."""
        n = self._config.tables.inference.rounds[0]
        if recorded := self.recorded(1):
            return recorded
        if self._config.imported:
            self._simulations.refuse_unfinished([Used(plan, len(plan)) for plan in self._bank.plans()])
        there = prior_rows(self._bank, self._config.prior)
        if self._config.imported and there < n:
            raise InputError(
                f"{self._config.file}: [inference] rounds = [{n}], but {self._bank.path} holds {there} imported cubes "
                "with this prior; import more with `eorinfer bank import`, or ask for fewer"
            )
        plans = prior_plans(self._bank, self._config.prior, self._config.simulator, n, self._config.tables.seed)
        if self._config.imported and there > n:
            self._refuse_biased(plans, n, there)
        self._record(1, plans, self._config.prior.hash(), 1.0)
        return plans

    def _refuse_biased(self, plans: list[Used], n: int, there: int) -> None:
        """Refuse the first of imported cubes that are sorted; say that these are not all.

        Raises
        ------
        InputError
            If their theta are not spread as the prior is, and those of all cubes are.
        """
        from eorinfer.bank.plausible import unlike_prior

        prior = self._config.prior
        every = [Used(plan, len(plan)) for plan in plans_of(self._bank, PRIOR_ROUND, prior.hash())]

        def problem_of(used: list[Used]) -> str | None:
            theta = np.concatenate([of.plan.theta[of.places] for of in used])
            return unlike_prior(theta, np.concatenate([of.plan.seed[of.places] for of in used]), prior)

        problem = problem_of(plans)
        if problem and not problem_of(every):
            raise InputError(
                f"{self._config.file}: [inference] rounds = [{n}]: the first {n} of {there} imported cubes are not "
                f"drawn from the prior: {problem}. Ask for all, rounds = [{there}], or import the files in random order"
            )
        self._progress.line(f"round 1: the first {n} of {there} imported cubes are used")

    def _record(self, number: int, plans: list[Used], proposal: str, volume: float) -> None:
        path = self._round_file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"plans": [of.content() for of in plans], "proposal": proposal, "volume": volume}
        write_json(path, content | {"simulations": sum(len(of.places) for of in plans)})

    def recorded(self, number: int) -> list[Used]:
        """Read the plans of a round that was begun; empty if the bank lacks one of them."""
        path = self._round_file(number)
        if not path.exists():
            return []
        return read_used(self._bank, read_json(path)["plans"])

    def recorded_later(self) -> list[Used]:
        """Read the plans of the later rounds that were begun."""
        return [plan for i in range(2, len(self._config.tables.inference.rounds) + 1) for plan in self.recorded(i)]

    def _round_file(self, number: int) -> Path:
        return self._context.folder / "rounds" / f"{number:02d}" / "round.json"

    def simulated(self) -> list[Used]:
        """Give the plans of the first round, simulated now if need be, and of later rounds that are simulated."""
        later = [plan for plan in self.recorded_later() if not self._simulations.missing([plan])]
        return [*self.simulate(), *later]

    def propose(self, number: int, posterior: "Posterior", observation: Observation) -> list[Used]:
        """Draw theta from the prior truncated by the last posterior, or from that posterior, and simulate.

        Returns
        -------
        list
            Plans, and the rows used of each; empty where the truncated prior is as large as in the round before.
        """
        from eorinfer.npe.region import draw_truncated

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
                rng = round_rng(self._config.tables.seed, number)
                theta, volume = draw_truncated(self._config.prior, regions, n, rng)
                if self._stops(number, volume):
                    return []
            else:
                theta = posterior.draw(
                    observation, n, round_seed(self._config.tables.seed, number, RoundStream.PROPOSAL)
                ).values
                volume = 1.0
            plan = self._bank.add(plan_round(number, proposal, theta, self._config.simulator, self._config.tables.seed))
            plans = [Used(plan, n)]
            self._record(number, plans, proposal, volume)
        volume = read_json(self._round_file(number))["volume"]
        if truncated:
            self._progress.line(f"round {number}: the truncated prior has {volume:.3g} of the prior's volume")
        self._simulations.fill(plans, f"round {number}")
        return plans

    def _stops(self, number: int, volume: float) -> bool:
        """Tell whether a truncated prior of this volume is not worth a round, and say so."""
        # The second round is the first truncation: there is none before it that it could fall behind.
        if number == 2:
            return False
        before, share = read_json(self._round_file(number - 1))["volume"], self._config.tables.inference.stop_at
        left_out = self._context.folder / LEFT_OUT
        if volume <= share * before:
            left_out.unlink(missing_ok=True)
            return False
        write_json(left_out, {"from_round": number, "volume_over_last": volume / before, "stop_at": share})
        self._progress.line(
            f"round {number} and later ones are left out: the truncated prior has {volume / before:.0%} of round "
            f"{number - 1}'s volume, more than [inference] stop_at = {share:g}"
        )
        return True

    def _regions(self, posterior: "Posterior", observation: Observation, number: int) -> "tuple[Region, ...]":
        region = posterior.region(
            observation,
            self._config.tables.inference.truncation,
            round_seed(self._config.tables.seed, number, RoundStream.PROPOSAL),
        )
        return (*posterior.regions, region)

    def train(
        self, number: int, plans: list[Used], before: "Posterior | None", observation: Observation
    ) -> "Posterior":
        """Train the posterior of one round, or load it where it is kept."""
        from eorinfer.npe.posterior import Posterior
        from eorinfer.training.kept import load_or_train

        rows = given = self.training_rows(plans, observation)
        key, prior = self.training_key(rows), self._config.prior
        if targets := self._config.targets:
            rows = target_rows(self._bank, rows, targets)
            prior = target_prior(rows, targets)
        truncated = self._config.tables.inference.proposal == "truncated"
        seed = round_seed(self._config.tables.seed, number, RoundStream.TRAINING)

        def train(checkpoints: Path) -> Posterior:
            posterior = self._context.trainer(prior, self._config.architecture).train(
                self._bank,
                rows,
                folder=checkpoints,
                seed=seed,
                regions=() if before is None or not truncated else self._regions(before, observation, number),
                atoms=None if before is None or truncated else self._config.tables.inference.atoms,
                title=f"round {number}",
                progress=self._progress,
            )
            if before is not None and not truncated:
                posterior = replace(posterior, only_for=observation.digest)
            left_out = {status: n for status, n in planned_rows(self._bank, plans).counts().items() if status != "ok"}
            if left_out:
                kinds = ", ".join(f"{n} {status}" for status, n in left_out.items())
                self._progress.line(
                    f"round {number}: {kinds} simulations are left out; "
                    "the posterior is conditional on a valid simulation"
                )
            posterior.facts.update(
                round=number,
                volume=read_json(self._round_file(number))["volume"],
                simulations=len(rows),
                left_out=left_out,
                conditional_on="a valid simulation" if left_out else "nothing else",
                **({} if (worlds := self._config.worlds) is None else {"worlds": worlds.counts(rows.world)}),
            )
            if self._config.infers_world:
                posterior.facts["world_odds"] = self._odds(posterior, given, seed)
            return posterior

        folder = self._context.folder / "rounds" / f"{number:02d}" / "posterior"
        posterior = load_or_train(Posterior, folder, key, train, load=self._context.load_posterior)
        if posterior.prior != prior:  # labels alone can differ
            posterior = replace(posterior, prior=prior)
        return posterior

    def _odds(self, posterior: "Posterior", rows: Rows, seed: int) -> dict[str, Any]:
        """Learn the odds of worlds from the rows of a training, for the posterior's facts."""
        from eorinfer.npe.world_odds import learn_odds
        from eorinfer.training.data import Cubes, Part

        assert self._config.worlds is not None
        cubes = Part(Cubes(self._bank, self._config.observable.name, rows), np.ones(len(rows), bool))
        return learn_odds(posterior, cubes, rows, self._config.worlds.names, self._context.survey, seed).content()

    def training_rows(self, plans: list[Used], observation: Observation) -> Rows:
        """Give the valid rows of the plans, without realisations of the observation or of the separator's training."""
        rows = planned_rows(self._bank, plans).ok
        taken = self._context.preprocessing.seeds() if self._context.preprocessing else set()
        taken |= set() if observation.seed is None else {observation.seed}
        return rows[~np.isin(rows.seed, list(taken))] if taken else rows

    def training_key(self, rows: Rows) -> str:
        """Hash all that a training depends on."""
        tables = self._config.content()
        inference = self._config.tables.inference
        used = ("seed", "simulator", "prior", "survey", "embedding", "flow", "training", "power_spectrum")
        return fingerprint_of(
            self._config.key_of(*used)
            | {"atoms": inference.atoms if inference.proposal == "posterior" else None}
            | {"simulator": self._context.simulator_table}
            | {"bank": self._bank.fingerprint, "theta": rows.theta.tolist()}
            | {"seeds": rows.seed.tolist()}
            | ({"worlds": rows.world.tolist()} if self._config.worlds else {})
            | ({"preprocessing": self._context.preprocessing.digest()} if self._context.preprocessing else {})
            | own_key(tables, self._config.modules)
            | ({} if self._context.mask is None else {"mask": mask_digest(self._context.mask)})
            | ({"targets": list(inference.targets)} if inference.targets else {})
        )
