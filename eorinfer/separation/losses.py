"""Losses of a conditional GAN: how far draws are from the truth, and the penalty of a critic."""

import math

import torch
from torch import Tensor, nn

#: Weight of the gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, equation 3).
PENALTY = 10.0


def distance(made: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the mean of draws, less a reward of their spread.

    The reward is such that for a Gaussian posterior the draws have its mean and its standard deviation at the minimum;
    without it they would all be alike (Bendel, Ahmad & Schniter 2023, arXiv 2210.13389, equations 8 to 11). Of one
    draw it is the mean absolute error.

    Parameters
    ----------
    made
        (P, B, L, *cells) draws.
    target
        (B, L, *cells)
    """
    number = len(made)
    mean = made.mean(0)
    error = (mean - target).abs().mean()
    if number == 1:
        return error
    spread = math.sqrt(math.pi * number / (2 * (number - 1))) * (made - mean).abs().mean()
    return error - math.sqrt(2 / (math.pi * number * (number + 1))) * spread


def penalty(judge: nn.Module, source: Tensor, target: Tensor, made: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of (|gradient| - 1)^2 of a critic, on lines between targets and what was made, in full precision.

    Parameters
    ----------
    judge
        Logits (B,) of sources (B, C, *cells) and lines (B, L, *cells).
    source, target, made
        What it judges.
    generator
        Of the places between.
    """
    with torch.autocast(source.device.type, enabled=False):
        share = torch.rand(len(target), generator=generator, device=generator.device).to(target)
        share = share.view(-1, *(1,) * (target.ndim - 1))
        between = (share * target + (1 - share) * made.float()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(judge(source, between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
