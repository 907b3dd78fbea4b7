"""Embedding: turns an observed cube into features for the posterior flow, by a CNN and the power spectrum."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eorinfer.core.errors import WorkError
from eorinfer.core.numbers import unit_of
from eorinfer.networks.layout import to_channels_last
from eorinfer.networks.padding import pad
from eorinfer.networks.scaling import ImageScaling, LinearScaling, LogScaling, SignedScaling
from eorinfer.summaries.chunks import in_chunks

#: Cubes that pass at once where the scalings are taken from many.
SCALING_BATCH = 32


class Embedding(nn.Module):
    """Features of an observed cube, from a CNN, from its power spectrum and other summaries, or from both.

    No branch normalises a single cube: the amplitude of a field is information.

    Parameters
    ----------
    shape
        (C, *cells) of the cube, 2D or 3D.
    features
        Length of the result.
    power_spectrum
        Module that maps (B, C, *cells) to (B, C, K), of C chunks of a cube perhaps, or None to leave that branch out.
    width
        Channels of the CNN's first stage, or None to leave that branch out.
    periodic
        Whether convolutions wrap around each cell axis.
    redshifts
        Whether the C channels enter one CNN together, or each by itself.
    scattering
        See `power_spectrum`.
    network
        A network in place of the CNN, from standardised cubes to (B, features), or None.
    summaries
        Further modules that map (B, C, *cells) to (B, ...); those whose attribute ``positive`` is true are seen
        through the logarithm.
    chunks
        Number of parts of a light-cone's line of sight in which the CNN averages.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        features: int,
        power_spectrum: nn.Module | None,
        width: int | None,
        periodic: tuple[bool, ...],
        redshifts: Literal["channels", "volumes"] = "channels",
        scattering: nn.Module | None = None,
        network: nn.Module | None = None,
        summaries: Sequence[nn.Module] = (),
        chunks: int = 1,
    ) -> None:
        super().__init__()
        if not summaries and all(branch is None for branch in (power_spectrum, width, scattering, network)):
            raise ValueError(
                "an embedding needs convolutions, the power spectrum, scattering coefficients, or something of your own"
            )
        channels = shape[0]
        length = 0
        self.scaling = ImageScaling(channels, len(shape) - 1)
        self.spectrum = power_spectrum
        if power_spectrum is not None:
            spectra = power_spectrum(torch.zeros(1, *shape)).shape[1:]
            self.spectrum_scaling = LogScaling(tuple(spectra))
            length += spectra.numel()
        self.scattering = scattering
        if scattering is not None:
            k = scattering(torch.zeros(1, *shape)).shape[-1]
            self.scattering_scaling = LogScaling((channels, k))
            length += channels * k
        self.summaries = nn.ModuleList(SummaryBranch(summary, shape) for summary in summaries)
        length += sum(branch.length for branch in self._branches())
        self.cnn = None
        self.volumes = redshifts == "volumes"
        if width is not None:
            inputs = 1 if self.volumes else channels
            self.cnn = ConvolutionalNetwork(inputs, shape[1:], width, periodic, chunks)
            self.cnn_scaling = LogScaling((self.cnn.features,))
            length += self.cnn.features * (channels if self.volumes else 1)
        self.network = network
        #: Power of two that cubes are divided by before their summaries: 1 unless their scale is beyond 1e6 or 1e-6.
        self.unit = 1.0
        self.length = length
        if length:
            # Where the signal is strong, theta is close to linear in the logarithms of powers.
            self.linear = nn.Linear(length, features)
            self.head = nn.Sequential(
                nn.Linear(length, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, features)
            )

    @torch.no_grad()
    def fit_scaling(self, observed: Tensor) -> None:
        """Set the scalings from a sample of observed cubes (B, C, *cells)."""
        self.scaling.fit(observed)
        scale = self.scaling.scale.flatten()
        self.unit = unit_of(float(scale[scale.log().abs().argmax()]))
        parts = observed.split(SCALING_BATCH)
        if self.spectrum is not None:
            self.spectrum_scaling.fit(torch.cat([self.spectrum(self._in_unit(x)) for x in parts]))
        if self.scattering is not None:
            self.scattering_scaling.fit(torch.cat([self.scattering(self.scaling(x)) for x in parts]))
        for branch in self._branches():
            branch.scaling.fit(torch.cat([branch.summary(self._in_unit(x)).flatten(1) for x in parts]))
        if self.cnn is not None:
            self.cnn_scaling.fit(torch.cat([self.cnn(self._volumes(self.scaling(x))) for x in parts]))

    @property
    def learns_from_summaries(self) -> bool:
        """Whether it reads nothing of a cube but summaries, none of which is learned."""
        given = (self.spectrum, self.scattering, *(branch.summary for branch in self._branches()))
        learned = [p for summary in given if summary is not None for p in summary.parameters()]
        return self.cnn is None and self.network is None and not learned

    def forward(self, observed: Tensor) -> Tensor:
        """Compute features (B, features) of observed cubes (B, C, *cells)."""
        parts = self._given(observed)
        if self.cnn is not None:
            parts.append(self.cnn_scaling(self.cnn(self._volumes(self.scaling(observed)))).reshape(len(observed), -1))
        features = [] if self.network is None else [self.network(self.scaling(observed))]
        if parts:
            features.append(self.of_summaries(torch.cat(parts, dim=1)))
        total: Tensor = sum(features[1:], features[0])
        return total

    def summarise(self, observed: Tensor) -> Tensor:
        """Scaled summaries (B, length) of observed cubes (B, C, *cells), where it learns from these alone."""
        return torch.cat(self._given(observed), dim=1)

    def refuse_nan(self, observed: Tensor) -> None:
        """Refuse summaries that are no numbers for observed cubes (B, C, *cells).

        Raises
        ------
        WorkError
            That names the first of them.
        """
        for branch in self._branches():
            values = [branch.summary(self._in_unit(x)).flatten(1) for x in observed.split(SCALING_BATCH)]
            if bad := sum(int((~of_some.isfinite()).any(1).sum()) for of_some in values):
                raise WorkError(
                    f"[embedding] summaries: {branch.name} is not finite for {bad} of {len(observed)} observed "
                    "simulations; networks need a number of every cube"
                )

    def of_summaries(self, scaled: Tensor) -> Tensor:
        """Features (B, features) of all scaled summaries, mean squares of a CNN's maps among them: (B, length)."""
        features: Tensor = self.linear(scaled) + self.head(scaled)
        return features

    def _given(self, observed: Tensor) -> list[Tensor]:
        """Scaled summaries (B, ...) of each kind but those of the CNN."""
        parts = []
        if self.spectrum is not None:
            parts.append(self.spectrum_scaling(self.spectrum(self._in_unit(observed))).flatten(1))
        if self.scattering is not None:
            parts.append(self.scattering_scaling(self.scattering(self.scaling(observed))).flatten(1))
        return parts + [branch(self._in_unit(observed)) for branch in self._branches()]

    def _in_unit(self, x: Tensor) -> Tensor:
        """Return cubes whose squares are numbers."""
        return x if self.unit == 1 else x / self.unit

    def _branches(self) -> "list[SummaryBranch]":
        return [branch for branch in self.summaries if isinstance(branch, SummaryBranch)]

    def _volumes(self, x: Tensor) -> Tensor:
        """Return cubes (B, C, *cells), or (B * C, 1, *cells) where each channel enters the CNN by itself."""
        return x.flatten(0, 1).unsqueeze(1) if self.volumes else x


class SummaryBranch(nn.Module):
    """A summary of cubes and the scaling of its values.

    Parameters
    ----------
    summary
        (B, C, *cells) to (B, ...).
    shape
        (C, *cells).
    """

    def __init__(self, summary: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.summary = summary
        self.length = summary(torch.zeros(1, *shape)).numel()
        positive, signed = (getattr(summary, name, False) for name in ("positive", "signed"))
        scaling = LogScaling if positive else SignedScaling if signed else LinearScaling
        self.scaling = scaling((self.length,))

    @property
    def name(self) -> str:
        """Name of the user's function or class."""
        return str(getattr(self.summary, "name", type(self.summary).__name__))

    def forward(self, observed: Tensor) -> Tensor:
        """(B, C, *cells) to (B, length)."""
        scaled: Tensor = self.scaling(self.summary(observed).flatten(1))
        return scaled


class ConvolutionalNetwork(nn.Module):
    """CNN for 2D and 3D cubes whose features are mean squares of its maps.

    Filters on the full cube are followed by stages that each halve it, until 4 cells or
    fewer are left along the shortest side. A stage sees the maps of the stage before through a nonlinearity,
    and beside them the cube itself, averaged to the same cells. The mean square over cells of what each
    convolution gives, before the nonlinearity, is the power of the cube in the band of its filters, and of
    the nonlinear maps as well: the quantity that describes a statistically homogeneous field,
    where a mean over cells of activations has to be taught to become one. A light-cone changes along its line of sight,
    so that means are those of each of its chunks.

    Parameters
    ----------
    inputs
        Channels of the cube.
    cells
        Shape of the cube.
    width
        Channels of each convolution.
    periodic
        Whether convolutions wrap around each cell axis.
    chunks
        Number of equal parts of the last axis, each with means of its own.
    """

    def __init__(
        self, inputs: int, cells: tuple[int, ...], width: int, periodic: tuple[bool, ...], chunks: int = 1
    ) -> None:
        super().__init__()
        dimension = len(cells)
        self._chunks = chunks
        self.full = FilterPower(inputs, width, dimension, periodic)
        stages: list[nn.Module] = []
        shortest, last = min(cells), 0
        while not stages or shortest > 4:
            stages.append(Convolution(last + inputs, width, dimension, periodic, stride=2))
            last, shortest = width, -(-shortest // 2)
        self.stages = nn.ModuleList(stages)
        self.last = Convolution(width + inputs, width, dimension, periodic)
        # The gradients of its convolutions take a third to two thirds of the time that way.
        self._layout = to_channels_last(self, dimension)
        self._average = {2: F.avg_pool2d, 3: F.avg_pool3d}[dimension]
        self.features = width * (len(stages) + 2) * chunks

    def forward(self, x: Tensor) -> Tensor:
        """Compute the mean squares (B, features) over cells of all convolutions' maps of cubes (B, inputs, *cells)."""
        parts = in_chunks(x, self._chunks).unflatten(1, (-1, self._chunks)).transpose(1, 2)
        squares = [self.full(parts.flatten(0, 1)).unflatten(0, (len(x), self._chunks)).flatten(1)]
        x = x.contiguous(memory_format=self._layout)
        maps = x
        for stage in self.stages:
            y = stage(maps)
            squares.append(_mean_square(y, self._chunks))
            x = self._average(x, 2, ceil_mode=True)
            maps = torch.cat([F.silu(y), x], dim=1)
        squares.append(_mean_square(self.last(maps), self._chunks))
        return torch.cat(squares, dim=1)


class FilterPower(nn.Module):
    """Mean squares of a full cube filtered by kernels of 3 cells along each axis.

    The mean of (w . patch + b)^2 over all patches is a quadratic form in w with the patches' second moments, which are
    the cube's autocorrelation at small lags. It is taken once for all filters, by FFT, and needs no gradient, so
    that neither the filtered maps nor their gradients, the greater part of a CNN's computing, are ever made.

    Parameters
    ----------
    inputs, outputs
        Channels of the cube, and number of filters.
    dimension
        2 or 3.
    periodic
        Whether the autocorrelation wraps around each cell axis; where it does not, only pairs
        inside the cube count.
    """

    _lag: Tensor

    def __init__(self, inputs: int, outputs: int, dimension: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        self.filters = nn.Linear(inputs * 3**dimension, outputs)
        self._periodic = periodic
        offsets = torch.cartesian_prod(*[torch.arange(3)] * dimension)
        # Place of the lag between cells i and j of a patch, among the 5^d lags.
        place = (offsets[None] - offsets[:, None] + 2) @ (5 ** torch.arange(dimension - 1, -1, -1))
        self.register_buffer("_lag", place, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the mean squares (B, outputs) of filtered cubes (B, inputs, *cells)."""
        with torch.no_grad():
            mean, second = self._moments(x.float())
        weight, bias = self.filters.weight, self.filters.bias
        quadratic = torch.einsum("fi,bij,fj->bf", weight, second, weight)
        # Rounding may take a sum of squares below zero.
        return (quadratic + 2 * bias * (mean @ weight.T) + bias.square()).clamp(min=0)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute means (B, M) and second moments (B, M, M) of patches of M = inputs * 3^d numbers."""
        cells = x.shape[2:]
        axes = tuple(range(-len(cells), 0))
        padded = [n if p else n + 2 for n, p in zip(cells, self._periodic, strict=True)]
        modes = torch.fft.rfftn(x, padded, dim=axes)
        cross = modes[:, :, None].conj() * modes[:, None]
        lags = torch.fft.irfftn(cross, padded, dim=axes) / cells.numel()
        for axis, n in zip(axes, padded, strict=True):
            lags = lags.index_select(axis, torch.arange(-2, 3, device=x.device) % n)
        second = lags.flatten(3)[..., self._lag]  # (B, C, C, 3^d, 3^d)
        size = x.shape[1] * len(self._lag)
        mean = x.flatten(2).mean(-1).repeat_interleave(len(self._lag), dim=1)
        return mean, second.transpose(2, 3).reshape(len(x), size, size)


class Convolution(nn.Module):
    """Kernel of 3 with periodic padding along some axes and reflection along the others."""

    def __init__(self, inputs: int, outputs: int, dimension: int, periodic: tuple[bool, ...], stride: int = 1) -> None:
        super().__init__()
        cls = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.convolution = cls(inputs, outputs, kernel_size=3, stride=stride)
        self._periodic = periodic

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, inputs, *cells) into (B, outputs, *cells / stride)."""
        return self.convolution(pad(x, self._periodic))


def _mean_square(maps: Tensor, chunks: int) -> Tensor:
    """Average squares of maps (B, channels, *cells) over the cells of each chunk: (B, channels chunks)."""
    if chunks == 1:
        return maps.square().flatten(2).mean(-1)
    along = maps.square().flatten(2, -2).mean(2)  # (B, channels, slices)
    return F.adaptive_avg_pool1d(along, chunks).flatten(1)
