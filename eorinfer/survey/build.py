"""Build the survey that a config's table describes, and check that it can observe its cubes; checks load no torch."""

from math import isclose
from typing import TYPE_CHECKING

from eorinfer.settings.survey import NoSurvey, SkaLow, SphereX, SurveySettings, SurveyTable, WhiteNoise
from eorinfer.survey.slices import slice_depths, slice_redshifts, slice_sides
from simulators import Observable

if TYPE_CHECKING:
    from eorinfer.survey.base import Survey


def build_survey(settings: SurveySettings, observable: Observable) -> "Survey":
    """Build the survey that observes cubes of one kind.

    Parameters
    ----------
    settings
        Settings of the survey.
    observable
        Shape, unit and geometry of the clean cubes.

    Returns
    -------
    Survey
        A torch module on the CPU, (B, C, *cells) and a generator to the observed (B, C, *cells).

    Raises
    ------
    ValueError
        If the survey cannot observe such cubes.

    Examples
    --------
    >>> import torch
    >>> from eorinfer import WhiteNoise, build_survey
    >>> from simulators import GaussianField
    >>> survey = build_survey(WhiteNoise(sigma=0.3), GaussianField(cells=8).observables[0])
    >>> survey(torch.zeros(2, 1, 8, 8), torch.Generator().manual_seed(1)).shape
    torch.Size([2, 1, 8, 8])
    """
    check_survey(settings, observable)
    if isinstance(settings, SurveyTable):
        from eorinfer.survey.base import Survey

        made = settings.build(observable)
        if not isinstance(made, Survey):
            base = f"build makes a {type(made).__name__}; derive it from eorinfer.survey.base.Survey"
            raise ValueError(f'kind = "{settings.kind}": {base}')
        return made
    if isinstance(settings, NoSurvey):
        from eorinfer.survey.base import Identity

        return Identity()
    if isinstance(settings, WhiteNoise):
        from eorinfer.survey.gaussian import WhiteNoiseSurvey

        return WhiteNoiseSurvey(settings.sigma)
    if isinstance(settings, SphereX):
        from eorinfer.survey.sensitivity import instrument_channels
        from eorinfer.survey.spherex import SphereXSurvey

        pixel = 60 * observable.field_of_view / observable.cells[0]
        nx, ny = observable.cells[:2]
        return SphereXSurvey(settings, pixel, (nx, ny), instrument_channels(observable), observable.smoothing)
    from eorinfer.survey.ska import SkaLowSurvey, Slices

    nx, ny, nz = observable.cells
    dx, dy, dz = observable.cell_size
    slices = None
    if observable.coordinates:
        redshifts = slice_redshifts(observable)
        slices = Slices(redshifts, slice_sides(observable, redshifts), slice_depths(observable, redshifts))
    noise = None
    if settings.noise is not None:
        from eorinfer.survey.noise_cubes import NoiseCubes

        noise = NoiseCubes(settings.noise, observable)
    return SkaLowSurvey(settings, (nx, ny, nz), (dx, dy, dz), observable.channels, slices, noise)


def check_survey(settings: SurveySettings, observable: Observable) -> None:
    """Check, without loading torch, that a survey can observe such cubes.

    Raises
    ------
    ValueError
        If it cannot; the message says what the survey observes and what it was given.
    """
    if isinstance(settings, SurveyTable):
        settings.check(observable)
    if isinstance(settings, SphereX):
        _check_spherex(settings, observable)
    if not isinstance(settings, SkaLow):
        return
    from eorinfer.survey.sky import system_flux

    refusal = f'kind = "ska-low" observes 3D cubes in mK with redshift channels, and light-cones; {observable.name!r}'
    if observable.unit != "mK":
        raise ValueError(f"{refusal} is in {observable.unit or 'no unit'}")
    if len(observable.cells) != 3:
        raise ValueError(f"{refusal} has {len(observable.cells)} cell axes")
    if observable.shape[1] != observable.shape[2] or not isclose(*observable.cell_size[:2], rel_tol=1e-5):
        sides = f"{observable.cells[:2]} cells of {observable.cell_size[:2]} Mpc"
        raise ValueError(f"{refusal} has {sides} across: it needs a square sky")
    if observable.coordinates:
        if observable.shape[0] != 1 or len(observable.coordinates) != observable.shape[-1]:
            shape = f"shape {observable.shape} and {len(observable.coordinates)} slices"
            raise ValueError(f"{refusal} has {shape}: a light-cone has one channel and a coordinate for each slice")
        if observable.axes[-1] not in ("z", "frequency"):
            raise ValueError(f"{refusal} has {observable.axes[-1]!r} along the line of sight, not z or frequency")
    elif observable.axes[0] != "redshift" or len(observable.channels) != observable.shape[0]:
        raise ValueError(f"{refusal} has channels along {observable.axes[0]!r}: {observable.channels}")
    if settings.noise is not None:
        from eorinfer.survey.noise_files import open_noise

        with open_noise(settings.noise, observable):
            pass
    for redshift in slice_redshifts(observable) or observable.channels:
        system_flux(settings, redshift)


def _check_spherex(settings: SphereX, observable: Observable) -> None:
    from eorinfer.survey.sensitivity import instrument_channels, noise_level

    refusal = f'kind = "spherex" observes maps and spectral cubes in nW/m^2/sr; {observable.name!r}'
    if observable.unit != "nW/m^2/sr" or observable.axes[0] != "wavelength":
        raise ValueError(f"{refusal} is in {observable.unit or 'no unit'}, with channels along {observable.axes[0]!r}")
    if not observable.field_of_view or len(observable.cells) not in (2, 3):
        raise ValueError(f"{refusal} has no field of view, or neither two nor three cell axes")
    if (len(observable.cells) == 3) != bool(observable.coordinates):
        raise ValueError(f"{refusal} has three cell axes: a cube needs the redshift of each slice")
    wavelengths = instrument_channels(observable).wavelengths
    for wavelength in wavelengths:
        noise_level(settings, wavelength)
    if (fit := settings.continuum) is not None:
        channels = len(wavelengths) if observable.coordinates else 2 * fit.channels
        if channels < fit.order + 2:
            raise ValueError(
                f"continuum order = {fit.order}: there are {channels} channels to fit, and it takes {fit.order + 2}"
            )
