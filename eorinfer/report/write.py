"""The page of a run: one HTML file with all that its folder holds."""

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import eorinfer
from eorinfer.core.errors import InputError
from eorinfer.core.files import make_folder, whole_file
from eorinfer.report.cells import Cell, minus
from eorinfer.report.page import Facts, MissingStep, Page, render
from eorinfer.report.run_folder import RunFolder
from eorinfer.report.sections import sections

#: Name of the page in a run folder.
FILE = "report.html"
#: Posteriors that are named at a glance.
NAMED = 3


def write_report(out: Path, file: Path | None = None) -> Path:
    """Write the page of a folder that holds a run, a contest between methods, or both.

    Parameters
    ----------
    out
        Run folder; nothing but the page is written in it.
    file
        Where the page shall stand, by default ``report.html`` in the folder.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If there is nothing to show, a file of the run cannot be read, or the page cannot be written.
    """
    file = out / FILE if file is None else file
    if file.is_dir() or file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file}: the page is a file; give --out with a name that ends in .html")
    page = page_of(RunFolder.read(out))
    make_folder(file.parent)
    with whole_file(file) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    return file


def page_of(found: RunFolder) -> Page:
    """The page of a folder, not written yet."""
    name = found.out.resolve().name
    now = datetime.now(UTC)
    return Page(
        title=found.contest.title if found.contest and found.only_contest else f"Run “{name}”",
        subtitle=_subtitle(found),
        facts=Facts(dict(_at_a_glance(found))),
        sections=sections(found),
        warnings=list(_warnings(found)),
        lacking=list(_lacking(found)),
        written=f"Folder {name}. Written by eorinfer {eorinfer.__version__}, {now.day} {now:%B %Y, %H:%M} UTC.",
    )


def _subtitle(found: RunFolder) -> str:
    simulator, survey = (found.config.get(table, {}).get("kind") for table in ("simulator", "survey"))
    if simulator is None:
        return "" if found.config or found.observation is None else "A trained posterior, used on another observation."
    told = f"{simulator}, observed with {survey}" if survey not in (None, "none") else f"{simulator}, without a survey"
    if found.truth:
        told += "; a mock at " + ", ".join(f"{name} = {minus(f'{value:g}')}" for name, value in found.truth.items())
    return told


def _at_a_glance(found: RunFolder) -> Iterator[tuple[str, Cell]]:
    if found.chains:
        labels = list(dict.fromkeys(one.label for one in found.chains.values()))
        yield "posteriors", ", ".join(labels) if len(labels) <= NAMED else f"of {len(labels)} methods"
    if found.rounds:
        rounds = len(found.rounds)
        yield "simulations trained on", f"{found.rounds[-1]['simulations']} in {rounds} round{'s' * (rounds > 1)}"
    if ratio := found.summary.get("npe_over_mcmc"):
        yield "volume, NPE over MCMC", ratio["volume"]
    if found.validation:
        gain = found.validation["information_gain"]
        yield "calibrated", found.validation["calibrated"]
        yield "information gained", minus(f"{gain['mean']:.2f} ± {gain['error']:.2f} nats")
    if checks := [one for one in (found.check, found.alarm) if one]:
        yield "observation like the simulations", not any(one["unlike"] for one in checks)
    if "seed" in found.config:
        yield "seed", str(found.config["seed"])


def _warnings(found: RunFolder) -> Iterator[str]:
    for check in (found.check, found.alarm):
        if check and check["unlike"]:
            yield str(check.get("line", "The observation is unlike the simulations.")).removeprefix("WARNING: ")
    if found.validation and not found.validation["calibrated"]:
        yield f"The posterior is {found.validation['verdict']}"
    for method, facts in found.sampled.items():
        if facts and facts.get("converged") is False:
            lengths = facts["steps"] / facts["autocorrelation_time"]
            yield (
                f"The chain {method.replace('_', '-')} has not converged: {facts['steps']} steps are {lengths:.0f} "
                "autocorrelation times instead of 50; raise [mcmc] max_steps"
            )
    validated = found.validation.get("method", "npe")
    for facts in found.rounds[-1:]:
        if facts["left_out"]:
            kinds = ", ".join(f"{n} {status}" for status, n in facts["left_out"].items())
            yield f"{kinds} simulations were left out: the posterior is conditional on a valid simulation"
        # A folder that was validated by an earlier version does not say which posterior it was.
        if validated == "npe" and found.validation.get("posterior", facts["key"]) != facts["key"]:
            yield "The posterior was trained again after its validation: calibration is that of the one before"
    if validated == "field-flow" and found.validation["posterior"] != found.trained.get("field", {}).get("key"):
        yield "The field flow was trained again after its validation: calibration is that of the one before"


def _lacking(found: RunFolder) -> Iterator[MissingStep]:
    """What the steps would add to a run; a folder without a config has none."""
    if not found.config:
        return
    out = shlex.quote(str(found.out))
    config = shlex.quote(str(found.out / "config.toml"))

    def by(step: str) -> str:
        return f"eorinfer {step} {config} --out {out}"

    method = found.config.get("inference", {}).get("method", "npe")
    if found.observation is None:
        yield MissingStep("No observation", by("observe"))
    if found.bank is None:
        yield MissingStep("No simulations", by("simulate"))
    if found.only_contest:
        return
    if method not in found.chains:
        yield MissingStep("No posterior from images", by("infer"))
    if "mcmc" not in found.chains:
        yield MissingStep("No power-spectrum MCMC to compare with", by("mcmc"))
    if found.chains and not found.summary:
        yield MissingStep("No summary.json", by("plot"))
    if (found.out / "chains" / "predictive.json").exists() and not (found.out / "predictive.png").exists():
        yield MissingStep("No posterior-predictive check", by("plot"))
    if not found.validation:
        yield MissingStep("Not validated", by("validate"))
