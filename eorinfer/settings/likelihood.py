"""Settings of the power-spectrum likelihood: the tables ``[power_spectrum]`` and ``[mcmc]``."""

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from eorinfer.settings.base import Settings

#: Folds of realisations of the emulator; also the number of mean networks whose average is used.
FOLDS = 5
#: Realisations that it needs: two in each fold.
LEAST_REALISATIONS = 2 * FOLDS


class PowerSpectrumSettings(Settings):
    """``[power_spectrum]``: bins of P(k) for the likelihood, and limits of k for the embedding.

    Parameters
    ----------
    bins
        Number of bins, logarithmic between `k_min` and `k_max`.
    k_min
        Lower edge in 1/Mpc; by default the first mode that the survey measures.
    k_max
        Upper edge in 1/Mpc; by default the corner of Fourier space, √d times the Nyquist wavenumber in d dimensions, so
        that no mode is left out.
    chunks
        Number of equal parts of a light-cone's line of sight, each with its own P(k) and its own averages in the CNN:
        their differences tell how the sky evolves.

    Examples
    --------
    >>> from eorinfer import PowerSpectrumSettings
    >>> PowerSpectrumSettings(bins=4, k_max=1.0).k_max
    1.0
    """

    bins: PositiveInt = 8
    k_min: PositiveFloat | None = None
    k_max: PositiveFloat | None = None
    chunks: PositiveInt = 1

    @property
    def whole(self) -> "PowerSpectrumSettings":
        """The same limits and bins for images that are not cut."""
        return self.model_copy(update={"chunks": 1})

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of older versions have no such key.
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if (name, value) != ("chunks", 1)}


class McmcSettings(Settings):
    """``[mcmc]``: emcee on the Gaussian power-spectrum likelihood.

    Parameters
    ----------
    walkers
        Number of walkers: even, and at least twice the number of parameters.
    steps
        Steps in a block. The chain grows by blocks until it is 50 autocorrelation times long.
    max_steps
        Largest number of steps. A chain that reaches it stops and is reported as not converged.
    draws
        Survey draws of each simulation, for the training of the emulator.
    """

    walkers: Annotated[int, Field(ge=4, multiple_of=2)] = 32
    steps: PositiveInt = 2000
    max_steps: PositiveInt = 50000
    draws: PositiveInt = 8
