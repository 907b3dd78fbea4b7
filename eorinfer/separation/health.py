"""Diagnose what goes wrong with a separator, from the history of its training and from its draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from eorinfer.core.errors import WorkError
from eorinfer.core.progress import Progress
from eorinfer.training.data import named_rows

#: Number of consecutive stages that must show a problem.
STAGES = 3
#: Accuracy of the discriminator above which the generator learns nothing from it.
WON = 0.98
#: Variance over that of the true maps, and spread of draws over their error, below which the output has collapsed.
COLLAPSED, STILL = 0.05, 1e-3
#: Spread of draws over that of a posterior below which they are too sure. With 256 maps its error is about 0.05.
SURE = 0.8
#: Rise of the validation error over its minimum that means overfitting, as a share of the minimum.
RISE = 0.1


def warn_once(
    history: Sequence[Mapping[str, Any]], lines: Sequence[str], warned: set[str], progress: Progress, step: int
) -> None:
    """Write the warnings of `diagnose` whose problem has not been `warned` of, after a step."""
    for warning in diagnose(history, lines):
        if (problem := warning.split(":")[0]) not in warned:
            warned.add(problem)
            progress.line(f"separation, step {step}: {warning}")


def refuse_not_finite(finite: Tensor, maps: DataLoader[tuple[Tensor, ...]]) -> None:
    """Raise a `WorkError` that names the validation maps whose result is not `finite` (N,)."""
    if not finite.all():
        rows = torch.nonzero(~finite).flatten().tolist()
        raise WorkError(
            f"separation: {len(rows)} of {len(finite)} validation maps are not finite: {named_rows(maps, rows)}. Look "
            "at their cubes (`eorinfer bank export`); if they are right, lower [separation] learning_rate"
        )


def diagnose(history: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> list[str]:
    """Write warnings about a training so far: the problem, a colon, and its cause or cure.

    Parameters
    ----------
    history
        Entry of each stage: ``validation`` error, and the ``network`` that it trained where there are several. Of a GAN
        also ``accuracy`` and ``gap`` of the discriminator, ``variance`` and ``spread`` of each line, and whether there
        are a discriminator (``adversarial``) and ``draws``.
    lines
        Names of the lines.
    """
    networks = dict.fromkeys(h.get("network") for h in history)
    return [w for n in networks for w in _diagnose([h for h in history if h.get("network") == n], lines)]


def too_sure(sureness: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Write a warning for each line whose draws are too sure of some quantity; see `calibration.sureness`."""
    warnings = []
    for line, ratios in sureness.items():
        if sure := ", ".join(f"{quantity} ({ratio:.2f})" for quantity, ratio in ratios.items() if not ratio >= SURE):
            warnings.append(
                f"draws of {line} are too sure: {sure}, their spread over that of a posterior; more [separation] steps "
                "or simulations, or another kind, may change that"
            )
    return warnings


def _diagnose(history: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> list[str]:
    warnings: list[str] = []
    last = history[-STAGES:]
    if len(last) < STAGES:
        return warnings
    if all(h.get("adversarial") and h["accuracy"] > WON for h in last):
        warnings.append(
            f"the discriminator has won: for {STAGES} stages it has told {last[-1]['accuracy']:.1%} of the pairs apart "
            f"(logits {last[-1]['gap']:.1f} apart), and teaches the generator little; the mean absolute error carries "
            "the training. A lower [separation] discriminator_rate or a smaller weight changes that"
        )
    for i, line in enumerate(lines):
        if all("variance" in h and h["variance"][i] < COLLAPSED for h in last):
            warnings.append(
                f"the output of {line} has collapsed: its variance is {last[-1]['variance'][i]:.1%} of that of the "
                "true maps; either the line cannot be seen in this noise, or the training failed"
            )
        if all(h.get("draws") and h["spread"][i] < STILL for h in last):
            warnings.append(
                f"draws of {line} do not vary: their spread is {last[-1]['spread'][i]:.1e} of their error; "
                "a larger [separation] dropout makes them"
            )
    lowest = min(h["validation"] for h in history)
    if all(h["validation"] > (1 + RISE) * lowest for h in last):
        warnings.append(
            "training maps are learnt by heart: the error on validation maps is "
            f"{last[-1]['validation'] / lowest - 1:.0%} above its lowest; give more simulations, mix = true, or "
            "fewer steps"
        )
    return warnings
