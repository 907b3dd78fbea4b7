"""The table ``[survey]`` of a config. Loads no torch."""

from collections.abc import Mapping
from math import pi
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)

from eorinfer.core.files import file_digest
from eorinfer.settings.base import Settings
from eorinfer.settings.layouts import ARRAYS, SKA_LOW, Antennas, Array, as_lines, from_lines, lowest_sine, with_layout
from simulators import Observable
from simulators.parts import is_own, load_part

#: Further surveys of this package: the class of their settings, which derives from `SurveyTable`.
KINDS: dict[str, str] = {}

#: Frequency in MHz and SEFD in Jy, in rising frequency.
SefdTable = tuple[tuple[PositiveFloat, PositiveFloat], ...]
#: SEFD by name: tables, and what sky, receiver and area give, in `eorinfer.survey.sky`.
SefdName = Literal["aavs2", "818", "sky"]


def _known_sefd(value: Any) -> Any:
    """Refuse an unknown name in the words of the file; files of older versions have None for the only table then."""
    if isinstance(value, str) and value not in get_args(SefdName):
        names = ", ".join(f'"{name}"' for name in get_args(SefdName))
        raise ValueError(f'"{value}" is not known: one of {names}, a value in Jy, or [[MHz, Jy], ...]')
    return "818" if value is None else value


class SurveyTable(Settings):
    """Base of a survey of your own: an immutable ``[survey]`` table that builds a torch module.

    A subclass declares its settings as pydantic fields and implements `build`; the rest has defaults.

    Examples
    --------
    >>> from eorinfer import SurveyTable
    >>> class Mine(SurveyTable):
    ...     sigma: float = 0.3
    >>> Mine(kind="mine:Mine").sigma
    0.3
    """

    #: Whether a cell of the observed cube depends on the same cell of the clean cube alone.
    acts_on_cells: ClassVar[bool] = False
    #: Whether every cell of an observed cube has noise of its own.
    draws_noise_everywhere: ClassVar[bool] = False

    kind: str

    def build(self, observable: Observable) -> object:
        """Build the torch module that observes, an `eorinfer.survey.base.Survey`.

        It maps clean (B, C, *cells) and a generator to the same shape, unit and dtype. All its randomness
        comes from the generator, best by `eorinfer.core.arrays.white_noise`.
        """
        raise ValueError(f'kind = "{self.kind}": {type(self).__name__} has no build(observable)')

    def check(self, observable: Observable) -> None:
        """Raise `ValueError` where the survey cannot observe such cubes."""

    def lowest_mode(self, observable: Observable) -> float:
        """Give the smallest wavenumber in 1/Mpc that the survey measures; 0 if it measures all."""
        return 0.0


class UnknownSurvey(SurveyTable):
    """The table of a user's own survey in a bundle whose reader has not named the module."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def build(self, observable: Observable) -> object:
        """Refuse."""
        raise ValueError(f'kind = "{self.kind}" is a survey of your own, which only the config of its run can build')


def _own_table(value: Any, handler: ModelWrapValidatorHandler[SurveyTable], info: ValidationInfo) -> SurveyTable:
    """Validate a table by its own class; the folder of a user's module is in the context, under ``beside``."""
    if isinstance(value, SurveyTable):
        return value
    kind, context = value["kind"], info.context or {}
    if kind not in KINDS and "beside" not in context:
        return UnknownSurvey(**value)
    cls = load_part(KINDS.get(kind, kind), context.get("beside")).value
    if not (isinstance(cls, type) and issubclass(cls, SurveyTable)):
        raise ValueError(f'"{kind}" is no survey: derive it from eorinfer.survey.SurveyTable')
    try:
        return cls(**value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _tag(value: Any) -> str | None:
    kind = value.get("kind", None) if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "own" if is_own(kind) or kind in KINDS else kind


class NoSurvey(Settings):
    """The clean image itself is observed.

    Examples
    --------
    >>> from eorinfer import NoSurvey
    >>> NoSurvey().kind
    'none'
    """

    kind: Literal["none"] = "none"


class WhiteNoise(Settings):
    """Independent Gaussian noise in every cell.

    Examples
    --------
    >>> from eorinfer import WhiteNoise
    >>> WhiteNoise(sigma=0.3).sigma
    0.3
    """

    kind: Literal["white-noise"] = "white-noise"
    sigma: PositiveFloat = Field(description="Standard deviation per cell, in the observable's unit.")


class Residual(Settings):
    """Residuals of removed foregrounds: a Gaussian field, P ~ k_perp^index exp(-(k_par / k_par_scale)^2 / 2)."""

    amplitude: PositiveFloat = Field(description="Root mean square in mK per cell, if every baseline were there.")
    index: float = Field(-2.0, ge=-6, le=6, description="Power of k_perp.")
    k_par_scale: PositiveFloat = Field(0.05, description="Width along the line of sight, in 1/Mpc.")


class SkaLow(Settings):
    """Thermal noise and uv coverage of SKA-Low or another array, for 21cm cubes and light-cones in mK.

    Examples
    --------
    >>> from eorinfer import SkaLow
    >>> SkaLow(layout="AA*", hours=100.0).sefd
    'aavs2'
    """

    kind: Literal["ska-low"] = "ska-low"
    layout: str = Field(
        "AA4",
        description="SKA-Low's AA4 (512 stations) or AA* (307), HERA, LOFAR or MWA, or a file with east, north and up "
        "of each antenna in m.",
    )
    antennas: Annotated[Antennas | None, BeforeValidator(from_lines), PlainSerializer(as_lines, when_used="json")] = (
        Field(None, description="Positions, filled in from the file of `layout`.")
    )
    latitude: float | None = Field(None, ge=-90, le=90, description="Latitude of a layout from a file, in degrees.")
    diameter: PositiveFloat | None = Field(
        None, description="Diameter of a station of a layout from a file, in m: its area where `sefd` is sky, its beam."
    )
    hours: PositiveFloat = Field(1000.0, description="Time on the field in all, in hours.")
    hours_per_day: float = Field(6.0, gt=0, le=24, description="Length of one track, centred on transit, in hours.")
    integration: PositiveFloat = Field(10.0, description="Time between samples of a track, in s.")
    declination: float = Field(-30.0, ge=-90, le=90, description="Declination of the field, in degrees.")
    sefd: Annotated[PositiveFloat | SefdTable | SefdName, BeforeValidator(_known_sefd)] = Field(
        "aavs2",
        description="System equivalent flux density per station and polarisation: a table by name, one value in Jy, "
        "or (MHz, Jy) pairs whose logarithm is interpolated in frequency.",
    )
    polarisations: Literal[1, 2] = Field(2, description="Number of polarisations that are averaged.")
    min_baseline: float = Field(
        0.0, ge=0, description="Shortest baseline kept, in m; signal and noise alike are zero below it."
    )
    max_baseline: PositiveFloat = Field(
        2000.0, description="Longest baseline kept, in m; signal and noise alike are zero above it."
    )

    wedge: bool = Field(
        False, description="Cut the modes that foregrounds fill: those with k_par below slope k_perp + wedge_buffer."
    )
    wedge_angle: float = Field(
        90.0, gt=0, le=90, description="Angle from the pointing out to which foregrounds are bright, in degrees."
    )
    # 0.1 h/Mpc, the moderate foreground model of Pober et al. 2014 (arXiv:1310.7031).
    wedge_buffer: float = Field(0.068, ge=0, description="Spill-over beyond the wedge in k_par, in 1/Mpc.")

    noise: Path | None = Field(
        None, description="HDF5 file of noise cubes, dataset `noise` (N, C, *cells), in place of computed noise."
    )
    beam: Literal["gaussian", "airy"] | None = Field(
        None, description="Primary beam of a station that the signal is multiplied by; none for corrected images."
    )
    taper: Literal["blackman-harris", "hann"] | None = Field(
        None, description="Window along the line of sight on signal and noise alike."
    )
    residual: Residual | None = Field(None, description="What foreground removal leaves, as Gaussian modes.")

    @model_validator(mode="before")
    @classmethod
    def _files(cls, table: Any, info: ValidationInfo) -> Any:
        if not isinstance(table, Mapping):
            return table
        beside = (info.context or {}).get("beside")
        filled = with_layout(dict(table), beside)
        if isinstance(filled.get("noise"), str | Path):
            filled["noise"] = ((beside or Path()) / filled["noise"]).resolve()
        return filled

    @property
    def array(self) -> Array:
        """Assumptions about the array."""
        if self.layout in ARRAYS:
            return ARRAYS[self.layout]
        diameter = self.diameter or 0.0  # refused where it counts
        return Array(self.latitude or 0.0, diameter, pi * diameter**2 / 4)

    @model_validator(mode="after")
    def _check_array(self) -> Self:
        if self.antennas is not None and self.latitude is None:
            raise ValueError("latitude is missing: that of the antennas, in degrees, for example latitude = -30.7")
        if self.sefd == "sky" and self.diameter is None and self.antennas is not None:
            raise ValueError(
                "diameter is missing: that of a station in m, for its area; or give sefd, in Jy or as [[MHz, Jy], ...]"
            )
        if self.beam is not None and not self.array.diameter:
            raise ValueError("diameter is missing: that of a station in m, for its beam")
        if self.layout not in SKA_LOW and lowest_sine(self.array.latitude, self.declination, self.hours_per_day) <= 0:
            raise ValueError(
                f"declination = {self.declination:g}: at latitude {self.array.latitude:g} the field is below the "
                f"horizon at the ends of a track of {self.hours_per_day:g} h; another declination or hours_per_day"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_baseline >= self.max_baseline:
            raise ValueError(
                f"min_baseline is {self.min_baseline:g} m: it must be below max_baseline, {self.max_baseline:g} m"
            )
        if self.integration > 3600 * self.hours_per_day:
            raise ValueError(
                f"integration is {self.integration:g} s: it cannot be longer than hours_per_day, "
                f"{self.hours_per_day:g} h"
            )
        if isinstance(self.sefd, tuple):
            frequencies = [frequency for frequency, _ in self.sefd]
            if len(frequencies) < 2 or frequencies != sorted(set(frequencies)):
                raise ValueError("sefd needs two or more (MHz, Jy) pairs in rising frequency")
        return self


class Continuum(Settings):
    """Continuum of unresolved galaxies: a power law in every pixel, and the smooth fit that is subtracted."""

    mean: PositiveFloat = Field(0.25, description="Mean, in-band nW/m^2/sr at the middle channel.")
    fluctuation: float = Field(0.1, ge=0, lt=1, description="Root mean square from pixel to pixel, over the mean.")
    index: float = Field(-1.0, ge=-4, le=2, description="Power of k of the fluctuations' angular spectrum.")
    slope: float = Field(-0.5, ge=-6, le=6, description="Mean power of the wavelength.")
    slope_scatter: float = Field(0.5, ge=0, description="Standard deviation of that power from pixel to pixel.")
    order: int = Field(1, ge=0, le=6, description="Order of the polynomial in ln(wavelength) that is subtracted.")
    channels: PositiveInt = Field(8, description="Channels on either side of a map's own that the fit uses.")


class SphereX(Settings):
    """Beam, channel noise and masks of SPHEREx, for line-intensity maps and cubes in nW/m^2/sr.

    Examples
    --------
    >>> from eorinfer import SphereX
    >>> SphereX(field="all-sky").beam
    4.8
    """

    kind: Literal["spherex"] = "spherex"
    field: Literal["deep", "all-sky"] = Field("deep", description="The deep fields, or the survey of the whole sky.")
    beam: float = Field(4.8, ge=0, description="FWHM of the beam, in arcsec.")
    nyquist: bool = Field(False, description="Channels that overlap by half, with noise larger by the root of two.")
    smoothing: float = Field(0.0, ge=0, description="FWHM of a Gaussian that observed maps are smoothed with, arcmin.")
    stars: float = Field(0.0, ge=0, description="Stars that are masked, per square degree.")
    star_radius: float = Field(0.5, ge=0, description="Radius of a star's mask, in arcmin.")
    dead_pixels: float = Field(0.0, ge=0, lt=1, description="Share of a channel's pixels that is not used.")
    table: str | None = Field(None, description="File of noise by wavelength, in place of version 28 of 2021.")
    continuum: Continuum | None = Field(None, description="Continuum of galaxies, and the fit that is subtracted.")


SurveySettings = Annotated[
    Annotated[NoSurvey, Tag("none")]
    | Annotated[WhiteNoise, Tag("white-noise")]
    | Annotated[SkaLow, Tag("ska-low")]
    | Annotated[SphereX, Tag("spherex")]
    | Annotated[SerializeAsAny[SurveyTable], WrapValidator(_own_table), Tag("own")],
    Discriminator(_tag),
]


def survey_key(settings: SurveySettings) -> dict[str, Any]:
    """Give the table as it counts for hashes of what is trained: what older versions knew has the hash it had then."""
    content: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
    if isinstance(settings, SkaLow) and settings.sefd == "818":
        del content["sefd"]
    if content.get("antennas"):
        del content["layout"]  # the antennas count, not the name of their file
    if isinstance(settings, SkaLow) and settings.noise is not None:
        content["noise"] = file_digest(settings.noise)
    return content
