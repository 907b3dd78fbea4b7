"""A run: one config, one folder, and the steps from simulations to a corner plot, each resumable."""

import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import simulators
from eorinfer.bank import Bank, Plan, Rows
from eorinfer.campaign import Limits, ShardReport, available_cores, fill, local_executor, simulate_one
from eorinfer.config import Config
from eorinfer.errors import InputError, WorkError
from eorinfer.files import make_folder, read_json, remove_leftovers, write_json
from eorinfer.observation import Observation
from eorinfer.progress import Progress, Silent
from eorinfer.samples import Samples
from simulators.base import derived_seed, fingerprint_of

#: Tables and keys of a config that may change between two calls with the same folder.
FREE = ("executor", "mcmc", "inference.samples", "inference.predictive")


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
        If the folder cannot be written, or holds a run of another config.
    """

    def __init__(self, config: Config, out: Path, progress: Progress | None = None) -> None:
        self.config = config
        self.tables = config.tables
        self.out = make_folder(Path(out))
        self.progress = progress or Silent()
        self._refuse_other_config()
        config.write(self.out / "config.toml")
        remove_leftovers(self.out)

    # -- simulations ---------------------------------------------------------------------------

    @cached_property
    def bank(self) -> Bank:
        """The bank of the run."""
        return Bank.create(self.config.bank_path(self.out), self.config.simulator)

    def preflight(self) -> None:
        """Say how many simulations are ahead, how long they take and how much disk."""
        rounds = self.tables.inference.rounds
        there = min(len(self.bank.rows()), sum(rounds))
        extra = self.tables.inference.predictive
        ahead = sum(rounds) - there + extra
        seconds = self.bank.rows().ok.seconds
        each = float(np.mean(seconds)) if len(seconds) else self.config.simulator.seconds_per_row
        source = "as measured so far" if len(seconds) else "by the simulator's own estimate"
        workers = self.tables.executor.workers or available_cores()
        self.progress.line(
            f"preflight: {sum(rounds)} simulations in {len(rounds)} round(s) and {extra} for the predictive check, "
            f"{there} of them in the bank; about {_duration(ahead * each / workers)} on {workers} process(es) "
            f"({each:.2g} s each, {source}) and {ahead * self.bank.bytes_per_row / 1e6:.0f} MB of disk"
        )

    def simulate(self) -> list[tuple[Plan, int]]:
        """Fill the bank with the rows of the first round.

        Returns
        -------
        list
            Plans and how many rows of each the run uses.
        """
        from eorinfer.inference.plans import prior_plans

        n = self.tables.inference.rounds[0]
        plans = prior_plans(self.bank, self.config.prior, self.config.simulator, n, self.tables.seed)
        self._fill(plans, "round 1")
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

    # -- posteriors ----------------------------------------------------------------------------

    def infer(self) -> Samples:
        """Sequential rounds, then samples of the last posterior in ``chains/npe``."""
        from eorinfer.inference.posterior import Posterior

        observation = self.observe()
        posterior: Posterior | None = None
        plans = self.simulate()
        for number in range(1, len(self.tables.inference.rounds) + 1):
            if posterior is not None:
                plans = [*plans, self._next_round(number, posterior, observation)]
            posterior = self._train(number, plans, posterior, observation)
        assert posterior is not None
        posterior.save(self.out / "posterior")
        samples = posterior.sample(
            observation, self.tables.inference.samples, derived_seed(self.tables.seed, 0, 3), "NPE on images"
        )
        samples.write(self.out / "chains" / "npe")
        return samples

    def predictive(self, samples: Samples) -> Rows | None:
        """Simulations at draws from a posterior, for the predictive check; None when switched off."""
        from eorinfer.inference.plans import plan_round

        n = self.tables.inference.predictive
        if not n:
            return None
        theta = samples.resample(n, derived_seed(self.tables.seed, 0, 4)).values
        number = len(self.tables.inference.rounds) + 1
        proposal = fingerprint_of({"predictive": theta.tolist()})
        plan = self.bank.add(
            plan_round(number, proposal, theta, self.config.simulator, self.tables.seed, share=1)
        )
        self._fill([(plan, n)], "predictive check")
        return self.bank.rows([plan]).ok

    def mcmc(self) -> Samples:
        """emcee on the Gaussian power-spectrum likelihood, in ``chains/mcmc``."""
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
        chain = run_mcmc(
            likelihood.of(observation),
            self.config.prior,
            self.tables.mcmc,
            file=self.out / "chains" / "mcmc.h5",
            key=likelihood.key(observation),
            seed=derived_seed(self.tables.seed, 0, 6),
            progress=self.progress,
        )
        chain.samples.write(self.out / "chains" / "mcmc")
        if not chain.converged:
            self.progress.line(
                f"mcmc: NOT CONVERGED after {chain.steps} steps, {chain.steps / chain.autocorrelation:.0f} "
                "autocorrelation times instead of 50; raise [mcmc] max_steps"
            )
        facts = {
            "converged": chain.converged,
            "steps": chain.steps,
            "walkers": self.tables.mcmc.walkers,
            "autocorrelation_time": chain.autocorrelation,
            "acceptance": chain.acceptance,
            "simulations": len(rows),
            "seconds": {"emulator": emulated - start, "chain": time.monotonic() - emulated},
        }
        write_json(self.out / "chains" / "mcmc.json", facts)
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
        rows = self.predictive(chains["npe"]) if "npe" in chains else None
        content = summary(chains, observation.theta, self._facts())
        if rows is not None and len(rows):
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
        self.progress.line(f"results: {self.out}/corner.png, predictive.png, summary.json, chains/")

    def all(self) -> None:
        """Everything."""
        self.preflight()
        self.infer()
        self.mcmc()
        self.plot()

    # -- inside --------------------------------------------------------------------------------

    @cached_property
    def _survey(self) -> Any:
        from eorinfer.survey import build_survey

        return build_survey(self.tables.survey, self.config.observable)

    def _refuse_other_config(self) -> None:
        path = self.out / "config.toml"
        if not path.exists():
            return
        old = tomllib.loads(path.read_text(encoding="utf-8"))
        new = self.config.content()
        before, now = _flat(old), _flat(new)
        for key in sorted({*before, *now}):
            if key.startswith(FREE) or before.get(key) == now.get(key):
                continue
            if key == "inference.rounds" and now[key][: len(before[key])] == before[key]:
                continue
            raise InputError(
                f"{self.config.file}: {key} = {now.get(key)!r}, but {self.out} holds a run with "
                f"{before.get(key)!r}; give another --out (and [bank] path to share the simulations)"
            )

    @contextmanager
    def _executor(self) -> Iterator[Executor]:
        settings = self.tables.executor
        if settings.kind == "local":
            with local_executor(settings.workers) as executor:
                yield executor
            return
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise InputError(
                f'{self.config.file}: [executor] kind = "dask" needs the package distributed: '
                "pip install 'eorinfer[dask]'"
            ) from error
        if settings.address:
            with Client(settings.address) as client:
                yield client.get_executor()
            return
        workers = settings.workers or available_cores()
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor()

    def _limits(self) -> Limits:
        return Limits(self.tables.executor.timeout, self.tables.executor.memory_gb)

    def _fill(self, plans: list[tuple[Plan, int]], title: str) -> None:
        """Simulate what these plans lack, and count failures."""
        counts: Counter[str] = Counter()
        lacking = [(plan, n) for plan, n in plans if self.bank.missing(plan, n)]
        rows = sum(
            len(range(*plan.rows(i).indices(len(plan)))) for plan, n in lacking for i in self.bank.missing(plan, n)
        )
        if not rows:
            return
        with self._executor() as executor, self.progress.bar(f"simulating, {title}", rows) as advance:

            def tell(report: ShardReport) -> None:
                counts.update(report.counts)
                bad = sum(counts.values()) - counts["ok"]
                advance(sum(report.counts.values()), f"{bad} failed" if bad else "")

            for plan, n in lacking:
                fill(
                    self.bank,
                    plan,
                    self.config.simulator,
                    executor,
                    rows=n,
                    beside=self.config.folder,
                    limits=self._limits(),
                    report=tell,
                )
        self._judge(counts, title)

    def _judge(self, counts: Counter[str], title: str) -> None:
        total, bad = sum(counts.values()), sum(counts.values()) - counts["ok"]
        if not bad:
            return
        kinds = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()) if status != "ok")
        found = self.bank.rows()
        message = next(m for m in found[found.status != "ok"].message if m)
        line = f"{title}: {bad} of {total} simulations failed ({kinds}); for example: {message}"
        if bad > self.tables.executor.failure_share * total:
            raise WorkError(f"{line}; more than [executor] failure_share = {self.tables.executor.failure_share:g}")
        self.progress.line(line)

    def _mock(self, theta: np.ndarray) -> Observation:
        """Simulate at theta with a seed that no row of the bank has, and observe it once."""
        import torch

        taken = set(self.bank.rows().seed.tolist())
        attempt = 0
        while (seed := derived_seed(self.tables.seed, 0, 1, attempt)) in taken:
            attempt += 1
        result = simulate_one(self.config.simulator, theta, seed, self.config.folder, self._limits())
        if result.status != "ok":
            raise WorkError(f"the mock observation could not be simulated: {result.status}, {result.message}")
        observable = self.config.observable
        clean = torch.from_numpy(result.arrays[observable.name].copy())[None]
        generator = torch.Generator().manual_seed(derived_seed(self.tables.seed, 0, 2))
        observed = self._survey(clean, generator)[0].numpy()
        return Observation.of(observable, observed, theta, seed)

    def _known_plans(self) -> list[tuple[Plan, int]]:
        """Plans of the prior's round and of the rounds that this run has made so far."""
        plans = self.simulate()
        for number in range(2, len(self.tables.inference.rounds) + 1):
            path = self.out / "rounds" / f"{number:02d}" / "round.json"
            if path.exists():
                plan = self.bank.plan(read_json(path)["plan"])
                if not self.bank.missing(plan):
                    plans = [*plans, (plan, len(plan))]
        return plans

    def _next_round(self, number: int, posterior: Any, observation: Observation) -> tuple[Plan, int]:
        """Draw theta from the prior truncated by the last posterior, and simulate."""
        from eorinfer.inference.plans import plan_round
        from eorinfer.inference.posterior import draw_truncated

        n = self.tables.inference.rounds[number - 1]
        path = self.out / "rounds" / f"{number:02d}" / "round.json"
        proposal = fingerprint_of({"after": posterior.facts["key"], "n": n})
        known = read_json(path) if path.exists() else {}
        if known.get("proposal") == proposal:
            plan = self.bank.plan(known["plan"])
        else:
            regions = self._regions(posterior, observation, number)
            rng = np.random.default_rng([self.tables.seed, number])
            theta, volume = draw_truncated(self.config.prior, regions, n, rng)
            plan = self.bank.add(plan_round(number, proposal, theta, self.config.simulator, self.tables.seed))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"plan": plan.id, "proposal": proposal, "volume": volume, "simulations": n})
        self.progress.line(f"round {number}: the truncated prior has {read_json(path)['volume']:.3g} of the prior's volume")
        self._fill([(plan, n)], f"round {number}")
        return plan, n

    def _regions(self, posterior: Any, observation: Observation, number: int) -> tuple[Any, ...]:
        region = posterior.region(
            observation, self.tables.inference.truncation, derived_seed(self.tables.seed, number, 0)
        )
        return (*posterior.regions, region)

    def _train(self, number: int, plans: list[tuple[Plan, int]], before: Any, observation: Observation) -> Any:
        """The posterior of one round: loaded when it is there, else trained."""
        from eorinfer.inference.posterior import Architecture, Posterior
        from eorinfer.inference.rounds import Trainer
        import shutil

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
        volume = read_json(folder / "round.json")["volume"] if regions else 1.0
        posterior.facts.update(
            key=key, round=number, volume=volume, seconds=time.monotonic() - start, simulations=len(rows)
        )
        posterior.save(folder / "posterior")
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
        rows = self.bank.rows()
        return {
            "rounds": rounds,
            "mcmc": read_json(mcmc) if mcmc.exists() else None,
            "simulations": rows.counts() | {"seconds": float(rows.seconds.sum())},
        }


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for key, value in content.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
