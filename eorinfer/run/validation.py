"""The step ``validate``: posteriors against known truths, and against other posteriors of the same images."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import WorkError
from eorinfer.core.files import write_json
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.figures.calibration import CalibrationPage, calibration_figure
from eorinfer.figures.style import going_on, save_figure
from eorinfer.likelihood.exact import grid_posterior
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.report.run_folder import PAGE as REPORT
from eorinfer.report.write import write_report
from eorinfer.run.context import RunContext
from eorinfer.run.costs import references_line
from eorinfer.run.subjects import NpeSubject, Subject
from eorinfer.run.truths import Truths
from eorinfer.run.worlds import score_odds, score_worlds
from eorinfer.settings.contest import exact_noise
from eorinfer.validation.calibration import Calibration, calibrate, recovery
from eorinfer.validation.local import LocalCalibration, calibrate_near
from eorinfer.validation.sharpness import RelativeWidths, mean_and_error, with_floor
from eorinfer.validation.uniformity import LEVEL
from eorinfer.validation.verdict import (
    calibration_content,
    effect_lines,
    misspecification_content,
    sharpness_lines,
    verdict_line,
)
from simulators import GaussianField

#: Parameters up to which a reference is a grid, its points along each, and samples of a reference.
GRID, POINTS, SAMPLES = 2, 100, 10000
#: Length of a reference's chain, and samples inside a truncated prior below which it is left out.
STEPS, MOST_STEPS, KEPT = 1000, 3000, 100
#: Methods in words, by the names of their chains.
LABELS = {"npe": "NPE on images", "field-flow": "image flow", "combined": "NPE and image flow"}
POWER_SPECTRUM, EXACT = "power-spectrum", "exact"


def validate(
    context: RunContext,
    subject: Subject,
    observation: Observation,
    rows: Rows,
    likelihood: PowerSpectrumLikelihood | None,
) -> None:
    """Write ``validation.json``, ``validation.png`` and ``.pdf``, and say the verdict.

    The page of the run is written again if it is there.

    Parameters
    ----------
    context
        Run whose method is tested.
    subject
        Method under test: the posterior of the last round, or the image flow.
    observation
        Observation of the run.
    rows
        Rows of its training, those held out included.
    likelihood
        Likelihood of the power spectrum, if the run has an emulator.

    Raises
    ------
    WorkError
        If it is not calibrated; the files are written before.
    """
    if likelihood is not None and context.config.tables.validation.references:
        dimension = len(context.config.prior.parameters)
        grid = POINTS**dimension if dimension <= GRID else None
        log_l = likelihood.for_observation(observation)
        context.progress.line(references_line(context, log_l, POWER_SPECTRUM, grid, (STEPS, MOST_STEPS)))
    prior, start = subject.prior, time.monotonic()
    truths, posteriors = subject.evaluate(context, rows)
    evaluated = time.monotonic()
    calibration = calibrate(
        prior.names,
        prior.unit(truths.theta),
        prior.unit(posteriors.values),
        posteriors.at_truth,
        posteriors.at_samples,
        run_seed(context.config.tables.seed, RunStream.CALIBRATION),
    )
    local = _near(context, subject, observation, truths, posteriors, calibration)
    tested = time.monotonic()
    widths = list(_widths(context, subject, truths, posteriors, likelihood))
    check = subject.check(context, observation)
    verdict = verdict_line(calibration)
    content: dict[str, Any] = {
        "calibrated": calibration.calibrated,
        "verdict": verdict,
        "method": subject.method,
        "truths": len(truths.theta),
        "left_out": truths.left_out,
        "source": truths.source,
        "posterior": subject.key,
        **calibration_content(calibration),
        "near_the_observation": local.content() if local else None,
        **_sharpness(prior, truths, posteriors),
        "widths_over": {w.label: w.content(prior.names) for w in widths},
        "misspecification": misspecification_content(check, truths.checks),
        "seconds": {"truths": evaluated - start, "calibration": tested - evaluated}
        | {"references": time.monotonic() - tested},
    }
    write_json(context.folder / "validation.json", content)
    if isinstance(subject, NpeSubject) and (scores := score_worlds(context, subject.posterior, rows)):
        content["worlds"] = [asdict(score) for score in scores]
        content["world_odds"] = score_odds(context, subject.posterior, rows)
        write_json(context.folder / "validation.json", content)
    page = CalibrationPage(
        prior.parameters,
        calibration,
        truths.theta,
        posteriors.values,
        tuple(widths),
        check,
        tuple(truths.checks),
        verdict,
        LABELS[subject.method],
    )
    with going_on(context.folder / "validation.png", context.progress.line):
        save_figure(calibration_figure(page), context.folder / "validation")
    for line in (*effect_lines(calibration), *(local.lines() if local else ()), *sharpness_lines(content)):
        context.progress.line(line)
    if check is not None:
        context.progress.line(check.line())
    context.progress.line(f"results: {context.folder}/validation.json, validation.png")
    if (context.folder / REPORT).exists():
        write_report(context.folder, say=context.progress.line)
    if not calibration.calibrated:
        raise WorkError(verdict)
    context.progress.line(verdict)
    if (odds := content.get("world_odds")) and odds["p_calibrated"] < LEVEL:
        raise WorkError(f"NOT calibrated: odds of the worlds (p = {odds['p_calibrated']:.1g})")


def _near(
    context: RunContext,
    subject: Subject,
    observation: Observation,
    truths: Truths,
    posteriors: TruthPosteriors,
    calibration: Calibration,
) -> LocalCalibration | None:
    """Test the posterior near the run's observation; None without its posterior."""
    observed = subject.observed(context, observation, truths)
    if observed is None or not np.isfinite(observed).all():
        return None
    theta, samples, at = (subject.prior.unit(x) for x in (truths.theta, posteriors.values, observed))
    return calibrate_near(
        theta, samples, at, calibration, run_seed(context.config.tables.seed, RunStream.LOCAL_CALIBRATION)
    )


def _sharpness(prior: Prior, truths: Truths, posteriors: TruthPosteriors) -> dict[str, Any]:
    """Give recovery, and the held-out likelihood of the posterior inside its regions, in nats."""
    inside = posteriors.mass_inside
    # Inside its regions a truncated posterior is q over q's mass there.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = posteriors.at_truth - np.log(inside)
    # Without mass inside, the truth has no density either.
    log_density_inside, without = with_floor(np.where(inside > 0, ratio, -np.inf))
    return {
        "prior_volume": truths.volume,
        "mass_inside": {"median": float(np.median(inside)), "least": float(inside.min())}
        | {"resampled_truths": int(posteriors.resampled.sum())},
        "recovery": recovery(prior.names, truths.theta, posteriors.values, truths.std(prior)),
        "truths_without_density": without,
        "held_out_negative_log_likelihood": mean_and_error(-log_density_inside),
        "information_gain": mean_and_error(log_density_inside - (prior.log_prob(truths.theta) - np.log(truths.volume))),
    }


def _widths(
    context: RunContext,
    subject: Subject,
    truths: Truths,
    posteriors: TruthPosteriors,
    likelihood: PowerSpectrumLikelihood | None,
) -> Iterator[RelativeWidths]:
    """Compare widths with the power-spectrum posterior and with the exact one, where there are such."""
    cubes = truths.cubes
    if not len(cubes) or not set(subject.prior.names) <= set(context.config.prior.names):
        return
    # the exact posterior is that of all cells
    sigma = exact_noise(context.config.simulator, context.config.tables.survey) if context.mask is None else None
    if likelihood is not None:
        shown = _with_bar(context, cubes, POWER_SPECTRUM)
        chains = [_power_spectrum(context, likelihood, cube, i) for i, cube in enumerate(shown)]
        too_short = [not converged for _, converged in chains]
        yield from _relative(subject, posteriors, [samples for samples, _ in chains], too_short)
    if sigma is not None:
        samples = [_exact(context, sigma, cube, i) for i, cube in enumerate(_with_bar(context, cubes, EXACT))]
        yield from _relative(subject, posteriors, samples, [False] * len(samples))


def _with_bar(context: RunContext, cubes: NDArray[np.float32], label: str) -> Iterator[NDArray[np.float32]]:
    """Give one cube (C, *cells) after the other, with a progress bar."""
    with context.progress.bar(f"{label} posteriors", len(cubes)) as advance:
        for cube in cubes:
            yield cube
            advance(1, "")


def _relative(
    subject: Subject, posteriors: TruthPosteriors, references: Sequence[Samples], too_short: Sequence[bool]
) -> Iterator[RelativeWidths]:
    """Compare both under the same prior: where ours is truncated, so is the reference."""
    # A flow may be conditioned on a part of the parameters.
    same = [reference.only(subject.prior.names) for reference in references]
    inside = [subject.contains(reference.values) for reference in same]
    kept = [i for i, rows in enumerate(inside) if rows.sum() >= KEPT]
    if kept:
        truncated = [Samples.unweighted(same[i].values[inside[i]], same[i].parameters, same[i].label) for i in kept]
        yield RelativeWidths.from_samples(posteriors.values[kept], truncated, [too_short[i] for i in kept])


def _exact(context: RunContext, sigma: float, cube: NDArray[np.float32], i: int) -> Samples:
    simulator = context.config.simulator
    assert isinstance(simulator, GaussianField)
    seed = run_seed(context.config.tables.seed, RunStream.EXACT_REFERENCE, i)
    return grid_posterior(simulator, sigma, cube[0].astype(np.float64), context.config.prior, SAMPLES, seed, POINTS)


def _power_spectrum(
    context: RunContext, likelihood: PowerSpectrumLikelihood, cube: NDArray[np.float32], i: int
) -> tuple[Samples, bool]:
    """Give samples, and whether the chain is long enough."""
    prior = context.config.prior
    observation = Observation.from_observable(context.config.observable, cube)
    log_l = likelihood.for_observation(observation)
    seed = run_seed(context.config.tables.seed, RunStream.POWER_SPECTRUM_REFERENCE, i)
    if len(prior.parameters) <= GRID:
        return grid_samples(log_l, prior, SAMPLES, seed, POWER_SPECTRUM, POINTS), True
    chain = run_mcmc(
        log_l,
        prior,
        context.config.tables.mcmc.model_copy(update={"steps": STEPS, "max_steps": MOST_STEPS}),
        file=context.folder / "validation" / "mcmc" / f"{i:05d}.h5",
        key=likelihood.key(observation),
        seed=seed,
        label=POWER_SPECTRUM,
        progress=Silent(),
    )
    return chain.samples, chain.converged
