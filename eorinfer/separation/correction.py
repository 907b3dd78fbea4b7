"""Correct draws and means of lines: their power about the mean, and their sum with the noise."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from eorinfer.core.arrays import normal_batch
from eorinfer.separation.spectra import ModeBins

#: Factors by which power about the mean may be changed, at most; and times that both corrections are fitted in turns.
LEAST, MOST, TURNS = 0.1, 10.0, 3


class Correction(nn.Module):
    """Make draws of lines agree with the statistics that draws of a posterior have, mode by mode.

    What is left when the lines of a map are taken from its observation is the rest: noise, and lines that are not
    sought. Draws of a posterior are exchangeable with the truth (Talts et al. 2018, arXiv 1804.06788), so that

    - their power about the posterior mean is that of the truth about it: `stretch` makes it so;
    - the power of their rest is that of the true rest. Where it is larger, the excess is an error of the draw. As in
      a constrained realisation (Hoffman & Ribak 1991, ApJL 380, 5) the rest is replaced by a draw from its Gaussian
      distribution given the sum of rest and error, and the lines of a channel share the difference by their covariance
      with their sum. Without a rest the lines add up to the observation exactly.

    Of a mean the rest is replaced by its expectation. All spectra are measured on validation maps.

    Parameters
    ----------
    bins
        Bins of the modes of a map.
    channels
        Channel of the observed map that each line is in.
    count
        Number of channels C.
    """

    stretch: Tensor
    share: Tensor
    kept: Tensor
    fresh: Tensor
    kept_of_mean: Tensor
    mean_rest: Tensor
    _member: Tensor

    def __init__(self, bins: ModeBins, channels: tuple[int, ...], count: int) -> None:
        super().__init__()
        self._bins = bins
        ones = (1,) * len(bins.cells)
        member = torch.nn.functional.one_hot(torch.tensor(channels), count).float()
        self.register_buffer("_member", member, persistent=False)
        self.register_buffer("stretch", torch.ones(bins.count, len(channels)))
        self.register_buffer("share", torch.zeros(bins.count, len(channels)))
        self.register_buffer("kept", torch.ones(bins.count, count))
        self.register_buffer("fresh", torch.zeros(bins.count, count))
        self.register_buffer("kept_of_mean", torch.ones(bins.count, count))
        self.register_buffer("mean_rest", torch.zeros(count, *ones))

    def of_mean(self, observed: Tensor, mean: Tensor) -> Tensor:
        """Correct means (B, L, *cells) of observed maps (B, C, *cells)."""
        rest = self._rest(observed, mean)
        return mean + self._shared(rest - self._bins.filtered(rest, self.kept_of_mean))

    def of_draw(
        self,
        observed: Tensor,
        mean: Tensor,
        draw: Tensor,
        generator: torch.Generator | Sequence[torch.Generator],
    ) -> Tensor:
        """Correct one draw (B, L, *cells) of each observed map (B, C, *cells) about its mean (B, L, *cells)."""
        draw = mean + self._bins.filtered(draw - mean, self.stretch)
        rest = self._rest(observed, draw)
        new = self._bins.filtered(rest, self.kept)
        if self.fresh.any():
            new = new + self._bins.filtered(normal_batch(rest.shape, generator).to(rest), self.fresh)
        return draw + self._shared(rest - new)

    def fit_mean(self, observed: Tensor, true: Tensor, mean: Tensor) -> None:
        """Fit the correction of means on observed maps (B, C, *cells), their lines and means (B, L, *cells)."""
        cells = tuple(range(2, observed.ndim))
        self.mean_rest.copy_((observed - self._summed(true)).double().mean((0, *cells)).view_as(self.mean_rest))
        sums = self._summed(true) - self._summed(true).mean((0, *cells), keepdim=True)
        lines = true - true.mean((0, *cells), keepdim=True)
        member = self._member.double().cpu()
        share = (self._bins.spectra(lines, sums) * member).sum(-1)
        # Divided by the sum's own power, the shares of a channel's lines add up to one; so they do after rounding.
        share = share.clamp(min=1e-6 * share.abs().amax())
        self.share.copy_(share / (share @ member @ member.T))
        rest, made = self._rest(observed, true), self._rest(observed, mean)
        own = self._diagonal(made, made).clamp(min=torch.finfo(torch.float64).tiny)
        self.kept_of_mean.copy_((self._diagonal(rest, made) / own).clamp(0, 1))

    def fit_draws(
        self, observed: Tensor, true: Tensor, mean: Tensor, draws: Tensor, generator: torch.Generator
    ) -> None:
        """Fit the correction of draws (D, B, L, *cells) about corrected means; each part changes the other."""
        wanted = self._diagonal(true - mean, true - mean)
        rest = self._rest(observed, true)
        noise = self._diagonal(rest, rest)
        tiny = torch.finfo(torch.float64).tiny
        self.stretch.fill_(1)
        for _ in range(TURNS):
            stretched = [mean + self._bins.filtered(draw - mean, self.stretch) for draw in draws]
            found = _averaged(self._diagonal(r, r) for r in (self._rest(observed, draw) for draw in stretched))
            kept = (noise / found.clamp(min=tiny)).clamp(0, 1)
            self.kept.copy_(kept)
            self.fresh.copy_((noise * (1 - kept)).sqrt())
            made = [self.of_draw(observed, mean, draw, generator) for draw in draws]
            power = _averaged(self._diagonal(draw - mean, draw - mean) for draw in made)
            factor = (wanted / power.clamp(min=tiny)).sqrt()
            self.stretch.copy_((self.stretch.double().cpu() * factor).clamp(LEAST, MOST))

    def _diagonal(self, first: Tensor, second: Tensor) -> Tensor:
        """Measure the spectra (count, L) of maps (B, L, *cells) with others of the same lines."""
        return self._bins.spectra(first, second).diagonal(dim1=1, dim2=2)

    def _summed(self, lines: Tensor) -> Tensor:
        """Add lines (B, L, *cells) up to channels (B, C, *cells)."""
        return torch.einsum("bl...,lc->bc...", lines, self._member.to(lines))

    def _rest(self, observed: Tensor, lines: Tensor) -> Tensor:
        return observed - self._summed(lines) - self.mean_rest

    def _shared(self, excess: Tensor) -> Tensor:
        """Share excesses of channels (B, C, *cells) among the lines in them: (B, L, *cells)."""
        each = torch.einsum("bc...,lc->bl...", excess, self._member.to(excess))
        return self._bins.filtered(each, self.share)


def _averaged(spectra: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(spectra)).mean(0)
