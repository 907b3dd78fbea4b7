"""Whether an emulator of P(k) knows enough for its likelihood, by held-out spectra: do these find their own theta?

With few simulations of many parameters the means are wrong by many of their standard deviations at some theta. The
spectrum of another theta then fits there better than at its own, and a posterior is sure of what is wrong, even where
spectra are as near as they should be to what is emulated at their own theta.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Draws from the prior that a held-out theta is compared with, and of these at once.
DRAWS, PIECE = 1000, 100
#: Nats that one realisation counts for at most: of those that are found no more than this can be told by so few draws.
MOST = 7.0
#: Nats below zero that are no fault: spectra of noise alone tell nothing of theta, and are skew.
LEAST = 0.2

#: Mean (m, D) and W (m, D, D) of an emulator at theta (m, P), as `Emulator.forward` gives them.
Gaussian = Callable[[Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def information(gaussian: Gaussian, theta: Tensor, power: Tensor, draws: Tensor) -> Tensor:
    """Give the nats (n,) that the posteriors of spectra gain over the prior at their own theta, of `MOST` at most.

    Parameters
    ----------
    gaussian
        Emulator that has not seen the spectra.
    theta, power
        (n, P) and (n, D).
    draws
        (m, P) from the prior. With few of them the evidence is too small, if anything, and the gain too large.
    """
    log_l = []
    for some in draws.split(PIECE):
        mean, w = gaussian(some)
        white = torch.einsum("mij,nj->nmi", w, power) - torch.einsum("mij,mj->mi", w, mean)
        log_l.append(_log_det(w) - 0.5 * white.square().sum(-1))
    mean, w = gaussian(theta)
    own = _log_det(w) - 0.5 * torch.einsum("nij,nj->ni", w, power - mean).square().sum(-1)
    evidence = torch.cat([*log_l, own[:, None]], 1).logsumexp(1) - np.log(len(draws) + 1)
    return (own - evidence).clamp(-MOST, MOST)


def distrust(gains: Tensor, seed: NDArray[np.uint64]) -> str:
    """Say why the likelihood of an emulator cannot be trusted; empty where it can.

    Parameters
    ----------
    gains
        `information` (n,) of held-out spectra.
    seed
        Their realisations (n,); those of one err together.
    """
    _, inverse = np.unique(seed, return_inverse=True)
    each = np.bincount(inverse, gains.numpy()) / np.bincount(inverse)
    error = float(each.std() / np.sqrt(len(each)))
    if float(each.mean()) > -max(error, LEAST):
        return ""
    return (
        f"of {len(gains)} held-out simulations the emulator's likelihood makes their own parameters less probable than "
        f"the prior does, by {-each.mean():.1f} ± {error:.1f} nats. An MCMC with it cannot be trusted. Simulate more "
        "([inference] rounds), or take fewer [power_spectrum] bins"
    )


def _log_det(w: Tensor) -> Tensor:
    """Ln det W (m,) of lower triangular W (m, D, D)."""
    return torch.log(torch.diagonal(w, dim1=1, dim2=2)).sum(-1)
