"""Sections of the page, each from what a run left; a section without anything to show has no blocks."""

from collections.abc import Callable, Iterable, Iterator
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

import eorinfer
from eorinfer.bank.description import package_versions
from eorinfer.core.files import read_json
from eorinfer.core.progress import duration
from eorinfer.core.revision import commit
from eorinfer.core.shown_prior import prior_words
from eorinfer.cubes.observation import Observation
from eorinfer.figures.style import channel_name
from eorinfer.report.cells import Cell, count, number, several, words
from eorinfer.report.drawings import CHANNELS, slices, training_curves
from eorinfer.report.page import Block, Code, Facts, Picture, Pictures, Section, Table, Text, read_png
from eorinfer.report.posterior import posterior_blocks
from eorinfer.report.run_folder import RunFolder
from eorinfer.report.scores import contest_file
from eorinfer.report.shown import SCORES, shown
from eorinfer.report.validation import calibration_blocks, check_blocks, worlds_blocks


def sections(run: RunFolder) -> list[Section]:
    """Make all sections that have something to show, in order."""
    every: list[tuple[str, str, Callable[[RunFolder], Iterable[Block]]]] = [
        ("scores", SCORES, _scores),
        ("posterior", "Posterior", posterior_blocks),
        ("observation", "Observation", _observation),
        ("worlds", "Which simulation it was trained on", worlds_blocks),
        ("calibration", "Calibration", calibration_blocks),
        ("check", "Is the observation like the simulations?", check_blocks),
        ("predictive", "Posterior-predictive check", _predictive),
        ("training", "Training", _training),
        ("bank", "Simulations", _bank),
        ("config", "Config", _config),
        ("versions", "Command and versions", _versions),
    ]
    # A section that cannot be shown takes neither the page nor another section with it.
    made = [Section(id, title, shown(run, title, blocks(run))) for id, title, blocks in every]
    return [section for section in made if section.blocks]


def _config(run: RunFolder) -> Iterator[Block]:
    if run.config_text:
        yield Code(run.config_text, "config.toml as run")


def _scores(run: RunFolder) -> Iterator[Block]:
    file = contest_file(run.out)
    if run.contest is not None and file is not None:
        yield from run.contest.blocks(file)


def _observation(run: RunFolder) -> Iterator[Block]:
    o = run.observation
    if o is None:
        return
    sizes = [f"{size:.4g}" for size in o.cell_size]
    size = " × ".join(sizes if len({*sizes}) > 1 else sizes[:1])
    facts: dict[str, Cell] = {
        "shape": words(f"{' × '.join(map(str, o.values.shape))} ({', '.join(o.axes)})"),
        "unit": words(o.unit or "none"),
        "cell size": words(f"{size} Mpc" if max(o.cell_size) > 0 else None),
    }
    if o.field_of_view:
        facts["field of view"] = number(o.field_of_view, unit="degrees")
    if o.coordinates:
        facts["along the line of sight"] = words(f"{o.coordinates[0]:.5g} to {o.coordinates[-1]:.5g}")
    facts["kind"] = words("observed" if run.truth is None else "mock, true parameters known")
    if o.seed is not None:
        facts["seed"] = words(str(o.seed))
    yield Facts(facts)
    drawn = min(len(o.values), CHANNELS)
    channels = f"{drawn} of {len(o.values)} channels. " if drawn < len(o.values) else ""
    middle = "Slices through the middle of each cube. " if o.values.ndim > 3 else ""
    yield Pictures(slices(o), f"{channels}{middle}Colours span the central 99% of the values.")
    yield Table(
        ["channel", "mean", "standard deviation", "smallest", "largest"],
        [
            [
                words(channel_name(o, c)),
                number(_mean(cube)),
                *(number(float(f(cube))) for f in (np.std, np.min, np.max)),
            ]
            for c, cube in enumerate(o.values)
        ],
        caption=f"Values{f' in {o.unit}' if o.unit else ''}, over all cells of each channel.",
    )
    if power := run.summary.get("power"):
        yield _power(o, power)


def _mean(cube: NDArray[Any]) -> float:
    """Take the mean; where only round-off of a mean taken off before is left of it, it is 0."""
    mean = float(np.mean(cube))
    return mean if abs(mean) > 1e-6 * float(np.std(cube)) else 0.0


def _power(o: Observation, power: dict[str, Any]) -> Table:
    """Make the table of the observed power spectrum, beside the noise and the number of modes."""
    # Summaries of older versions have no names.
    names = power.get("channels") or [channel_name(o, c) for c in range(len(o.values))]
    rows = [
        [words(name), number(k), count(round(modes)), number(seen), number(noise)]
        for name, observed, noises in zip(names, power["observed"], power["noise"], strict=True)
        for k, modes, seen, noise in zip(power["k"], power["modes"], observed, noises, strict=True)
    ]
    unit = f" [{o.unit}²]" if o.unit else ""
    return Table(
        ["channel", "k [1/Mpc]", "modes", f"Δ²(k){unit}", f"of the noise{unit}"],
        rows,
        "Power spectrum",
        "Of the observation, noise included, and the mean over many draws of the survey's noise alone. Modes: "
        "independent ones in the bin; the power of a Gaussian field scatters by its value over their square root.",
        folded=True,
    )


def _predictive(run: RunFolder) -> Iterator[Block]:
    file = run.out / "predictive.png"
    if not file.exists():
        return
    check = run.summary.get("predictive")
    sentence = ""
    if check and "verdict" in check:
        sentence = f"{check['simulations']} simulations at posterior samples: {check['verdict']}."
    elif check:  # of an older version, whose band was drawn too narrow
        sentence = (
            f"{check['simulations']} simulations at posterior samples: the observed power is inside the quantiles of "
            f"95% of them in {check['bins_inside_95']:.0%} of the bins."
        )
    alt = f"Power spectrum of simulations at posterior samples and observed. {sentence}"
    yield Picture.from_file(file, alt)
    if sentence:
        yield Text(sentence)
    images = run.out / "predictive-images.png"
    if images.exists():
        yield Picture.from_png(
            read_png(images),
            "The observed image beside simulations at posterior samples, and its difference to the first of them",
            caption="One colour bar for all. Simulations have other initial conditions and noise: their structures "
            "may look alike, but lie in other places, so that the difference is not zero.",
        )


def _training(run: RunFolder) -> Iterator[Block]:
    curves = [
        training_curves(f"round {facts['round']}", [fit["history"] for fit in facts["fits"]]) for facts in run.rounds
    ]
    for folder, facts in run.trained.items():
        if "history" in facts:  # of a separator
            curves.append(training_curves("separation of lines", [facts["history"]]))
        elif isinstance(facts["fits"], dict):
            curves += [
                training_curves(f"image flow, {stage}", [fit["history"]]) for stage, fit in facts["fits"].items()
            ]
        else:
            curves.append(training_curves(folder.split("/")[1], [fit["history"] for fit in facts["fits"]]))
    if curves:
        yield Pictures(curves, "Solid: validation, dashed: training. The dot is the lowest loss in validation.")
    if not run.rounds:
        return
    held = [
        [words(str(facts["round"])), words(name), count(facts["held_out"]["rows"]), *(number(s, ".0%") for s in shares)]
        for facts in run.rounds
        if facts.get("held_out")
        for name, shares in facts["held_out"]["inside"].items()
    ]
    if held:
        yield Table(
            ["round", "parameter", "rows", "inside 68%", "inside 95%"],
            held,
            "Coverage on held-out rows",
            "Share of rows, which neither trained nor chose anything, whose central interval holds the truth.",
        )
    rows: list[list[Cell]] = []
    for facts in run.rounds:
        left_out = sum(facts["left_out"].values())
        losses = several([fit["validation_loss"] for fit in facts["fits"]], ".3f")
        counts = [count(n) for n in (*map(facts.get, ("simulations", "training_rows", "validation_rows")), left_out)]
        rows.append([words(str(facts["round"])), *counts, number(facts["volume"]), losses, number(facts["seconds"])])
    columns = ["round", "simulations", "to train", "to validate", "left out", "share of the prior", "loss", "seconds"]
    yield Table(
        columns,
        rows,
        "Rounds",
        "Simulations of a round and of those before it. Loss: the lowest in validation, of each network.",
    )


def _bank(run: RunFolder) -> Iterator[Block]:
    facts = run.bank
    if facts is None:
        return
    bank, ok = facts.bank, sum(r.counts.get("ok", 0) for r in facts.rounds)
    entries: dict[str, Cell] = {
        "simulator": words(bank.description["simulator"]["kind"]),
        "fingerprint": words(bank.fingerprint),
        "simulations": count(facts.rows),
        "failed": count(facts.rows - ok),
        "on disk": number(facts.megabytes, ".1f", "MB"),
        "seconds each": number(facts.seconds / facts.rows if facts.rows else None),
        "in all, on one core": words(duration(facts.seconds)),
    }
    yield Facts(entries)
    for note in bank.description.get("notes", {}).values():
        yield from (Text(text) for text in note["warnings"])
    statuses = sorted({status for r in facts.rounds for status in r.counts})
    yield Table(
        ["round", "planned", *statuses],
        [
            [words(r.id), count(r.planned), *(count(r.counts.get(status, 0)) for status in statuses)]
            for r in facts.rounds
        ],
        "Rounds in the bank",
        "Number 00 are simulations that no round trains on: predictive checks, truths, and the maps of a separator.",
    )
    if facts.reasons:
        rows = [[words(status), words(message), count(n)] for status, message, n in facts.reasons]
        yield Table(["status", "reason", "simulations"], rows, "Failures")
    ranges = {p.name: (p.low, p.high) for p in run.prior.parameters} if run.prior else run.config.get("prior", {})
    yield Table(
        ["parameter", "from", "to", *(["density"] if run.prior else []), "unit", "meaning"],
        [
            [
                words(p.name),
                *(number(float(end)) for end in ranges.get(p.name, (p.low, p.high))),
                *([words(prior_words(run.prior, p.name))] if run.prior else []),
                words(p.unit),
                words(p.description),
            ]
            for p in bank.parameters
        ],
        "Prior",
        "The parameters' densities, zero outside of this range." if run.prior else "Flat in this range.",
    )
    yield Table(
        ["array", "shape", "unit"],
        [[words(o.name), words(" × ".join(map(str, o.shape))), words(o.unit)] for o in bank.observables],
        "Arrays of a simulation",
    )


def _versions(run: RunFolder) -> Iterator[Block]:
    """Say what makes this run, and list the packages that made the bank, trained the posterior, and wrote this page."""
    revision = commit()
    facts = {"commit": words(revision)} if revision else {"version": words(eorinfer.__version__)}
    if run.config and not run.only_contest:
        out = str(run.out)
        step = "run" if "inference" in run.config else "separate train"
        facts = {"command": words(f"eorinfer {step} {quote(f'{out}/config.toml')} --out {quote(out)}")} | facts
    if run.observation is not None:
        facts["data, sha256 of the observed values"] = words(run.observation.digest)
    yield Facts(facts)
    trained = run.out / "posterior" / "posterior.json"
    columns: dict[str, dict[str, str]] = {}
    if run.bank is not None:
        columns["bank"] = run.bank.bank.description["packages"]
    if trained.exists():
        columns["posterior"] = read_json(trained)["packages"]
    columns["this page"] = package_versions()
    names = dict.fromkeys(name for packages in columns.values() for name in packages)
    rows = [[words(text) for text in (name, *(c.get(name) for c in columns.values()))] for name in names]
    yield Table(["package", *columns], rows)
