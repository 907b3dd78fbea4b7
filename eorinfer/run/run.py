"""A run and its steps; each step finds what earlier ones left in the run folder."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from eorinfer.bank.rows import Rows
from eorinfer.campaign.plans import Used
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json, remove_leftovers, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress, for_python
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.core.shown_prior import joined
from eorinfer.core.sole import sole_command
from eorinfer.cubes.observation import Observation
from eorinfer.report.terminal import STEPS
from eorinfer.run.config import Config
from eorinfer.run.context import RunContext
from eorinfer.run.observed import mock_observation, read_observed, record_files, refuse_changed
from eorinfer.run.predictive import predict, predictive_plan
from eorinfer.run.rounds import Rounds

if TYPE_CHECKING:
    from eorinfer.imageflow.model import ImageFlow
    from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
    from eorinfer.npe.posterior import Posterior

P = ParamSpec("P")
T = TypeVar("T")


def _alone(step: Callable[Concatenate["Run", P], T]) -> Callable[Concatenate["Run", P], T]:
    """Let a step work in the run folder as the only one, whoever calls it."""

    @wraps(step)
    def alone(run: "Run", *args: P.args, **kwargs: P.kwargs) -> T:
        with sole_command(run.out):
            return step(run, *args, **kwargs)

    return alone


class Run:
    """A run: a config, its folder and its steps; each step does only what is not done yet.

    Steps that write in the folder raise `WorkError` where another process is at work in it.

    Parameters
    ----------
    config
        Checked config.
    out
        Run folder; made if it is not there.
    progress
        Receives lines and bars; by default they are shown on a terminal and in a notebook, and nowhere else.

    Raises
    ------
    InputError
        If the folder cannot be written, or holds a run of another config, or the bank is
        another simulator's.

    Examples
    --------
    >>> from eorinfer import Run, load_config
    >>> run = Run(load_config("examples/gaussian.toml"), "runs/gaussian")
    >>> run.infer().names
    ['log_amplitude', 'slope']
    """

    def __init__(self, config: Config, out: Path | str, progress: Progress | None = None) -> None:
        if not isinstance(config, Config):
            raise InputError(f"Run needs a config as load_config gives it: Run(load_config({config!r:.60}), ...)")
        if not isinstance(out, str | Path) or not str(out):
            raise InputError(f"Run needs a folder as out, not {out!r}")
        self.context = RunContext.open(config, Path(out), progress or for_python())
        config = self.context.config
        self.rounds = Rounds(self.context)
        self.config, self.tables = config, config.tables
        self.out, self.bank, self.progress = self.context.folder, self.context.bank, self.context.progress
        self._simulations = self.context.simulations
        self._observation: Observation | None = None
        if not config.received:
            config.write(self.out / "config.toml")
            config.prior.write(self.out)
        for pattern in ("chains", "rounds/*", "contest/*", "contest/*/answers", "validation", "validation/*"):
            for folder in self.out.glob(pattern):
                remove_leftovers(folder)

    def __repr__(self) -> str:
        done = [step for step, file in STEPS.items() if (self.out / file).exists()]
        rounds = len(list(self.out.glob("rounds/*/posterior/posterior.json")))
        if self.by_npe and rounds:
            done.insert(0, f"{rounds} of {len(self.tables.inference.rounds)} rounds")
        return f"Run({self.out}, done: {', '.join(done) or 'nothing yet'})"

    @property
    def by_npe(self) -> bool:
        """Whether `infer` trains posteriors, in rounds, rather than the image flow."""
        return self.tables.inference.method != "image-flow"

    @property
    def sequential(self) -> bool:
        """Whether there are rounds after the prior's, for the observation alone."""
        return self.by_npe and len(self.tables.inference.rounds) > 1

    def first_rows(self, observation: Observation) -> Rows:
        """Give the valid rows of the first round; simulate those that are missing."""
        return self.rounds.training_rows(self.simulate(), observation)

    def training_key(self, rows: Rows) -> str:
        """Hash all that a training on these rows depends on."""
        return self.rounds.training_key(rows)

    def training_rows(self, observation: Observation) -> Rows:
        """Give the valid rows of all rounds that have been simulated."""
        return self.rounds.training_rows(self.rounds.simulated(), observation)

    # -- simulations ---------------------------------------------------------------------------

    def preflight(self) -> None:
        """Say how many simulations are ahead, how long they take and how much disk."""
        rounds = self.tables.inference.rounds[: None if self.by_npe else 1]
        plans = [*self.rounds.first(), *(self.rounds.recorded_later() if self.by_npe else [])]
        lacking = self._simulations.lacking(plans) + sum(rounds) - sum(len(of.places) for of in plans)
        check = 0 if self.config.imported or not self.by_npe else self.tables.inference.predictive
        drawn = predictive_plan(self.context)
        lacking += check if drawn is None else self._simulations.lacking([Used(drawn, len(drawn))])
        planned = sum(rounds) + check
        what = f"{sum(rounds)} simulations in {len(rounds)} round(s)"
        what += f" and {check} for the predictive check" if check else ""
        self.progress.line(self._simulations.preflight(what, planned, max(0, planned - lacking)))

    def preflight_training(self) -> None:
        """Say what the training of the rounds ahead takes."""
        from eorinfer.run.costs import training_line

        if self.by_npe and (line := training_line(self.context)):
            self.progress.line(line)

    def preflight_chain(self) -> None:
        """Say what the chain of emcee takes.

        Raises
        ------
        InputError
            If its emulator could not be trained on the simulations of all rounds.
        """
        from eorinfer.run.costs import chain_line, refuse_few

        self.context.refuse_vectors("the likelihood of the power spectrum")
        refuse_few(self.config)
        self.progress.line(chain_line(self.context))

    def simulate(self) -> list[Used]:
        """Fill the bank with the rows of the first round.

        Returns
        -------
        list
            Its rows.
        """
        return self.rounds.simulate()

    def observe(self) -> Observation:
        """Read the observation of the run, once: from the config's file, or a mock that is made once and kept."""
        if self._observation is None:
            path = self.out / "observation.h5"
            self._observation = self._kept_observation(path) if path.exists() else self._new_observation(path)
        return self._observation

    def _kept_observation(self, path: Path) -> Observation:
        refuse_changed(self.context)
        return Observation.read(path, self.config.observable)

    @_alone
    def _new_observation(self, path: Path) -> Observation:
        if self.config.theta is None:
            observation = read_observed(self.context)
        else:
            self.rounds.first()  # so that their seeds are known
            observation = mock_observation(self.context, self.config.theta)
        record_files(self.context)
        observation.write(path)
        return observation

    def read_observation(self) -> None:
        """Read an observed file, so that what is wrong with it is said before anything is begun."""
        if self.config.theta is None:
            self.observe()

    # -- posteriors ----------------------------------------------------------------------------

    @_alone
    def infer(self) -> Samples:
        """Run the rounds and sample the last posterior, in ``chains/npe``; or sample by the image flow, or by both."""
        observation = self.observe()
        if not self.by_npe:
            from eorinfer.run.image_flow import infer_image_flow

            return infer_image_flow(self.context, self.training_rows(observation), observation)
        posterior: Posterior | None = None
        plans = self.simulate()
        for number in range(1, len(self.tables.inference.rounds) + 1):
            if posterior is not None:
                if not (proposed := self.rounds.propose(number, posterior, observation)):
                    break
                plans = [*plans, *proposed]
            posterior = self.rounds.train(number, plans, posterior, observation)
            self._check(posterior, observation)
        assert posterior is not None
        posterior.save(self.out / "posterior")
        if self.config.targets:
            joined(self.config.prior, posterior.prior).write(self.out)
            self.progress.line(f"targets: the simulations give {_ranges(posterior.prior)} as their prior")
        samples = posterior.draw(
            observation,
            self.tables.inference.samples,
            run_seed(self.tables.seed, RunStream.NPE_SAMPLES),
            "NPE on images",
        )
        samples.write(self.out / "chains" / "npe")
        if self.tables.inference.method == "combined":
            from eorinfer.run.combined import combined_posterior, trained_combined

            samples = combined_posterior(
                trained_combined(self.context, posterior, self.training_rows(observation), self.out),
                observation,
                self.tables.inference.samples,
                self.out / "chains",
                run_seed(self.tables.seed, RunStream.COMBINED_SAMPLES),
                self.progress,
            )
        predict(self.context, samples)
        return samples

    @_alone
    def mcmc(self) -> Samples:
        """Run emcee on the Gaussian power-spectrum likelihood, in ``chains/mcmc``."""
        from eorinfer.likelihood.mcmc import run_mcmc

        self.context.refuse_vectors("the likelihood of the power spectrum")
        observation = self.observe()
        rows = self.training_rows(observation)
        likelihood = self.likelihood(rows)
        key = likelihood.key(observation)
        chain = run_mcmc(
            likelihood.for_observation(observation),
            self.config.prior,
            self.tables.mcmc,
            file=self.out / "chains" / "mcmc.h5",
            key=key,
            seed=run_seed(self.tables.seed, RunStream.MCMC),
            progress=self.progress,
        )
        chain.samples.write(self.out / "chains" / "mcmc")
        chain.say(self.progress)
        path = self.out / "chains" / "mcmc.json"
        before = read_json(path) if path.exists() else {}
        # Chains of older versions do not say what they cost.
        known = before["seconds"]["chain"] if before.get("likelihood") == key else 0.0
        facts = {
            "likelihood": key,
            **chain.facts,
            "walkers": self.tables.mcmc.walkers,
            "simulations": len(rows),
            "seconds": {"emulator": likelihood.seconds, "chain": max(known, chain.seconds)},
        }
        write_json(path, facts)
        return chain.samples

    @_alone
    def validate(self) -> None:
        """Test the last posterior, the image flow, or both combined, against known truths.

        Calibration, sharpness and recovery are in ``validation.json`` and ``validation.png``.

        Raises
        ------
        InputError
            If there is no posterior, or no flow, yet.
        WorkError
            If it is not calibrated; the files are written before.
        """
        from eorinfer.run.subjects import subject_of
        from eorinfer.run.validation import validate

        subject = subject_of(self.context)
        observation = self.observe()
        rows = self.training_rows(observation)
        likelihood = self.likelihood(rows) if (self.out / "emulator" / "emulator.json").exists() else None
        validate(self.context, subject, observation, rows, likelihood)

    def image_flow(self) -> "ImageFlow":
        """Train the image flow, in ``field/``, or load it where it is kept."""
        from eorinfer.run.image_flow import trained_image_flow

        self.context.refuse_vectors("the image flow")
        self.context.refuse_mask("the image flow")
        weigh = self.tables.inference.method != "combined"
        return trained_image_flow(self.context, self.training_rows(self.observe()), weigh=weigh)

    # -- results -------------------------------------------------------------------------------

    @_alone
    def plot(self, close: bool | None = None) -> None:
        """Draw the corner plot and the predictive check, and write ``summary.json``, from what is in the folder.

        Parameters
        ----------
        close
            Whether the corner plot spans the posteriors or the prior, see `eorinfer.corner`.
        """
        from eorinfer.run.results import chains_to_plot, write_results

        chains_to_plot(self.out)  # before an observation is made for a picture that has nothing to show
        plans = [of.plan for of in (*self.rounds.recorded(1), *self.rounds.recorded_later())]
        write_results(self.context, self.observe(), plans, predictive_plan(self.context), close)

    def report(self) -> None:
        """Write the page with all that is in the folder, ``report.html``."""
        from eorinfer.report.write import write_report

        self.progress.line(f"page: {write_report(self.out, say=self.progress.line)}")

    @_alone
    def all(self) -> None:
        """Run all steps but the validation."""
        self.read_observation()
        has_power = len(self.config.observable.cells) > 1
        self.preflight()
        self.preflight_training()
        if has_power:
            self.preflight_chain()
        self.infer()
        if has_power:
            self.mcmc()
        self.plot()
        self.report()

    # -- inside --------------------------------------------------------------------------------

    def likelihood(self, rows: Rows) -> "PowerSpectrumLikelihood":
        """Give the Gaussian likelihood of the power spectrum; its emulator is trained, or loaded where it is kept."""
        key = self.rounds.training_key(rows)
        return self.context.likelihood(rows, self.context.power_spectrum(), self.out / "emulator", key)

    def _check(self, posterior: "Posterior", observation: Observation) -> None:
        """Say whether the observation is unlike the simulations, before more of them are made for it."""
        from eorinfer.npe.check import check_observation

        check = check_observation(posterior, observation)
        path = self.out / "chains" / "npe.json"
        path.parent.mkdir(exist_ok=True)
        content: dict[str, Any] = {"misspecification": check.content() if check else None}
        if check:
            self.progress.line(f"round {posterior.facts['round']}: {check.line()}")
        if (learned := posterior.facts.get("world_odds")) is not None:
            import torch

            from eorinfer.npe.world_odds import WorldOdds, odds_line

            odds = WorldOdds.from_content(learned)
            p = odds.probabilities(posterior, torch.from_numpy(observation.values[None]))[0]
            content["world_odds"] = dict(zip(odds.names, p.tolist(), strict=True))
            self.progress.line(odds_line(odds.names, p))
        write_json(path, content)


def _ranges(prior: Prior) -> str:
    """Say the range and the standard deviation of each parameter."""
    return ", ".join(
        f"{p.name} from {p.low:.4g} to {p.high:.4g} (standard deviation {std:.2g})"
        for p, std in zip(prior.parameters, prior.std, strict=True)
    )
