"""The steps of a run; what each needs of the others it finds in the run folder."""

import hashlib
import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import simulators
from eorinfer.bank import Bank
from eorinfer.config import Config
from eorinfer.errors import InputError, WorkError
from eorinfer.files import make_folder, read_json, remove_leftovers, write_json
from eorinfer.observation import Observation
from eorinfer.progress import Progress, Silent
from eorinfer.rows import Plan, Rows
from eorinfer.run.folder import refuse_other_config
from eorinfer.run.simulations import Simulations
from eorinfer.samples import Samples
from simulators.base import derived_seed, fingerprint_of


class Run:
    """The steps of one run; each does only what is not done yet.

    Parameters
    ----------
    config
        Checked config.
    out
        Run folder; made if it is not there.
    progress
        Where progress is told.

    Raises
    ------
    InputError
        If the folder cannot be written, or holds a run of another config, or the bank is
        another simulator's.
    """

    def __init__(self, config: Config, out: Path, progress: Progress | None = None) -> None:
        self.config = config
        self.tables = config.tables
        self.out = make_folder(Path(out))
        self.progress = progress or Silent()
        refuse_other_config(config, self.out)
        # Before the config is written: one that is refused must not bind the folder.
        self.bank = Bank.create(config.bank_path(self.out), config.simulator)
        self._simulations = Simulations(config, self.bank, self.progress)
        config.write(self.out / "config.toml")
        for folder in (self.out, self.out / "chains", *self.out.glob("rounds/*")):
            remove_leftovers(folder)

    # -- simulations ---------------------------------------------------------------------------

    def preflight(self) -> None:
        """Say how many simulations are ahead, how long they take and how much disk."""
        rounds = self.tables.inference.rounds
        plans = [*self._first_plans(), *self._recorded_plans()]
        lacking = self._simulations.lacking(plans) + sum(rounds) - sum(n for _, n in plans)
        check = 0 if self._imported else self.tables.inference.predictive
        drawn = self._predictive_plan()
        lacking += check if drawn is None else self._simulations.lacking([(drawn, len(drawn))])
        planned = sum(rounds) + check
        self.progress.line(self._simulations.preflight(planned, max(0, planned - lacking), len(rounds), check))

    def simulate(self) -> list[tuple[Plan, int]]:
        """Fill the bank with the rows of the first round.

        Returns
        -------
        list
            Plans and how many rows of each the run uses.
        """
        plans = self._first_plans()
        self._simulations.fill(plans, "round 1")
        return plans

    def observe(self) -> Observation:
        """The observation: read from the config's file, or a mock made once and kept."""
        path = self.out / "observation.h5"
        if path.exists():
            return Observation.read(path, self.config.observable)
        if self.config.theta is None:
            file = self.tables.observation.file
            assert file is not None
            observation = Observation.read(self.config.folder / file, self.config.observable)
            if file.suffix == ".npy":
                self.progress.line(f"observation: {file} has no header, unit and axes are taken from the config")
        else:
            observation = self._mock(self.config.theta)
        observation.write(path)
        return observation

    def read_observation(self) -> None:
        """Read an observed file, so that what is wrong with it is said before anything is begun."""
        if self.config.theta is None:
            self.observe()

    # -- posteriors ----------------------------------------------------------------------------

    def infer(self) -> Samples:
        """Sequential rounds, then samples of the last posterior in ``chains/npe``."""
        from eorinfer.inference.posterior import Posterior

        observation = self.observe()
        posterior: Posterior | None = None
        plans = self.simulate()
        for number in range(1, len(self.tables.inference.rounds) + 1):
            if posterior is not None:
                plans = [*plans, *self._next_round(number, posterior, observation)]
            posterior = self._train(number, plans, posterior, observation)
        assert posterior is not None
        posterior.save(self.out / "posterior")
        samples = posterior.sample(
            observation, self.tables.inference.samples, derived_seed(self.tables.seed, 0, 3), "NPE on images"
        )
        samples.write(self.out / "chains" / "npe")
        self._predict(samples)
        return samples

    def mcmc(self) -> Samples:
        """Emcee on the Gaussian power-spectrum likelihood, in ``chains/mcmc``."""
        from eorinfer.inference.baseline import PowerSpectrumLikelihood
        from eorinfer.inference.mcmc import run_mcmc

        observation = self.observe()
        rows = self._training_rows(self._known_plans(), observation)
        start = time.monotonic()
        likelihood = PowerSpectrumLikelihood.trained(
            self.bank,
            rows,
            self.config.prior,
            self.config.observable,
            self._survey,
            self.tables.power_spectrum,
            draws=self.tables.mcmc.draws,
            folder=self.out / "emulator",
            seed=derived_seed(self.tables.seed, 0, 5),
            key=self._training_key(rows),
            progress=self.progress,
        )
        emulated = time.monotonic()
        key = likelihood.key(observation)
        chain = run_mcmc(
            likelihood.of(observation),
            self.config.prior,
            self.tables.mcmc,
            file=self.out / "chains" / "mcmc.h5",
            key=key,
            seed=derived_seed(self.tables.seed, 0, 6),
            progress=self.progress,
        )
        chain.samples.write(self.out / "chains" / "mcmc")
        if not chain.converged:
            self.progress.line(
                f"mcmc: NOT CONVERGED after {chain.steps} steps, {chain.steps / chain.autocorrelation:.0f} "
                "autocorrelation times instead of 50; raise [mcmc] max_steps"
            )
        path = self.out / "chains" / "mcmc.json"
        # A chain that is continued, or only read again, has cost what it cost before.
        before = read_json(path) if path.exists() else {}
        spent = before["seconds"] if before.get("likelihood") == key else {"emulator": 0.0, "chain": 0.0}
        facts = {
            "likelihood": key,
            "converged": chain.converged,
            "steps": chain.steps,
            "walkers": self.tables.mcmc.walkers,
            "autocorrelation_time": chain.autocorrelation,
            "acceptance": chain.acceptance,
            "simulations": len(rows),
            "seconds": {
                "emulator": spent["emulator"] + emulated - start,
                "chain": spent["chain"] + time.monotonic() - emulated,
            },
        }
        write_json(path, facts)
        return chain.samples

    # -- results -------------------------------------------------------------------------------

    def plot(self) -> None:
        """Corner, predictive check and ``summary.json`` from what is in the folder."""
        from eorinfer.report.corner import corner
        from eorinfer.report.figures import save_figure
        from eorinfer.report.predictive import predictive_figure
        from eorinfer.report.summary import summary

        observation = self.observe()
        chains = {
            name: Samples.read(self.out / "chains" / name)
            for name in ("npe", "mcmc")
            if (self.out / "chains" / f"{name}.txt").exists()
        }
        if not chains:
            raise InputError(f"{self.out}/chains: no chain to plot; run `eorinfer infer` or `eorinfer mcmc` first")
        save_figure(corner(*chains.values(), truth=observation.theta), self.out / "corner")
        content = summary(chains, observation.theta, self._facts())
        drawn = self._predictive_plan()
        if drawn is not None:
            rows = self.bank.rows([drawn]).ok
            figure, check = predictive_figure(
                self.bank.read(self.config.observable.name, rows),
                observation,
                self._survey,
                self.config.observable,
                self.tables.power_spectrum,
                seed=derived_seed(self.tables.seed, 0, 7),
            )
            save_figure(figure, self.out / "predictive")
            content["predictive"] = check
        write_json(self.out / "summary.json", content)
        self.progress.line(f"results: {self.out}/corner.png, summary.json and chains/")

    def all(self) -> None:
        """Everything."""
        self.read_observation()
        self.preflight()
        self.infer()
        self.mcmc()
        self.plot()

    # -- inside --------------------------------------------------------------------------------

    @cached_property
    def _survey(self) -> Any:
        from eorinfer.survey import build_survey

        return build_survey(self.tables.survey, self.config.observable)

    def _mock(self, theta: np.ndarray) -> Observation:
        """Simulate at theta with a seed that no row of the bank has, and observe it once."""
        import torch

        self._first_plans()  # so that their seeds are known
        taken = {seed for plan in self.bank.plans() for seed in plan.seed.tolist()}
        attempt = 0
        while (seed := derived_seed(self.tables.seed, 0, 1, attempt)) in taken:
            attempt += 1
        result = self._simulations.one(theta, seed)
        if result.status != "ok":
            raise WorkError(f"the mock observation could not be simulated: {result.status}, {result.message}")
        observable = self.config.observable
        clean = torch.from_numpy(result.arrays[observable.name].copy())[None]
        generator = torch.Generator().manual_seed(derived_seed(self.tables.seed, 0, 2))
        observed = self._survey(clean, generator)[0].numpy()
        return Observation.of(observable, observed, theta, seed)

    def _predict(self, samples: Samples) -> None:
        """Simulate at draws from the posterior, for the predictive check."""
        from eorinfer.inference.plans import plan_round

        n = self.tables.inference.predictive
        path = self.out / "chains" / "predictive.json"
        if not n or self._imported:
            path.unlink(missing_ok=True)
            if n:
                self.progress.line("predictive check: left out, imported cubes cannot be simulated anew")
            return
        seed = derived_seed(self.tables.seed, 0, 4)
        theta = samples.resample(n, seed).values
        proposal = fingerprint_of({"predictive": theta.tolist()})
        # Number 0: no round of any run trains on these rows.
        plan = self.bank.add(plan_round(0, proposal, theta, self.config.simulator, seed, share=1))
        self._simulations.fill([(plan, n)], "predictive check")
        write_json(path, {"plan": plan.id})

    def _predictive_plan(self) -> Plan | None:
        path = self.out / "chains" / "predictive.json"
        return self.bank.plan(read_json(path)["plan"]) if path.exists() else None

    @property
    def _imported(self) -> bool:
        return self.config.simulator.kind == "imported"

    def _first_plans(self) -> list[tuple[Plan, int]]:
        """Plans of the prior's round; the same ones for ever, whatever others add to a shared bank."""
        from eorinfer.inference.plans import prior_plans, prior_rows

        n = self.tables.inference.rounds[0]
        if known := self._recorded(1):
            return known
        if self._imported and (there := prior_rows(self.bank, self.config.prior)) < n:
            raise InputError(
                f"{self.config.file}: [inference] rounds = [{n}], but {self.bank.path} holds {there} imported cubes "
                "with this prior; import more with `eorinfer bank import`, or ask for fewer"
            )
        plans = prior_plans(self.bank, self.config.prior, self.config.simulator, n, self.tables.seed)
        self._record(1, plans, self.config.prior.hash(), 1.0)
        return plans

    def _record(self, number: int, plans: list[tuple[Plan, int]], proposal: str, volume: float) -> None:
        path = self._round_file(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"plans": [[plan.id, n] for plan, n in plans], "proposal": proposal, "volume": volume}
        write_json(path, content | {"simulations": sum(n for _, n in plans)})

    def _recorded(self, number: int) -> list[tuple[Plan, int]]:
        """Plans of a round that was begun, if the bank has them."""
        path = self._round_file(number)
        if not path.exists():
            return []
        known = {plan.id: plan for plan in self.bank.plans()}
        plans = read_json(path)["plans"]
        return [(known[id], n) for id, n in plans] if all(id in known for id, _ in plans) else []

    def _recorded_plans(self) -> list[tuple[Plan, int]]:
        """Plans of the later rounds that were begun."""
        return [plan for i in range(2, len(self.tables.inference.rounds) + 1) for plan in self._recorded(i)]

    def _round_file(self, number: int) -> Path:
        return self.out / "rounds" / f"{number:02d}" / "round.json"

    def _known_plans(self) -> list[tuple[Plan, int]]:
        """Plans of the prior's round and of the later ones that have been simulated."""
        later = [one for one in self._recorded_plans() if not self._simulations.lacking([one])]
        return [*self.simulate(), *later]

    def _next_round(self, number: int, posterior: Any, observation: Observation) -> list[tuple[Plan, int]]:
        """Draw theta from the prior truncated by the last posterior, and simulate."""
        from eorinfer.inference.plans import plan_round
        from eorinfer.inference.posterior import draw_truncated

        n = self.tables.inference.rounds[number - 1]
        proposal = fingerprint_of(
            {
                "after": posterior.facts["key"],
                "n": n,
                "truncation": self.tables.inference.truncation,
                "observation": hashlib.sha256(observation.values.tobytes()).hexdigest(),
            }
        )
        plans = self._recorded(number)
        if not plans or read_json(self._round_file(number))["proposal"] != proposal:
            regions = self._regions(posterior, observation, number)
            rng = np.random.default_rng([self.tables.seed, number])
            theta, volume = draw_truncated(self.config.prior, regions, n, rng)
            plan = self.bank.add(plan_round(number, proposal, theta, self.config.simulator, self.tables.seed))
            plans = [(plan, n)]
            self._record(number, plans, proposal, volume)
        volume = read_json(self._round_file(number))["volume"]
        self.progress.line(f"round {number}: the truncated prior has {volume:.3g} of the prior's volume")
        self._simulations.fill(plans, f"round {number}")
        return plans

    def _regions(self, posterior: Any, observation: Observation, number: int) -> tuple[Any, ...]:
        region = posterior.region(
            observation, self.tables.inference.truncation, derived_seed(self.tables.seed, number, 0)
        )
        return (*posterior.regions, region)

    def _train(self, number: int, plans: list[tuple[Plan, int]], before: Any, observation: Observation) -> Any:
        """The posterior of one round: loaded when it is there, else trained."""
        from eorinfer.inference.posterior import Architecture, Posterior
        from eorinfer.inference.rounds import Trainer

        folder = self.out / "rounds" / f"{number:02d}"
        rows = self._training_rows(plans, observation)
        key = self._training_key(rows)
        if (folder / "posterior" / "posterior.json").exists():
            posterior = Posterior.load(folder / "posterior")
            if posterior.facts.get("key") == key:
                return posterior
        trainer = Trainer(
            self.config.prior,
            self.config.observable,
            self.tables.survey,
            self._survey,
            Architecture(self.tables.embedding, self.tables.flow, self.tables.power_spectrum),
            self.tables.training,
        )
        regions = () if before is None else self._regions(before, observation, number)
        start = time.monotonic()
        checkpoints = folder / f"checkpoints-{key}"
        posterior = trainer.train(
            self.bank,
            rows,
            folder=checkpoints,
            seed=derived_seed(self.tables.seed, number, 1),
            regions=regions,
            title=f"round {number}",
            progress=self.progress,
        )
        volume = read_json(self._round_file(number))["volume"]
        posterior.facts.update(
            key=key, round=number, volume=volume, seconds=time.monotonic() - start, simulations=len(rows)
        )
        posterior.save(folder / "posterior")
        # Those of a fit that was stopped and then changed, too.
        for checkpoints in folder.glob("checkpoints-*"):
            shutil.rmtree(checkpoints, ignore_errors=True)
        return posterior

    def _training_rows(self, plans: list[tuple[Plan, int]], observation: Observation) -> Rows:
        """Valid rows of the plans, without any that shares the observation's realisation."""
        from eorinfer.inference.plans import planned_rows

        rows = planned_rows(self.bank, plans).ok
        return rows if observation.seed is None else rows[rows.seed != observation.seed]

    def _training_key(self, rows: Rows) -> str:
        """Hash of all that a training depends on."""
        tables = self.config.content()
        used = ("seed", "simulator", "prior", "survey", "embedding", "flow", "training", "power_spectrum")
        return fingerprint_of(
            {name: tables[name] for name in used}
            | {"bank": simulators.fingerprint(self.config.simulator), "theta": rows.theta.tolist()}
            | {"seeds": rows.seed.tolist()}
        )

    def _facts(self) -> dict[str, Any]:
        """Rounds, simulations, seconds and convergence, from the files that the steps left."""
        rounds = []
        for path in sorted((self.out / "rounds").glob("*/posterior/posterior.json")):
            facts = read_json(path)["facts"]
            rounds.append(
                {
                    "round": facts["round"],
                    "simulations": facts["simulations"],
                    "volume": facts["volume"],
                    "validation_loss": [fit["validation_loss"] for fit in facts["fits"]],
                    "training_seconds": facts["seconds"],
                }
            )
        mcmc = self.out / "chains" / "mcmc.json"
        plans = [plan for plan, _ in (*self._recorded(1), *self._recorded_plans())]
        drawn = self._predictive_plan()
        rows = self.bank.rows(plans if drawn is None else [*plans, drawn])
        return {
            "rounds": rounds,
            "mcmc": read_json(mcmc) if mcmc.exists() else None,
            "simulations": rows.counts() | {"seconds": float(rows.seconds.sum())},
        }
