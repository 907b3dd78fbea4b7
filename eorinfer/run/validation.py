"""The step ``validate``: a trained posterior against truths, and against other posteriors of the same images."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.contest.settings import exact_noise
from eorinfer.errors import WorkError
from eorinfer.files import write_json
from eorinfer.inference.baseline import PowerSpectrumLikelihood
from eorinfer.inference.calibration import calibrate, recovery
from eorinfer.inference.exact import grid_posterior
from eorinfer.inference.grid import grid_samples
from eorinfer.inference.many import Draws, draw, log_density, unit
from eorinfer.inference.mcmc import run_mcmc
from eorinfer.inference.misspecification import check_observation
from eorinfer.inference.posterior import Posterior
from eorinfer.inference.sharpness import RelativeWidths, mean_and_error
from eorinfer.observation import Observation
from eorinfer.progress import Silent
from eorinfer.report.calibration import CalibrationPage, calibration_figure
from eorinfer.report.figures import save_figure
from eorinfer.report.verdict import calibration_content, misspecification_content, sharpness_lines, verdict_line
from eorinfer.rows import Rows
from eorinfer.run.report import FILE as REPORT
from eorinfer.run.report import write_report
from eorinfer.run.truths import Parts, Truths, find_truths
from eorinfer.samples import Samples
from simulators import GaussianField
from simulators.base import derived_seed

#: Parameters up to which a reference is a grid, its points along each, and samples of a reference.
GRID, POINTS, SAMPLES = 2, 100, 10000
#: Length of a reference's chain, and samples inside a truncated prior below which it is left out.
STEPS, MOST_STEPS, KEPT = 1000, 3000, 100
POWER_SPECTRUM, EXACT = "power-spectrum", "exact"


def validate(
    parts: Parts,
    posterior: Posterior,
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
    posterior
        Of the last round.
    observation
        Of the run.
    rows
        That the posterior was trained on, those held out included.
    likelihood
        Of the power spectrum, if the run has an emulator.

    Raises
    ------
    WorkError
        If the posterior is not calibrated; the files are there all the same.
    """
    settings, seed = parts.config.tables.validation, parts.config.tables.seed
    prior, start = posterior.prior, time.monotonic()
    truths = find_truths(parts, posterior, rows)
    parts.progress.line(f"validation: {len(truths.theta)} {truths.source}; {settings.samples} samples of each")
    observed = time.monotonic()
    draws = draw(posterior, truths.read, settings.samples, derived_seed(seed, 0, 10), truths.truncation)
    log_q = log_density(posterior, truths.theta[:, None], truths.read)[:, 0]
    calibration = calibrate(
        prior.names,
        unit(posterior, truths.theta),
        unit(posterior, draws.values),
        log_q,
        log_density(posterior, draws.values, truths.read),
        derived_seed(seed, 0, 11),
    )
    tested = time.monotonic()
    widths = list(_widths(parts, posterior, truths, draws, likelihood))
    check = check_observation(posterior, observation)
    verdict = verdict_line(calibration)
    content: dict[str, Any] = {
        "calibrated": calibration.calibrated,
        "verdict": verdict,
        "truths": len(truths.theta),
        "source": truths.source,
        "posterior": posterior.facts.get("key"),
        **calibration_content(calibration),
        **_sharpness(posterior, truths, draws, log_q),
        "widths_over": {w.label: w.content(prior.names) for w in widths},
        "misspecification": misspecification_content(check, truths.checks),
        "seconds": {"truths": observed - start, "calibration": tested - observed}
        | {"references": time.monotonic() - tested},
    }
    write_json(parts.out / "validation.json", content)
    page = CalibrationPage(
        prior.parameters, calibration, truths.theta, draws.values, tuple(widths), check, tuple(truths.checks), verdict
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


def _sharpness(posterior: Posterior, truths: Truths, draws: Draws, log_q: NDArray[np.float64]) -> dict[str, Any]:
    """What is recovered, and the held-out likelihood of the posterior inside its regions."""
    prior, truncation = posterior.prior, truths.truncation
    log_volume = 0.0 if truncation is None else float(np.log(truncation.volume))
    # Inside its regions a truncated posterior is q over q's mass there.
    log_density_inside = log_q - np.log(draws.share)
    std = prior.std if truncation is None else truncation.theta.std(0)
    return {
        "prior_volume": float(np.exp(log_volume)),
        "mass_inside": {"median": float(np.median(draws.share)), "least": float(draws.share.min())}
        | {"resampled_truths": int(draws.pooled.sum())},
        "recovery": recovery(prior.names, truths.theta, draws.values, std),
        "held_out_negative_log_likelihood": mean_and_error(-log_density_inside),
        "information_gain": mean_and_error(log_density_inside - (prior.log_density - log_volume)),
    }


def _widths(
    parts: Parts, posterior: Posterior, truths: Truths, draws: Draws, likelihood: PowerSpectrumLikelihood | None
) -> Iterator[RelativeWidths]:
    """Against the power-spectrum posterior and the exact one, where there are such."""
    if not len(truths.cubes):
        return
    sigma = exact_noise(parts.config.simulator, parts.config.tables.survey)
    if likelihood is not None:
        found = [
            _power_spectrum(parts, likelihood, cube, i) for i, cube in enumerate(_told(parts, truths, POWER_SPECTRUM))
        ]
        yield from _relative(posterior, draws, [one for one, _ in found], [not enough for _, enough in found])
    if sigma is not None:
        samples = [_exact(parts, sigma, cube, i) for i, cube in enumerate(_told(parts, truths, EXACT))]
        yield from _relative(posterior, draws, samples, [False] * len(samples))


def _told(parts: Parts, truths: Truths, label: str) -> Iterator[NDArray[np.float32]]:
    """The cubes (C, *cells) of the truths, with progress."""
    with parts.progress.bar(f"{label} posteriors", len(truths.cubes)) as advance:
        for cube in truths.cubes:
            yield cube
            advance(1, "")


def _relative(
    posterior: Posterior, draws: Draws, references: Sequence[Samples], short: Sequence[bool]
) -> Iterator[RelativeWidths]:
    """Both under the same prior: where ours is truncated, so is the reference."""
    inside = [posterior.contains(one.values) for one in references]
    kept = [i for i, rows in enumerate(inside) if rows.sum() >= KEPT]
    if kept:
        some = [
            Samples.unweighted(references[i].values[inside[i]], references[i].parameters, references[i].label)
            for i in kept
        ]
        yield RelativeWidths.of(draws.values[kept], some, [short[i] for i in kept])


def _exact(parts: Parts, sigma: float, cube: NDArray[np.float32], i: int) -> Samples:
    simulator = parts.config.simulator
    assert isinstance(simulator, GaussianField)
    seed = derived_seed(parts.config.tables.seed, 0, 13, i)
    return grid_posterior(simulator, sigma, cube[0].astype(np.float64), parts.config.prior, SAMPLES, seed, POINTS)


def _power_spectrum(
    parts: Parts, likelihood: PowerSpectrumLikelihood, cube: NDArray[np.float32], i: int
) -> tuple[Samples, bool]:
    """Samples, and whether the chain is long enough."""
    prior = parts.config.prior
    observation = Observation.of(parts.config.observable, cube)
    log_l = likelihood.of(observation)
    seed = derived_seed(parts.config.tables.seed, 0, 14, i)
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
