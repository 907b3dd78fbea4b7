"""Settings of the power-spectrum likelihood: the tables ``[power_spectrum]`` and ``[mcmc]``."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from eorinfer.settings.base import Settings


class PowerSpectrumSettings(Settings):
    """``[power_spectrum]``: bins of P(k), for the baseline and for the embedding.

    Parameters
    ----------
    bins
        Number of bins, logarithmic between the fundamental mode and `k_max`.
    k_min
        Lower edge in 1/Mpc; by default the first mode that the survey measures.
    k_max
        Upper edge in 1/Mpc; by default the Nyquist wavenumber.
    """

    bins: PositiveInt = 8
    k_min: PositiveFloat | None = None
    k_max: PositiveFloat | None = None


class McmcSettings(Settings):
    """``[mcmc]``: emcee on the Gaussian power-spectrum likelihood.

    Parameters
    ----------
    walkers
        Even, at least twice the number of parameters.
    steps
        First block; the chain goes on in blocks of this length until it has
        50 autocorrelation times.
    max_steps
        Largest number of steps; a chain that is still too short is called not converged.
    draws
        Survey draws of each simulation that the emulator is trained on.
    """

    walkers: Annotated[int, Field(ge=4, multiple_of=2)] = 32
    steps: PositiveInt = 2000
    max_steps: PositiveInt = 50000
    draws: PositiveInt = 8
