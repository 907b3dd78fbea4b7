"""An ensemble of networks as one density, the mean of its members, for several observations at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eorinfer.npe.density import ThetaDensity
from eorinfer.training.bundle import Bundle
from eorinfer.training.declared import no_larger_than

#: Values of theta of all observations together that pass a network at once, so that memory does not matter.
BATCH = 50000


def log_density(
    networks: Sequence[ThetaDensity], theta: NDArray[np.float64], features: Sequence[Tensor]
) -> NDArray[np.float64]:
    """Log density (B, n) in theta (B, n, P), given features (B, F) that each network read from B observations."""
    observations, n = theta.shape[:2]
    log_q = np.empty((observations, n))
    for rows in observation_slices(observations, n):
        for columns in _slices(n, BATCH):
            values = torch.from_numpy(np.ascontiguousarray(theta[rows, columns].swapaxes(0, 1)))
            with torch.no_grad():
                pairs = zip(networks, features, strict=True)
                logs = torch.stack([network.log_prob(values, read[rows]) for network, read in pairs])
            log_q[rows, columns] = (torch.logsumexp(logs, 0) - np.log(len(logs))).T.numpy()
    return log_q


@torch.no_grad()
def draw(networks: Sequence[ThetaDensity], n: int, features: Sequence[Tensor]) -> NDArray[np.float64]:
    """Draw theta (B, n, P), given features (B, F) of each network, in random order of the members.

    The draws come from torch's global random state.
    """
    member = torch.randint(len(networks), (n,))
    theta = torch.empty(n, len(features[0]), len(networks[0].low), dtype=torch.float64)
    for number, (network, read) in enumerate(zip(networks, features, strict=True)):
        rows = member == number
        if rows.any():
            theta[rows] = network.sample(int(rows.sum()), read)
    return theta.transpose(0, 1).numpy()


def observation_slices(observations: int, n: int) -> list[slice]:
    """Slices of the observations that have about `BATCH` values of theta each, n for each observation."""
    return _slices(observations, max(1, BATCH // max(1, n)))


def _slices(total: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def scalars(networks: Sequence[ThetaDensity]) -> dict[str, list[float]]:
    """Give what a bundle keeps of all networks beside their weights: only what is not 1."""
    found = {
        "units": [network.embedding.unit for network in networks],
        "widenings": [network.widening for network in networks],
    }
    return {name: values for name, values in found.items() if any(value != 1 for value in values)}


def read_networks(bundle: Bundle, build: Callable[[], ThetaDensity]) -> tuple[ThetaDensity, ...]:
    """Build the networks of a bundle and give them their weights."""
    kept, networks = bundle.weights, []
    tables: dict[str, Any] = {name: bundle[name] for name in ("embedding", "flow", "power_spectrum", "ensemble")}
    # older versions kept no units and no widenings
    units, widenings = bundle.description.get("units"), bundle.description.get("widenings")
    for member in range(bundle["ensemble"]):
        with torch.random.fork_rng(devices=[]), no_larger_than(kept, tables):
            network = build()
        network.load_state_dict(bundle.member(member))
        network.embedding.unit = units[member] if units else 1.0
        network.widening = widenings[member] if widenings else 1.0
        networks.append(network.eval())
    return tuple(networks)
