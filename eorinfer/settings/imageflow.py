"""Settings of the image flow: the table ``[image_flow]``."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from eorinfer.settings.base import Settings
from eorinfer.settings.npe import TrainingSettings

#: Defaults of a diffusion, where they differ from those of the other kinds.
DIFFUSION = {"width": 64, "steps": 6000, "epochs": 3000, "batch_size": 32, "learning_rate": 2e-3, "weighing": 150}
#: Fewest held-out images by which NPE and a diffusion are combined.
FEWEST_IMAGES = 10
#: Keys of a second stage of training, which older versions had, and their defaults: they are in files and in hashes.
GONE = {"discriminative_steps": 0, "candidates": 8}


class ImageFlowSettings(Settings):
    """``[image_flow]``: the image flow, p(image | condition).

    Parameters
    ----------
    kind
        ``"isotropic"``: convolutions and splines that respect the field's symmetries, for nearly Gaussian or
        lognormal fields; ``"multiscale"``: wavelets, whose networks give each scale from the coarser ones, for 21cm
        maps and other structured fields; ``"diffusion"``: a Gaussian field that a denoising network corrects, for the
        same, with better maps and a slower density.
    condition
        ``"theta"``: all parameters; a list of parameter names; or ``"neutral-fraction"``: the mean neutral fraction
        of the image in each channel.
    image
        ``"whole"``, or ``"slices"``: maps across the last axis of a cube, drawn at random one at a time.
    convolutions
        Number of isotropic convolutions; the flow has one pixel-wise spline more. In a multiscale flow this setting
        and the next three describe the coarsest map.
    k_knots, knots
        Knots of each T(|k|), and of each spline.
    hidden
        Hidden layers of the small networks that turn the condition into knots.
    line_of_sight
        Use T(k across, k along) instead of T(|k|); by default where the survey or the model singles out the last axis.
    width, depth
        Channels of a multiscale flow's networks at the finest scale, and their convolutions after the first. Of a
        diffusion `width` is the number of channels after the first halving, 64 by default.
    components
        Number of normal distributions in the mixture for each detail of a multiscale flow.
    dequantisation
        Standard deviation of white noise that is added to every image, in the image's unit. By default none if the
        survey draws noise in every cell, else a hundredth of the images' own standard deviation.
    steps, epochs, batch_size, learning_rate, weight_decay
        See ``[training]``. A diffusion has other defaults: 6000 steps, 3000 epochs, 32 images and a rate of 2e-3.
    weighing
        Held-out images on which a diffusion learns what ln p counts for in posteriors, 150 by default: one number for
        all of its terms, or from 400 images on one for each. 0: all count one, and posteriors may be much too narrow.
        With ``[inference] method = "combined"`` one number for ln p, and one for NPE.
    """

    kind: Literal["isotropic", "multiscale", "diffusion"] = "isotropic"
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
    weighing: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_kind(cls, values: Any) -> Any:
        """Fill in what a diffusion has by default, and drop the keys that are gone."""
        if not isinstance(values, dict):
            return values
        values = {key: value for key, value in values.items() if key not in GONE}
        return DIFFUSION | values if values.get("kind") == "diffusion" else values

    @model_validator(mode="after")
    def _weights_of_a_diffusion(self) -> "ImageFlowSettings":
        if self.kind != "diffusion" and self.weighing:
            raise ValueError('weighing: only a flow of kind = "diffusion" has such weights; leave it out')
        return self

    def training(self, validation_fraction: float) -> TrainingSettings:
        """Return the settings of the fit."""
        return TrainingSettings(
            steps=self.steps,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            ensemble=1,
            validation_fraction=validation_fraction,
        )
