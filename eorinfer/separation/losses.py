"""Losses of a conditional GAN: how far draws are from the truth, and the penalty of a critic."""

import itertools

import torch
from torch import Tensor, nn

#: Weight of the gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, equation 3).
PENALTY = 10.0


def distance(made: Tensor, target: Tensor) -> Tensor:
    """How far draws are from the truth, cell by cell: their mean absolute error less half of their mean distance.

    The continuous ranked probability score, estimated without bias from a few draws (Gneiting & Raftery 2007, JASA 102,
    359, equation 21; Ferro 2014): least where draws of a cell are distributed as its posterior is, of whatever shape.
    That of a cell with or without a galaxy is far from Gaussian. Of one draw it is the mean absolute error.

    Parameters
    ----------
    made
        (P, B, L, *cells) draws.
    target
        (B, L, *cells)
    """
    error = (made - target).abs().mean()
    if len(made) == 1:
        return error
    apart = [(one - other).abs().mean() for one, other in itertools.combinations(made, 2)]
    return error - torch.stack(apart).mean() / 2


def penalty(judge: nn.Module, source: Tensor, target: Tensor, made: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of (|gradient| - 1)^2 of a critic, on lines between targets and what was made, in full precision.

    Parameters
    ----------
    judge
        Logits (B,) of sources (B, C, *cells) and lines (B, L, *cells).
    source, target, made
        Observed maps, true lines and generated lines.
    generator
        Generator of the places between true and generated lines.
    """
    with torch.autocast(source.device.type, enabled=False):
        share = torch.rand(len(target), generator=generator, device=generator.device).to(target)
        share = share.view(-1, *(1,) * (target.ndim - 1))
        between = (share * target + (1 - share) * made.float()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(judge(source, between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
