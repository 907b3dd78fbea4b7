"""Surveys: what a telescope does to a clean cube. Importing this package loads no torch."""

from eorinfer.settings.survey import NoSurvey, SkaLow, SphereX, SurveySettings, SurveyTable, WhiteNoise
from eorinfer.survey.build import build_survey, check_survey
from eorinfer.survey.measured import lowest_mode, measured_modes

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
    "measured_modes",
]
