"""Settings of the line separation and of its use: the tables ``[separation]`` and ``[preprocessing]``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from eorinfer.settings.base import Settings

Keep = Literal["lines", "both"]
Estimate = Literal["mean", "draw", "both"]
Data = Literal["observed", "lines"]

#: Keys that only a GAN has.
_OF_GAN = frozenset({"loss", "draws", "instance_noise", "softening", "weight", "discriminator_rate", "dropout"})


class SeparationSettings(Settings):
    """``[separation]``: networks that separate an observed map into its lines.

    Parameters
    ----------
    kind
        ``"flow-matching"``: the posterior mean by a network of squared error, and draws about it by a flow;
        ``"mean"``: the mean alone; ``"cgan"``: draws by a conditional GAN. A table without `kind` that has a key of
        the GAN alone means ``"cgan"``.
    simulations
        Number of simulations, those for validation and test included.
    targets
        Lines to separate: ``"ha"``, or ``"oiii:1"`` for the line in one channel. By default every line of a map; for
        several cubes the first line of the first cube, the second line of the second cube, and so on.
    mix
        Add up lines of different simulations, each mirrored and turned on its own, which makes many more maps. This
        is right if lines come from independent volumes and share no varying parameter. With several cubes, the first
        line in the first cube, the second in the second and so on stay together: they trace one structure.
    loss
        ``"talk"``: -log D for the generator and the cross entropy for the discriminator, with `weight` times the mean
        absolute error; ``"wasserstein"``: a critic with gradient penalty instead; ``"l1"``: the error alone.
    draws
        Draws per map in training. With two or more the loss is the CRPS (mean error minus half the mean distance
        between draws), which makes draws spread like the posterior; one draw gives the loss of the papers. All but the
        first are made of every fourth map. The discriminator judges the first. ``"l1"`` always takes one.
    instance_noise
        Standard deviation of noise added to true and reconstructed lines before the discriminator sees them, in
        scaled units. Without it, exactly empty pixels alone would tell true lines from reconstructed ones.
    softening
        Number of standard deviations of a map at which its asinh scaling turns from linear to logarithmic.
    weight
        Factor lambda of the mean absolute error, in scaled units.
    steps, batch_size
        Optimiser steps of each network, and maps in a batch.
    learning_rate, discriminator_rate
        Learning rates of generator and discriminator; they fall to zero in the second half of the steps.
    depth
        Levels of the U-Net; by default as many as the cells allow, at most 8. Those of mean and flow stop where the
        longest axis has four cells.
    width, widest
        Channels of the first level of both networks; they double at each level up to `widest`.
    dropout
        Share of features that the decoder drops, in training and to make draws.
    padding
        ``"periodic"`` or ``"reflect"``; by default what fits each axis of the simulator.
    average
        Decay of the exponential average of the generator's weights; the average is saved.
    flow_steps
        Steps in which the flow makes a draw.
    clip
        Largest norm of a network's gradient.
    validation_fraction, test_fraction
        Shares of the realisations for validation and test; training never sees those for the test.
    precision
        Precision of training; by default ``"bf16-mixed"`` where the processor has it, else ``"32-true"``.
    """

    kind: Literal["flow-matching", "mean", "cgan"] = "flow-matching"
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
    flow_steps: PositiveInt = 16
    clip: PositiveFloat = 1.0
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _kind_of_old_tables(cls, table: Any) -> Any:
        """Take a table without `kind` for what it was before there were kinds, if it sets up a GAN."""
        if isinstance(table, dict) and "kind" not in table and not _OF_GAN.isdisjoint(table):
            return table | {"kind": "cgan"}
        return table


class PreprocessingSettings(Settings):
    """``[preprocessing]``: a step between the observed maps and the networks of a posterior.

    Parameters
    ----------
    kind
        ``"line-separation"``: a trained separator turns the observed map into maps of the lines.
    model
        Folder of the separator, OUT/separator of ``eorinfer separate train``. The posterior is trained on other
        simulations than the separator.
    keep
        ``"lines"``, or ``"both"``: the networks see the observed map beside them.
    estimate
        What is given of the lines: their posterior ``"mean"``, a ``"draw"``, always of the same noise, or ``"both"``.
    power_spectrum
        Data of the power-spectrum likelihoods, and of ``"npe-power"`` in a contest: P(k) of the ``"observed"`` map, or
        of the ``"lines"``, posterior means, with their cross spectra (P(k) of each line, and of each sum of two).
    """

    kind: Literal["line-separation"] = "line-separation"
    model: Path
    keep: Keep = "lines"
    estimate: Estimate = "mean"
    power_spectrum: Data = "observed"
