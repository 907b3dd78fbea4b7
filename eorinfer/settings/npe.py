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
        Use scattering coefficients of the maps across the last axis too; needs kymatio.
    bins
        Bins of P(k) for the embedding, logarithmic between the limits of ``[power_spectrum]``.
    width
        Channels of each convolution of the CNN.
    redshifts
        ``"channels"``: the CNN sees the redshifts as channels of one cube;
        ``"volumes"``: each redshift goes through the same CNN on its own.
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
        One of sbi's zuko estimators, or ``"gaussian"``: a Gaussian in theta whose mean and covariance a network
        gives, as in regression.
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
        Largest number of optimiser steps of one network.
    epochs
        Largest number of passes over the simulations: a network that sees few of them often learns them by heart.
    batch_size
        Simulations in a batch.
    learning_rate
        Peak of the one-cycle schedule.
    weight_decay
        Weight decay of AdamW.
    ensemble
        Number of networks, trained from different seeds; the posterior is their mean.
    validation_fraction
        Share of the realisations that is held out for validation.
    precision
        Lightning's name for the floating-point precision, e.g. ``"bf16-mixed"`` on a GPU.
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
        ``"npe"``: sequential rounds of neural posterior estimation; ``"image-flow"``: the likelihood of a flow on
        the images, see ``[image_flow]``, trained on the first round and on all later rounds that were simulated.
    rounds
        Number of simulations in each round. The first round draws from the prior, later ones from the `proposal`.
    proposal
        ``"truncated"``: the prior, cut to the region of the last round's posterior, which keeps the plain loss;
        ``"posterior"``: the last round's posterior itself, with the atomic loss of NPE-C.
    atoms
        Number of candidates in the atomic loss.
    truncation
        Posterior mass that a truncation leaves out.
    samples
        Number of posterior samples to write.
    predictive
        Number of simulations at posterior samples, for the posterior-predictive check; 0 for none.
    """

    method: Literal["npe", "image-flow"] = "npe"
    rounds: tuple[PositiveInt, ...] = Field(min_length=1)
    proposal: Literal["truncated", "posterior"] = "truncated"
    atoms: int = Field(default=10, ge=2)
    truncation: float = Field(default=1e-3, gt=0, lt=0.1)
    samples: PositiveInt = 10000
    predictive: int = Field(default=32, ge=0)
