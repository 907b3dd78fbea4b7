"""Conditional densities; the one module that builds sbi's estimators."""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from sbi.neural_nets import posterior_nn
from torch import Tensor, nn

from eorinfer.settings.npe import AUTO, FlowSettings
from simulators.parts import is_own, load_part


def build_flow(settings: FlowSettings, inputs: int, condition: int, beside: Path | None = None) -> Any:
    """Build the estimator of a density of `inputs` numbers, given `condition` others.

    Parameters
    ----------
    settings
        ``[flow]``: one of sbi's by name, or a user's function ``(inputs, condition, **options)``.
    inputs, condition
        Numbers of each.
    beside
        Folder of a user's module.

    Returns
    -------
    nn.Module
        With sbi's two methods: ``log_prob(z, condition)``, (n, B, inputs) and (B, condition) to (n, B), and
        ``sample((n,), condition)``, to (n, B, inputs).

    Raises
    ------
    ValueError
        If sbi does not take the options.
    """
    options = settings.options or {}
    if settings.kind == "none":
        return StandardNormal(inputs)
    kind = AUTO if settings.kind == "auto" else settings.kind
    if is_own(settings.kind):
        return load_part(settings.kind, beside).value(inputs, condition, **options)
    zuko = kind.startswith("zuko_")
    # zuko takes a list, for an int means something else; sbi's others take the width and the number of layers.
    hidden: dict[str, Any] = {"hidden_features": list(settings.hidden)}
    if not zuko:
        hidden = {"hidden_features": settings.hidden[0], "num_blocks": len(settings.hidden)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            build = posterior_nn(
                kind,
                **{
                    "z_score_theta": "none",
                    "z_score_x": "none",
                    "num_transforms": settings.transforms,
                    **hidden,
                    **options,
                },
            )
            flow = build(torch.zeros(2, inputs), torch.zeros(2, condition))
        except (TypeError, ValueError) as error:
            raise ValueError(f"options = {options}: {error}") from error
    # What sbi does not know goes on to zuko, which refuses what it does not know; its other estimators drop it.
    for warning in caught:
        if "Unknown kwargs" not in str(warning.message):
            warnings.warn(warning.message, stacklevel=2)
        elif not zuko:
            raise ValueError(f"options = {options}: {str(warning.message).partition('. ')[0]}")
    return flow


class StandardNormal(nn.Module):
    """A standard normal with the two methods of sbi's estimators: no flow.

    Parameters
    ----------
    inputs
        Numbers P of each draw.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self._inputs = inputs

    def log_prob(self, z: Tensor, condition: Tensor) -> Tensor:
        """Log density (n, B) of z (n, B, P), whatever the condition (B, F) is."""
        return -0.5 * (z.square().sum(-1) + self._inputs * math.log(2 * math.pi))

    def sample(self, shape: tuple[int, ...], condition: Tensor) -> Tensor:
        """Draw z (n, B, P) from torch's global random state, for conditions (B, F)."""
        return torch.randn(*shape, len(condition), self._inputs, device=condition.device)
