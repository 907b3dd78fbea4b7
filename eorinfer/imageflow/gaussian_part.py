"""The Gaussian field that a diffusion starts from: mean m(y) and power P(k, y) of maps without noise."""

import math

import torch
from torch import Tensor, nn

from eorinfer.imageflow.isotropic_convolution import Conditioner, Modes
from simulators.fourier import half_plane

#: Steps of the fit, at most and a fifth of the maps, but not fewer than `FEWEST`; maps and numbers of each step, at
#: most, and the largest rate of its optimiser. 300 steps left the power of 21cm slices wrong by up to 28% at some
#: neutral fractions, which no training of the denoiser undid.
STEPS, FEWEST, BATCH, NUMBERS, RATE = 3000, 500, 512, 2**18, 2e-2
#: Largest ln of power over the noise's. Beyond the conditions of few maps a fit may rise without end, and e^89 is
#: infinite in single precision.
MOST = 40.0


class GaussianPart(nn.Module):
    """Mean and power of maps s (B, C, *cells) whose noise has unit variance in each cell; channels are independent.

    Parameters
    ----------
    channels, cells
        Number of channels C, and cells along each axis.
    modes
        Splines over the modes of the grid.
    condition, hidden
        Length P of the condition, and widths of the network from it to mean and knots.

    Attributes
    ----------
    template
        Buffer (C, *half plane): factor on the power of the splines; 0 for modes that are not measured.
    """

    template: Tensor
    unit: Tensor
    _basis: Tensor
    count: Tensor

    def __init__(
        self, channels: int, cells: tuple[int, ...], modes: Modes, condition: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.channels, self.cells = channels, cells
        self.register_buffer("_basis", modes.basis, persistent=False)
        self.register_buffer("count", modes.count.view(half_plane(cells)), persistent=False)
        self.register_buffer("template", torch.ones(channels, *half_plane(cells)))
        #: Standard deviation of all maps of the fit, in which means are given.
        self.register_buffer("unit", torch.ones(()))
        #: Whether some modes are not measured.
        self.partial = False
        self.conditioner = Conditioner(condition, channels * (1 + len(modes.basis)), hidden)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean (B, C, 1, ...) and the power per cell (B, C, *half plane) of conditions u (B, P)."""
        numbers = self.conditioner(u).view(len(u), self.channels, -1)
        mean = (self.unit * numbers[..., 0]).view(len(u), self.channels, *(1,) * len(self.cells))
        curves = (numbers[..., 1:] @ self._basis).view(len(u), self.channels, *half_plane(self.cells))
        return mean, torch.exp(curves.clamp_max(MOST)) * self.template

    def fourier(self, x: Tensor) -> Tensor:
        """Compute the modes (B, C, *half plane) of maps; white noise of unit variance has <|mode|^2> = 1."""
        return torch.fft.rfftn(x, dim=self._axes, norm="ortho")

    def back(self, modes: Tensor) -> Tensor:
        """Compute the maps (B, C, *cells) of modes."""
        return torch.fft.irfftn(modes, s=self.cells, dim=self._axes, norm="ortho")

    def measured(self, x: Tensor) -> Tensor:
        """Take the modes that are not measured out of maps (B, C, *cells)."""
        return self.back(self.fourier(x) * (self.template > 0)) if self.partial else x

    def log_prob(self, x: Tensor, u: Tensor) -> Tensor:
        """Compute ln p (B,) float64 in nats of maps x (B, C, *cells), or of one, with their noise of unit variance."""
        mean, power = self(u)
        total, modes = 1 + power.double(), self.fourier(x.double())
        # The mean changes the zero mode alone: one map passes the Fourier transform once for all conditions.
        zero, of_mean = modes.flatten(2)[..., 0].real, math.sqrt(math.prod(self.cells)) * mean.double().flatten(1)
        shifted = ((zero - of_mean).square() - zero.square()) / total.flatten(2)[..., 0]
        terms = self.count * (modes.abs().square() / total + total.log() + math.log(2 * math.pi))
        return -0.5 * (terms.flatten(1).sum(-1) + shifted.sum(-1))

    @torch.no_grad()
    def fit(self, s: Tensor, u: Tensor) -> None:
        """Fit mean and power to maps s (n, C, *cells) without noise, of conditions u (n, P), by maximum likelihood.

        It is the likelihood of the maps with their noise, averaged over that: what the noise hides counts for nothing.
        """
        self.unit.copy_(s.std().clamp_min(1e-30))
        power = self.fourier(s).abs().square()
        level = power.mean(0) / self.template.clamp_min(1e-30)
        measured = (self.template > 0) & (power.mean(0) > 0)
        constants = []
        for i in range(self.channels):
            weight = (self.count * measured[i]).sqrt().flatten()[:, None]
            log_level = level[i].clamp_min(1e-30).log().flatten()[:, None].double()
            found = torch.linalg.lstsq(self._basis.T.double() * weight, log_level * weight, driver="gelsd").solution
            constants += [s[:, i].mean()[None] / self.unit, found[:, 0].to(s)]
        outputs = self.conditioner.linear.out_features
        self.conditioner.start_at(torch.cat(constants), s.new_zeros(outputs, u.shape[1]))
        self._descend(s.flatten(2).sum(-1), power, u)

    @torch.enable_grad()
    def _descend(self, sums: Tensor, power: Tensor, u: Tensor) -> None:
        """Adam on the likelihood of sums over cells (n, C) and power (n, C, *half plane)."""
        parameters = list(self.conditioner.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, RATE)
        generator = torch.Generator().manual_seed(0)
        cells = math.prod(self.cells)
        # Modes of one |k| have one model: their mean power says all. The zero mode is the first one and stays alone.
        of_mode = torch.cat([self._basis, self.template.flatten(1)]).T
        alike, index = torch.unique(of_mode, dim=0, return_inverse=True)
        of_each = self.count.flatten().to(power)
        count = power.new_zeros(len(alike)).index_add_(0, index, of_each)
        weighted = power.flatten(2) * of_each
        mean_power = power.new_zeros(*power.shape[:2], len(alike)).index_add_(2, index, weighted) / count
        basis, template = alike[:, : len(self._basis)].T, alike[:, len(self._basis) :].T
        batch = min(len(u), BATCH, max(32, NUMBERS // (self.channels * len(alike))))
        steps = min(STEPS, max(FEWEST, len(u) // 5))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            some = torch.randint(len(u), (batch,), generator=generator)
            numbers = self.conditioner(u[some]).view(batch, self.channels, -1)
            total = 1 + torch.exp((numbers[..., 1:] @ basis).clamp_max(MOST)) * template
            about_mean = mean_power[some]
            about_mean[..., index[0]] = (sums[some] - cells * self.unit * numbers[..., 0]).square() / cells
            loss = (count * ((1 + about_mean) / total + total.log())).flatten(1).sum(-1).mean() / cells
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(2, 2 + len(self.cells)))
