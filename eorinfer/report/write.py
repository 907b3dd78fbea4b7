"""Write the page of a run: one HTML file with all that its folder holds."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import eorinfer
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, whole_file
from eorinfer.likelihood.convergence import measures
from eorinfer.report.cells import Cell, measurement, minus, number, words, yes_or_no
from eorinfer.report.page import Facts, Page, render
from eorinfer.report.run_folder import PAGE, RunFolder, page_line
from eorinfer.report.sections import sections
from eorinfer.report.shown import shown
from eorinfer.report.terminal import chain_of, missing_steps, validation_line
from eorinfer.validation.sharpness import gained_over
from simulators.cell import shown_kind

#: Posteriors that are named at a glance.
NAMED = 3


def write_report(out: Path, file: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Write the page of a folder that holds a run, a contest between methods, or both.

    Parameters
    ----------
    out
        Run folder; nothing but the page is written in it.
    file
        File of the page, by default ``report.html`` in the folder.
    say
        Receives a line for each part that cannot be shown, and is left out.

    Returns
    -------
    Path
        File that was written.

    Raises
    ------
    InputError
        If there is nothing to show, a file of the run cannot be read, or the page cannot be written.
    """
    file = out / PAGE if file is None else file
    if file.is_dir() or file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file}: the page is a file; give --out with a name that ends in .html")
    page = page_of(run := RunFolder.read(out))
    make_folder(file.parent)
    with whole_file(file) as temporary:
        temporary.write_text(f"{render(page)}\n{page_line(run.key)}\n", encoding="utf-8")
    for problem in run.problems:
        say(f"page: {problem}")
    return file


def page_of(run: RunFolder) -> Page:
    """Make the page of a folder; nothing is written."""
    name = run.out.resolve().name
    now = datetime.now(UTC)
    made = sections(run)
    subtitle = "".join(shown(run, "the line below the title", (_subtitle(run) for _ in range(1))))
    facts = Facts(dict(shown(run, "at a glance", _at_a_glance(run))))
    warnings, missing = shown(run, "warnings", _warnings(run)), shown(run, "missing steps", missing_steps(run))
    return Page(
        title=run.contest.title if run.contest and run.only_contest else f"Run “{name}”",
        subtitle=subtitle,
        facts=facts,
        sections=made,
        warnings=[*warnings, *run.problems],
        missing=missing,
        written=f"Folder {name}. Written by eorinfer {eorinfer.__version__}, {now.day} {now:%B %Y, %H:%M} UTC.",
    )


def _subtitle(run: RunFolder) -> str:
    simulator, survey = (run.config.get(table, {}).get("kind") for table in ("simulator", "survey"))
    if simulator is None:
        return "" if run.config or run.observation is None else "A trained posterior, used on another observation."
    observed = f"observed with {survey}" if survey not in (None, "none") else "without a survey"
    mock = ", ".join(f"{name} = {minus(f'{value:g}')}" for name, value in (run.truth or {}).items())
    seen = f"{shown_kind(simulator)}, {observed}"
    return f"{seen}; a mock at {mock}" if mock else seen


def _at_a_glance(run: RunFolder) -> Iterator[tuple[str, Cell]]:
    if run.chains:
        labels = list(dict.fromkeys(chain.label for chain in run.chains.values()))
        yield "posteriors", words(", ".join(labels) if len(labels) <= NAMED else f"of {len(labels)} methods")
    if run.rounds:
        rounds = len(run.rounds)
        simulations = run.rounds[-1]["simulations"]
        yield "simulations trained on", words(f"{simulations} in {rounds} round{'s' * (rounds > 1)}")
    if (ratio := run.summary.get("npe_over_mcmc")) and not run.summary_is_old:
        yield "volume, NPE over MCMC", number(ratio["volume"])
    if run.outdated:
        yield "calibrated", words(f"not known since the {run.outdated} was trained again")
    elif run.validation:
        gain = run.validation["information_gain"]
        yield "calibrated", yes_or_no(run.validation["calibrated"])
        yield (
            f"information gained over {gained_over(run.validation)}",
            measurement(gain["mean"], gain["error"], unit="nats"),
        )
    if checks := [check for check in (run.check, run.alarm) if check]:
        unlike, weak = (any(check.get(key) for check in checks) for key in ("unlike", "weak"))
        yield "observation like the simulations", words("cannot tell") if weak and not unlike else yes_or_no(not unlike)
    if "seed" in run.config:
        yield "seed", words(str(run.config["seed"]))


def _warnings(run: RunFolder) -> Iterator[str]:
    if run.config and chain_of(run) in run.chains and not (run.out / "validation.json").exists():
        yield validation_line(run.out)
    for check in (run.check, run.alarm):
        if check and (check["unlike"] or (check.get("weak") and "line" in check)):
            yield str(check.get("line", "The observation is unlike the simulations.")).removeprefix("WARNING: ")
    if run.validation and not run.validation["calibrated"]:
        yield f"The posterior is {run.validation['verdict']}"
    for method, facts in run.sampled.items():
        yield from (facts or {}).get("warnings", ())
        if facts and facts.get("converged") is False:
            lengths = facts["steps"] / facts["autocorrelation_time"]
            yield (
                f"The chain {method.replace('_', '-')} has not converged: {facts['steps']} steps are "
                f"{measures(lengths, facts.get('r_hat'))}; raise [mcmc] max_steps"
            )
    if run.summary_is_old:
        yield "summary.json, the corner plots in the folder and the predictive check are of earlier posteriors"
    if run.outdated:
        yield f"The {run.outdated} was trained again after its validation: calibration is that of the one before"
    for facts in run.rounds[-1:]:
        if facts["left_out"]:
            kinds = ", ".join(f"{n} {status}" for status, n in facts["left_out"].items())
            yield f"{kinds} simulations were left out: the posterior is conditional on a valid simulation"
