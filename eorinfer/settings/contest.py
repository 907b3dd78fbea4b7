"""The table ``[contest]``."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from eorinfer.settings.base import Settings
from eorinfer.settings.imageflow import FEWEST_IMAGES, ImageFlowSettings
from eorinfer.settings.survey import NoSurvey, SkaLow, SurveySettings, WhiteNoise
from simulators import Simulator
from simulators.parts import is_own
from simulators.worlds import Worlds, refuse_unknown, worlds_of

#: Name of a row of `METHODS`, or a user's ``"module:Class"``.
MethodName = str


@dataclass(frozen=True)
class MethodRow:
    """A method of the contest, as its table has it.

    Attributes
    ----------
    name
        Name in the config.
    label
        Name in tables and legends.
    truths
        Key of ``[contest]`` with the number of truths: ``"truths"`` for amortised methods, which need no sampling anew
        for each observation.
    build
        Function ``(setup, name)`` that trains or loads the method, as ``"module:function"``.
    """

    name: MethodName
    label: str
    truths: Literal["truths", "sampled_truths", "image_flow_truths"]
    build: str

    @property
    def amortised(self) -> bool:
        """Whether a new observation costs no sampling."""
        return self.truths == "truths"


_POWER, _EXACT = "eorinfer.contest.likelihoods:power_method", "eorinfer.contest.likelihoods:exact_method"
_NETWORK = "eorinfer.contest.networks:network_method"
_WORLDS = "eorinfer.contest.worlds:worlds_method"
#: All methods of this package by name.
METHODS: dict[MethodName, MethodRow] = {
    row.name: row
    for row in (
        MethodRow("ps-diagonal", "P(k), diagonal covariance", "sampled_truths", _POWER),
        MethodRow("ps-fixed", "P(k), fixed covariance", "sampled_truths", _POWER),
        MethodRow("ps-full", "P(k), covariance of θ", "sampled_truths", _POWER),
        MethodRow("ps-2d", "P(k⊥, k∥), covariance of θ", "sampled_truths", _POWER),
        MethodRow("ps-neural", "P(k), neural likelihood", "sampled_truths", _POWER),
        MethodRow("npe-power", "NPE on P(k)", "truths", _NETWORK),
        MethodRow("npe-image", "NPE on the image", "truths", _NETWORK),
        MethodRow("npe-both", "NPE on image and P(k)", "truths", _NETWORK),
        MethodRow("npe-scattering", "NPE on scattering coefficients", "truths", _NETWORK),
        MethodRow("npe-summaries", "NPE on the summaries", "truths", _NETWORK),
        MethodRow("npe-one-world", "NPE, trained on one world", "truths", _WORLDS),
        MethodRow("npe-aligned", "NPE, features aligned across worlds", "truths", _WORLDS),
        MethodRow("npe-error-model", "NPE, features with an error model", "truths", _WORLDS),
        MethodRow("npe-hedged", "NPE, half with and half without an error model", "truths", _WORLDS),
        MethodRow("regression", "CNN regression, Gaussian errors", "truths", _NETWORK),
        MethodRow("image-flow", "image flow", "image_flow_truths", "eorinfer.contest.likelihoods:image_flow_method"),
        MethodRow("combined", "NPE and image flow", "image_flow_truths", "eorinfer.contest.combined:combined_method"),
        MethodRow("exact", "exact likelihood", "sampled_truths", _EXACT),
        MethodRow("exact-emcee", "exact likelihood, by emcee", "sampled_truths", _EXACT),
    )
}
#: Methods that exist for Gaussian fields only.
EXACT: tuple[MethodName, ...] = ("exact", "exact-emcee")
#: Methods that need several worlds to train on.
OF_WORLDS: tuple[MethodName, ...] = ("npe-one-world", "npe-aligned", "npe-error-model", "npe-hedged")
#: Methods that need an image flow.
OF_IMAGE_FLOW: tuple[MethodName, ...] = ("image-flow", "combined")
#: Methods whose samples the image flow may weight, the best first.
PROPOSALS: tuple[MethodName, ...] = ("npe-both", "npe-image", "npe-power")


class ContestSettings(Settings):
    """``[contest]``: the methods to compare, and the number of test observations.

    Parameters
    ----------
    methods
        Names of `METHODS`, or your own ``"module:Class"``, in the order of the tables.
    truths
        Test observations for amortised methods (NPE, regression).
    sampled_truths
        Number of these, the first ones, for methods that sample each posterior anew, the power-spectrum likelihoods.
    image_flow_truths
        Number of these, the first ones, for the image flow, and for NPE and image flow combined.
    choice_truths
        Number of further truths, before these, that are tabulated by themselves and enter no score: settings chosen by
        them bias nothing.
    seeds
        Trainings of each network, with different seeds; errors then include the scatter of training.
    samples
        Number of posterior samples of each truth.
    reference
        Method whose widths the others are compared with.
    baseline
        Method whose log posterior density at the truth is subtracted from the others'.
    cylindrical_bins
        Numbers of bins of P(k_perp, k_par), across and along.
    loop_steps
        Steps of a chain with the simulator itself in emcee's loop, for the run's observation; 0 for none.
    loop_walkers
        Number of walkers of that chain, each of which costs a simulation a step.
    held_out_world
        World of ``[simulator] worlds`` that nothing is trained on, and that makes the test observations.
    further_world
        World of the others that strengths are compared on, left out of the trainings that do so.
    alignments
        Strengths of ``npe-aligned``, in nats; the best one on `further_world` is taken. A single one is taken as it is.
    error_strengths
        Factors on the errors of ``npe-error-model`` and ``npe-hedged``; the best one on `further_world` is taken. A
        single one is taken as it is.
    worlds_view
        Method of NPE whose networks the methods of several worlds have.
    """

    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = (
        "ps-diagonal",
        "ps-fixed",
        "ps-full",
        "ps-neural",
        "npe-power",
        "npe-image",
        "npe-both",
        "regression",
    )
    truths: Annotated[int, Field(ge=20)] = 1000
    sampled_truths: Annotated[int, Field(ge=20)] = 200
    image_flow_truths: Annotated[int, Field(ge=20)] = 20
    choice_truths: Annotated[int, Field(ge=0)] = 0
    seeds: PositiveInt = 1
    samples: Annotated[int, Field(ge=100)] = 1000
    reference: MethodName = "ps-full"
    baseline: MethodName = "npe-power"
    cylindrical_bins: tuple[PositiveInt, PositiveInt] = (4, 4)
    loop_steps: Annotated[int, Field(ge=0)] = 0
    loop_walkers: Annotated[int, Field(ge=4, multiple_of=2)] = 8
    held_out_world: str | None = None
    further_world: str | None = None
    alignments: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0, 10.0)
    error_strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    worlds_view: Literal["npe-power", "npe-image", "npe-both"] = "npe-both"

    @field_validator("methods")
    @classmethod
    def _are_known(cls, value: tuple[MethodName, ...]) -> tuple[MethodName, ...]:
        for name in value:
            if name not in METHODS and not is_own(name):
                known = ", ".join(f'"{other}"' for other in METHODS)
                raise ValueError(f'"{name}" is not known: one of {known}, or "module:Class" for your own')
        return value

    @model_validator(mode="after")
    def _of_each_other(self) -> "ContestSettings":
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: each may be named once")
        for key in ("reference", "baseline"):
            if (name := getattr(self, key)) not in self.methods and key in self.model_fields_set:
                raise ValueError(f'{key} = "{name}": must be one of the methods')
        for name in OF_IMAGE_FLOW:
            if name in self.methods and not set(PROPOSALS) & set(self.methods):
                raise ValueError(f'methods: "{name}" starts from one of {", ".join(PROPOSALS)}; name one of them too')
        return self


def check_contest(
    settings: ContestSettings, simulator: Simulator, survey: SurveySettings, image_flow: ImageFlowSettings
) -> None:
    """Refuse a contest that the other tables do not allow.

    Raises
    ------
    ValueError
        If emcee's loop has too few walkers, there is no line of sight for the power spectrum across and along it, no
        known exact posterior, an image flow of something else than the image and all parameters, or a package is
        missing.
    """
    if settings.loop_steps and settings.loop_walkers < 2 * len(simulator.parameters):
        raise ValueError(
            f"loop_walkers = {settings.loop_walkers}: emcee needs at least twice the number of parameters, "
            f"{2 * len(simulator.parameters)}"
        )
    _check_worlds(settings, worlds_of(simulator))
    if "npe-scattering" in settings.methods and find_spec("kymatio") is None:
        raise ValueError("methods: \"npe-scattering\" needs kymatio: pip install 'eorinfer[scattering]'")
    for name in set(OF_IMAGE_FLOW) & set(settings.methods):
        if (image_flow.image, image_flow.condition) != ("whole", "theta"):
            raise ValueError(
                f'methods: "{name}" is of whole images and all parameters; give [image_flow] image = "whole", '
                'condition = "theta"'
            )
    if "combined" in settings.methods and (image_flow.kind != "diffusion" or image_flow.weighing < FEWEST_IMAGES):
        raise ValueError(
            'methods: "combined" is of NPE and a diffusion, by what both are worth on held-out images; give '
            f'[image_flow] kind = "diffusion", weighing = {FEWEST_IMAGES} or more'
        )
    if "ps-2d" in settings.methods and len(simulator.observables[0].cells) != 3:
        raise ValueError('methods: "ps-2d", P(k_perp, k_par), is for cubes; the simulator makes maps')
    if (exact := set(EXACT) & set(settings.methods)) and not has_exact(simulator, survey):
        raise ValueError(
            f'methods: "{min(exact)}" is known for kind = "gaussian-field" with white noise or none, and for '
            '"gaussian-21cmemu" with those or the thermal noise of "ska-low", alone'
        )


def has_exact(simulator: Simulator, survey: SurveySettings) -> bool:
    """Tell whether the exact likelihood is known: of Gaussian fields in noise that is independent mode by mode."""
    if simulator.kind != "gaussian-21cmemu":
        return exact_noise(simulator, survey) is not None
    if isinstance(survey, SkaLow):
        others = (survey.wedge, survey.beam, survey.taper, survey.residual, survey.noise)
        return not any(others)
    return isinstance(survey, WhiteNoise | NoSurvey)


def _check_worlds(settings: ContestSettings, worlds: Worlds | None) -> None:
    """Refuse worlds that there are not, and methods of several worlds where one or none is left to train on."""
    for key in ("held_out_world", "further_world"):
        if (name := getattr(settings, key)) is not None:
            refuse_unknown(key, name, worlds)
    if settings.further_world is not None and settings.further_world == settings.held_out_world:
        raise ValueError("further_world: is the world held out; name another one")
    wanted = [name for name in OF_WORLDS if name in settings.methods]
    trained = set() if worlds is None else {worlds.names[i] for i in worlds.trained} - {settings.held_out_world}
    if wanted and len(trained) < 2:
        raise ValueError(f'methods: "{wanted[0]}" needs two worlds to train on, there are {len(trained)}')
    compared = {
        "alignments": "npe-aligned" in wanted and len(settings.alignments) > 1,
        "error_strengths": bool({"npe-error-model", "npe-hedged"} & set(wanted)) and len(settings.error_strengths) > 1,
    }
    for key in (key for key, several in compared.items() if several):
        if settings.further_world not in trained:
            raise ValueError(f"further_world: {key} are compared on it; name one of the worlds that are trained on")
        # Errors are learned from the spread between the two worlds, at least, that are left without it.
        if len(trained) < 3:
            raise ValueError(f"{key}: to compare them takes three worlds to train on, there are {len(trained)}")


def exact_noise(simulator: Simulator, survey: SurveySettings) -> float | None:
    """Return the white noise per cell for which the exact posterior is known; None if it is not known."""
    if simulator.kind != "gaussian-field" or worlds_of(simulator) is not None:
        return None
    if isinstance(survey, WhiteNoise):
        return survey.sigma
    return 0.0 if isinstance(survey, NoSurvey) else None
