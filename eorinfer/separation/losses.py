"""Losses of a conditional GAN: distance of draws from the truth, and gradient penalty of a critic."""

import itertools

import torch
from torch import Tensor, nn

#: Weight of the gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, equation 3).
PENALTY = 10.0


def distance(first: Tensor, target: Tensor, further: Tensor | None = None) -> Tensor:
    """Compute the continuous ranked probability score: mean absolute error minus half the mean distance of draws.

    It is estimated without bias from a few draws (Gneiting & Raftery 2007, JASA 102, 359, equation 21; Ferro 2014),
    also where only some of the maps have several. It is least where the draws of each cell follow its posterior, of
    whatever shape. That of a cell with or without a galaxy is far from Gaussian. For one draw it is the mean absolute
    error.

    Parameters
    ----------
    first
        (B, L, *cells) a draw of each map.
    target
        (B, L, *cells) true lines.
    further
        (P, n, L, *cells) more draws of the first n maps.
    """
    error = (first - target).abs().flatten(1).mean(1)
    if further is None or not len(further):
        return error.mean()
    n = further.shape[1]
    made = torch.cat([first[None, :n], further])
    several = (made - target[:n]).abs().flatten(2).mean(2).mean(0)
    apart = [(one - other).abs().mean() for one, other in itertools.combinations(made, 2)]
    return torch.cat([several, error[n:]]).mean() - torch.stack(apart).mean() / 2


def penalty(
    discriminator: nn.Module, source: Tensor, target: Tensor, made: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute the mean of (|gradient| - 1)^2 of a critic between targets and made lines, in full precision.

    Parameters
    ----------
    discriminator
        Module from sources (B, C, *cells) and lines (B, L, *cells) to logits (B,).
    source
        (B, C, *cells) observed maps.
    target, made
        (B, L, *cells) true lines, and those of the generator.
    generator
        Source of the random places between target and made.
    """
    with torch.autocast(source.device.type, enabled=False):
        share = torch.rand(len(target), generator=generator, device=generator.device).to(target)
        share = share.view(-1, *(1,) * (target.ndim - 1))
        between = (share * target + (1 - share) * made.float()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(source, between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
