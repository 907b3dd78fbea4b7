"""Settings of embedding, flow, training, rounds and MCMC; each is a table of the config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Settings(BaseModel):
    """Immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        Of AdamW.
    ensemble
        Networks trained from different seeds; the posterior is their mean.
    validation_fraction
        Share of the realisations that is kept for validation.
    precision
        As in Lightning, e.g. ``"bf16-mixed"`` on a GPU.
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
        Where it stops all the same and says that it has not converged.
    draws
        Survey draws of each simulation that the emulator is trained on.
    """

    walkers: Annotated[int, Field(ge=4, multiple_of=2)] = 32
    steps: PositiveInt = 2000
    max_steps: PositiveInt = 50000
    draws: PositiveInt = 8


class ValidationSettings(Settings):
    """``[validation]``: the check of a trained posterior against known truths.

    Parameters
    ----------
    truths
        Parameters whose posteriors are compared with them.
    field_truths
        The same for ``[inference] method = "field-flow"``, each of whose posteriors is sampled anew.
    samples
        Posterior samples of each truth.
    simulate
        Simulate truths that nothing was trained on; false takes the rows that training
        held out, which cost nothing, but chose the best weights.
    references
        Truths whose widths are compared with those of the power-spectrum posterior
        and of the exact one; 0 for none.
    """

    truths: Annotated[int, Field(ge=20)] = 200
    field_truths: Annotated[int, Field(ge=20)] = 100
    samples: Annotated[int, Field(ge=100)] = 1000
    simulate: bool = True
    references: Annotated[int, Field(ge=0)] = 20


class ImageFlowSettings(Settings):
    """``[field]``: the flow on the images, p(image | condition).

    Parameters
    ----------
    kind
        ``"isotropic"``: convolutions and splines that know of the field's symmetries, for fields that are near
        Gaussian or lognormal; ``"multiscale"``: wavelets, each scale given the coarser ones by small networks, for
        21cm maps and other fields with structure.
    condition
        ``"theta"``: all parameters; some of their names; or ``"neutral-fraction"``: its mean over the image, for
        each channel.
    image
        ``"whole"``, or ``"slices"``: maps across the last axis of a cube, one drawn at random at a time.
    convolutions
        Isotropic convolutions; there is one pixel-wise spline more. Of a multiscale flow these, and the three
        settings that follow, are those of its coarsest map.
    k_knots, knots
        Knots of each T(|k|), and of each spline.
    hidden
        Hidden layers of the small networks that make knots of the condition.
    line_of_sight
        T(k across, k along) instead of T(|k|); by default where the survey or the model tells the last axis apart.
    width, depth
        Channels of a multiscale flow's networks at the finest scale, and their convolutions after the first.
    components
        Normal distributions whose mixture each detail of a multiscale flow has.
    dequantisation
        Standard deviation of white noise that is added to every image, in the image's unit; by default none where
        the survey draws noise in every cell, else a hundredth of the images' own standard deviation.
    steps, epochs, batch_size, learning_rate, weight_decay
        As in ``[training]``.
    discriminative_steps
        Steps on -log p(y | x) after those on -log p(x | y).
    candidates
        Conditions among which the right one has to be told then.
    """

    kind: Literal["isotropic", "multiscale"] = "isotropic"
    condition: Literal["theta", "neutral-fraction"] | tuple[str, ...] = "theta"
    image: Literal["whole", "slices"] = "whole"
    convolutions: PositiveInt = 2
    k_knots: Annotated[int, Field(ge=2)] = 12
    knots: Annotated[int, Field(ge=2)] = 8
    hidden: tuple[PositiveInt, ...] = (64, 64)
    line_of_sight: bool | None = None
    width: PositiveInt = 48
    depth: PositiveInt = 3
    components: PositiveInt = 8
    dequantisation: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    steps: PositiveInt = 1500
    epochs: PositiveInt = 400
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 5e-3
    weight_decay: float = Field(default=0.0, ge=0)
    discriminative_steps: Annotated[int, Field(ge=0)] = 0
    candidates: Annotated[int, Field(ge=2)] = 8

    def training(self, validation_fraction: float, *, discriminative: bool = False) -> TrainingSettings:
        """Settings of one fit; the second one, on -log p(y | x), goes far more slowly.

        On 21cm maps a fifth of the first one's rate undid what that had learned, a fiftieth did not.
        """
        return TrainingSettings(
            steps=self.discriminative_steps if discriminative else self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * (0.02 if discriminative else 1.0),
            weight_decay=self.weight_decay,
            ensemble=1,
            validation_fraction=validation_fraction,
        )
