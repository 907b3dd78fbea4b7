"""Other flows on images that those of eorinfer are compared with: a Gaussian field, and coupling layers after Glow."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.core.prior import Prior
from eorinfer.imageflow.density import ImageDensity, log_normal
from eorinfer.imageflow.isotropic import IsotropicFlow, PixelSpline
from eorinfer.networks.padding import pad
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import SurveySettings
from simulators import Observable

#: Numbers of coupling layers of each squeezing, and of channels of their networks.
COUPLINGS, WIDTH = 6, 48
SQUEEZINGS = 3


class GaussianFlow(IsotropicFlow):
    """A Gaussian field whose mean and P(k) depend on the condition: the isotropic flow without its splines."""

    def __init__(self, shape: tuple[int, ...], cell_size: tuple[float, ...], low: Tensor, high: Tensor) -> None:
        super().__init__(shape, cell_size, low, high, convolutions=1)
        self.layers = nn.ModuleList([layer for layer in self.layers if not isinstance(layer, PixelSpline)])


class Coupling(nn.Module):
    """One step of Glow (Kingma & Dhariwal 2018, arXiv 1807.03039): channels scaled, mixed, and half of them moved."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.mixing = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels)).Q)
        self.kept = channels // 2
        self.first, self.middle = nn.Conv2d(self.kept, WIDTH, 3), nn.Conv2d(WIDTH, WIDTH, 1)
        self.last = nn.Conv2d(WIDTH, 2 * (channels - self.kept), 3)
        self.condition = nn.Sequential(nn.Linear(condition, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to the same, and the log-determinant (B,) float64."""
        x = torch.einsum(
            "ij,bjhw->bihw", self.mixing, (x - self.shift[:, None, None]) * self.scale.exp()[:, None, None]
        )
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        log_scale, shift = self._affine(kept, u)
        constant = (self.scale.double().sum() + torch.linalg.slogdet(self.mixing.double())[1]) * x[0, 0].numel()
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1), constant + log_scale.double().flatten(1).sum(
            1
        )

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward`."""
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        log_scale, shift = self._affine(kept, u)
        x = torch.cat([kept, (moved - shift) * torch.exp(-log_scale)], dim=1)
        x = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(self.mixing), x)
        return x * torch.exp(-self.scale)[:, None, None] + self.shift[:, None, None]

    def _affine(self, kept: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.silu(self.first(pad(kept, (True, True))) + self.condition(u)[..., None, None])
        log_scale, shift = self.last(pad(F.silu(self.middle(hidden)), (True, True))).chunk(2, dim=1)
        return 2 * torch.tanh(log_scale / 2), shift


class CouplingFlow(ImageDensity):
    """Glow on maps: squeezed again and again, half of the channels set aside each time, without a prior network."""

    moments: Tensor

    def __init__(self, shape: tuple[int, ...], low: Tensor, high: Tensor) -> None:
        super().__init__(shape, low, high)
        channels, stages = shape[0], []
        for _ in range(SQUEEZINGS):
            channels *= 4
            stages.append(nn.ModuleList([Coupling(channels, len(low)) for _ in range(COUPLINGS)]))
            channels //= 2
        self.stages = nn.ModuleList(stages)
        self.register_buffer("moments", torch.tensor([0.0, 1.0]))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `ImageDensity`."""
        u, aside = self.unit(y, x.dtype), []
        x = (x - self.moments[0]) / self.moments[1]
        log_det = -math.prod(self.shape) * self.moments[1].double().log().expand(len(x))
        for i, stage in enumerate(self.stages):
            x = F.pixel_unshuffle(x, 2)
            for layer in stage.children():
                x, log_scale = layer(x, u)
                log_det = log_det + log_scale
            if i + 1 < SQUEEZINGS:
                x, done = x.chunk(2, dim=1)
                aside.append(done.flatten(1))
        return torch.cat([*aside, x.flatten(1)], dim=1).view(len(x), *self.shape), log_det

    def inverse(self, z: Tensor, y: Tensor) -> Tensor:
        """See `ImageDensity`."""
        u, flat = self.unit(y, z.dtype), z.flatten(1)
        channels, side, parts = self.shape[0], self.shape[1], []
        for _ in range(SQUEEZINGS - 1):
            channels, side = 2 * channels, side // 2
            taken = channels * side**2
            parts.append(flat[:, :taken].view(len(z), channels, side, side))
            flat = flat[:, taken:]
        x = flat.view(len(z), 4 * channels, side // 2, side // 2)
        for i, stage in reversed(list(enumerate(self.stages))):
            if i + 1 < SQUEEZINGS:
                x = torch.cat([x, parts[i]], dim=1)
            for layer in reversed(list(stage.children())):
                assert isinstance(layer, Coupling)
                x = layer.inverse(x, u)
            x = F.pixel_shuffle(x, 2)
        return x * self.moments[1] + self.moments[0]

    def log_prob_scales(self, x: Tensor, y: Tensor) -> Tensor:
        """See `ImageDensity`; the only scale is the whole image."""
        z, log_det = self(x, y)
        return (log_det + log_normal(z))[:, None]

    @torch.no_grad()
    def fit_start(self, x: Tensor, y: Tensor) -> None:
        """Standardise the maps, then the channels before each layer."""
        self.moments.copy_(torch.stack([x.mean(), x.std()]))
        u = self.unit(y, x.dtype)
        x = (x - x.mean()) / x.std()
        for i, stage in enumerate(self.stages):
            x = F.pixel_unshuffle(x, 2)
            for layer in stage.children():
                assert isinstance(layer, Coupling)
                layer.shift.copy_(x.mean((0, 2, 3)))
                layer.scale.copy_(-x.std((0, 2, 3)).log())
                x = layer(x, u)[0]
            if i + 1 < SQUEEZINGS:
                x = x.chunk(2, dim=1)[0]


def gaussian(
    settings: ImageFlowSettings, survey: SurveySettings, observable: Observable, conditions: Prior
) -> ImageDensity:
    """Build a Gaussian field's flow."""
    low, high = (torch.from_numpy(bound) for bound in (conditions.low, conditions.high))
    return GaussianFlow(observable.shape, observable.cell_size, low, high)


def coupling(
    settings: ImageFlowSettings, survey: SurveySettings, observable: Observable, conditions: Prior
) -> ImageDensity:
    """Build a stack of coupling layers."""
    return CouplingFlow(observable.shape, *(torch.from_numpy(bound) for bound in (conditions.low, conditions.high)))
