"""Random fields with a power-law spectrum: Gaussian ones, whose exact posterior is known, and lognormal ones."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from simulators.base import Observable, Parameter, SimulatorSettings, Symmetry, check_theta
from simulators.fourier import frequencies, wavenumbers


class GaussianField(SimulatorSettings):
    """Periodic Gaussian field of power spectrum P(k) = A (k / pivot)^slope.

    P(k) follows the convention P = V <|delta_k|^2> with
    delta_k = (1/N) sum f(x) exp(-ikx); the zero mode is 0. The parameters are
    ``log_amplitude`` (ln A) and ``slope``.

    A subclass that overrides `simulate` alone is a simulator of its own.

    Parameters
    ----------
    dimension
        Number of axes, 2 or 3.
    cells
        Number of cells along each side.
    box_length
        Side in comoving Mpc.
    pivot
        Wavenumber at which P = A, in 1/Mpc.
    """

    kind: str = "gaussian-field"
    dimension: int = Field(default=2, ge=2, le=3)
    cells: int = Field(default=32, ge=4)
    box_length: PositiveFloat = Field(default=32.0, allow_inf_nan=False)
    pivot: PositiveFloat = Field(default=0.785, allow_inf_nan=False)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe ln A and the slope."""
        return (
            Parameter("log_amplitude", r"\ln A", -3.0, 4.0, 0.0, description="log of the power at the pivot"),
            Parameter("slope", "n", -4.0, 1.0, -2.0, description="logarithmic slope of the power spectrum"),
        )

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe ``field``, of one channel."""
        d = self.dimension
        return (
            Observable(
                name="field",
                shape=(1, *(self.cells,) * d),
                unit="",
                axes=("channel", *"xyz"[:d]),
                cell_size=(self.box_length / self.cells,) * d,
                channels=(0.0,),
                symmetry=Symmetry(periodic=(True,) * d, rotations="all"),
            ),
        )

    @property
    def seconds_per_row(self) -> float:
        """Estimate the cost of one row: 0.1 microseconds a cell and half a millisecond of overhead."""
        return 5e-4 + 1e-7 * self.cells**self.dimension

    def power(self, theta: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute P(k) (..., M) at ln A and slope, theta (..., 2), and k (M,) in 1/Mpc; 0 where k is 0."""
        theta = np.asarray(theta, dtype=np.float64)
        inside = k > 0
        log_k = np.log(np.where(inside, k, 1.0) / self.pivot)
        return np.exp(theta[..., :1] + theta[..., 1:] * log_k) * inside

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Simulate one field of shape (1, *cells)."""
        theta = check_theta(self.parameters, theta)
        return {"field": self.gaussian(theta, seed).astype(np.float32)[None]}

    def gaussian(self, theta: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
        """Draw one realisation (*cells) in float64, without a channel axis."""
        shape = (self.cells,) * self.dimension
        white = np.random.default_rng(seed).standard_normal(shape)
        k = wavenumbers(shape, self.box_length)
        volume = self.box_length**self.dimension
        amplitude = np.sqrt(self.power(theta, k.ravel()).reshape(k.shape) * white.size / volume)
        return np.fft.irfftn(np.fft.rfftn(white) * amplitude, s=shape, axes=range(self.dimension))

    def variance(self, theta: NDArray[np.float64]) -> float:
        """Compute the expected variance of a cell of `gaussian`: the sum of P over all modes, divided by V."""
        cells, cell = (self.cells,) * self.dimension, self.box_length / self.cells
        axes = [2 * np.pi * f for f in frequencies(cells, (cell,) * self.dimension, half=False)]
        k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
        return float(self.power(theta, k.ravel()).sum() / self.box_length**self.dimension)


class LognormalField(GaussianField):
    """Field exp(g - s^2 / 2) - 1 of a Gaussian field g of variance s^2, with information beyond the power spectrum.

    Settings and parameters are those of g, a `GaussianField`.
    """

    kind: str = "lognormal-field"

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Simulate one field of shape (1, *cells)."""
        theta = check_theta(self.parameters, theta)
        field = np.expm1(self.gaussian(theta, seed) - self.variance(theta) / 2)
        return {"field": field.astype(np.float32)[None]}
