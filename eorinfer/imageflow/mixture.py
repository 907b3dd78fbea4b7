"""Mixtures of normal distributions as monotone maps: a value to the standard normal of the same rank, and back.

The maps are computed in float64 from the logarithm of whichever tail is smaller, so that they invert each other in
either tail.
"""

import math

import torch
from torch import Tensor

#: Largest change of the logarithm of a scale from its start.
LIMIT = 6.0
#: Range over which the means start, to either side of zero, and scale at the start: together about a standard normal.
SPREAD, NARROWED = 1.0, 0.75
#: Newton steps to a normal value, most steps back to a value, and ln p below which the start is the asymptote.
NEWTON, INVERSION, FAR = 4, 80, -600.0
#: Step at which the inversion stops, in units of the narrowest component.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-8}
LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)


def components(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn unbounded parameters (..., 3 K) into log weights, means and log scales (..., K)."""
    logits, means, scales = parameters.chunk(3, dim=-1)
    spread = torch.linspace(-SPREAD, SPREAD, means.shape[-1], dtype=means.dtype, device=means.device)
    return logits.log_softmax(-1), means + spread, scales.clamp(-LIMIT, LIMIT) + math.log(NARROWED)


def log_density(x: Tensor, parameters: Tensor) -> Tensor:
    """Compute ln p(x) of values (...) under parameters (..., 3 K)."""
    log_weight, mean, log_scale = components(parameters)
    t = (x[..., None] - mean) * torch.exp(-log_scale)
    return _log_density(t, log_weight, log_scale)


def to_normal(x: Tensor, parameters: Tensor) -> Tensor:
    """Turn values x (...) under parameters (..., 3 K) into standard normal values (...) float64 of the same rank."""
    log_weight, mean, log_scale = components(parameters.double())
    t = (x.double()[..., None] - mean) * torch.exp(-log_scale)
    below, above = (torch.logsumexp(log_weight + torch.special.log_ndtr(s), dim=-1) for s in (t, -t))
    log_p = torch.minimum(below, above)
    with torch.no_grad():
        # Far out the probability underflows; the asymptote of its logarithm is a good start.
        z = torch.where(log_p < FAR, -(-2 * log_p).sqrt(), torch.special.ndtri(log_p.exp().clamp_min(1e-300)))
        for _ in range(NEWTON):
            z = _newton(z, log_p)
    # The last step carries the gradient of the implicit function.
    return torch.where(below <= above, 1.0, -1.0) * _newton(z, log_p)


def from_normal(z: Tensor, parameters: Tensor) -> Tensor:
    """Undo `to_normal`: values (...) float64, by Newton's method between bounds. No gradients."""
    with torch.no_grad():
        tolerance = TOLERANCE[z.dtype]
        log_weight, mean, log_scale = components(parameters.double())
        # Mirrored for positive z, so that the lower tail is always the smaller one.
        sign = torch.where(z < 0, 1.0, -1.0).double()
        z, mean = -z.abs().double(), mean * sign[..., None]
        target = torch.special.log_ndtr(z)
        # The mixture's value lies between those of the same rank in its components.
        bounds = mean + log_scale.exp() * z[..., None]
        low, high = bounds.min(-1).values, bounds.max(-1).values
        allowed = tolerance * log_scale.exp().min(-1).values
        x = 0.5 * (low + high)
        for _ in range(INVERSION):
            t = (x[..., None] - mean) * torch.exp(-log_scale)
            tail = torch.logsumexp(log_weight + torch.special.log_ndtr(t), dim=-1)
            off = tail - target  # rises with x
            low, high = torch.where(off < 0, x, low), torch.where(off > 0, x, high)
            step = x - off * torch.exp(tail - _log_density(t, log_weight, log_scale))
            new = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
            moved, x = (new - x).abs(), new
            if bool((moved <= allowed).all()):
                break
        return sign * x


def _log_density(t: Tensor, log_weight: Tensor, log_scale: Tensor) -> Tensor:
    return torch.logsumexp(log_weight - log_scale - 0.5 * t.square(), dim=-1) - LOG_ROOT_2_PI


def _newton(z: Tensor, log_p: Tensor) -> Tensor:
    """Take one Newton step towards ln Phi(z) = log_p, for z < 0, where the function is concave."""
    now = torch.special.log_ndtr(z)
    return z - (now - log_p) * torch.exp(now + 0.5 * z.square() + LOG_ROOT_2_PI)
