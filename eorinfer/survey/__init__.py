"""Surveys: what a telescope does to a clean cube. Importing this package loads no torch."""

from math import isclose, radians
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eorinfer.settings.layouts import SKA_LOW
from eorinfer.settings.survey import NoSurvey, SkaLow, SphereX, SurveySettings, SurveyTable, WhiteNoise

if TYPE_CHECKING:
    from eorinfer.survey.base import Survey
    from simulators.base import Observable

__all__ = [
    "NoSurvey",
    "SkaLow",
    "SphereX",
    "SurveySettings",
    "SurveyTable",
    "WhiteNoise",
    "build_survey",
    "check_survey",
    "lowest_mode",
    "slice_redshifts",
]

#: Seconds between samples of a track where it is only asked which modes have a baseline at all.
COARSE = 300.0


def build_survey(settings: SurveySettings, observable: "Observable") -> "Survey":
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
        slices = Slices(redshifts, _sides(observable, redshifts), _depths(observable, redshifts))
    noise = None
    if settings.noise is not None:
        from eorinfer.survey.noise_cubes import NoiseCubes

        noise = NoiseCubes(settings.noise, observable)
    return SkaLowSurvey(settings, (nx, ny, nz), (dx, dy, dz), observable.channels, slices, noise)


def check_survey(settings: SurveySettings, observable: "Observable") -> None:
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


def _check_spherex(settings: SphereX, observable: "Observable") -> None:
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


def lowest_mode(settings: SurveySettings, observable: "Observable") -> float:
    """Compute the smallest wavenumber in 1/Mpc that a survey measures; 0 if it measures all.

    An interferometer has no zero spacing: modes along the line of sight alone are lost, and the foreground wedge takes
    more. The power spectrum of lost modes would be one of rounding errors.
    """
    if isinstance(settings, SurveyTable):
        return settings.lowest_mode(observable)
    if not isinstance(settings, SkaLow):
        return 0.0
    from eorinfer.survey.sky import baseline_length, outside_wedge, wavenumbers

    nx, ny, nz = observable.cells
    dx, dy, dz = observable.cell_size
    redshifts = slice_redshifts(observable) or observable.channels
    across, along = wavenumbers((nx, ny, nz), (dx, dy, dz))
    # A mode is lost if every slice or channel loses it; the one with the longest baselines loses least.
    longest = max(baseline_length(1.0, z) for z in redshifts)
    seen = (across > 0) & (across * longest >= settings.min_baseline)
    if settings.layout not in SKA_LOW:
        seen = seen & _covered(settings, observable, redshifts)
        if not seen.any():
            raise ValueError(f"no baseline of layout {settings.layout} measures a mode of this cube: it is too small")
    measured = np.broadcast_to(seen[:, :, None], (*seen.shape, nz))
    if settings.wedge:
        worst = (max(redshifts),) if observable.coordinates else redshifts
        free = [outside_wedge(settings, (nx, ny, nz), (dx, dy, dz), z) for z in worst]
        measured = measured & np.any(free, axis=0)
    if not measured.any():
        raise ValueError("the foreground wedge leaves no mode of this cube: take a smaller wedge_angle or wedge_buffer")
    return float(np.sqrt(across[:, :, None] ** 2 + along**2)[measured].min())


def _covered(settings: SkaLow, observable: "Observable", redshifts: tuple[float, ...]) -> NDArray[np.bool_]:
    """Mark the modes (N, N // 2 + 1) that baselines cross at the first, middle or last redshift.

    SKA-Low crosses all modes of boxes within its longest baseline; other arrays have gaps.
    """
    from eorinfer.survey.coverage import uv_time

    n, last = observable.cells[0], len(redshifts) - 1
    coarse = max(settings.integration, min(COARSE, 900 * settings.hours_per_day))
    quick = settings.model_copy(update={"integration": coarse})
    sides = _sides(observable, redshifts)
    times = [uv_time(quick, n, sides[i], redshifts[i])[:, : n // 2 + 1] for i in sorted({0, last // 2, last})]
    covered: NDArray[np.bool_] = np.any(np.array(times) > 0, axis=0)
    return covered


def slice_redshifts(observable: "Observable") -> tuple[float, ...]:
    """Return the redshift of each slice of a light-cone along its last axis; none for coeval cubes."""
    from eorinfer.survey.sky import LINE_FREQUENCY

    if observable.axes[-1] == "frequency":
        return tuple(LINE_FREQUENCY / f - 1 for f in observable.coordinates)
    return observable.coordinates


def _sides(observable: "Observable", redshifts: tuple[float, ...]) -> tuple[float, ...]:
    """Compute the transverse side of each slice in comoving Mpc."""
    from eorinfer.survey.sky import comoving_distance

    if not observable.field_of_view:
        return (observable.box_length[0],) * len(redshifts)
    return tuple(radians(observable.field_of_view) * comoving_distance(z) for z in redshifts)


def _depths(observable: "Observable", redshifts: tuple[float, ...]) -> tuple[float, ...]:
    """Compute the depth of each slice along the line of sight in comoving Mpc."""
    from eorinfer.survey.sky import channel_width

    if observable.axes[-1] == "z":
        return (observable.cell_size[-1],) * len(redshifts)
    first, *_, last = observable.coordinates
    width = (last - first) / (len(redshifts) - 1)  # MHz
    return tuple(width / channel_width(1.0, z) for z in redshifts)
