"""Settings of the separation and of its use: the tables ``[separation]`` and ``[preprocessing]`` of the config."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eorinfer.settings.base import Settings


class SeparationSettings(Settings):
    """``[separation]``: a conditional GAN that takes an observed map apart into its lines.

    Parameters
    ----------
    simulations
        Rows of the bank, those for validation and test included.
    targets
        Lines to be separated, ``"ha"``, or ``"oiii:1"`` for the one of a channel; by default every line of a map, and
        of several cubes the first line of the first cube, the second of the second and so on.
    mix
        Add up lines of different simulations, each mirrored and turned by itself. Right where lines come from
        independent volumes and share no parameter that varies; it makes many times as many maps. Of several cubes the
        first line in the first, the second in the second and so on stay together: they trace one structure.
    loss
        ``"talk"``: -log D for the generator and the cross entropy for the discriminator, with `weight` times the mean
        absolute error; ``"wasserstein"``: a critic with gradient penalty in its place; ``"l1"``: the error alone.
    draws
        Draws per map in training. With two or more the loss is the CRPS (mean error minus half the mean distance
        between draws), which makes draws spread like the posterior; one draw gives the loss of the papers. ``"l1"``
        always has one.
    instance_noise
        Standard deviation of the noise that is added to true and reconstructed lines before they are judged, in
        scaled units: most pixels of a line are exactly empty, by which alone the discriminator would tell them apart.
    softening
        Standard deviations of a map at which its asinh scaling turns from linear to logarithmic.
    weight
        Lambda of the mean absolute error, in scaled units.
    steps, batch_size
        Optimiser steps of each network, and maps of a batch.
    learning_rate, discriminator_rate
        Learning rates of generator and discriminator; they fall to zero in the second half of the steps.
    depth
        Levels of the U-Net; by default as many as the cells allow, at most 8.
    width, widest
        Channels of the first level of both networks; they double at each one up to `widest`.
    dropout
        Share of what the decoder drops, in training and to make draws.
    padding
        ``"periodic"`` or ``"reflect"``; by default as each axis of the simulator is.
    average
        Decay of the exponential average of the generator, which is what is kept.
    clip
        Largest norm of a network's gradient.
    validation_fraction, test_fraction
        Shares of the realisations; those for the test are never looked at in training.
    precision
        Precision of training; by default ``"bf16-mixed"`` where the processor has it, else ``"32-true"``.
    """

    simulations: PositiveInt = 3000
    targets: tuple[str, ...] = ()
    mix: bool = False
    loss: Literal["talk", "wasserstein", "l1"] = "talk"
    draws: PositiveInt = 2
    instance_noise: float = Field(default=0.3, ge=0)
    softening: PositiveFloat = 30.0
    weight: PositiveFloat = 100.0
    steps: PositiveInt = 4000
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 4e-4
    discriminator_rate: PositiveFloat = 2e-4
    depth: PositiveInt | None = None
    width: PositiveInt = 64
    widest: PositiveInt = 512
    dropout: float = Field(default=0.2, ge=0, lt=1)
    padding: Literal["auto", "periodic", "reflect"] = "auto"
    average: float = Field(default=0.999, ge=0, lt=1)
    clip: PositiveFloat = 1.0
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"


class PreprocessingSettings(Settings):
    """``[preprocessing]``: what is done to observed maps before a posterior's networks see them.

    The power-spectrum MCMC sees the observed maps themselves.

    Parameters
    ----------
    kind
        ``"line-separation"``: the maps of the lines, by a separator that is trained already.
    model
        Folder of the separator, OUT/separator of ``eorinfer separate train``. Simulations that it was trained on are
        left out of the posterior's.
    keep
        ``"lines"``, or ``"both"``: the networks see the observed map beside them.
    """

    kind: Literal["line-separation"] = "line-separation"
    model: Path
    keep: Literal["lines", "both"] = "lines"
