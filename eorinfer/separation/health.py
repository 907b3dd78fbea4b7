"""Read failures of a GAN from the history of its training."""

from typing import Any

#: Number of stages in a row that a failure must last.
STAGES = 3
#: Share of pairs that a discriminator tells apart when the generator can learn nothing from it any more.
WON = 0.98
#: Variance of the output over that of the true maps, and spread of draws over their error, below which it collapsed.
COLLAPSED, STILL = 0.05, 1e-3
#: Rise of the validation error over its lowest, beyond which training maps are learnt by heart.
RISE = 0.1


def diagnose(history: list[dict[str, Any]], lines: list[str]) -> list[str]:
    """List warnings about a training so far; each begins with its kind and a colon.

    Parameters
    ----------
    history
        Entry of each stage: ``accuracy`` and ``gap`` of the discriminator, ``variance`` and ``spread`` of each line,
        ``validation`` error, and whether there are a discriminator (``adversarial``) and ``draws``.
    lines
        Names of the lines.
    """
    found: list[str] = []
    last = history[-STAGES:]
    if len(last) < STAGES:
        return found
    if all(h["adversarial"] and h["accuracy"] > WON for h in last):
        found.append(
            f"the discriminator has won: for {STAGES} stages it has told {last[-1]['accuracy']:.1%} of the pairs apart "
            f"(logits {last[-1]['gap']:.1f} apart), and teaches the generator little; the mean absolute error carries "
            "the training. A lower [separation] discriminator_rate or a smaller weight changes that"
        )
    for i, line in enumerate(lines):
        if all(h["variance"][i] < COLLAPSED for h in last):
            found.append(
                f"the output of {line} has collapsed: its variance is {last[-1]['variance'][i]:.1%} of that of the "
                "true maps; either the line cannot be seen in this noise, or the training failed"
            )
        if all(h["draws"] and h["spread"][i] < STILL for h in last):
            found.append(
                f"draws of {line} do not vary: their spread is {last[-1]['spread'][i]:.1e} of their error; "
                "a larger [separation] dropout makes them"
            )
    lowest = min(h["validation"] for h in history)
    if all(h["validation"] > (1 + RISE) * lowest for h in last):
        found.append(
            "training maps are learnt by heart: the error on validation maps is "
            f"{last[-1]['validation'] / lowest - 1:.0%} above its lowest; give more simulations, mix = true, or "
            "fewer steps"
        )
    return found
