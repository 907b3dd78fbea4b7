"""Gaussian fields with 21cmEMU's spectra: the spectra are the emulator's, and the exact likelihood knows its noise."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip("py21cmemu")

from eorinfer.contest.likelihoods import noise_power
from eorinfer.likelihood.exact import emulated_log_likelihood, independent_modes
from eorinfer.settings.survey import SkaLow, WhiteNoise
from eorinfer.survey import build_survey
from simulators import build
from simulators.emulated import EmulatedField, _emulator, log_spectra
from simulators.fourier import wavenumbers

SIMULATOR = EmulatedField(cells=12, box_length=192.0)
FIDUCIAL = np.array([p.fiducial for p in SIMULATOR.parameters])
K = wavenumbers((12,) * 3, 192.0)
#: One track of an hour: enough for modes with and without baselines.
SKA = SkaLow(hours_per_day=1.0, integration=300.0)


def test_spectra_are_those_that_the_package_gives() -> None:
    log_k, log_delta = log_spectra(np.stack([FIDUCIAL, FIDUCIAL + 0.05]), (7.0, 8.0))
    raw = _emulator().predict(dict(zip((p.name for p in SIMULATOR.parameters), FIDUCIAL, strict=True)))[1]
    z, spectra = np.asarray(raw.PS_redshifts), np.asarray(raw.PS)
    np.testing.assert_allclose(np.exp(log_k), np.asarray(raw.PS_ks))
    between = [np.exp([np.interp(at, z, np.log(spectra[:, i])) for i in range(len(log_k))]) for at in (7.0, 8.0)]
    np.testing.assert_allclose(np.exp(log_delta[0]), between, rtol=1e-4)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_fields_have_these_spectra() -> None:
    power = SIMULATOR.power(FIDUCIAL, K.ravel())[0].reshape(3, *K.shape)
    cubes = np.stack([SIMULATOR.simulate(FIDUCIAL, seed)["brightness_temperature"] for seed in range(60)])
    assert cubes.shape == (60, 3, 12, 12, 12)
    assert np.array_equal(cubes[3], SIMULATOR.simulate(FIDUCIAL, 3)["brightness_temperature"])
    measured = 192.0**3 * np.abs(np.fft.rfftn(cubes.astype(float), axes=(-3, -2, -1)) / 12**3) ** 2
    keep, _ = independent_modes((12,) * 3)
    for channel in range(3):
        ratio = measured[:, channel][:, keep].mean(0) / power[channel][keep]
        assert abs(ratio.mean() - 1) < 0.02
    # Each redshift is a realisation of its own.
    assert abs(np.corrcoef(cubes[:, 0].ravel(), cubes[:, 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("settings", [WhiteNoise(sigma=2.0), SKA])
def test_the_noise_of_each_mode_is_the_surveys(settings: WhiteNoise | SkaLow) -> None:
    observable = SIMULATOR.observables[0]
    survey = build_survey(settings, observable)
    noise = noise_power(survey, observable)
    seen = survey(torch.zeros(200, *observable.shape), torch.Generator().manual_seed(1)).double().numpy()
    modes = 192.0**3 * np.abs(np.fft.rfftn(seen, axes=(-3, -2, -1)) / 12**3) ** 2
    measured = np.isfinite(noise)
    assert modes[:, ~measured].max(initial=0.0) < 1e-6 * modes.max()
    ratio = modes[:, measured].mean(0) / noise[measured]
    assert abs(ratio.mean() - 1) < 0.01
    assert ratio.std() < 0.11, "mode by mode: an exponential's mean of 200 scatters by 0.07"


def test_the_likelihood_is_a_product_over_modes_and_prefers_the_truth() -> None:
    observable = SIMULATOR.observables[0]
    survey = build_survey(SKA, observable)
    noise = noise_power(survey, observable)
    rng = np.random.default_rng(2)
    low, high = np.array([[p.low, p.high] for p in SIMULATOR.parameters]).T
    others = rng.uniform(low, high, (20, 9))
    theta = np.concatenate([FIDUCIAL[None], others])
    clean = torch.from_numpy(SIMULATOR.simulate(FIDUCIAL, 5)["brightness_temperature"][None])
    cube = survey(clean, torch.Generator().manual_seed(3))[0].double().numpy()
    found = emulated_log_likelihood(SIMULATOR.power, SIMULATOR.box_length, noise, cube)(theta)
    keep, real = independent_modes((12,) * 3)
    direct = np.zeros(len(theta))
    power = SIMULATOR.power(theta, K[keep])
    for channel in range(3):
        seen = np.isfinite(noise[channel][keep])
        s = power[:, channel, seen] + noise[channel][keep][seen]
        p = (192.0**3 * np.abs(np.fft.rfftn(cube[channel]) / 12**3) ** 2)[keep][seen]
        direct -= ((np.log(s) + p / s) * np.where(real[keep][seen], 0.5, 1.0)).sum(1)
    np.testing.assert_allclose(found - found[0], direct - direct[0], rtol=1e-6, atol=1e-6)
    assert (found[0] > found[1:] - 3).all(), "no other is much more probable than the truth"
    assert np.ptp(found) > 10


def test_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build({"kind": "gaussian-21cmemu", "cells": 8}) == EmulatedField(cells=8)
    with pytest.raises(ValueError, match=r"redshifts = \[30\.0\]: 21cmEMU has spectra from"):
        EmulatedField(redshifts=(30.0,))
    monkeypatch.setattr("simulators.emulated.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs py21cmemu: pip install 'eorinfer\[emulated\]'"):
        EmulatedField()
