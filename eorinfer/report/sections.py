"""The sections of the page, each from what a run left; those that have nothing have no blocks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eorinfer.bank.store import package_versions
from eorinfer.core.files import read_json
from eorinfer.core.progress import duration
from eorinfer.core.samples import Samples
from eorinfer.figures.corner import COLOURS, corner
from eorinfer.figures.style import png_bytes
from eorinfer.report.cells import Cell, minus, to_figures_of
from eorinfer.report.drawings import CHANNELS, channel_name, slices, training_curves
from eorinfer.report.page import Block, Code, Drawings, Facts, Picture, Section, Table, Text
from eorinfer.report.run_folder import CHAINS, RunFolder, corners, true_values
from eorinfer.report.summary import summary


def sections(found: RunFolder) -> list[Section]:
    """All sections that have something, in order."""
    every = [
        Section("scores", "Scores of the methods", list(found.contest.blocks(found.out)) if found.contest else []),
        Section("observation", "Observation", list(_observation(found))),
        Section("posterior", "Posterior", list(_posterior(found))),
        Section("calibration", "Calibration", list(_calibration(found))),
        Section("check", "Is the observation like the simulations?", list(_check(found))),
        Section("predictive", "Posterior-predictive check", list(_predictive(found))),
        Section("training", "Training", list(_training(found))),
        Section("bank", "Simulations", list(_bank(found))),
        Section("config", "Config", [Code(found.config_text, "config.toml as run")] if found.config_text else []),
        Section("versions", "Versions", [_versions(found)]),
    ]
    return [section for section in every if section.blocks]


def _observation(found: RunFolder) -> Iterator[Block]:
    o = found.observation
    if o is None:
        return
    sizes = [f"{size:.4g}" for size in o.cell_size]
    size = " × ".join(sizes if len({*sizes}) > 1 else sizes[:1])
    facts: dict[str, Cell] = {
        "shape": f"{' × '.join(map(str, o.values.shape))} ({', '.join(o.axes)})",
        "unit": o.unit or "none",
        "cell size": f"{size} Mpc" if max(o.cell_size) > 0 else None,
    }
    if o.field_of_view:
        facts["field of view"] = f"{o.field_of_view:.4g} degrees"
    if o.coordinates:
        facts["along the line of sight"] = f"{o.coordinates[0]:.5g} to {o.coordinates[-1]:.5g}"
    facts["kind"] = "observed" if found.truth is None else "mock, true parameters known"
    if o.seed is not None:
        facts["seed"] = str(o.seed)
    yield Facts(facts)
    drawn = min(len(o.values), CHANNELS)
    some = f"{drawn} of {len(o.values)} channels. " if drawn < len(o.values) else ""
    middle = "Slices through the middle of each cube. " if o.values.ndim > 3 else ""
    yield Drawings(slices(o), f"{some}{middle}Colours span the central 99% of the values.")
    yield Table(
        ["channel", "mean", "standard deviation", "smallest", "largest"],
        [
            [channel_name(o, c), *(float(f(cube)) for f in (np.mean, np.std, np.min, np.max))]
            for c, cube in enumerate(o.values)
        ],
        caption=f"Values{f' in {o.unit}' if o.unit else ''}, over all cells of each channel.",
    )


def _posterior(found: RunFolder) -> Iterator[Block]:
    if not found.chains:
        return
    names = max((one.names for one in found.chains.values()), key=len)
    drawn = _drawn(found)
    for name, some in corners(drawn, names).items():
        labels = ", ".join(one.label for one in some)
        yield Picture.of(
            _corner(found, name, drawn, some),
            f"Corner plot of {', '.join(some[0].names)}: {labels}",
            caption="Contours hold 68% and 95%. Axes span the prior."
            + (" Dashed: true parameters." if true_values(found.truth, some[0]) is not None else "")
            + (f" {len(drawn)} of {len(found.chains)} posteriors are drawn." if len(drawn) < len(found.chains) else ""),
        )
    content = summary(found.chains, found.truth, {})["posteriors"]
    called = _labels(found.chains)
    rows = []
    for name, one in content.items():
        for parameter, p in one["parameters"].items():
            value = [to_figures_of(p[key], p["std"]) for key in ("mean", "std")]
            spans = [" to ".join(to_figures_of(v, p["std"]) for v in p[f"interval_{level}"]) for level in (68, 95)]
            row: list[Cell] = [parameter, called[name], *value, *spans, p["std_over_prior"]]
            rows.append([*row, p.get("truth"), p.get("bias_sigma")] if found.truth else row)
    columns = ["parameter", "method", "mean", "std", "68%", "95%", "std / prior"]
    rows.sort(key=lambda row: names.index(row[0]) if row[0] in names else len(names))
    yield Table(
        columns + (["truth", "bias [σ]"] if found.truth else []),
        rows,
        "What the posteriors say",
        "Intervals are central. std / prior: over the prior's standard deviation. "
        + ("Bias: mean minus truth, in standard deviations of the posterior." if found.truth else ""),
    )
    if not found.only_contest:
        yield _methods(found, content, called)


def _methods(found: RunFolder, content: dict[str, Any], labels: dict[str, str]) -> Table:
    """What each chain cost, and whether it is long enough."""
    facts: dict[str, dict[str, Any]] = {
        "npe": {"seconds": sum(r["seconds"] for r in found.rounds) or None},
        "mcmc": found.sampled["mcmc"] or {},
        "field-flow": found.sampled["field_flow"] or {},
    }
    rows: list[list[Cell]] = []
    for name, one in content.items():
        its = facts.get(name, {})
        seconds = its.get("seconds")
        seconds = sum(seconds.values()) if isinstance(seconds, dict) else seconds
        if name == "field-flow" and seconds is not None and "field" in found.trained:
            seconds += found.trained["field"].get("seconds", 0.0)
        long = its["steps"] / its["autocorrelation_time"] if its.get("autocorrelation_time") else None
        rows.append([labels[name], one["samples"], one["volume"], long, its.get("converged"), seconds])
    return Table(
        ["method", "samples", "volume", "steps / τ", "converged", "seconds"],
        rows,
        "What they cost",
        "Volume: square root of the covariance's determinant. A chain counts as converged from 50 autocorrelation "
        "times τ. Seconds of training and sampling, without simulating.",
    )


def _drawn(found: RunFolder) -> dict[str, Samples]:
    """All chains; or those of the run alone, where there are more than one can tell apart."""
    if len(found.chains) <= len(COLOURS):
        return found.chains
    # A contest has drawn those that it compares.
    return {name: one for name, one in found.chains.items() if name in CHAINS and not found.only_contest}


def _corner(found: RunFolder, name: str, drawn: dict[str, Samples], some: Sequence[Samples]) -> bytes:
    """The picture of the step `plot`, or a new one where a chain has been added or is newer."""
    file = found.out / f"{name}.png"
    chains = [found.out / "chains" / f"{chain}.txt" for chain in drawn]
    if (
        drawn.keys() <= {*CHAINS}
        and file.exists()
        and all(chain.stat().st_mtime <= file.stat().st_mtime for chain in chains)
    ):
        return file.read_bytes()
    return png_bytes(corner(*some, truth=true_values(found.truth, some[0])))


def _labels(chains: dict[str, Samples]) -> dict[str, str]:
    """Of each chain; with its file's name where two have the same one."""
    labels = [one.label for one in chains.values()]
    return {
        name: one.label if labels.count(one.label) == 1 else f"{one.label} ({name})" for name, one in chains.items()
    }


def _calibration(found: RunFolder) -> Iterator[Block]:
    v = found.validation
    if not v:
        return
    method = "field flow" if v.get("method") == "field-flow" else "NPE"
    left_out = f" {v['left_out']} more are left out: their chains are too short." if v.get("left_out") else ""
    yield Text(f"{method}: {v['verdict']}. Tested on {v['truths']} {v['source']}.{left_out}")
    if (found.out / "validation.png").exists():
        yield Picture.of(
            (found.out / "validation.png").read_bytes(),
            f"Ranks, coverage, TARP, widths and recovery of {v['truths']} truths. {v['verdict']}",
        )
    gain, loss = v["information_gain"], v["held_out_negative_log_likelihood"]
    yield Facts(
        {
            "information gained over the prior": minus(f"{gain['mean']:.2f} ± {gain['error']:.2f} nats"),
            "−ln q(θ|x) at held-out truths": minus(f"{loss['mean']:.2f} ± {loss['error']:.2f}"),
        }
    )
    tests = [
        [t["quantity"], t["test"].replace("kolmogorov-smirnov", "Kolmogorov-Smirnov"), t["p"], t["p_holm"]]
        for t in v["tests"]
    ]
    yield Table(["quantity", "test", "p", "p after Holm"], tests, "Tests", f"It fails below {v['level']:g} after Holm.")
    keys = {
        "rms error / prior": "rms_error_over_prior",
        "std / prior": "std_over_prior",
        "mean pull": "pull_mean",
        "std of pull": "pull_std",
        "inside 68%": "inside_68",
        "inside 95%": "inside_95",
    }
    rows = [[name, *(its[key] for key in keys.values())] for name, its in v["recovery"].items()]
    yield Table(["parameter", *keys], rows, "Recovery of the truths", "Pull: (mean − truth) / std. Prior: its std.")
    widths = [
        [name, label, ratio["median"], one["observations"]]
        for label, one in v["widths_over"].items()
        for name, ratio in one["std"].items()
    ]
    if widths:
        yield Table(
            ["parameter", "reference", "median ratio of std", "observations"], widths, "Widths over a reference's"
        )


def _check(found: RunFolder) -> Iterator[Block]:
    if found.check is not None:
        c, false = found.check, _false_alarms(found, "npe")
        word = "unlike" if c["unlike"] else "like"
        yield Text(_sentence(c.get("line", f"the observation is {word} the simulations (p = {c['p']:.2g})")))
        yield Facts({"p of its statistics": c["p_statistics"], "p of what the networks read": c["p_features"]} | false)
        yield Table(
            ["statistic", "observation − simulations [σ]"],
            [list(pair) for pair in c["deviations_sigma"].items()],
            "Statistics that are furthest off",
            "At the best parameters that the posterior allows.",
        )
    if found.alarm is not None:
        yield Text(_sentence(f"field flow: {found.alarm['line']}"))
        yield Facts({"p of all scales": found.alarm["p"]} | _false_alarms(found, "field-flow"))
        yield Table(
            ["scale", "observation − images of training [σ]", "p"],
            [[one["name"], one["deviation_sigma"], one["p"]] for one in found.alarm["scales"]],
            "ln p(x | y) of the field flow, by scale",
            "At the posterior's mean, among images that training held out: too low has structure that these lack, too "
            "high is too smooth.",
        )


def _false_alarms(found: RunFolder, method: str) -> dict[str, Cell]:
    """How many truths it would warn of, where this method was validated."""
    v = found.validation
    false = (v.get("misspecification") or {}).get("false_alarms") if v.get("method", "npe") == method else None
    return {} if false is None else {"truths it would warn of": f"{false:.1%}"}


def _predictive(found: RunFolder) -> Iterator[Block]:
    file = found.out / "predictive.png"
    if not file.exists():
        return
    told = found.summary.get("predictive")
    says = (
        f"{told['simulations']} simulations at posterior samples: the observed power is inside their central 95% in "
        f"{told['bins_inside_95']:.0%} of the bins."
        if told
        else ""
    )
    yield Picture.of(file.read_bytes(), f"Power spectrum of simulations at posterior samples and observed. {says}")
    if says:
        yield Text(says)


def _training(found: RunFolder) -> Iterator[Block]:
    curves = [
        training_curves(f"round {facts['round']}", [fit["history"] for fit in facts["fits"]]) for facts in found.rounds
    ]
    for folder, facts in found.trained.items():
        if "history" in facts:  # of a separator
            curves.append(training_curves("separation of lines", [facts["history"]]))
        elif isinstance(facts["fits"], dict):
            curves += [
                training_curves(f"field flow, {stage}", [fit["history"]]) for stage, fit in facts["fits"].items()
            ]
        else:
            curves.append(training_curves(folder.split("/")[1], [fit["history"] for fit in facts["fits"]]))
    if curves:
        yield Drawings(curves, "Solid: validation, dashed: training. The dot is the lowest loss in validation.")
    if not found.rounds:
        return
    rows: list[list[Cell]] = []
    for facts in found.rounds:
        left_out = sum(facts["left_out"].values())
        losses = minus(", ".join(f"{fit['validation_loss']:.3f}" for fit in facts["fits"]))
        counts = [facts[key] for key in ("simulations", "training_rows", "validation_rows")]
        rows.append([str(facts["round"]), *counts, left_out, facts["volume"], losses, facts["seconds"]])
    columns = ["round", "simulations", "to train", "to validate", "left out", "share of the prior", "loss", "seconds"]
    yield Table(
        columns,
        rows,
        "Rounds",
        "Simulations of a round and of those before it. Loss: the lowest in validation, of each network.",
    )


def _bank(found: RunFolder) -> Iterator[Block]:
    facts = found.bank
    if facts is None:
        return
    bank, ok = facts.bank, sum(one.counts.get("ok", 0) for one in facts.rounds)
    entries: dict[str, Cell] = {
        "simulator": bank.description["simulator"]["kind"],
        "fingerprint": bank.fingerprint,
        "simulations": facts.rows,
        "failed": facts.rows - ok,
        "on disk": f"{facts.megabytes:.1f} MB",
        "seconds each": facts.seconds / facts.rows if facts.rows else None,
        "in all, on one core": duration(facts.seconds),
    }
    yield Facts(entries)
    statuses = sorted({status for one in facts.rounds for status in one.counts})
    yield Table(
        ["round", "planned", *statuses],
        [[one.id, one.planned, *(one.counts.get(status, 0) for status in statuses)] for one in facts.rounds],
        "Rounds in the bank",
        "Number 00 are simulations that no round trains on: predictive checks and truths of a validation.",
    )
    if facts.reasons:
        rows = [[status, message or None, n] for status, message, n in facts.reasons]
        yield Table(["status", "reason", "simulations"], rows, "Failures")
    prior = found.config.get("prior", {})
    yield Table(
        ["parameter", "from", "to", "unit", "meaning"],
        [[p.name, *map(float, prior.get(p.name, (p.low, p.high))), p.unit, p.description] for p in bank.parameters],
        "Prior",
        "Flat in this range.",
    )
    yield Table(
        ["array", "shape", "unit"],
        [[o.name, " × ".join(map(str, o.shape)), o.unit] for o in bank.observables],
        "Arrays of a simulation",
    )


def _versions(found: RunFolder) -> Table:
    """Of the packages that made the bank, trained the posterior, and wrote this page."""
    trained = found.out / "posterior" / "posterior.json"
    columns: dict[str, dict[str, str]] = {}
    if found.bank is not None:
        columns["bank"] = found.bank.bank.description["packages"]
    if trained.exists():
        columns["posterior"] = read_json(trained)["packages"]
    columns["this page"] = package_versions()
    names = dict.fromkeys(name for one in columns.values() for name in one)
    return Table(["package", *columns], [[name, *(one.get(name) for one in columns.values())] for name in names])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
