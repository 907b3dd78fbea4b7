"""Primary beam and taper: their shapes, and what they act on."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from eorinfer.survey import SkaLow, build_survey
from eorinfer.survey.beam import primary_beam
from eorinfer.survey.ska import SkaLowSurvey
from eorinfer.survey.sky import comoving_distance
from simulators.base import Observable
from tests.survey.test_ska_lightcone import bands, lightcone

QUICK = {"integration": 900.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(observable: Observable, clean: Tensor, **table: object) -> Tensor:
    return build_survey(SkaLow(**QUICK | table), observable)(clean, seeded(3))


def field(n: int, observable: Observable) -> Tensor:
    return torch.randn(n, *observable.shape, generator=seeded(1))


def test_beams_are_half_at_half_their_width_and_airys_is_zero_at_its_null() -> None:
    for z in (7.0, 10.0):
        wave = 0.21106114 * (1 + z) / 38.0
        for shape in ("gaussian", "airy"):
            beam = primary_beam(SkaLow(beam=shape), 401, 0.4 * comoving_distance(z), z)[200]
            angles = (np.arange(401) - 200) * 0.4 / 401

            def at(angle: float, beam: np.ndarray = beam, angles: np.ndarray = angles) -> float:
                return float(np.interp(angle, angles, beam))

            assert at(0.0) == 1.0
            half = brentq(lambda a: at(a) - 0.5, 0.001, 0.06)
            assert 2 * half == pytest.approx(1.029 * wave, rel=0.01)
        assert at(1.22 * wave) < 1e-3
        assert at(1.64 * wave) == pytest.approx(0.0175, abs=0.001)  # the first ring


def test_the_beam_is_on_the_signal_alone_and_narrows_with_frequency() -> None:
    observable = bands(120.0, 180.0, field_of_view=6.0)
    clean = field(2, observable)
    seen = {beam: observed(observable, clean, beam=beam) for beam in (None, "airy")}
    survey = build_survey(SkaLow(**QUICK, beam="airy"), observable)
    assert isinstance(survey, SkaLowSurvey)
    assert survey.beam is not None
    torch.testing.assert_close(seen["airy"], observed(observable, clean * survey.beam), rtol=0, atol=1e-3)
    assert not torch.allclose(seen["airy"], seen[None], atol=0.1)
    nothing = torch.zeros_like(clean)
    torch.testing.assert_close(observed(observable, nothing, beam="airy"), observed(observable, nothing))
    width = (survey.beam[0, 8] > 0.5).sum(dim=0)
    assert (width.diff() <= 0).all()
    assert width[0] > width[-1]


def test_a_taper_is_on_signal_and_noise_alike_and_stops_leakage() -> None:
    observable = lightcone()
    clean = field(2, observable)
    plain, tapered = (observed(observable, clean, taper=taper) for taper in (None, "blackman-harris"))
    window = (tapered / plain)[..., 4, 4, :].mean(dim=(0, 1))
    torch.testing.assert_close(tapered, plain * window, rtol=1e-3, atol=1e-3)
    assert window.square().mean() == pytest.approx(1, rel=1e-3)
    assert window[0] < 1e-3 < window[5]

    deep = lightcone(shape=(1, 16, 16, 64), coordinates=tuple(np.linspace(7.0, 9.0, 64)))
    ramp = 1e4 * torch.linspace(-1, 1, 64) * field(1, deep)[..., :1]  # as smooth as foregrounds, and not periodic
    highest = {}
    for taper in (None, "hann", "blackman-harris"):
        survey = build_survey(SkaLow(**QUICK, taper=taper), deep)
        power = torch.fft.fft(survey(ramp, seeded(0)) - survey(torch.zeros_like(ramp), seeded(0))).abs().square()
        highest[taper] = float(power[..., 12:32].mean() / power[..., 0:4].mean())
    assert highest["blackman-harris"] < 1e-5 * highest[None]
    assert highest["hann"] < 1e-2 * highest[None]
