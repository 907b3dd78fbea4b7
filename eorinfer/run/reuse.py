"""Use a trained posterior, an image flow or both again, for another observation: without a config or a training."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eorinfer.combined.posterior import FILE as COMBINED
from eorinfer.combined.posterior import CombinedPosterior
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, read_json, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.core.samples import Samples
from eorinfer.core.toml import read_toml
from eorinfer.cubes.observation import Observation
from eorinfer.figures.corner import corner
from eorinfer.figures.style import going_on, save_figure
from eorinfer.imageflow.model import ImageFlow
from eorinfer.npe.check import check_observation
from eorinfer.npe.posterior import Posterior
from eorinfer.report.run_folder import true_values
from eorinfer.report.summary import summary
from eorinfer.run.combined import combined_posterior
from eorinfer.run.folder import refuse_run
from eorinfer.run.image_flow import image_flow_posterior
from eorinfer.settings.likelihood import McmcSettings


def infer_again(
    folder: Path, file: Path, out: Path, n: int, seed: int, progress: Progress, modules: Path | None = None
) -> None:
    """Write chains, ``corner.png``, ``summary.json`` and the observation, from a posterior that is trained already.

    Parameters are those of the command ``eorinfer infer --posterior``; n and seed are those of the samples.

    Raises
    ------
    InputError
        If the folder holds none, the observation is of another kind than the images of training, or `out` holds a
        run, or the posterior of another observation.
    """
    refuse_run(out)
    if (folder / COMBINED).is_file():
        name, samples, observed, truth, facts = _by_both(folder, file, out, n, seed, progress, modules)
    elif (folder / "field.json").is_file():
        name, samples, observed, truth, facts = _by_flow(folder, file, out, n, seed, progress)
    else:
        name, samples, observed, truth, facts = _by_npe(folder, file, out, n, seed, progress, modules)
    observed.write(out / "observation.h5")
    prior = Prior.read(out)
    write_json(out / "summary.json", summary({name: samples}, truth, facts, prior))
    with going_on(out / "corner.png", progress.line):
        save_figure(corner(samples, truth=true_values(truth, samples), prior=prior), out / "corner")
    drawn = "corner.png, " * (out / "corner.png").exists()
    progress.line(f"results: {out}/{drawn}summary.json, chains/{name}.txt")


_Result = tuple[str, Samples, Observation, dict[str, float] | None, dict[str, Any]]


def _by_npe(
    folder: Path, file: Path, out: Path, n: int, seed: int, progress: Progress, modules: Path | None
) -> _Result:
    """Sample by one pass of the networks."""
    posterior = Posterior.load(folder, modules)
    observed = Observation.read(file, posterior.observable, posterior.mask)
    _refuse_another(out, observed)
    for note in observed.notes:
        progress.line(f"observation: {note}")
    check = check_observation(posterior, observed)
    if check is not None:
        progress.line(check.line())
    samples = posterior.draw(observed, n, seed, "NPE on images")
    make_folder(out)
    posterior.prior.write(out)
    samples.write(out / "chains" / "npe")
    facts = {"posterior": str(folder), "misspecification": check.content() if check else None}
    return "npe", samples, observed, _truth(observed, posterior.prior), facts


def _by_flow(folder: Path, file: Path, out: Path, n: int, seed: int, progress: Progress) -> _Result:
    """Sample on a grid, or by emcee."""
    flow = ImageFlow.load(folder)
    observed = Observation.read(file, flow.observable)
    _refuse_another(out, observed)
    settings = _mcmc(folder.parent / "config.toml", flow.conditions)
    make_folder(out)
    flow.conditions.write(out)
    samples = image_flow_posterior(flow, observed, settings, n, out / "chains", seed, progress)
    facts = {"posterior": str(folder), "field_flow": read_json(out / "chains" / "field-flow.json")}
    by_theta = flow.settings.condition == "theta"
    return "field-flow", samples, observed, _truth(observed, flow.conditions) if by_theta else None, facts


def _by_both(
    folder: Path, file: Path, out: Path, n: int, seed: int, progress: Progress, modules: Path | None
) -> _Result:
    """Sample by NPE, and weigh by the image flow."""
    combined = CombinedPosterior.load(folder, modules)
    observed = Observation.read(file, combined.npe.observable)
    _refuse_another(out, observed)
    check = check_observation(combined.npe, observed)
    if check is not None:
        progress.line(check.line())
    make_folder(out)
    combined.npe.prior.write(out)
    samples = combined_posterior(combined, observed, n, out / "chains", seed, progress)
    facts = {"posterior": str(folder), "misspecification": check.content() if check else None}
    facts |= {"combined": read_json(out / "chains" / "combined.json")}
    return "combined", samples, observed, _truth(observed, combined.npe.prior), facts


def _refuse_another(out: Path, observed: Observation) -> None:
    """Refuse a folder with the posterior of another observation, which would be replaced."""
    file = out / "observation.h5"
    if file.exists() and Observation.read_unchecked(file).digest != observed.digest:
        raise InputError(f"{out}: holds the posterior of another observation, which would be lost; give another --out")


def _mcmc(config: Path, conditions: Prior) -> McmcSettings:
    """Read ``[mcmc]`` of the run that the flow lies in, or take the defaults, with enough walkers."""
    if config.is_file():
        try:
            settings = McmcSettings(**read_toml(config).get("mcmc", {}))
        except (ValidationError, TypeError) as error:
            raise InputError(f"{config}: [mcmc] cannot be read ({' '.join(str(error).split())})") from error
    else:
        settings = McmcSettings()
    needed = 2 * len(conditions.parameters)
    return settings.model_copy(update={"walkers": max(settings.walkers, needed)})


def _truth(observed: Observation, prior: Prior) -> dict[str, float] | None:
    """Give the true parameters of a mock by name."""
    return None if observed.theta is None else dict(zip(prior.names, map(float, observed.theta), strict=True))
