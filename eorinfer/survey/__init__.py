"""What a telescope does to a clean cube. Importing this package loads no torch."""

from typing import TYPE_CHECKING

from eorinfer.survey.settings import NoSurvey, SkaLow, SurveySettings, WhiteNoise

if TYPE_CHECKING:
    from eorinfer.survey.base import Survey
    from simulators.base import Observable

__all__ = ["NoSurvey", "SkaLow", "SurveySettings", "WhiteNoise", "build_survey", "check_survey"]


def build_survey(settings: SurveySettings, observable: "Observable") -> "Survey":
    """Build the survey that observes cubes of one kind.

    Parameters
    ----------
    settings
        Which survey.
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
    """
    check_survey(settings, observable)
    if isinstance(settings, NoSurvey):
        from eorinfer.survey.base import Identity

        return Identity()
    if isinstance(settings, WhiteNoise):
        from eorinfer.survey.gaussian import WhiteNoiseSurvey

        return WhiteNoiseSurvey(settings.sigma)
    from eorinfer.survey.ska import SkaLowSurvey

    nx, ny, nz = observable.cells
    dx, dy, dz = observable.cell_size
    return SkaLowSurvey(settings, (nx, ny, nz), (dx, dy, dz), observable.channels)


def check_survey(settings: SurveySettings, observable: "Observable") -> None:
    """Refuse, without loading torch, a survey that cannot observe such cubes.

    Raises
    ------
    ValueError
        Saying what the survey observes and what it was given.
    """
    if not isinstance(settings, SkaLow):
        return
    refusal = f'kind = "ska-low" observes 3D cubes in mK with redshift channels; {observable.name!r}'
    if observable.unit != "mK":
        raise ValueError(f"{refusal} is in {observable.unit or 'no unit'}")
    if len(observable.cells) != 3:
        raise ValueError(f"{refusal} has {len(observable.cells)} cell axes")
    if observable.axes[0] != "redshift" or len(observable.channels) != observable.shape[0]:
        raise ValueError(f"{refusal} has channels along {observable.axes[0]!r}: {observable.channels}")
