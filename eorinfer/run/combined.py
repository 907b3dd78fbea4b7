"""NPE and image flow of a run, combined: what both are worth, and the posterior of the observation."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.combined.posterior import CombinedPosterior, Weighed, asked, keys_of
from eorinfer.combined.worth import exponents, learn_weights, log_ratio
from eorinfer.core.errors import WorkError
from eorinfer.core.files import make_folder, write_json
from eorinfer.core.kept_rows import Row, read_rows, write_rows
from eorinfer.core.progress import Progress
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, item_seed, run_rng, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.imageflow.model import ImageFlow
from eorinfer.likelihood.sampled import PosteriorSample
from eorinfer.npe.posterior import Posterior
from eorinfer.run.context import RunContext
from eorinfer.run.image_flow import trained_image_flow
from eorinfer.run.truths import observed_rows
from eorinfer.settings.imageflow import FEWEST_IMAGES
from eorinfer.training.data import validation_rows
from simulators.base import fingerprint_of

#: Draws from NPE by which a held-out image is judged.
DRAWS = 1000
#: Draws from NPE among which samples of a truth's posterior are chosen.
CANDIDATES = 4000
#: File of what a stopped weighing knows already, and its arrays.
WEIGHING, KEPT = "combined-weighing.h5", ("log_p", "log_q")
#: Share of NPE's draws that count below which NPE and image flow contradict each other.
CONTRADICTION = 0.02


def trained_combined(context: RunContext, npe: Posterior, rows: Rows, folder: Path) -> CombinedPosterior:
    """Train the image flow of a run and learn what it and NPE are worth, or load what is kept in `folder`.

    Raises
    ------
    WorkError
        If too few images were held out by both.
    """
    flow = trained_image_flow(context, rows, weigh=False)
    wanted = context.config.tables.image_flow.weighing
    kept = CombinedPosterior.kept(folder, npe, flow)
    if kept is not None and kept.facts.get("weighing") == wanted:
        return kept
    make_folder(folder)
    made = _learned(context, npe, flow, rows, folder / WEIGHING)
    made.save(folder)
    (folder / WEIGHING).unlink(missing_ok=True)
    context.progress.line(worth_line(made))
    return made


def _learned(context: RunContext, npe: Posterior, flow: ImageFlow, rows: Rows, file: Path) -> CombinedPosterior:
    """Learn the weights from images that the flow, and one network of NPE, held out; `file` keeps what is known."""
    wanted = context.config.tables.image_flow.weighing
    fraction, seed = context.config.tables.training.validation_fraction, context.config.tables.seed
    one, by_network = npe.folds(rows.seed, fraction)[0]
    held = rows[by_network & validation_rows(rows.seed, fraction)]
    if len(held) < FEWEST_IMAGES:
        raise WorkError(
            f"{context.config.file}: NPE and image flow are combined by images that both held out, and there are "
            f"{len(held)}: {FEWEST_IMAGES} are needed. Raise [training] validation_fraction, or give more simulations"
        )
    chosen = np.sort(run_rng(seed, RunStream.COMBINED).permutation(len(held))[:wanted])
    held = held[chosen]
    root = run_seed(seed, RunStream.COMBINED)
    key = fingerprint_of(keys_of(npe, flow) | {"seed": root, "theta": held.theta.tolist()})
    known: list[Row] = read_rows(file, key, KEPT)
    with context.progress.bar("what NPE and image flow are worth", len(held)) as advance:
        advance(len(known), "")
        cubes = torch.cat(list(observed_rows(context, held, RunStream.COMBINED_NOISE))).numpy()
        for number in range(len(known), len(held)):
            observation = Observation.from_observable(context.config.observable, cubes[number])
            at = held.theta[number, None]
            _, log_p, log_q = asked(one, flow, observation, DRAWS, item_seed(root, number), at)
            known.append({"log_p": log_p, "log_q": log_q})
            write_rows(file, key, known)
            advance(1, "")
    log_p, log_q = (np.array([row[name] for row in known]) for name in KEPT)
    weights = learn_weights(log_p, log_q)
    more = log_ratio(exponents(weights, log_p, log_q), DRAWS)[:, -1]
    facts = {
        "weighing": wanted,
        "images": len(held),
        "more_than_npe": {"mean": float(more.mean()), "error": float(more.std() / np.sqrt(len(more)))},
    }
    return CombinedPosterior(npe, flow, (float(weights[0]), float(weights[1])), facts)


def worth_line(combined: CombinedPosterior) -> str:
    """Say what NPE and image flow are worth."""
    (ln_p, ln_q), more, n = combined.weights, combined.facts["more_than_npe"], combined.facts["images"]
    said = f"combined: ln p counts {ln_p:.2f} of itself and NPE {ln_q:.2f}: "
    nats = f"{more['mean']:.2f} +- {more['error']:.2f} nats"
    if more["mean"] < more["error"]:
        return said + f"{nats} more than NPE alone, so that the image flow adds nothing that {n} held-out images show"
    return said + f"{nats} more than NPE alone, on the {n} held-out images that taught these two numbers"


def combined_posterior(
    combined: CombinedPosterior, observation: Observation, samples: int, chains: Path, seed: int, progress: Progress
) -> Samples:
    """Sample the posterior of an observation, in ``combined`` of the folder `chains`; say what is doubtful about it."""
    start = time.monotonic()
    weighed = combined.weigh(observation, samples, seed)
    drawn = combined.samples(weighed)
    drawn.write(chains / "combined")
    doubts = list(_doubts(weighed))
    facts = {"posterior": combined.key, "weights": list(combined.weights), **combined.facts}
    facts |= {"effective": weighed.effective, "warnings": doubts, "seconds": time.monotonic() - start}
    write_json(chains / "combined.json", facts)
    for doubt in doubts:
        progress.line(f"combined: WARNING: {doubt}")
    return drawn


def sampled(
    combined: CombinedPosterior, observation: Observation, truth: NDArray[np.float64], n: int, seed: int
) -> PosteriorSample:
    """Choose n samples of a posterior among `CANDIDATES` draws from NPE, and evaluate it at the truth (P,)."""
    weighed = combined.weigh(observation, CANDIDATES, seed, truth[None])
    weight = weighed.weight[:-1]
    some = np.random.default_rng(seed).choice(len(weight), n, p=weight / weight.sum())
    return PosteriorSample(weighed.theta[some], weighed.log_density[some], float(weighed.log_density[-1]), good=True)


def _doubts(weighed: Weighed) -> Iterator[str]:
    """Say where NPE and image flow contradict each other."""
    if weighed.effective < CONTRADICTION * len(weighed.theta):
        yield (
            f"only {weighed.effective:.0f} of {len(weighed.theta)} draws from NPE count: NPE and image flow contradict "
            "each other on this observation. Trust neither before you know why"
        )
