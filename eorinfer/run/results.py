"""What a run shows of the posteriors in its folder: corner plots, the predictive check and ``summary.json``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.errors import InputError
from eorinfer.files import read_json, write_json
from eorinfer.observation import Observation
from eorinfer.report.corner import corner
from eorinfer.report.figures import save_figure
from eorinfer.report.predictive import predictive_figure
from eorinfer.report.summary import summary
from eorinfer.rows import Plan
from eorinfer.run.truths import Parts
from eorinfer.samples import Samples
from simulators.base import derived_seed

#: Chains in the order of drawing.
CHAINS = ("npe", "field-flow", "mcmc")


def write_results(parts: Parts, observation: Observation, plans: Sequence[Plan], drawn: Plan | None) -> None:
    """Draw and write what there is.

    Parameters
    ----------
    parts
        Of the run.
    observation
        Of the run.
    plans
        Of its rounds.
    drawn
        Simulations at posterior samples, for the predictive check; None where there are none.

    Raises
    ------
    InputError
        If there is no chain.
    """
    out, config = parts.out, parts.config
    chains = {name: Samples.read(out / "chains" / name) for name in CHAINS if (out / "chains" / f"{name}.txt").exists()}
    if not chains:
        raise InputError(f"{out}/chains: no chain to plot; run `eorinfer infer` or `eorinfer mcmc` first")
    truth = None if observation.theta is None else dict(zip(config.prior.names, observation.theta, strict=True))
    whole = {name: one for name, one in chains.items() if _names(one) == config.prior.names}
    if whole:
        save_figure(corner(*whole.values(), truth=observation.theta), out / "corner")
    for name in chains.keys() - whole.keys():
        # Of some of the parameters, or of none of them: a neutral fraction.
        names = _names(chains[name])
        others = [_only(one, names) for one in whole.values() if set(names) <= set(_names(one))]
        save_figure(corner(chains[name], *others, truth=_true(truth, names)), out / f"corner-{name}")
    content = summary(chains, truth, _facts(parts, plans if drawn is None else [*plans, drawn]))
    if drawn is not None:
        rows = parts.bank.rows([drawn]).ok
        figure, check = predictive_figure(
            parts.bank.read(config.observable.name, rows),
            observation,
            parts.survey,
            config.observable,
            config.tables.power_spectrum,
            seed=derived_seed(config.tables.seed, 0, 7),
        )
        save_figure(figure, out / "predictive")
        content["predictive"] = check
    checked = out / "chains" / "npe.json"
    if checked.exists():
        content |= read_json(checked)
    write_json(out / "summary.json", content)
    pictures = ", ".join(sorted(path.name for path in out.glob("corner*.png")))
    parts.progress.line(f"results: {out}/{pictures}, summary.json and chains/")


def _names(samples: Samples) -> list[str]:
    return [p.name for p in samples.parameters]


def _only(samples: Samples, names: list[str]) -> Samples:
    """Some of the parameters, in this order."""
    columns = [_names(samples).index(name) for name in names]
    parameters = tuple(samples.parameters[i] for i in columns)
    return replace(samples, values=samples.values[:, columns], parameters=parameters)


def _true(truth: dict[str, float] | None, names: list[str]) -> NDArray[np.float64] | None:
    return np.array([truth[name] for name in names]) if truth and set(names) <= truth.keys() else None


def _facts(parts: Parts, plans: Sequence[Plan]) -> dict[str, Any]:
    """Rounds, simulations, seconds and convergence, from the files that the steps left."""
    rounds = []
    for path in sorted((parts.out / "rounds").glob("*/posterior/posterior.json")):
        facts = read_json(path)["facts"]
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
    found = {}
    for name, key in (("mcmc", "mcmc"), ("field-flow", "field_flow")):
        path = parts.out / "chains" / f"{name}.json"
        found[key] = read_json(path) if path.exists() else None
    rows = parts.bank.rows(list(plans))
    return {"rounds": rounds, **found, "simulations": rows.counts() | {"seconds": float(rows.seconds.sum())}}
