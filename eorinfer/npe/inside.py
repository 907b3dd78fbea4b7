"""Draws of an ensemble for one observation inside the prior and the regions, by rejection."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.core.errors import InputError, WorkError
from eorinfer.npe import ensemble
from eorinfer.npe.density import ThetaDensity

#: A truncated posterior answers for an observation with at most this share of its mass outside the region.
OUTSIDE_SHARE = 0.02
#: Draws after which, and share of them inside the prior below which, sampling gives up.
TRIED, INSIDE_SHARE = 200_000, 1e-3


def draw_inside(
    networks: Sequence[ThetaDensity],
    features: Sequence[Tensor],
    contains: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    n: int,
    seed: int,
    *,
    label: str,
    truncated: bool,
) -> NDArray[np.float64]:
    """Draw theta (n, P) that `contains` accepts, given features (1, F) of each network; `label` begins errors.

    Raises
    ------
    InputError
        If more than `OUTSIDE_SHARE` of a truncated posterior is rejected.
    WorkError
        If the networks draw no numbers, or almost none that are accepted.
    """
    draws: list[NDArray[np.float64]] = []
    accepted = tried = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while accepted < n:
            theta = ensemble.draw(networks, max(n - accepted, 1000), features)[0]
            if not np.isfinite(theta).all():
                raise WorkError(f"{label}: the networks draw parameters that are not numbers for this observation")
            kept = theta[contains(theta)]
            tried, accepted = tried + len(theta), accepted + len(kept)
            draws.append(kept)
            if tried >= TRIED and accepted < INSIDE_SHARE * tried:
                raise WorkError(
                    f"{label}: {accepted} of {tried} draws are inside the prior; "
                    "the networks read nothing like this observation in training"
                )
            if truncated and accepted < (1 - OUTSIDE_SHARE) * tried - 10:
                raise InputError(
                    f"this posterior was trained in rounds truncated for one observation, and "
                    f"{1 - accepted / tried:.0%} of what it says of yours lies outside that region; "
                    "use the posterior of the first round (rounds/01), which holds for any observation"
                )
    return np.concatenate(draws)[:n]
