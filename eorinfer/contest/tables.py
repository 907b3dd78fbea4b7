"""Tables of a contest, for its JSON, the terminal and the page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eorinfer.contest.scores import Score, common_truths, compare, find_score
from eorinfer.core.digits import with_error
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.likelihood.convergence import LONG_ENOUGH
from eorinfer.settings.contest import ContestSettings
from eorinfer.validation.calibration import recovery
from eorinfer.validation.uniformity import COVERAGE

Table = dict[str, Any]


def contest_tables(scores: Sequence[Score], settings: ContestSettings, prior: Prior, seed: int) -> list[Table]:
    """Tabulate information, volumes, calibration and the recovery of each parameter; `seed` is the bootstrap's."""
    contents = [score.content(prior) for score in scores]
    common = common_truths(scores, min(settings.truths, settings.sampled_truths))
    return [
        _information(scores, contents, settings, prior, common, seed),
        _volumes(scores, contents, settings, seed),
        _calibration(scores, contents),
        _calibration_in_detail(scores, contents),
        *_parameters(scores, contents, settings, prior, common, seed),
    ]


def on_common(score: Score, common: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Rows (T,) of a method's truths that are common to all; None if it was not evaluated on them all."""
    rows = np.zeros(len(score.posteriors), bool)
    if len(rows) < len(common):
        return None
    rows[: len(common)] = common
    return rows


def choice_table(choices: Sequence[tuple[str, dict[str, Any]]], n: int) -> Table:
    """Tabulate the information gained on truths that enter no score, by labels of methods."""
    return {
        "title": "Truths for choices",
        "caption": f"On {n} further truths, which enter none of the scores above: to choose settings by.",
        "columns": ["method", "information gained, nats"],
        "rows": [[label, with_error(gain["mean"], gain["error"])] for label, gain in choices],
    }


def observation_table(chains: Sequence[Samples], truth: NDArray[np.float64] | None) -> Table:
    """Tabulate each method's posterior of the run's observation, above the true parameters (P,) if they are known."""
    rows: list[list[Any]] = [
        [chain.label, *(with_error(m, s) for m, s in zip(chain.mean, chain.std, strict=True))] for chain in chains
    ]
    if truth is not None:
        rows.append(["truth", *(f"{x:.3g}" for x in truth)])
    return {
        "title": "The observation of the run",
        "caption": "Mean and standard deviation of each posterior.",
        "columns": ["method", *chains[0].names],
        "rows": rows,
    }


def cost_table(
    scores: Sequence[Score],
    simulations: int,
    each: float | None,
    sequential: dict[str, Any] | None,
    loop: dict[str, Any] | None,
) -> Table:
    """Tabulate simulator calls and seconds of a posterior.

    Parameters
    ----------
    scores
        Scores of all methods.
    simulations, each
        Number of simulations that all were trained on, and the seconds of one; None where all were imported.
    sequential, loop
        Facts from `sequential_posterior` and `loop_posterior`; None where they did not take part.
    """

    def simulating(calls: int) -> int | None:
        return None if each is None and calls else round(calls * (each or 0))

    rows: list[list[Any]] = []
    for score in scores:
        training, each_observation = round(score.method.training_seconds), float(np.median(score.posteriors.seconds))
        # The exact likelihood is a formula.
        calls = 0 if score.method.name.startswith("exact") else simulations
        rows.append([score.method.label, calls, simulating(calls), training, _short(each_observation)])
    if sequential:
        calls, training = sequential["simulations"], round(sequential["training_seconds"])
        rows.append([f"{sequential['label']}, this observation alone", calls, simulating(calls), training, None])
    if loop:
        calls, more = loop["simulations"], loop["simulations_for_a_chain_of_50"]
        label = f"{loop['label']}: {loop['autocorrelation_times']:.1f} autocorrelation times, as far as it went"
        rows.append([label, calls, simulating(calls), None, round(loop["seconds"])])
        label = f"{loop['label']}: {LONG_ENOUGH} autocorrelation times, by extrapolation"
        rows.append([label, more, simulating(more), None, simulating(more)])
    return {
        "title": "Simulator calls and seconds",
        "caption": "Seconds by the clock on the machine that ran it, whatever else it did; simulating as if one after "
        "the other. What is trained on is simulated once for all methods and all observations.",
        "columns": ["method", "simulations", "simulating, s", "training, s", "an observation, s"],
        "rows": rows,
    }


def _information(
    scores: Sequence[Score],
    contents: Sequence[dict[str, Any]],
    settings: ContestSettings,
    prior: Prior,
    common: NDArray[np.bool_],
    seed: int,
) -> Table:
    baseline = find_score(scores, settings.baseline)
    columns = ["method", "truths", f"information gained, nats, on the same {common.sum()} truths"]
    columns += [f"nats more than {baseline.method.label}"] if baseline else []
    rows: list[list[Any]] = []
    for score, content in zip(scores, contents, strict=True):
        rows_of = on_common(score, common)
        gain = None if rows_of is None else score.gain(prior, rows_of)
        row = [content["label"], content["truths"] - content["left_out"]]
        row.append(None if gain is None else with_error(gain["mean"], gain["error"]))
        if baseline is not None:
            more = None if score is baseline else compare(score, baseline, seed)
            row.append(with_error(more["gain"], more["gain_error"], "+") if more else None)
        rows.append(row)
    caption = (
        "Information gained: mean log posterior density at the truth less that of the prior, on truths that all "
        "methods share; empty for a method with fewer. Differences are of the truths that two methods share. "
        "Errors: of the truths"
        + (f", and of {settings.seeds} trainings." if settings.seeds > 1 else ", without the scatter of training.")
    )
    return {"title": "Information", "caption": caption, "columns": columns, "rows": rows}


def _volumes(
    scores: Sequence[Score], contents: Sequence[dict[str, Any]], settings: ContestSettings, seed: int
) -> Table:
    found = (find_score(scores, name) for name in (settings.baseline, settings.reference))
    others = [other for other in found if other is not None]
    columns = ["method"]
    for other in others:
        columns += [f"volume over that of {other.method.label}, median", "smaller for"]
    rows: list[list[Any]] = []
    for score, content in zip(scores, contents, strict=True):
        row: list[Any] = [content["label"]]
        for other in others:
            ratio = None if score is other else compare(score, other, seed)
            row += [f"{ratio['volume']:.2f}", f"{ratio['smaller']:.0%}"] if ratio else [None, None]
        rows.append(row)
    return {
        "title": "Volumes",
        "caption": "Volume: the exponential of the entropy, on the truths that two methods share. Only calibrated "
        "methods can be compared in volume.",
        "columns": columns,
        "rows": rows,
    }


def _calibration(scores: Sequence[Score], contents: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            c["label"],
            c["truths"] - c["left_out"],
            _yes(s),
            _short(c["worst_p"]),
            c["worst_test"],
            f"{100 * c['effects'][COVERAGE]['width']:+.0f} ± {100 * c['effects'][COVERAGE]['width_error']:.0f}%",
        ]
        for s, c in zip(scores, contents, strict=True)
    ]
    return {
        "title": "Calibration",
        "caption": "Ranks of the truths (SBC of each parameter, expected coverage, TARP), two tests of each; p with "
        "Holm's correction over all tests of a method; calibrated: no p below 0.01. Widths: error of the regions of "
        "highest density, below 0 too narrow.",
        "columns": ["method", "truths", "calibrated", "smallest p", "of", "widths off by"],
        "rows": rows,
    }


def _calibration_in_detail(scores: Sequence[Score], contents: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            c["label"],
            c["left_out"],
            _short(c["sbc_p"]),
            f"{c['tarp_deviation']:+.3f} ({c['tarp_chance']:.3f})",
            f"{s.calibration.visible.too_narrow:.0%}, {s.calibration.visible.too_wide:.0%}",
        ]
        for s, c in zip(scores, contents, strict=True)
    ]
    return {
        "title": "Calibration in detail",
        "caption": "Left out: truths whose posterior cannot be relied on, such as chains that did not converge. TARP: "
        "the largest deviation of coverage from credibility, and in brackets what 95% of right posteriors stay within. "
        "Last column: by how much a width would have to be too narrow, or too wide, to be noticed with that number of "
        "truths.",
        "columns": [
            *("method", "left out", "smallest p of a parameter", "TARP, largest deviation (chance)"),
            "visible: narrow, wide",
        ],
        "rows": rows,
    }


def _parameters(
    scores: Sequence[Score],
    contents: Sequence[dict[str, Any]],
    settings: ContestSettings,
    prior: Prior,
    common: NDArray[np.bool_],
    seed: int,
) -> tuple[Table, Table]:
    """Tabulate how wide each parameter's posterior is, and whether it holds the truth as often as it says."""
    reference = find_score(scores, settings.reference)
    sizes: list[list[Any]] = []
    shares: list[list[Any]] = []
    for score, content in zip(scores, contents, strict=True):
        ratio = None if reference is None or score is reference else compare(score, reference, seed)
        rows_of = on_common(score, common)
        of_names = content["recovery"]
        if rows_of is not None:
            of_names = recovery(prior.names, score.theta[rows_of], score.posteriors.values[rows_of], prior.std)
        for i, name in enumerate(prior.names):
            recovered, row = of_names[name], [content["label"], name]
            size = [f"{recovered[key]:.3f}" for key in ("std_over_prior", "rms_error_over_prior")]
            sizes.append([*row, *size, f"{ratio['widths'][i]:.2f}" if ratio else None])
            pull = [f"{recovered['pull_mean']:+.2f}", f"{recovered['pull_std']:.2f}"]
            shares.append([*row, *pull, *(f"{recovered[key]:.0%}" for key in ("inside_68", "inside_95"))])
    of = "On the truths that all methods share, or all of a method with fewer."
    relative = f"std over that of {reference.method.label}" if reference else "relative std"
    return (
        {
            "title": "Each parameter",
            "caption": f"Median standard deviation and rms error of the mean over the prior's standard deviation. {of}",
            "columns": ["method", "parameter", "std", "rms error", relative],
            "rows": sizes,
        },
        {
            "title": "Coverage of each parameter",
            "caption": "Mean and standard deviation of (mean - truth)/std; truths inside the central 68% and 95%. "
            f"{of}",
            "columns": ["method", "parameter", "bias, σ", "pull", "inside 68%", "inside 95%"],
            "rows": shares,
        },
    )


def text_lines(table: Table) -> list[str]:
    """Give a table as aligned lines of text."""
    rows = [table["columns"], *[["" if cell is None else str(cell) for cell in row] for row in table["rows"]]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [table["title"], *aligned]


def _yes(score: Score) -> str:
    calibrated = [training.calibration.calibrated for training in score.trainings]
    if len(calibrated) == 1:
        return "yes" if calibrated[0] else "no"
    return f"{sum(calibrated)} of {len(calibrated)}"


def _short(value: float) -> str:
    return f"{value:.2g}"
