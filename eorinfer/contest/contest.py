"""A contest in a run folder: methods are trained one after the other, evaluated on the same truths, and scored."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.bank.rows import Rows
from eorinfer.contest.loop import loop_posterior
from eorinfer.contest.method import ContestSetup, Method, build_method, check_own_methods
from eorinfer.contest.networks import retrained
from eorinfer.contest.scores import Score, common_truths, find_score, log_volumes
from eorinfer.contest.sequential import sequential_posterior
from eorinfer.contest.tables import (
    choice_table,
    contest_tables,
    cost_table,
    observation_table,
    on_common,
    text_lines,
)
from eorinfer.core.errors import InputError, WorkError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, item_seed, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.figures.contest import contest_figure
from eorinfer.figures.corner import corner
from eorinfer.figures.style import going_on, save_figure
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.report.scores import FILE as CONTEST_FILE
from eorinfer.run import Run
from eorinfer.run.context import RunContext
from eorinfer.run.truths import FEWEST, simulated_truths, truth_plans
from eorinfer.settings.contest import EXACT, METHODS, OF_IMAGE_FLOW, ContestSettings
from eorinfer.validation.sharpness import NO_DENSITY, mean_and_error, with_floor
from simulators.base import fingerprint_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
#: Pictures in the folder by name, and what the page says of them.
FIGURES = {
    "contest.png": {
        "title": "All methods",
        "caption": "Information gained, calibration, and volumes, each over the same truths.",
    },
    "contest-corner.png": {
        "title": "One observation",
        "caption": "What these say of the run's observation; the chains of all are in chains/.",
    },
}
#: Truths that are observed, evaluated and kept at a time; those that are sampled one by one are also kept one by one.
BLOCK = 50


def run_contest(run: Run) -> dict[str, Any]:
    """Run the contest of a run's config; what is there already is not made again.

    Leaves ``contest.json``, ``contest.png``, ``contest-corner.png``, the chains of each method for the run's
    observation in ``chains/``, and trained methods and their posteriors in ``contest/``.

    Parameters
    ----------
    run
        Run whose first round trains all methods; later rounds are NPE's, for the run's observation.

    Raises
    ------
    InputError
        If the cubes cannot be simulated anew.
    WorkError
        If no method can be relied on.
    """
    context, settings = run.context, run.tables.contest
    if run.config.imported:
        raise InputError(
            f"{run.config.file}: a contest simulates truths of its own, and imported cubes cannot be simulated anew"
        )
    context.refuse_vectors("a contest")
    for name in (*OF_IMAGE_FLOW, *EXACT):
        if name in settings.methods:
            context.refuse_mask(f'[contest] methods "{name}"')
    check_own_methods(run.config)
    run.read_observation()
    preflight(run)
    observation = run.observe()
    rows, asked = run.first_rows(observation), run.config.held_out_world
    wanted = settings.choice_truths + settings.truths
    truths = ContestTruths(context, simulated_truths(context, rows, wanted, world=asked))
    rows = rows if asked is None else rows[rows.world != asked]
    setup = ContestSetup(context, rows, run.training_key(rows), lambda: run.likelihood(rows))
    scores, chains, choices = [], [], []
    for name in settings.methods:
        method = _timed(setup, build_method(setup, name))
        first, posteriors = evaluate(setup, method, truths)
        if posteriors.good.sum() < FEWEST:
            context.progress.line(
                f"contest: {name} is left out, only {posteriors.good.sum()} of its posteriors are reliable"
            )
            continue
        seed = run_seed(run.tables.seed, RunStream.CONTEST_SCORES)
        theta, prior = truths.rows.theta[len(first) :], run.config.prior
        again = []
        for training in retrained(setup, name):
            more = evaluate(setup, _timed(setup, training), truths)[1]
            again.append(Score.from_posteriors(training, more, theta, prior, seed))
        score = replace(Score.from_posteriors(method, posteriors, theta, prior, seed), again=tuple(again))
        scores.append(score)
        if settings.choice_truths and first.good.sum() > 1:
            at_truth = with_floor(first.at_truth[first.good])[0]
            known = prior.log_prob(truths.rows.theta[: len(first)][first.good])
            choices.append((method.label, mean_and_error(at_truth - known)))
        chains.append(_sample_observation(setup, method, observation))
        content = score.content(run.config.prior)
        context.progress.line(
            f"contest: {method.label}: {content['gain']['mean']:.2f} ± {content['gain']['error']:.2f} nats gained, "
            f"{'calibrated' if content['calibrated'] else 'NOT calibrated'}"
        )
    if not scores:
        raise WorkError("contest: no method has enough posteriors that can be relied on; raise [contest] truths")
    loop = _loop(setup, chains, observation) if settings.loop_steps else None
    sequential = None
    if run.sequential:
        chain, sequential = sequential_posterior(run)
        chains.append(chain)
    return _write(run, setup, scores, chains, choices, observation, (sequential, loop))


def _loop(setup: ContestSetup, chains: list[Samples], observation: Observation) -> dict[str, Any]:
    """Run the simulator in emcee's loop, from the power spectrum's posterior of the observation, or another one."""
    best = next((chain for chain in chains if chain.label == METHODS["ps-full"].label), chains[0])
    return loop_posterior(setup, observation, best)


def preflight(run: Run) -> None:
    """Say how many simulations are ahead."""
    n = run.tables.contest.choice_truths + run.tables.contest.truths
    truths = truth_plans(run.context, n, world=run.config.held_out_world)
    plans = [*run.rounds.first(), *truths]
    simulations = run.context.simulations
    planned = sum(len(of.places) for of in plans)
    what = f"{planned - n} simulations to train on and {n} to test with"
    there, alone = planned - simulations.lacking(plans), simulations.lacking(truths)
    run.progress.line(simulations.preflight(what, planned, there, alone))
    if run.sequential:
        later = run.tables.inference.rounds[1:]
        run.progress.line(f"after them {sum(later)} in {len(later)} more round(s) for the run's observation")


@dataclass(frozen=True)
class ContestTruths:
    """Simulations that no method was trained on, always observed with the same noise.

    Attributes
    ----------
    context
        Run of the contest.
    rows
        Rows of the bank, one of each realisation.
    """

    context: RunContext
    rows: Rows

    def observed(self, n: int) -> Iterator[tuple[slice, Tensor]]:
        """Observe the first n truths; gives slices and cubes (B, C, *cells)."""
        config = self.context.config
        for start in range(0, n, BLOCK):
            block = slice(start, min(start + BLOCK, n))
            # Noise is drawn for the whole block, whatever n is.
            whole = self.rows[start : start + BLOCK]
            generator = torch.Generator().manual_seed(run_seed(config.tables.seed, RunStream.TRUTHS_NOISE, start))
            clean = torch.from_numpy(self.context.bank.read(config.observable.name, whole))
            with torch.no_grad():
                yield block, self.context.survey(clean, generator)[: block.stop - start]

    def key(self, block: slice) -> str:
        """Hash the parameters and realisations of a block."""
        rows = self.rows[block]
        return fingerprint_of({"theta": rows.theta.tolist(), "seeds": rows.seed.tolist()})


def evaluate(setup: ContestSetup, method: Method, truths: ContestTruths) -> tuple[TruthPosteriors, TruthPosteriors]:
    """Give a method's posteriors of truths for choices, and of those that are scored.

    Kept ones are read from ``contest/METHOD/answers``.
    """
    settings, samples, seed = setup.settings, setup.settings.samples, setup.context.config.tables.seed
    n = min(settings.choice_truths + method.truths(settings), len(truths.rows))
    blocks = []
    with setup.context.progress.bar(f"{method.stored}, truths", n) as advance:
        for block, observed in truths.observed(n):
            path = setup.folder(method.stored) / "answers" / f"{block.start:05d}.h5"
            key = fingerprint_of({"of": method.key, "truths": truths.key(block), "samples": samples})
            posteriors = TruthPosteriors.read(path, key)
            if posteriors is not None:
                advance(len(posteriors), "")
            else:
                own, parts = run_seed(seed, RunStream.CONTEST_SAMPLES, block.start), []
                folder = path.with_suffix("")
                for part in _asked(method, observed, truths.rows.theta[block], samples, own, folder, key):
                    parts.append(part)
                    advance(len(part), "")
                posteriors = TruthPosteriors.concatenate(parts)
                posteriors.write(path, key)
                shutil.rmtree(folder, ignore_errors=True)
            blocks.append(posteriors)
    posteriors = TruthPosteriors.concatenate(blocks)
    return posteriors[: settings.choice_truths], posteriors[settings.choice_truths :]


def _asked(
    method: Method, observed: Tensor, theta: NDArray[np.float64], n: int, seed: int, folder: Path, key: str
) -> Iterator[TruthPosteriors]:
    """Ask for a block of posteriors, at once where that is quick, else one by one.

    Parameters
    ----------
    method, observed, theta, n, seed
        What is asked for, see `Method.evaluate`.
    folder, key
        Where single posteriors are kept until all of the block are there, and the hash of the block.
    """
    if method.row.amortised:
        yield method.evaluate(observed, theta, n, seed)
        return
    for i in range(len(theta)):
        path, own = folder / f"{i:02d}.h5", fingerprint_of({"block": key, "truth": i})
        one = TruthPosteriors.read(path, own)
        if one is None:
            one = method.evaluate(observed[i : i + 1], theta[i : i + 1], n, item_seed(seed, i))
            one.write(path, own)
        yield one


def _timed(setup: ContestSetup, method: Method) -> Method:
    """Keep the seconds of the first training: a method that is loaded took none."""
    path = setup.folder(method.stored) / "trained.json"
    if path.exists() and (before := read_json(path))["key"] == method.key:
        return replace(method, training_seconds=before["seconds"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": method.key, "seconds": method.training_seconds})
    return method


def _sample_observation(setup: ContestSetup, method: Method, observation: Observation) -> Samples:
    """Sample a method's posterior of the run's observation, in ``chains/``."""
    config = setup.context.config
    theta = config.prior.low if observation.theta is None else observation.theta
    observed = torch.from_numpy(observation.values[None])
    n, seed = config.tables.inference.samples, run_seed(config.tables.seed, RunStream.CONTEST_OBSERVATION)
    root = setup.context.folder / "chains" / setup.folder(method.name).name
    key = fingerprint_of({"of": method.key, "observation": observation.digest, "n": n})
    path = setup.folder(method.name) / "observation.h5"
    posteriors = TruthPosteriors.read(path, key)
    if posteriors is None:
        posteriors = method.evaluate(observed, theta[None], n, seed)
        posteriors.write(path, key)
    # Draws by importance weights repeat samples.
    values, counts = np.unique(posteriors.values[0], axis=0, return_counts=True)
    samples = Samples(values, counts.astype(np.float64), config.prior.parameters, method.label)
    samples.write(root)
    return samples


def _write(
    run: Run,
    setup: ContestSetup,
    scores: list[Score],
    chains: list[Samples],
    choices: list[tuple[str, dict[str, Any]]],
    observation: Observation,
    costs: tuple[dict[str, Any] | None, dict[str, Any] | None],
) -> dict[str, Any]:
    config, out, settings = run.config, run.out, run.tables.contest
    rows = run.bank.rows([of.plan for of in run.rounds.first()])
    tables = contest_tables(scores, settings, config.prior, run_seed(run.tables.seed, RunStream.CONTEST_TABLES))
    tables.append(observation_table(chains, observation.theta))
    timed = rows.seconds[rows.seconds > 0]  # imported rows took no time here
    tables.append(cost_table(scores, len(setup.rows), float(timed.mean()) if len(timed) else None, *costs))
    if choices:
        tables.append(choice_table(choices, settings.choice_truths))
    drawn = _drawn(scores, settings, config.prior)
    shown = [chain for score, chain in zip(scores, chains, strict=False) if score in drawn] + chains[len(scores) :]
    content: dict[str, Any] = {
        "format": FORMAT,
        "title": "Flow posteriors against power-spectrum likelihoods",
        "command": " ".join(["eorinfer", *sys.argv[1:]]),
        "tables": tables,
        "figures": [],
        "notes": [*_worlds_notes(run), *notes(scores)],
        "methods": {score.method.name: score.content(config.prior) for score in scores},
        "parameters": config.prior.names,
        "simulations": len(setup.rows),
        "sequential": costs[0],
        "loop": costs[1],
    }
    write_json(out / CONTEST_FILE, content)
    for file, entry in FIGURES.items():
        with going_on(out / file, run.progress.line):
            figure = (
                _figure(scores, settings, config.prior)
                if file == "contest.png"
                else corner(*shown, truth=observation.theta, close=True, prior=config.prior)
            )
            save_figure(figure, (out / file).with_suffix(""))
            content["figures"].append(entry | {"file": file})
    write_json(out / CONTEST_FILE, content)
    for table in tables:
        for line in ["", *text_lines(table)]:
            run.progress.line(line)
    for note in content["notes"]:
        run.progress.line(f"note: {note}")
    run.progress.line(f"results: {out}/{CONTEST_FILE}, contest.png, contest-corner.png and chains/")
    return content


def _drawn(scores: list[Score], settings: ContestSettings, prior: Prior) -> list[Score]:
    """Choose the methods of the corner plot: reference, baseline, the image flow and the best of the others."""
    named = {settings.reference, settings.baseline, *OF_IMAGE_FLOW}
    others = [score for score in scores if score.method.name not in named and score.calibrated]
    best = max(others, key=lambda score: score.content(prior)["gain"]["mean"], default=None)
    return [score for score in scores if score.method.name in named or score is best]


def _figure(scores: list[Score], settings: ContestSettings, prior: Prior) -> "Figure":
    reference = find_score(scores, settings.reference) or scores[0]
    common = common_truths(scores, min(settings.truths, settings.sampled_truths))
    gains = [score.gain(prior, on_common(score, common)) for score in scores]
    return contest_figure(
        [score.method.label for score in scores],
        np.array([[gain["mean"], gain["error"]] for gain in gains]),
        [score.calibrated for score in scores],
        [score.calibration.tarp_steps for score in scores],
        [np.empty(0) if score is reference else log_volumes(score, reference) for score in scores],
        reference.method.label,
    )


def _worlds_notes(run: Run) -> list[str]:
    """Say which worlds all methods were trained on, and which one made the truths."""
    worlds, held_out = run.config.worlds, run.config.held_out_world
    if worlds is None:
        return []
    trained = [worlds.names[i] for i in worlds.trained if i != held_out]
    asked = "draws from these" if held_out is None else f"of {worlds.names[held_out]}, which none has seen"
    return [f"All methods are trained on {', '.join(trained)}; truths are {asked}."]


def notes(scores: list[Score]) -> list[str]:
    """Warn of methods that are not calibrated, have no density at truths, or left truths out."""
    lines = []
    for score in scores:
        failed = [training for training in score.trainings if not training.calibration.calibrated]
        if failed:
            worst = min((training.calibration.worst for training in failed), key=lambda test: test.p_holm)
            of = f" in {len(failed)} of {len(score.trainings)} trainings" if score.again else ""
            lines.append(
                f"{score.method.label} is not calibrated{of} ({worst.quantity}, p = {worst.p_holm:.1g}): its volume "
                "and widths are not to be compared."
            )
        if without := int((~np.isfinite(score.posteriors.at_truth[score.posteriors.good])).sum()):
            lines.append(
                f"{score.method.label}: {without} of {int(score.posteriors.good.sum())} truths have no density in "
                f"their posteriors; each counts as a failure, with ln p = {NO_DENSITY:.0f}."
            )
        if left_out := int((~score.posteriors.good).sum()):
            lines.append(
                f"{score.method.label}: {left_out} of {len(score.posteriors)} truths are left out: their chains have "
                "not converged (50 autocorrelation times, R̂ of 1.01 at most), or their weights cannot be relied on "
                "(200 effective samples, k̂ of 0.7 at most)."
            )
    return lines
