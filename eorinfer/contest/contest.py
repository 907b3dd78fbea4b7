"""A contest in a run folder: methods trained one after the other, asked about the same truths, and scored."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.contest.likelihoods import exact_method, image_flow_method, power_method
from eorinfer.contest.loop import loop_posterior
from eorinfer.contest.method import AMORTISED, LABELS, ContestSetup, Method
from eorinfer.contest.networks import network_method
from eorinfer.contest.scores import Score, find, log_volumes
from eorinfer.contest.sequential import sequential_posterior
from eorinfer.contest.tables import contest_tables, cost_table, lines, observation_table
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.observation import Observation
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.figures.contest import contest_figure
from eorinfer.figures.corner import corner
from eorinfer.figures.style import save_figure
from eorinfer.likelihood.answers import Answers
from eorinfer.run import Run
from eorinfer.run.truths import FEWEST, Parts, simulated_truths, truth_plans
from eorinfer.settings.contest import EXACT, ContestSettings, MethodName
from simulators.base import fingerprint_of

FORMAT = 1
#: Truths that are observed, answered and kept at a time.
PART = 50


def run_contest(run: Run) -> dict[str, Any]:
    """Hold the contest of a run's config; what is there already is not made again.

    Leaves ``benchmark.json``, ``contest.png``, ``contest-corner.png``, the chains of each method for the run's
    observation in ``chains/``, and what was trained and answered in ``contest/``.

    Parameters
    ----------
    run
        Its first round is what all methods are trained on; later ones are NPE's, for the run's observation.

    Raises
    ------
    InputError
        If the cubes cannot be simulated anew.
    WorkError
        If no method can be relied on.
    """
    parts, settings = run.parts, run.tables.contest
    if run.config.simulator.kind == "imported":
        raise InputError(
            f"{run.config.file}: a contest asks about truths of its own, and imported cubes cannot be simulated anew"
        )
    run.read_observation()
    preflight(run)
    observation = run.observe()
    rows = run.first_rows(observation)
    truths = Truths(parts, simulated_truths(parts, rows, settings.truths))
    ground = ContestSetup(parts, rows, run.training_key(rows), run.preprocessing, lambda: run.likelihood(rows))
    scores, chains = [], []
    for name in settings.methods:
        method = _timed(ground, build_method(ground, name))
        answers = evaluate(parts, method, truths, method.truths(settings))
        if answers.good.sum() < FEWEST:
            parts.progress.line(
                f"contest: {name} is left out, only {answers.good.sum()} of its posteriors are reliable"
            )
            continue
        own = run_seed(run.tables.seed, RunStream.CONTEST_SCORES)
        scores.append(Score.of(method, answers, truths.rows.theta, run.config.prior, own))
        chains.append(_of_observation(ground, method, observation))
        told = scores[-1].content(run.config.prior)
        parts.progress.line(
            f"contest: {method.label}: {told['gain']['mean']:.2f} ± {told['gain']['error']:.2f} nats gained, "
            f"{'calibrated' if told['calibrated'] else 'NOT calibrated'}"
        )
    if not scores:
        raise WorkError("contest: no method has enough posteriors that can be relied on; raise [contest] truths")
    loop = _loop(ground, chains, observation) if settings.loop_steps else None
    sequential = None
    if run.sequential:
        chain, sequential = sequential_posterior(run)
        chains.append(chain)
    return _write(run, ground, scores, chains, observation, (sequential, loop))


def _loop(ground: ContestSetup, chains: list[Samples], observation: Observation) -> dict[str, Any]:
    """The simulator in emcee's loop, from what the power spectrum has said of the observation, or any other."""
    best = next((chain for chain in chains if chain.label == LABELS["ps-full"]), chains[0])
    return loop_posterior(ground, observation, best)


def preflight(run: Run) -> None:
    """Say how many simulations are ahead."""
    n = run.tables.contest.truths
    plans = [*run.rounds.first(), *truth_plans(run.parts, n)]
    simulations = run.parts.simulations
    planned = sum(k for _, k in plans)
    what = f"{planned - n} simulations to train on and {n} to be asked about"
    run.progress.line(simulations.preflight(what, planned, planned - simulations.lacking(plans)))
    if run.sequential:
        later = run.tables.inference.rounds[1:]
        run.progress.line(f"after them {sum(later)} in {len(later)} more round(s) for the run's observation")


def build_method(ground: ContestSetup, name: MethodName) -> Method:
    """A method, trained or loaded."""
    if name in AMORTISED:
        return network_method(ground, name)
    if name in EXACT:
        return exact_method(ground, name)
    return image_flow_method(ground) if name == "field-flow" else power_method(ground, name)


@dataclass(frozen=True)
class Truths:
    """Held-out simulations, always observed with the same noise.

    Attributes
    ----------
    parts
        Of the run.
    rows
        One of each realisation.
    """

    parts: Parts
    rows: Rows

    def observed(self, n: int) -> Iterator[tuple[slice, Tensor]]:
        """The first n, as slices and observed cubes (B, C, *cells)."""
        config = self.parts.config
        for start in range(0, n, PART):
            part = slice(start, min(start + PART, n))
            # Noise of all of a part, whatever n is.
            whole = self.rows[start : start + PART]
            generator = torch.Generator().manual_seed(run_seed(config.tables.seed, RunStream.TRUTHS_NOISE, start))
            clean = torch.from_numpy(self.parts.bank.read(config.observable.name, whole))
            with torch.no_grad():
                yield part, self.parts.survey(clean, generator)[: part.stop - start]

    def key(self, part: slice) -> str:
        """Hash of the parameters and realisations of a part."""
        rows = self.rows[part]
        return fingerprint_of({"theta": rows.theta.tolist(), "seeds": rows.seed.tolist()})


def evaluate(parts: Parts, method: Method, truths: Truths, n: int) -> Answers:
    """The answers of a method to the first n truths, from ``contest/METHOD/answers`` where they are there."""
    n, samples, seed = min(n, len(truths.rows)), parts.config.tables.contest.samples, parts.config.tables.seed
    found = []
    with parts.progress.bar(f"{method.name}, truths", n) as advance:
        for part, observed in truths.observed(n):
            path = parts.out / "contest" / method.name / "answers" / f"{part.start:05d}.h5"
            key = fingerprint_of({"of": method.key, "truths": truths.key(part), "samples": samples})
            answers = Answers.read(path, key)
            if answers is None:
                own = run_seed(seed, RunStream.CONTEST_SAMPLES, part.start)
                answers = method.ask(observed, truths.rows.theta[part], samples, own)
                answers.write(path, key)
            found.append(answers)
            advance(len(answers), "")
    return Answers.concatenate(found)


def _timed(ground: ContestSetup, method: Method) -> Method:
    """With the seconds that its training took when it was not there yet."""
    path = ground.folder(method.name) / "trained.json"
    if path.exists() and (before := read_json(path))["key"] == method.key:
        return replace(method, training_seconds=before["seconds"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": method.key, "seconds": method.training_seconds})
    return method


def _of_observation(ground: ContestSetup, method: Method, observation: Observation) -> Samples:
    """What a method says of the run's observation, in ``chains/``."""
    config = ground.parts.config
    theta = config.prior.low if observation.theta is None else observation.theta
    observed = torch.from_numpy(observation.values[None])
    n, seed = config.tables.inference.samples, run_seed(config.tables.seed, RunStream.CONTEST_OBSERVATION)
    root = ground.parts.out / "chains" / method.name
    key = fingerprint_of({"of": method.key, "observation": observation.digest, "n": n})
    path = ground.folder(method.name) / "observation.h5"
    answers = Answers.read(path, key)
    if answers is None:
        answers = method.ask(observed, theta[None], n, seed)
        answers.write(path, key)
    # Importance weights draw some of them many times.
    values, counts = np.unique(answers.values[0], axis=0, return_counts=True)
    samples = Samples(values, counts.astype(np.float64), config.prior.parameters, method.label)
    samples.write(root)
    return samples


def _write(
    run: Run,
    ground: ContestSetup,
    scores: list[Score],
    chains: list[Samples],
    observation: Observation,
    costs: tuple[dict[str, Any] | None, dict[str, Any] | None],
) -> dict[str, Any]:
    config, out, settings = run.config, run.out, run.tables.contest
    rows = run.bank.rows([plan for plan, _ in run.rounds.first()])
    tables = contest_tables(scores, settings, config.prior, run_seed(run.tables.seed, RunStream.CONTEST_TABLES))
    tables.append(observation_table(chains, observation.theta))
    tables.append(cost_table(scores, len(ground.rows), float(rows.seconds[rows.seconds > 0].mean()), *costs))
    save_figure(_figure(scores, settings, config.prior), out / "contest")
    drawn = _drawn(scores, settings, config.prior)
    some = [chain for score, chain in zip(scores, chains, strict=False) if score in drawn] + chains[len(scores) :]
    save_figure(corner(*some, truth=observation.theta, close=True), out / "contest-corner")
    content: dict[str, Any] = {
        "format": FORMAT,
        "title": "Flow posteriors against power-spectrum likelihoods",
        "command": " ".join(["eorinfer", *sys.argv[1:]]),
        "tables": tables,
        "figures": [
            {
                "title": "All methods",
                "caption": "Information gained, calibration, and volumes, each over the same truths.",
                "file": "contest.png",
            },
            {
                "title": "One observation",
                "caption": "What these say of the run's observation; the chains of all are in chains/.",
                "file": "contest-corner.png",
            },
        ],
        "notes": notes(scores),
        "methods": {score.method.name: score.content(config.prior) for score in scores},
        "parameters": config.prior.names,
        "simulations": len(ground.rows),
        "sequential": costs[0],
        "loop": costs[1],
    }
    write_json(out / "benchmark.json", content)
    for table in tables:
        for line in ["", *lines(table)]:
            run.progress.line(line)
    for note in content["notes"]:
        run.progress.line(f"note: {note}")
    run.progress.line(f"results: {out}/benchmark.json, contest.png, contest-corner.png and chains/")
    return content


def _drawn(scores: list[Score], settings: ContestSettings, prior: Prior) -> list[Score]:
    """What can be told apart in one corner plot: reference, baseline, the field flow and the best of the others."""
    named = {settings.reference, settings.baseline, "field-flow"}
    others = [score for score in scores if score.method.name not in named and score.calibration.calibrated]
    best = max(others, key=lambda score: score.content(prior)["gain"]["mean"], default=None)
    return [score for score in scores if score.method.name in named or score is best]


def _figure(scores: list[Score], settings: ContestSettings, prior: Prior) -> Any:
    reference = find(scores, settings.reference) or scores[0]
    contents = [score.content(prior) for score in scores]
    return contest_figure(
        [score.method.label for score in scores],
        np.array([[content["gain"]["mean"], content["gain"]["error"]] for content in contents]),
        [content["calibrated"] for content in contents],
        [score.calibration.tarp for score in scores],
        [np.empty(0) if score is reference else log_volumes(score, reference) for score in scores],
        reference.method.label,
    )


def notes(scores: list[Score]) -> list[str]:
    """What has to be known to read the tables."""
    found = []
    for score in scores:
        if not score.calibration.calibrated:
            worst = score.calibration.worst
            found.append(
                f"{score.method.label} is not calibrated ({worst.quantity}, p = {worst.p_holm:.1g}): its volume and "
                "widths are not to be compared."
            )
        if left_out := int((~score.answers.good).sum()):
            found.append(
                f"{score.method.label}: {left_out} of {len(score.answers)} truths are left out, whose chains have "
                "fewer than 50 autocorrelation times or whose evidence has fewer than 200 effective samples."
            )
    return found
