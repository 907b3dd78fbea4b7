"""The step ``validate``: posteriors against truths, and against other posteriors of the same images."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.bank.rows import Rows
from eorinfer.core.errors import WorkError
from eorinfer.core.files import write_json
from eorinfer.core.observation import Observation
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Silent
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.figures.calibration import CalibrationPage, calibration_figure
from eorinfer.figures.style import save_figure
from eorinfer.likelihood.exact import grid_posterior
from eorinfer.likelihood.gaussian import PowerSpectrumLikelihood
from eorinfer.likelihood.grid import grid_samples
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.report.write import FILE as REPORT
from eorinfer.report.write import write_report
from eorinfer.run.truths import Parts
from eorinfer.run.validated import Asked, Subject
from eorinfer.settings.contest import exact_noise
from eorinfer.validation.calibration import calibrate, recovery
from eorinfer.validation.sharpness import RelativeWidths, mean_and_error
from eorinfer.validation.verdict import calibration_content, misspecification_content, sharpness_lines, verdict_line
from simulators import GaussianField

#: Parameters up to which a reference is a grid, its points along each, and samples of a reference.
GRID, POINTS, SAMPLES = 2, 100, 10000
#: Length of a reference's chain, and samples inside a truncated prior below which it is left out.
STEPS, MOST_STEPS, KEPT = 1000, 3000, 100
POWER_SPECTRUM, EXACT = "power-spectrum", "exact"


def validate(
    parts: Parts,
    subject: Subject,
    observation: Observation,
    rows: Rows,
    likelihood: PowerSpectrumLikelihood | None,
) -> None:
    """Write ``validation.json``, ``validation.png`` and ``.pdf``, and say the verdict.

    The page of the run is written again if it is there.

    Parameters
    ----------
    parts
        Of the run.
    subject
        What is put to the test: the posterior of the last round, or the field flow.
    observation
        Of the run.
    rows
        That it was trained on, those held out included.
    likelihood
        Of the power spectrum, if the run has an emulator.

    Raises
    ------
    WorkError
        If it is not calibrated; the files are there all the same.
    """
    prior, start = subject.prior, time.monotonic()
    asked = subject.ask(parts, rows)
    answered = time.monotonic()
    calibration = calibrate(
        prior.names,
        _unit(prior, asked.theta),
        _unit(prior, asked.values),
        asked.at_truth,
        asked.at_samples,
        run_seed(parts.config.tables.seed, RunStream.CALIBRATION),
    )
    tested = time.monotonic()
    widths = list(_widths(parts, subject, asked, likelihood))
    check = subject.check(parts, observation)
    verdict = verdict_line(calibration)
    content: dict[str, Any] = {
        "calibrated": calibration.calibrated,
        "verdict": verdict,
        "method": subject.method,
        "truths": len(asked.theta),
        "left_out": asked.left_out,
        "source": asked.source,
        "posterior": subject.key,
        **calibration_content(calibration),
        **_sharpness(prior, asked),
        "widths_over": {w.label: w.content(prior.names) for w in widths},
        "misspecification": misspecification_content(check, asked.checks),
        "seconds": {"truths": answered - start, "calibration": tested - answered}
        | {"references": time.monotonic() - tested},
    }
    write_json(parts.out / "validation.json", content)
    page = CalibrationPage(
        prior.parameters, calibration, asked.theta, asked.values, tuple(widths), check, tuple(asked.checks), verdict
    )
    save_figure(calibration_figure(page), parts.out / "validation")
    for line in sharpness_lines(content):
        parts.progress.line(line)
    if check is not None:
        parts.progress.line(check.line())
    parts.progress.line(f"results: {parts.out}/validation.json, validation.png")
    if (parts.out / REPORT).exists():
        write_report(parts.out)
    if not calibration.calibrated:
        raise WorkError(verdict)
    parts.progress.line(verdict)


def _unit(prior: Prior, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Theta (..., P) in units of the prior's box."""
    return np.asarray((theta - prior.low) / (prior.high - prior.low))


def _sharpness(prior: Prior, asked: Asked) -> dict[str, Any]:
    """What is recovered, and the held-out likelihood of the posterior inside its regions."""
    # Inside its regions a truncated posterior is q over q's mass there.
    log_density_inside = asked.at_truth - np.log(asked.share)
    return {
        "prior_volume": asked.volume,
        "mass_inside": {"median": float(np.median(asked.share)), "least": float(asked.share.min())}
        | {"resampled_truths": int(asked.pooled.sum())},
        "recovery": recovery(prior.names, asked.theta, asked.values, asked.std),
        "held_out_negative_log_likelihood": mean_and_error(-log_density_inside),
        "information_gain": mean_and_error(log_density_inside - (prior.log_density - np.log(asked.volume))),
    }


def _widths(
    parts: Parts, subject: Subject, asked: Asked, likelihood: PowerSpectrumLikelihood | None
) -> Iterator[RelativeWidths]:
    """Against the power-spectrum posterior and the exact one, where there are such."""
    if not len(asked.cubes) or not set(subject.prior.names) <= set(parts.config.prior.names):
        return
    sigma = exact_noise(parts.config.simulator, parts.config.tables.survey)
    if likelihood is not None:
        found = [
            _power_spectrum(parts, likelihood, cube, i) for i, cube in enumerate(_told(parts, asked, POWER_SPECTRUM))
        ]
        yield from _relative(subject, asked, [one for one, _ in found], [not enough for _, enough in found])
    if sigma is not None:
        samples = [_exact(parts, sigma, cube, i) for i, cube in enumerate(_told(parts, asked, EXACT))]
        yield from _relative(subject, asked, samples, [False] * len(samples))


def _told(parts: Parts, asked: Asked, label: str) -> Iterator[NDArray[np.float32]]:
    """The cubes (C, *cells) of the truths, with progress."""
    with parts.progress.bar(f"{label} posteriors", len(asked.cubes)) as advance:
        for cube in asked.cubes:
            yield cube
            advance(1, "")


def _relative(
    subject: Subject, asked: Asked, references: Sequence[Samples], short: Sequence[bool]
) -> Iterator[RelativeWidths]:
    """Both under the same prior: where ours is truncated, so is the reference."""
    # A flow may be conditioned on some of the parameters alone.
    same = [one.only(subject.prior.names) for one in references]
    inside = [subject.contains(one.values) for one in same]
    kept = [i for i, rows in enumerate(inside) if rows.sum() >= KEPT]
    if kept:
        some = [Samples.unweighted(same[i].values[inside[i]], same[i].parameters, same[i].label) for i in kept]
        yield RelativeWidths.of(asked.values[kept], some, [short[i] for i in kept])


def _exact(parts: Parts, sigma: float, cube: NDArray[np.float32], i: int) -> Samples:
    simulator = parts.config.simulator
    assert isinstance(simulator, GaussianField)
    seed = run_seed(parts.config.tables.seed, RunStream.EXACT_REFERENCE, i)
    return grid_posterior(simulator, sigma, cube[0].astype(np.float64), parts.config.prior, SAMPLES, seed, POINTS)


def _power_spectrum(
    parts: Parts, likelihood: PowerSpectrumLikelihood, cube: NDArray[np.float32], i: int
) -> tuple[Samples, bool]:
    """Samples, and whether the chain is long enough."""
    prior = parts.config.prior
    observation = Observation.of(parts.config.observable, cube)
    log_l = likelihood.of(observation)
    seed = run_seed(parts.config.tables.seed, RunStream.POWER_SPECTRUM_REFERENCE, i)
    if len(prior.parameters) <= GRID:
        return grid_samples(log_l, prior, SAMPLES, seed, POWER_SPECTRUM, POINTS), True
    chain = run_mcmc(
        log_l,
        prior,
        parts.config.tables.mcmc.model_copy(update={"steps": STEPS, "max_steps": MOST_STEPS}),
        file=parts.out / "validation" / "mcmc.h5",
        key=likelihood.key(observation),
        seed=seed,
        label=POWER_SPECTRUM,
        progress=Silent(),
    )
    return chain.samples, chain.converged
