"""A bijection from the prior's box to R^P that makes a truncated normal standard."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Half the width of a flat distribution of unit variance: the box in the map's own units is [-E, E]^P.
E = math.sqrt(3.0)
_LOG_2PI = math.log(2 * math.pi)


class TruncatedNormalMap(nn.Module):
    """z(v | features), standard normal if v in the box is a truncated normal whose shape the features give.

    Each v_i, given those before it, is a normal with mean m_i + sum_j<i L_ij (v_j - m_j) and
    width s_i, truncated to the box; z_i = Phi^-1 of its cumulative distribution. Away from the edges
    of the box this is the affine map z_i = (v_i - mean_i) / s_i. Against an edge it takes up the cut that
    a flat prior makes, which an affine map, or a probit of v before it, would leave to the
    flow: there the mean of the probit is a steep function of the data, and tails grow heavy.
    All is linear in the features, and nothing can leave the box.

    Parameters
    ----------
    features
        Length F of the condition.
    parameters
        Length P of v.
    """

    def __init__(self, features: int, parameters: int) -> None:
        super().__init__()
        self._rows, self._columns = torch.tril_indices(parameters, parameters, offset=-1)
        self.mean = nn.Linear(features, parameters)
        self.log_width = nn.Linear(features, parameters)
        self.slopes = nn.Linear(features, len(self._rows)) if parameters > 1 else None
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.log_width.bias.fill_(1.0)  # twice the box's: nearly flat, as the prior

    @torch.no_grad()
    def start_at(self, which: Tensor, mean: Tensor, width: Tensor) -> None:
        """Begin with these means and widths (P,) of the parameters `which` (P,), those of a prior that is not flat."""
        y = 8.0 * torch.atanh(((1.0 - width.log()) / 8.0).clamp(1e-3, 0.999))  # the inverse of `_shape`'s bounds
        for layer, value in ((self.mean, mean), (self.log_width, -torch.log(torch.expm1(y)))):
            layer.bias.copy_(torch.where(which, value.to(layer.bias), layer.bias))

    def forward(self, v: Tensor, features: Tensor, widening: float = 1.0) -> tuple[Tensor, Tensor]:
        """V in the box, (..., P) float64, and features (..., F) to z (..., P) and log |dz/dv| (...), both float32.

        The leading axes of the two are broadcast against each other; `widening` is a factor on the widths.
        """
        mean, log_width, slopes = self._shape(features, widening)
        centre = mean + (slopes @ (v - mean).unsqueeze(-1)).squeeze(-1)
        width = log_width.exp()
        low, high, t = (-E - centre) / width, (E - centre) / width, (v - centre) / width
        log_mass = _log_mass(low, high)
        # The smaller of the two tails, so that neither is rounded to one.
        below = _log_mass(low, torch.maximum(t, low + 1e-9)) - log_mass
        above = _log_mass(torch.minimum(t, high - 1e-9), high) - log_mass
        left = below < above
        tail = torch.where(left, below, above).clamp(-36.0, math.log(0.5)).exp()
        z = torch.special.ndtri(tail) * torch.where(left, 1.0, -1.0)
        log_density = -0.5 * (t.square() + _LOG_2PI) - log_width - log_mass
        log_det = (log_density + 0.5 * (z.square() + _LOG_2PI)).sum(-1)
        return z.float(), log_det.float()

    def inverse(self, z: Tensor, features: Tensor, widening: float = 1.0) -> Tensor:
        """Z (..., P) and features (..., F), broadcast, to v (..., P) float64."""
        mean, log_width, slopes = self._shape(features, widening)
        z = z.double()
        offsets: list[Tensor] = []  # of v from its mean
        for i in range(z.shape[-1]):
            centre = mean[..., i] + sum((slopes[..., i, j] * offsets[j] for j in range(i)), torch.zeros(()))
            width = log_width[..., i].exp()
            low, high = (-E - centre) / width, (E - centre) / width
            flip = low + high > 0  # to the side where the cumulative distribution is small, not close to one
            a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
            target = torch.logaddexp(
                torch.special.log_ndtr(a),
                torch.special.log_ndtr(torch.where(flip, -1.0, 1.0) * z[..., i]) + _log_mass(a, b),
            )
            t = torch.minimum(torch.maximum(_log_ndtri(target), a), b)
            v = centre + width * torch.where(flip, -t, t)
            offsets.append(v.clamp(-E, E) - mean[..., i])
        return torch.stack(offsets, -1) + mean

    def _shape(self, features: Tensor, widening: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log widths (..., P), slopes (..., P, P) strictly lower triangular; float64."""
        # Bounded from above, because a normal much wider than the box has no gradient that would make it narrower
        # again, and from below, because a thousandth of the prior's width is beyond what float32 features resolve.
        log_width = 1.0 - 8.0 * torch.tanh(F.softplus(-self.log_width(features)) / 8.0)
        log_width = log_width.double() + math.log(widening)
        p = log_width.shape[-1]
        slopes = torch.zeros(*log_width.shape, p, dtype=torch.float64, device=features.device)
        if self.slopes is not None:
            slopes[..., self._rows, self._columns] = self.slopes(features).double()
        return self.mean(features).double(), log_width, slopes


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) for low < high, accurate in both tails."""
    flip = low + high > 0
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_b = torch.special.log_ndtr(b)
    ratio = (torch.special.log_ndtr(a) - log_b).clamp(max=-1e-12)
    return log_b + torch.log1p(-ratio.exp())


def _log_ndtri(log_p: Tensor) -> Tensor:
    """X with log Phi(x) = log_p, by Newton's method on the logarithm from the asymptotic form in the far tail."""
    log_p = log_p.clamp(max=-1e-16)
    far = torch.sqrt((-2 * log_p - _LOG_2PI - torch.log(-2 * log_p)).clamp(min=1.0))
    x = torch.where(log_p < -30.0, -far, torch.special.ndtri(log_p.clamp(min=-700.0).exp()))
    for _ in range(3):
        error = torch.special.log_ndtr(x) - log_p
        slope = torch.exp(-0.5 * (x.square() + _LOG_2PI) - torch.special.log_ndtr(x))
        x = x - (error / slope).clamp(-1.0, 1.0)
    return x
