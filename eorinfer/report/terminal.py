"""Results of a run folder as lines for the terminal: the table of posteriors, and what is still to do."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from eorinfer.bank.targets import read_true_targets
from eorinfer.core.digits import aligned, with_error
from eorinfer.core.files import read_json
from eorinfer.core.samples import Samples
from eorinfer.core.toml import read_toml
from eorinfer.cubes.observation import Observation
from eorinfer.report.page import MissingStep
from eorinfer.report.run_folder import (
    CHAINS,
    LEFT_OUT,
    PAGE,
    RunFolder,
    outdated,
    page_is_old,
    read_all_chains,
    read_models,
    read_rounds,
    read_sampled,
    results_key,
)
from eorinfer.report.summary import wider_line

#: Chain of each `[inference] method`.
METHODS = {"npe": "npe", "image-flow": "field-flow", "field-flow": "field-flow", "combined": "combined"}
#: Steps of a run in their order, and the file that each leaves in the run folder.
STEPS = {
    "observe": "observation.h5",
    "infer": "chains/npe.txt",
    "image flow": "chains/field-flow.txt",
    "combined": "chains/combined.txt",
    "mcmc": "chains/mcmc.txt",
    "plot": "summary.json",
    "validate": "validation.json",
    "contest": "contest.json",
    "separate train": "separator/separator.json",
    "report": PAGE,
}


def posterior_table(chains: Mapping[str, Samples], truth: Mapping[str, float] | None) -> list[str]:
    """Write mean and standard deviation of each parameter, by each method, as the lines of a table.

    Parameters
    ----------
    chains
        Samples by name; a parameter that a chain lacks is a dash.
    truth
        True value of each parameter by name, or None.

    Returns
    -------
    list
        A line of heads, and one for each parameter. With two chains the last column is the ratio of their widths.
    """
    parameters = {p.name: p for chain in chains.values() for p in chain.parameters}
    whole = list(chains.values())
    ratio = len(whole) == 2
    head = ["parameter", *(["truth"] if truth else []), *(chain.label for chain in whole)]
    rows = [head + (["ratio of widths"] if ratio else [])]
    for name in parameters:
        means = [float(c.mean[c.names.index(name)]) if name in c.names else np.nan for c in whole]
        widths = [float(c.std[c.names.index(name)]) if name in c.names else np.nan for c in whole]
        row = [name]
        if truth:
            row.append(f"{truth[name]:.4g}" if name in truth else "-")
        for mean, width in zip(means, widths, strict=True):
            row.append(with_error(mean, width) if np.isfinite(mean) else "-")
        if ratio:
            row.append(f"{widths[0] / widths[1]:.2f}" if np.isfinite(widths).all() and widths[1] else "-")
        rows.append(row)
    return aligned(rows)


def closing_lines(out: Path) -> list[str]:
    """Say what a run folder's posteriors are, and whether they were validated.

    Raises
    ------
    InputError
        If a file in it cannot be read.
    """
    chains = {name: chain for name, chain in read_all_chains(out, []).items() if name in CHAINS}
    if not chains:
        return [f"no posterior yet: eorinfer infer {quote(str(out / 'config.toml'))} --out {quote(str(out))}"]
    path = out / STEPS["observe"]
    observation = Observation.read_unchecked(path) if path.exists() else None
    theta = None if observation is None else observation.theta
    truth = None
    if not (out / "config.toml").exists():  # the posterior was trained elsewhere
        names = next(iter(chains.values())).names
        truth = dict(zip(names, theta, strict=True)) if theta is not None and len(theta) == len(names) else None
        return [*posterior_table(chains, truth), *_old_page(out, results_key(chains, observation, {}))]
    if theta is not None:
        config = read_toml(out / "config.toml")
        truth = dict(config.get("observation", {}).get("theta", {})) | read_true_targets(out) or None
    wider, validation = wider_line(chains), out / STEPS["validate"]
    key = results_key(chains, observation, read_json(validation) if validation.exists() else {})
    return [
        *posterior_table(chains, truth),
        *([wider] if wider else []),
        *_old_page(out, key),
        validation_line(out),
    ]


def _old_page(out: Path, key: str) -> Iterator[str]:
    """Say that the page is of earlier results, if it is."""
    if page_is_old(out, key):
        yield f"{PAGE} is of earlier results: eorinfer report {quote(str(out))}"


def status_lines(out: Path) -> list[str]:
    """Say which steps of a run are done, what its bank has, and what its posteriors are.

    Raises
    ------
    InputError
        If it is no run folder, or a file in it cannot be read.
    """
    run = RunFolder.read(out)
    lines = [f"run: {out}", *(f"WARNING: {problem}" for problem in run.problems)]
    if run.bank is not None:
        counts = ", ".join(f"{n} {status}" for status, n in run.bank.bank.rows().counts().items()) or "no rows yet"
        lines.append(f"bank: {counts}")
    if run.rounds:
        wanted = len(run.config.get("inference", {}).get("rounds", run.rounds))
        fewer = len(run.rounds) < wanted and (out / LEFT_OUT).exists()
        left_out = " (the others are left out by [inference] stop_at)" if fewer else ""
        lines.append(f"rounds: {len(run.rounds)} of {wanted} trained{left_out}")
    for method, facts in run.sampled.items():
        if facts and "converged" in facts:
            ended = "converged" if facts["converged"] else "NOT CONVERGED"
            label = "image flow" if method == "field_flow" else "power-spectrum MCMC"
            lines.append(f"{label}: {facts['steps']} steps, {ended}")
    old = {"validate": run.outdated is not None, "plot": run.summary_is_old, "report": page_is_old(out, run.key)}
    done = [step for step, file in STEPS.items() if (out / file).exists() and not old.get(step)]
    lines.append(f"done: {', '.join(done) or 'nothing yet'}")
    if run.check:
        lines.append(run.check["line"])
    lines += [f"{step.what}: {step.command}" for step in missing_steps(run) if "validate" not in step.command]
    return [*lines, *(closing_lines(out) if run.chains and not run.only_contest else [])]


def validation_line(out: Path) -> str:
    """Say what the validation of the run's posterior found, or the command that makes one."""
    path = out / STEPS["validate"]
    command = f"eorinfer validate {quote(str(out / 'config.toml'))} --out {quote(str(out))}"
    if not path.exists():
        config = out / "config.toml"
        if config.exists() and for_one_observation(read_toml(config)):
            return (
                'cannot be validated: [inference] proposal = "posterior" gives a posterior for one observation alone, '
                "which no other truth can test"
            )
        return f"not validated yet: {command}"
    found = read_json(path)
    if again := outdated(
        found, read_rounds(out), read_models(out).get("field", {}), read_sampled(out)["combined"] or {}
    ):
        return f"not validated since the {again} was trained again: {command}"
    return str(found.get("verdict", f"validated: {path}"))


def for_one_observation(config: Mapping[str, Any]) -> bool:
    """Tell whether the posterior of a config, as a file has it, holds for the run's observation alone."""
    inference = config.get("inference", {})
    later = isinstance(inference.get("rounds"), list) and len(inference["rounds"]) > 1
    return later and inference.get("proposal") == "posterior"


def chain_of(run: RunFolder) -> str:
    """Name the chain of the config's method."""
    return METHODS.get(str(run.config.get("inference", {}).get("method", "npe")), "npe")


def missing_steps(run: RunFolder) -> Iterator[MissingStep]:
    """List the steps that would add something to a run; a folder without the config of one has none."""
    if "inference" not in run.config:  # such as that of a separation
        return
    out = quote(str(run.out))
    config = quote(str(run.out / "config.toml"))

    def by(step: str) -> str:
        return f"eorinfer {step} {config} --out {out}"

    if run.observation is None:
        yield MissingStep("No observation", by("observe"))
    if run.bank is None:
        yield MissingStep("No simulations", by("simulate"))
    if run.only_contest:
        return
    if chain_of(run) not in run.chains:
        yield MissingStep("No posterior from images", by("infer"))
    vectors = run.observation is not None and run.observation.values.ndim == 2  # of these there is no P(k)
    if "mcmc" not in run.chains and not vectors:
        yield MissingStep("No power-spectrum MCMC to compare with", by("mcmc"))
    if run.chains and not run.summary:
        yield MissingStep("No summary.json", by("plot"))
    elif run.summary_is_old:
        yield MissingStep("summary.json and the pictures are of earlier posteriors", by("plot"))
    if (run.out / "chains" / "predictive.json").exists() and not (run.out / "predictive.png").exists():
        yield MissingStep("No posterior-predictive check", by("plot"))
    if not run.validation and not for_one_observation(run.config):
        yield MissingStep("Not validated", by("validate"))
    elif run.validation and run.outdated:
        yield MissingStep(f"Not validated since the {run.outdated} was trained again", by("validate"))
