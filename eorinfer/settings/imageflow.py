"""Settings of the flow on the images: the table ``[field]``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from eorinfer.settings.base import Settings
from eorinfer.settings.npe import TrainingSettings


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
        See ``[training]``.
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
