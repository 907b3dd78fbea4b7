"""Choose the conditions of an image flow and the image that it models; no torch, so that a config can be checked."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.prior import Prior
from eorinfer.settings.imageflow import ImageFlowSettings
from eorinfer.settings.survey import NoSurvey, SurveySettings, SurveyTable, WhiteNoise
from simulators import Observable, Parameter, Simulator, Symmetry

#: The observable whose mean is the condition ``"neutral-fraction"``.
NEUTRAL_FRACTION = "neutral_fraction"
#: Intervals of the neutral fraction from which images are taken in turn where they should be even in it.
INTERVALS = 10


def check_image_flow(settings: ImageFlowSettings, simulator: Simulator) -> None:
    """Check that the simulator gives the image and the conditions that ``[image_flow]`` names.

    Raises
    ------
    ValueError
        If it does not; the message names the key of ``[image_flow]``, its value and what would be right.
    """
    image = simulator.observables[0]
    if isinstance(settings.condition, tuple):
        names = [p.name for p in simulator.parameters]
        unknown = [name for name in settings.condition if name not in names]
        if unknown or not settings.condition or len(set(settings.condition)) < len(settings.condition):
            raise ValueError(
                f"condition = {list(settings.condition)}: give some of {', '.join(names)}, "
                '"theta" for all, or "neutral-fraction"'
            )
    if settings.condition == "neutral-fraction":
        shapes = {o.name: o.shape for o in simulator.observables}
        if shapes.get(NEUTRAL_FRACTION) != image.shape:
            raise ValueError(
                f'condition = "neutral-fraction": the simulator has no {NEUTRAL_FRACTION} of the image\'s shape, only '
                f"{', '.join(shapes)}; 21cmfast-coeval keeps it unless [simulator] observables leaves it out"
            )
    if settings.image == "slices" and len(image.cells) != 3:
        raise ValueError(f'image = "slices": only cubes can be sliced, {image.name} is {image.shape}')


def theta_columns(settings: ImageFlowSettings, prior: Prior) -> list[int]:
    """Return the numbers of the prior's parameters that are conditions; none where that is the neutral fraction."""
    if settings.condition == "neutral-fraction":
        return []
    wanted = prior.names if settings.condition == "theta" else settings.condition
    return [prior.names.index(name) for name in wanted]


def neutral_fraction_parameters(observable: Observable, low: list[float], high: list[float]) -> tuple[Parameter, ...]:
    """Describe the mean neutral fraction of each channel, with the range that training saw."""
    several = len(observable.channels) > 1
    return tuple(
        Parameter(
            f"x_HI_z{z:g}" if several else "x_HI",
            rf"\bar x_{{\rm HI}}(z={z:g})" if several else r"\bar x_{\rm HI}",
            a,
            b,
            (a + b) / 2,
            description="mean neutral fraction of the image",
        )
        for z, a, b in zip(observable.channels, low, high, strict=True)
    )


def spread_evenly(x_hi: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose images, `n` at most, as even in their neutral fractions as those there are allow, in random order.

    Parameters
    ----------
    x_hi
        (m,) neutral fractions.
    n
        Number of images.
    rng
        Source of the choice.
    """
    interval = np.digitize(x_hi, np.linspace(0, 1, INTERVALS + 1)[1:-1])
    groups = [list(rng.permutation(np.flatnonzero(interval == i))) for i in range(INTERVALS)]
    chosen: list[int] = []
    while len(chosen) < min(n, len(x_hi)):
        chosen += [group.pop() for group in groups if group]
    return rng.permutation(np.array(chosen[:n], dtype=np.int64))


def image_flow_observable(settings: ImageFlowSettings, observable: Observable) -> Observable:
    """Describe the image that the flow models: the simulator's, or a map across its last axis."""
    if settings.image == "whole":
        return observable
    return replace(
        observable,
        shape=observable.shape[:-1],
        axes=observable.axes[:-1],
        cell_size=observable.cell_size[:-1],
        symmetry=Symmetry(
            observable.symmetry.periodic[:-1], "all" if observable.symmetry.rotations != "none" else "none"
        ),
        coordinates=(),
    )


def slicing_symmetry(settings: ImageFlowSettings, symmetry: Symmetry) -> Symmetry:
    """Return the symmetry that augments clean cubes; slices keep their place along the last axis."""
    if settings.image == "whole":
        return symmetry
    rotations = "none" if symmetry.rotations == "none" else "transverse"
    return Symmetry((*symmetry.periodic[:-1], False), rotations)  # type: ignore[arg-type]


def slicing_axes(settings: ImageFlowSettings, survey: SurveySettings, observable: Observable) -> int:
    """Return the number of axes, from the last one on, across which slices are alike."""
    alike = observable.symmetry.rotations == "all" and len(set(observable.cells)) == 1 and acts_on_cells(survey)
    return len(observable.cells) if settings.image == "slices" and alike else 1


def line_of_sight(settings: ImageFlowSettings, survey: SurveySettings, observable: Observable) -> bool:
    """Tell whether the flow treats the last axis of its images apart from the others."""
    if len(observable.cells) < 3:
        return False
    if settings.line_of_sight is not None:
        return settings.line_of_sight
    return observable.symmetry.rotations != "all" or not acts_on_cells(survey)


def acts_on_cells(survey: SurveySettings) -> bool:
    """Tell whether a survey changes each cell alone, so that a slice is observed like the whole cube."""
    return survey.acts_on_cells if isinstance(survey, SurveyTable) else isinstance(survey, NoSurvey | WhiteNoise)


def noise_of_cells(survey: SurveySettings) -> float | None:
    """Return the standard deviation of noise that is white, 0 without a survey; None for other noise."""
    if isinstance(survey, NoSurvey):
        return 0.0
    return survey.sigma if isinstance(survey, WhiteNoise) else None


def draws_noise_everywhere(survey: SurveySettings) -> bool:
    """Tell whether every cell of an observed image has noise of its own; else its density needs dequantisation.

    An interferometer measures no mode without a baseline, and masked pixels are exactly zero.
    """
    return survey.draws_noise_everywhere if isinstance(survey, SurveyTable) else isinstance(survey, WhiteNoise)
