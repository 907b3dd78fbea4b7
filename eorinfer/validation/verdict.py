"""The verdict of a validation: in plain words, and for ``validation.json``."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eorinfer.validation.calibration import COVERAGE, LEVEL, POWER, Calibration, symptom
from eorinfer.validation.check import Check


def verdict_line(calibration: Calibration) -> str:
    """The verdict, and what the validation could have seen, in plain words."""
    seen = calibration.visible
    found = [
        f"widths {seen.too_narrow:.0%} too narrow" if seen.too_narrow < 1 else "",
        f"{seen.too_wide:.0%} too wide" if np.isfinite(seen.too_wide) else "",
        f"means off by {seen.shift:.2f} sigma" if np.isfinite(seen.shift) else "",
    ]
    could = " or ".join(part for part in found if part) or "hardly any error"
    ability = f"{calibration.truths} truths would have shown {could} in one parameter with a chance of {POWER:.0%}"
    worst = calibration.worst
    if calibration.calibrated:
        return f"calibrated: smallest p-value {worst.p_holm:.2g} after Holm's correction; {ability}"
    wrong = {test.quantity: test for test in calibration.tests[::-1] if test.p_holm < LEVEL}
    words = ", ".join(symptom(q, calibration.fractions[q]) for q in calibration.fractions if q in wrong)
    return f"NOT calibrated: {words} (p = {worst.p_holm:.1g} after Holm's correction, below {LEVEL:g}); {ability}"


def calibration_content(calibration: Calibration) -> dict[str, Any]:
    """For JSON; what would not have been seen at any size is null."""
    seen = calibration.visible
    credibility = np.linspace(0.05, 0.95, 19)
    # Credibility of the region of highest density that has the truth on its border.
    needed = 1 - calibration.fractions[COVERAGE]
    return {
        "level": LEVEL,
        "tests": [{"quantity": t.quantity, "test": t.test, "p": t.p, "p_holm": t.p_holm} for t in calibration.tests],
        "smallest_visible": {
            "chance": POWER,
            "width_too_narrow": seen.too_narrow if seen.too_narrow < 1 else None,
            "width_too_wide": seen.too_wide if np.isfinite(seen.too_wide) else None,
            "mean_off_sigma": seen.shift if np.isfinite(seen.shift) else None,
        },
        "expected_coverage": {
            "credibility": credibility.round(2).tolist(),
            "coverage": [float(np.mean(needed <= c)) for c in credibility],
        },
        "tarp": {
            "credibility": calibration.tarp[:, 0].tolist(),
            "coverage": calibration.tarp[:, 1].tolist(),
            "area_to_curve": calibration.area_to_curve,
        },
    }


def misspecification_content(check: Check | None, checks: Sequence[Check]) -> dict[str, Any] | None:
    """For JSON: the observation, and how many truths, which are like the simulations, it warns of."""
    if check is None:
        return None
    return check.content() | {"false_alarms": float(np.mean([one.unlike for one in checks])) if checks else None}


def sharpness_lines(content: dict[str, Any]) -> Iterator[str]:
    """What ``validation.json`` says of sharpness and recovery, in plain words."""
    for name, found in content["recovery"].items():
        yield (
            f"{name}: rms error {found['rms_error_over_prior']:.2f} of the prior's width, "
            f"{found['inside_68']:.0%} of truths inside 68%, {found['inside_95']:.0%} inside 95%"
        )
    gain, loss = content["information_gain"], content["held_out_negative_log_likelihood"]
    yield (
        f"held-out negative log-likelihood {loss['mean']:.2f} +- {loss['error']:.2f}; "
        f"information gained over the prior {gain['mean']:.2f} +- {gain['error']:.2f} nats"
    )
    for label, widths in content["widths_over"].items():
        ratios = ", ".join(f"{name} {ratio['median']:.2f}" for name, ratio in widths["std"].items())
        short = f"; {widths['short_chains']} chains are too short" if widths["short_chains"] else ""
        yield f"widths over those of the {label} posterior, median of {widths['observations']}: {ratios}{short}"
