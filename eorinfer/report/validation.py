"""Sections of the page on what the posterior is worth: calibration, worlds, and whether the observation is alike."""

from collections.abc import Iterator
from typing import Any

from eorinfer.report.cells import Cell, count, measurement, number, words, yes_or_no
from eorinfer.report.page import Block, Facts, Picture, Table, Text
from eorinfer.report.run_folder import RunFolder
from eorinfer.validation.sharpness import gained_over


def _size(validation: dict[str, Any], quantity: str) -> str:
    """Say how large the error of a quantity is; a validation of an older version does not know."""
    tarp = validation.get("tarp", {})
    if quantity == "tarp" and "largest_deviation" in tarp:
        return f"coverage off by {tarp['largest_deviation']:+.3f} at most; chance gives {tarp['chance_level']:.3f}"
    return str(validation.get("effects", {}).get(quantity, {}).get("line", ""))


def calibration_blocks(run: RunFolder) -> Iterator[Block]:
    v = run.validation
    if not v:
        return
    method = {"field-flow": "image flow", "combined": "NPE and image flow"}.get(v.get("method", "npe"), "NPE")
    left_out = f" {v['left_out']} more are left out: their chains are too short." if v.get("left_out") else ""
    yield Text(f"{method}: {v['verdict']}. Tested on {v['truths']} {v['source']}.{left_out}")
    if (run.out / "validation.png").exists():
        yield Picture.from_file(
            run.out / "validation.png",
            f"Ranks, coverage, TARP, widths and recovery of {v['truths']} truths. {v['verdict']}",
        )
    gain, loss = v["information_gain"], v["held_out_negative_log_likelihood"]
    yield Facts(
        {
            f"information gained over {gained_over(v)}": measurement(gain["mean"], gain["error"], unit="nats"),
            "−ln q(θ|x) at held-out truths": measurement(loss["mean"], loss["error"]),
        }
    )
    tests = [
        [
            words(t["quantity"]),
            words(t["test"].replace("kolmogorov-smirnov", "Kolmogorov-Smirnov")),
            number(t["p"]),
            number(t["p_holm"]),
            words(_size(v, t["quantity"])),
        ]
        for t in v["tests"]
    ]
    columns = ["quantity", "test", "p", "p after Holm", "size of the error"]
    yield Table(columns, tests, "Tests", f"It fails below {v['level']:g} after Holm.")
    if near := v.get("near_the_observation"):
        errors = "; ".join(f"{quantity}: {effect['line']}" for quantity, effect in near["effects"].items())
        yield Text(
            f"Near the observation: l-C2ST p = {near['p']:.2g}. The {near['nearest']} truths with the nearest "
            f"posteriors: {errors}."
        )
    keys = {
        "rms error / prior": "rms_error_over_prior",
        "std / prior": "std_over_prior",
        "mean pull": "pull_mean",
        "std of pull": "pull_std",
        "inside 68%": "inside_68",
        "inside 95%": "inside_95",
    }
    rows = [[words(name), *(number(scores[key]) for key in keys.values())] for name, scores in v["recovery"].items()]
    yield Table(["parameter", *keys], rows, "Recovery of the truths", "Pull: (mean − truth) / std. Prior: its std.")
    widths = [
        [words(name), words(label), number(ratio["median"], ".3g"), count(over["observations"])]
        for label, over in v["widths_over"].items()
        for name, ratio in over["std"].items()
    ]
    if widths:
        yield Table(
            ["parameter", "reference", "median ratio of std", "observations"], widths, "Widths over a reference's"
        )


def worlds_blocks(run: RunFolder) -> Iterator[Block]:
    """Say on which worlds the posterior was trained, and what it does on each: widths mean nothing without it."""
    trained = run.rounds[-1].get("worlds") if run.rounds else None
    if trained is None:
        return
    seen = ", ".join(f"{name} ({n} simulations)" for name, n in trained.items())
    scores = run.validation.get("worlds") or []
    yield from _odds(run)
    yield Text(
        f"The posterior was trained on {len(trained)} model(s), or worlds: {seen}. Its widths hold for observations of "
        "these. " + ("" if scores else "What it does on each is not known: eorinfer validate tests it.")
    )
    if not scores:
        return
    names = list(scores[0]["bias"])
    columns = ["world", "trained on", "nats gained", "rms [σ]: " + ", ".join(names), "inside 68%", "warned of"]
    rows = [
        [
            words(score["name"]),
            yes_or_no(score["trained"]),
            measurement(score["gain"], score["gain_error"]),
            words(", ".join(f"{score['rms'][name]:.2f}" for name in names)),
            words(", ".join(f"{score['inside_68'][name]:.0%}" for name in names)),
            words(", ".join(f"{share:.0%} of {n}" for n, share in score["warned"].items())),
        ]
        for score in scores
    ]
    beyond = sum(score.get("left_out", 0) for score in scores)  # older files have none
    left_out = f", but for {beyond} in all whose targets are beyond those of the training" if beyond else ""
    yield Table(
        columns,
        rows,
        "Worlds, one by one",
        f"Of {scores[0]['truths'] + scores[0].get('left_out', 0)} test observations each{left_out}. Right widths have "
        "an rms of 1 σ and 68% inside. Warned of: single observations, and groups of several together.",
    )


def _odds(run: RunFolder) -> Iterator[Block]:
    """Say the odds of the worlds for the observation, and how right such odds are."""
    odds, tested = run.odds, run.validation.get("world_odds")
    if not odds:
        return
    rows = [[words(name), number(p, ".1%")] for name, p in sorted(odds.items(), key=lambda one: -one[1])]
    said = "How right such odds are is not known: eorinfer validate tests it."
    if tested:
        said = (
            f"On {tested['truths']} truths the likeliest world is the right one for {tested['accuracy']:.0%}; mean log "
            f"score {tested['log_score']:.2f} nats, by chance {tested['log_score_of_chance']:.2f}; calibrated with "
            f"p = {tested['p_calibrated']:.2g}."
        )
    yield Table(["world", "odds"], rows, "Which world the observation is of", said)


def check_blocks(run: RunFolder) -> Iterator[Block]:
    if run.check is not None:
        c, false_alarms = run.check, _false_alarms(run, "npe")
        word = "unlike" if c["unlike"] else "like"
        yield Text(_sentence(c.get("line", f"the observation is {word} the simulations (p = {c['p']:.2g})")))
        p_values = {"p of its statistics": "p_statistics", "p of what the networks read": "p_features"}
        yield Facts({name: number(c[key]) for name, key in p_values.items()} | false_alarms)
        yield Table(
            ["statistic", "observation − simulations [σ]"],
            [[words(name), number(sigma)] for name, sigma in c["deviations_sigma"].items()],
            "Statistics that are furthest off",
            "At the best parameters that the posterior allows.",
        )
    if run.alarm is not None:
        yield Text(_sentence(f"image flow: {run.alarm['line']}"))
        yield Facts({"p of all scales": number(run.alarm["p"])} | _false_alarms(run, "field-flow"))
        yield Table(
            ["scale", "observation − images of training [σ]", "p"],
            [
                [words(scale["name"]), number(scale["deviation_sigma"]), number(scale["p"])]
                for scale in run.alarm["scales"]
            ],
            "ln p(x | y) of the image flow, by scale",
            "At the posterior's mean, among images that training held out. Too low: the observation has structure that "
            "they do not have. Too high: it is smoother than they are.",
        )


def _false_alarms(run: RunFolder, method: str) -> dict[str, Cell]:
    """Give the share of truths that the check would warn of, where this method was validated."""
    v = run.validation
    share = (v.get("misspecification") or {}).get("false_alarms") if v.get("method", "npe") == method else None
    return {} if share is None else {"truths it would warn of": number(share, ".1%")}


def _sentence(text: str) -> str:
    """Begin with a capital, and end with a full stop."""
    return f"{text[:1].upper()}{text[1:]}."
