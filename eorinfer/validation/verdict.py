"""Verdict of a validation, in plain words and for ``validation.json``."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eorinfer.validation.calibration import Calibration
from eorinfer.validation.check import Check
from eorinfer.validation.sharpness import NO_DENSITY, gained_over
from eorinfer.validation.uniformity import COVERAGE, LEVEL, POWER, TARP, symptom


def verdict_line(calibration: Calibration) -> str:
    """Say the verdict, and the smallest errors that the validation would find, in plain words."""
    visible = calibration.visible
    narrow = f"-{visible.too_narrow:.0%}" if visible.too_narrow < 1 else ""
    wide = f"+{visible.too_wide:.0%}" if np.isfinite(visible.too_wide) else ""
    width = " or ".join(error for error in (narrow, wide) if error)
    mean = f"of {visible.shift:.2f} sigma in one mean" if np.isfinite(visible.shift) else ""
    errors = " or ".join(error for error in (f"of {width} in one width" if width else "", mean) if error)
    ability = f"with {calibration.truths} test cases " + (
        f"an error {errors} would be found in {POWER:.0%} of validations"
        if errors
        else "hardly any error would be found"
    )
    worst = calibration.worst
    if calibration.calibrated:
        return f"calibrated: smallest p-value {worst.p_holm:.2g} after Holm's correction; {ability}"
    wrong = {test.quantity: test for test in calibration.tests[::-1] if test.p_holm < LEVEL}
    words = ", ".join(symptom(q, calibration.fractions[q]) for q in calibration.fractions if q in wrong)
    return f"NOT calibrated: {words} (p = {worst.p_holm:.1g} after Holm's correction, below {LEVEL:g}); {ability}"


def calibration_content(calibration: Calibration) -> dict[str, Any]:
    """Write the calibration for JSON; an error that would not be found at any size is null."""
    visible = calibration.visible
    credibility = np.linspace(0.05, 0.95, 19)
    # Credibility of the region of highest density that has the truth on its border.
    needed = 1 - calibration.fractions[COVERAGE]
    return {
        "level": LEVEL,
        "tests": [{"quantity": t.quantity, "test": t.test, "p": t.p, "p_holm": t.p_holm} for t in calibration.tests],
        "effects": {
            quantity: asdict(effect) | {"line": effect.line()} for quantity, effect in calibration.effects.items()
        },
        "smallest_visible": {
            "chance": POWER,
            "width_too_narrow": visible.too_narrow if visible.too_narrow < 1 else None,
            "width_too_wide": visible.too_wide if np.isfinite(visible.too_wide) else None,
            "mean_off_sigma": visible.shift if np.isfinite(visible.shift) else None,
        },
        "expected_coverage": {
            "credibility": credibility.round(2).tolist(),
            "coverage": [float(np.mean(needed <= c)) for c in credibility],
        },
        "tarp": {
            "credibility": calibration.tarp[:, 0].tolist(),
            "coverage": calibration.tarp[:, 1].tolist(),
            "area_to_curve": calibration.area_to_curve,
            "largest_deviation": calibration.tarp_deviation,
            "chance_level": calibration.tarp_chance,
        },
    }


def effect_lines(calibration: Calibration) -> Iterator[str]:
    """Say the size of each error, with its band, beside its p-value."""
    for quantity, effect in calibration.effects.items():
        p = min(test.p_holm for test in calibration.tests if test.quantity == quantity)
        name = "regions of highest density" if quantity == COVERAGE else quantity
        yield f"{name}: {effect.line()} (p = {p:.2g})"
    p = min(test.p_holm for test in calibration.tests if test.quantity == TARP)
    yield (
        f"TARP: expected coverage off by {calibration.tarp_deviation:+.3f} at most, chance gives "
        f"{calibration.tarp_chance:.3f} (p = {p:.2g})"
    )


def misspecification_content(check: Check | None, checks: Sequence[Check]) -> dict[str, Any] | None:
    """Write the check of the observation for JSON, and the share of truths that it would warn of."""
    if check is None:
        return None
    return check.content() | {"false_alarms": float(np.mean([truth.unlike for truth in checks])) if checks else None}


def sharpness_lines(content: dict[str, Any]) -> Iterator[str]:
    """Say sharpness and recovery of ``validation.json`` in plain words."""
    for name, scores in content["recovery"].items():
        yield (
            f"{name}: rms error {scores['rms_error_over_prior']:.2f} of the prior's width, "
            f"{scores['inside_68']:.0%} of truths inside 68%, {scores['inside_95']:.0%} inside 95%"
        )
    gain, loss = content["information_gain"], content["held_out_negative_log_likelihood"]
    yield (
        f"held-out negative log-likelihood {loss['mean']:.2f} +- {loss['error']:.2f}; "
        f"information gained over {gained_over(content)} {gain['mean']:.2f} +- {gain['error']:.2f} nats"
    )
    if without := content.get("truths_without_density", 0):
        yield (
            f"{without} of {content['truths']} truths have no density in their posteriors; each counts as a failure, "
            f"with ln p = {NO_DENSITY:.0f}"
        )
    for label, widths in content["widths_over"].items():
        ratios = ", ".join(f"{name} {ratio['median']:.2f}" for name, ratio in widths["std"].items())
        short = f"; {widths['short_chains']} chains are too short" if widths["short_chains"] else ""
        yield f"widths over those of the {label} posterior, median of {widths['observations']}: {ratios}{short}"
