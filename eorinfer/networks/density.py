"""Conditional densities; the one module that builds sbi's estimators."""

from typing import Any

import torch
from sbi.neural_nets import posterior_nn

from eorinfer.settings.npe import FlowSettings


def build_flow(settings: FlowSettings, inputs: int, condition: int) -> Any:
    """Build sbi's estimator of a density of `inputs` numbers, given `condition` others."""
    build = posterior_nn(
        settings.kind,
        z_score_theta="none",
        z_score_x="none",
        hidden_features=list(settings.hidden),  # an int means something else
        num_transforms=settings.transforms,
    )
    return build(torch.zeros(2, inputs), torch.zeros(2, condition))
