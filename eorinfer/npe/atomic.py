"""Atomic loss of NPE-C: which of several theta was x simulated with?"""

from collections.abc import Callable

import torch
from torch import Tensor


def atomic_loss(
    log_prob: Callable[[Tensor], Tensor],
    theta: Tensor,
    log_prior: Callable[[Tensor], Tensor] | float,
    atoms: int,
    generator: torch.Generator,
) -> Tensor:
    """-log of the chance given to the right theta among `atoms` candidates, (B,).

    The candidates of x_b are theta_b and others of the batch, drawn without replacement. Whatever
    theta was drawn from cancels: at its minimum q is the posterior under the prior,
    up to a factor that depends on x alone
    (Greenberg, Nonnenmacher & Macke 2019, arXiv 1905.07488, section 3.3).

    Parameters
    ----------
    log_prob
        Log q(theta_mb | x_b) of theta (M, B, P): (M, B). The embedding of x is computed outside of it, once for
        all candidates.
    theta
        (B, P) that the batch was simulated with.
    log_prior
        Log prior of theta (M, B, P): (M, B); or a constant, for a flat one.
    atoms
        Number of candidates M, with the right one; at most B.
    generator
        Source of the choice of candidates.
    """
    n = len(theta)
    m = min(atoms, n)
    if m < 2:
        raise ValueError(f"{atoms} atoms and {n} rows in a batch: a choice needs at least two of each")
    order = torch.rand(n, n, generator=generator, device=generator.device)
    order.fill_diagonal_(2.0)  # never oneself again
    others = order.topk(m - 1, dim=1, largest=False).indices.to(theta.device)
    candidates = torch.cat([theta[:, None], theta[others]], dim=1).transpose(0, 1)
    log_ratio = log_prob(candidates) - (log_prior(candidates) if callable(log_prior) else log_prior)
    return torch.logsumexp(log_ratio, dim=0) - log_ratio[0]
