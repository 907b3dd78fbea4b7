"""Laws of every survey: the generator alone decides, and signal is observed linearly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from eorinfer.settings.survey import Residual
from eorinfer.survey import NoSurvey, SkaLow, SphereX, SurveySettings, WhiteNoise, build_survey
from eorinfer.survey.base import Survey
from simulators import GaussianField, Observable, Symmetry, build
from tests.laws.laws import cubes, random_state_untouched, seeded

BOX = Observable(
    "brightness_temp", (2, 8, 8, 8), "mK", ("redshift", "x", "y", "z"), (16.0, 16.0, 8.0), (7.0, 9.0),
    Symmetry((True, True, True), "all"),
)  # fmt: skip
LIGHTCONE = Observable(
    "brightness_temp", (1, 8, 8, 6), "mK", ("channel", "x", "y", "z"), (16.0, 16.0, 8.0), (0.0,),
    Symmetry((True, True, False), "transverse"), tuple(np.linspace(7.0, 9.0, 6)),
)  # fmt: skip
SLAB = build({"kind": "lim-mock", "mass_min": 12.0, "pixels": 16}).observables[0]
#: Settings and observable of each; which of them add noise.
TABLE: dict[str, tuple[Any, Observable]] = {
    "none": (NoSurvey(), GaussianField(cells=8).observables[0]),
    "white-noise": (WhiteNoise(sigma=0.3), GaussianField(cells=8).observables[0]),
    "ska-low-box": (SkaLow(integration=600.0), BOX),
    "ska-low-lightcone": (SkaLow(integration=600.0, wedge=True), LIGHTCONE),
    "ska-low-all": (
        SkaLow(integration=600.0, beam="airy", taper="hann", residual=Residual(amplitude=3.0)),
        LIGHTCONE,
    ),
    "spherex": (SphereX(stars=100.0, dead_pixels=0.02), SLAB),
    "spherex-continuum": (SphereX(continuum={"order": 1}), replace(SLAB, smoothing=1.2)),
}


@pytest.fixture(scope="module", params=TABLE)
def case(request: pytest.FixtureRequest) -> tuple[Survey, Any, Observable]:
    settings, observable = TABLE[request.param]
    return build_survey(settings, observable), settings, observable


def test_shape_dtype_and_an_input_that_stays(case: tuple[Survey, Any, Observable]) -> None:
    survey, _, observable = case
    clean = cubes(3, observable.shape)
    kept = clean.clone()
    observed = survey(clean, seeded(1))
    assert observed.shape == clean.shape
    assert observed.dtype == clean.dtype
    assert observed.isfinite().all()
    assert torch.equal(clean, kept)


def test_the_seed_decides(case: tuple[Survey, Any, Observable]) -> None:
    survey, settings, observable = case
    clean = cubes(3, observable.shape)
    with random_state_untouched():
        first, again, other = (survey(clean, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == isinstance(settings, NoSurvey)
    if not isinstance(settings, NoSurvey):
        assert not torch.equal(first[0] - survey(clean[:1].expand_as(clean), seeded(1))[1], torch.zeros(()))


def test_signal_is_observed_linearly_and_noise_does_not_depend_on_it(case: tuple[Survey, Any, Observable]) -> None:
    survey, _, observable = case
    a, b = cubes(2, observable.shape), cubes(2, observable.shape, seed=2)
    noise = survey(torch.zeros_like(a), seeded(1))
    signals = [survey(clean, seeded(1)) - noise for clean in (a, b, 2 * a + b)]
    scale = float(signals[2].abs().max() + noise.abs().max())
    torch.testing.assert_close(signals[2], 2 * signals[0] + signals[1], rtol=0, atol=2e-5 * scale)


def test_settings_go_through_json(case: tuple[Survey, Any, Observable]) -> None:
    survey, settings, observable = case
    again = TypeAdapter[Any](SurveySettings).validate_json(settings.model_dump_json())
    assert again == settings
    clean = cubes(1, observable.shape)
    assert torch.equal(build_survey(again, observable)(clean, seeded(1)), survey(clean, seeded(1)))
