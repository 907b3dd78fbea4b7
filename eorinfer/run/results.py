"""Results of a run from the posteriors in its folder: corner plots, the predictive check and ``summary.json``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eorinfer.bank.rows import Plan
from eorinfer.bank.targets import read_true_targets
from eorinfer.core.errors import InputError
from eorinfer.core.files import read_json, write_json
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.core.seeds import RunStream, run_seed
from eorinfer.cubes.observation import Observation
from eorinfer.figures.corner import corner
from eorinfer.figures.predictive import observed_power, predictive_figure, predictive_images
from eorinfer.figures.style import going_on, save_figure
from eorinfer.report.run_folder import corners, read_chains, read_rounds, read_sampled, true_values
from eorinfer.report.summary import summary
from eorinfer.run.context import RunContext

#: Name of the picture of simulations at posterior samples.
IMAGES = "predictive-images"


def chains_to_plot(out: Path) -> dict[str, Samples]:
    """Read the chains of a run by name.

    Raises
    ------
    InputError
        If there is none.
    """
    chains = read_chains(out)
    if not chains:
        raise InputError(f"{out}/chains: no chain to plot; run `eorinfer infer` or `eorinfer mcmc` first")
    return chains


def write_results(
    context: RunContext,
    observation: Observation,
    plans: Sequence[Plan],
    drawn: Plan | None,
    close: bool | None = None,
) -> None:
    """Draw and write what there is.

    Parameters
    ----------
    context
        Run to show.
    observation
        Observed cube of the run.
    plans
        Plans of its rounds.
    drawn
        Simulations at posterior samples, for the predictive check; None where there are none.
    close
        Whether the corner plot spans the posteriors or the prior, see `corner`.

    Raises
    ------
    InputError
        If there is no chain.
    """
    out, config = context.folder, context.config
    chains = chains_to_plot(out)
    truth = None if observation.theta is None else dict(zip(config.prior.names, observation.theta, strict=True))
    if truth is not None:
        truth |= read_true_targets(out)
    prior = Prior.read(out) or config.prior
    facts = _facts(context, plans if drawn is None else [*plans, drawn])
    content = summary(chains, truth, facts, prior)
    checked = out / "chains" / "npe.json"
    if checked.exists():
        content |= read_json(checked)
    # Before anything is drawn, so that a picture costs none of the numbers.
    write_json(out / "summary.json", content)
    say = context.progress.line
    for name, shown in corners(chains, config.prior.names).items():
        with going_on(out / f"{name}.png", say):
            save_figure(corner(*shown, truth=true_values(truth, shown[0]), close=close, prior=prior), out / name)
    seed, bins = run_seed(config.tables.seed, RunStream.PREDICTIVE_NOISE), config.tables.power_spectrum
    if images := len(config.observable.cells) > 1:  # or data vectors
        with going_on("the observed power spectrum", say):
            content["power"] = observed_power(observation, context.survey, config.observable, bins, seed)
            write_json(out / "summary.json", content)
    if drawn is not None:
        clean = context.bank.read(config.observable.name, context.bank.rows([drawn]).ok)
        with going_on(out / "predictive.png", say):
            noise = content.get("power", {}).get("noise")
            figure, check = predictive_figure(clean, observation, context.survey, config.observable, bins, seed, noise)
            write_json(out / "summary.json", content | {"predictive": check})
            say(f"predictive check: {check['verdict']}")
            save_figure(figure, out / "predictive")
        if images:
            with going_on(out / f"{IMAGES}.png", say):
                made = predictive_images(clean, observation, context.survey, config.observable, seed)
                save_figure(made, out / IMAGES)
    pictures = "".join(f"{path.name}, " for path in sorted(out.glob("corner*.png")))
    context.progress.line(f"results: {out}/{pictures}summary.json and chains/")


def _facts(context: RunContext, plans: Sequence[Plan]) -> dict[str, Any]:
    """Rounds, simulations, seconds and convergence, from the files that the steps left."""
    rounds = []
    for facts in read_rounds(context.folder):
        rounds.append(
            {
                "round": facts["round"],
                "simulations": facts["simulations"],
                "volume": facts["volume"],
                "validation_loss": [fit["validation_loss"] for fit in facts["fits"]],
                "training_seconds": facts["seconds"],
                "left_out": facts["left_out"],
            }
        )
    rows = context.bank.rows(list(plans))
    return {
        "rounds": rounds,
        **read_sampled(context.folder),
        "simulations": rows.counts() | {"seconds": float(rows.seconds.sum())},
    }
