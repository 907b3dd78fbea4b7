"""Gaussian fields with the power spectra of 21cmEMU: nine parameters, and a posterior that is known exactly."""

import os
from functools import cache
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, field_validator, model_validator

from simulators.base import Observable, Parameter, SimulatorSettings, Symmetry, check_theta, derived_seed
from simulators.fourier import wavenumbers
from simulators.reionization.parameters import PARAMETERS

#: Parameters that are evaluated at once.
BATCH = 512
#: Variable by which torch reads weights without unpickling anything else.
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class EmulatedField(SimulatorSettings):
    """Periodic Gaussian fields of Δ²(k, z; θ) as 21cmFAST has it, by 21cmEMU (Breitman et al. 2024, arXiv 2309.05697).

    Each redshift is a realisation of its own, so that the exact likelihood is a product over redshifts and modes. The
    parameters are the nine of 21cmFAST and their ranges those of the emulator. Nothing in these fields goes beyond
    their spectra: they are no 21cm images, but a bed to measure methods on. Needs the optional package ``py21cmemu``.

    Parameters
    ----------
    cells
        Number of cells along each side.
    box_length
        Side in comoving Mpc.
    redshifts
        Redshift of each channel.
    """

    kind: str = "gaussian-21cmemu"
    cells: int = Field(default=24, ge=4)
    box_length: PositiveFloat = Field(default=192.0, allow_inf_nan=False)
    redshifts: tuple[float, ...] = Field(default=(7.0, 8.0, 9.0), min_length=1)

    dimension: ClassVar[int] = 3

    @field_validator("redshifts")
    @classmethod
    def _are_emulated(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(5.91 <= z <= 21.6 for z in value):
            raise ValueError(f"redshifts = {list(value)}: 21cmEMU has spectra from 5.91 to 21.6")
        return value

    @model_validator(mode="after")
    def _is_installed(self) -> "EmulatedField":
        if find_spec("py21cmemu") is None:
            raise ValueError(f"kind = \"{self.kind}\" needs py21cmemu: pip install 'eorinfer[emulated]'")
        return self

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe the nine parameters."""
        return PARAMETERS

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe ``brightness_temperature``, of one channel for each redshift."""
        return (
            Observable(
                name="brightness_temperature",
                shape=(len(self.redshifts), *(self.cells,) * 3),
                unit="mK",
                axes=("redshift", "x", "y", "z"),
                cell_size=(self.box_length / self.cells,) * 3,
                channels=self.redshifts,
                symmetry=Symmetry(periodic=(True,) * 3, rotations="all"),
            ),
        )

    @property
    def seconds_per_row(self) -> float:
        """Estimate the cost of one row: the emulator's pass, and a real FFT for each redshift."""
        return 0.03 + 2e-7 * self.cells**3 * len(self.redshifts)

    def power(self, theta: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute P(k) (n, C, M) in mK² Mpc³ at theta (n, 9) and k (M,) in 1/Mpc; 0 where k is 0.

        log Δ² is linear in z and in log k between the emulator's nodes, and constant beyond them.
        """
        return power_between(*log_spectra(np.atleast_2d(theta), self.redshifts), k)

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Simulate one field of shape (C, *cells) in mK, of mean 0."""
        theta = check_theta(self.parameters, theta)
        shape = (self.cells,) * 3
        k = wavenumbers(shape, self.box_length)
        power = self.power(theta, k.ravel())[0]
        fields = []
        for channel, spectrum in enumerate(power):
            white = np.random.default_rng(derived_seed(seed, channel)).standard_normal(shape)
            amplitude = np.sqrt(spectrum.reshape(k.shape) * white.size / self.box_length**3)
            fields.append(np.fft.irfftn(np.fft.rfftn(white) * amplitude, s=shape, axes=range(3)))
        return {"brightness_temperature": np.array(fields, dtype=np.float32)}


def power_between(
    log_k: NDArray[np.float64], log_delta: NDArray[np.float64], k: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute P(k) (n, C, M) at k (M,), of ln Δ² (n, C, K) at nodes ln k (K,); see `EmulatedField.power`."""
    at = np.clip(np.log(np.where(k > 0, k, 1.0)), log_k[0], log_k[-1])
    right = np.clip(np.searchsorted(log_k, at), 1, len(log_k) - 1)
    share = (at - log_k[right - 1]) / (log_k[right] - log_k[right - 1])
    between = log_delta[..., right - 1] * (1 - share) + log_delta[..., right] * share
    volume = np.where(k > 0, 2 * np.pi**2 / np.where(k > 0, k, 1.0) ** 3, 0.0)
    return np.asarray(np.exp(between) * volume)


def log_k_nodes() -> NDArray[np.float64]:
    """Give ln k (K,) of the emulator's spectra, k in 1/Mpc."""
    return np.log(np.asarray(_emulator().properties.PS_ks))


def log_spectra(
    theta: NDArray[np.float64], redshifts: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Emulate the spectra.

    Parameters
    ----------
    theta
        (n, 9), in the units of 21cmFAST.
    redshifts
        C redshifts between the emulator's.

    Returns
    -------
    log_k, log_delta
        (K,) ln k in 1/Mpc, and (n, C, K) ln Δ² in mK².
    """
    emulator = _emulator()
    z, log_k = np.asarray(emulator.properties.PS_zs), log_k_nodes()
    parts = np.array_split(theta, -(-len(theta) // BATCH))
    spectra = [np.reshape(emulator.predict(part)[1].PS.value, (len(part), len(z), len(log_k))) for part in parts]
    table = np.log(np.concatenate(spectra).astype(np.float64))
    right = np.clip(np.searchsorted(z, redshifts), 1, len(z) - 1)
    share = ((np.array(redshifts) - z[right - 1]) / (z[right] - z[right - 1]))[:, None]
    return log_k, table[:, right - 1] * (1 - share) + table[:, right] * share


@cache
def _emulator() -> Any:
    """Load 21cmEMU's version 1, with nine parameters; its weights as tensors alone, whatever its loader would allow."""
    from py21cmemu import Emulator

    before = os.environ.get(WEIGHTS_ONLY)
    os.environ[WEIGHTS_ONLY] = "1"
    try:
        return Emulator(emulator="acg")
    finally:
        if before is None:
            del os.environ[WEIGHTS_ONLY]
        else:
            os.environ[WEIGHTS_ONLY] = before
