"""Settings of neural posterior estimation: the tables ``[embedding]``, ``[flow]``, ``[training]``, ``[inference]``."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eorinfer.settings.base import Settings


class EmbeddingSettings(Settings):
    """``[embedding]``: what turns a cube into features.

    Parameters
    ----------
    convolution
        Use the CNN on the image.
    power_spectrum
        Use the logarithm of P(k) beside it.
    scattering
        Use scattering coefficients of the maps across the last axis beside it; needs kymatio.
    bins
        Bins of P(k) for that, logarithmic between the limits of ``[power_spectrum]``.
    width
        Channels of each of the CNN's convolutions.
    redshifts
        ``"channels"``: the redshifts are channels of one cube;
        ``"volumes"``: each goes through the same CNN by itself.
    features
        Length of the embedding; by default 4 for each parameter, at least 8.
    """

    convolution: bool = True
    power_spectrum: bool = True
    scattering: bool = False
    bins: PositiveInt = 16
    width: PositiveInt = 16
    redshifts: Literal["channels", "volumes"] = "channels"
    features: PositiveInt | None = None


class FlowSettings(Settings):
    """``[flow]``: the posterior flow, built by sbi.

    Parameters
    ----------
    kind
        One of sbi's zuko estimators; or ``"gaussian"``: no flow but a Gaussian in theta with the network's mean and
        covariance, as in regression.
    transforms
        Number of transforms.
    hidden
        Hidden layers of each transform's network.
    """

    kind: Literal["zuko_nsf", "zuko_maf", "gaussian"] = "zuko_nsf"
    transforms: PositiveInt = 2
    hidden: tuple[PositiveInt, ...] = (32, 32)


class TrainingSettings(Settings):
    """``[training]``: one fit of embedding and flow.

    Parameters
    ----------
    steps
        Optimiser steps of one network, at most.
    epochs
        Passes over the simulations, at most: a network that sees few of them too often learns them by heart.
    batch_size
        Rows of a batch.
    learning_rate
        Peak of the one-cycle schedule.
    weight_decay
        Weight decay of AdamW.
    ensemble
        Networks trained from different seeds; the posterior is their mean.
    validation_fraction
        Share of the realisations that is kept for validation.
    precision
        Precision as Lightning names it, e.g. ``"bf16-mixed"`` on a GPU.
    """

    steps: PositiveInt = 3000
    epochs: PositiveInt = 120
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-2
    weight_decay: float = Field(default=0.05, ge=0)
    ensemble: PositiveInt = 3
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.9)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"


class InferenceSettings(Settings):
    """``[inference]``: method and rounds.

    Parameters
    ----------
    method
        ``"npe"``: sequential rounds of neural posterior estimation; ``"field-flow"``: the likelihood of a flow on
        the images, see ``[field]``, with the simulations of the first round and of those later ones that are there.
    rounds
        Simulations of each round; the first draws from the prior, the later ones from the `proposal`.
    proposal
        ``"truncated"``: the prior where the posterior of the round before is, so that the loss stays the plain
        one; ``"posterior"``: that posterior itself, with the atomic loss of NPE-C.
    atoms
        Candidates of the atomic loss.
    truncation
        Posterior mass that a truncation leaves out.
    samples
        Samples of the posterior that are written.
    predictive
        Simulations at posterior samples, for the posterior-predictive check; 0 for none.
    """

    method: Literal["npe", "field-flow"] = "npe"
    rounds: tuple[PositiveInt, ...] = Field(min_length=1)
    proposal: Literal["truncated", "posterior"] = "truncated"
    atoms: int = Field(default=10, ge=2)
    truncation: float = Field(default=1e-3, gt=0, lt=0.1)
    samples: PositiveInt = 10000
    predictive: int = Field(default=32, ge=0)
