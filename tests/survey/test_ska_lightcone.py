"""SKA-Low on light-cones, where each slice has its own noise and beam, and the foreground wedge."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.cosmology import Planck18
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from eorinfer.core.errors import InputError
from eorinfer.run.config import check_config
from eorinfer.summaries.bins import default_edges, unmeasured
from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import (
    NoSurvey,
    SkaLow,
    SurveySettings,
    build_survey,
    check_survey,
    lowest_mode,
    measured_modes,
)
from eorinfer.survey.coverage import uv_time, uv_times
from eorinfer.survey.ska import SkaLowSurvey, mode_noise
from eorinfer.survey.sky import wedge_slope
from simulators.base import Observable, Symmetry

COARSE = SkaLow(integration=120.0)
SKY = (-3, -2)
MHZ = 1420.40575


def lightcone(**changes: object) -> Observable:
    """Sixteen cells of 8 Mpc across, twelve slices of 4 Mpc from z = 7 to 9."""
    content = {
        "name": "brightness_temp",
        "shape": (1, 16, 16, 12),
        "unit": "mK",
        "axes": ("channel", "x", "y", "z"),
        "cell_size": (8.0, 8.0, 4.0),
        "channels": (0.0,),
        "symmetry": Symmetry((True, True, False), "transverse"),
        "coordinates": tuple(np.linspace(7.0, 9.0, 12)),
    }
    return Observable(**(content | changes))  # type: ignore[arg-type]


def bands(low: float, high: float, field_of_view: float) -> Observable:
    """The same number of cells as frequency channels of an angular field."""
    edges = np.linspace(low, high, 13)
    return lightcone(
        axes=("channel", "theta_x", "theta_y", "frequency"),
        coordinates=tuple((edges[1:] + edges[:-1]) / 2),
        field_of_view=field_of_view,
    )


def built(observable: Observable, settings: SkaLow = COARSE) -> SkaLowSurvey:
    survey = build_survey(settings, observable)
    assert isinstance(survey, SkaLowSurvey)
    return survey


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(1))


@pytest.mark.parametrize("n_cells", [16, 33])
def test_coverage_of_many_slices_is_that_of_each(n_cells: int) -> None:
    redshifts, sides = np.linspace(6.5, 10.0, 30), np.linspace(120.0, 150.0, 30)
    many = uv_times(COARSE, n_cells, sides.tolist(), redshifts.tolist())
    assert many.shape == (30, n_cells, n_cells)
    for i in (0, 11, 29):
        one = uv_time(COARSE, n_cells, sides[i], redshifts[i])
        seen = one > 0
        assert ((many[i] > 0) != seen).mean() < 0.005
        both = seen & (many[i] > 0)
        ratio = many[i][both] / one[both]
        assert ratio.mean() == pytest.approx(1, abs=0.002)
        assert ratio.std() < 0.02
        np.testing.assert_array_equal(many[i], np.roll(many[i][::-1, ::-1], 1, axis=(0, 1)))


def test_each_slice_has_the_noise_of_its_redshift() -> None:
    observable = lightcone()
    survey = built(observable)
    draws = survey(torch.zeros(96, 1, 16, 16, 12), seeded(0))[:, 0].double()
    measured = torch.fft.fft2(draws, dim=(-3, -2)).abs().square().mean(0).numpy()
    for i in (0, 6, 11):
        expected = mode_noise(COARSE, 16, 128.0, 4.0, observable.coordinates[i]) ** 2
        seen = expected > 0
        ratio = measured[seen][:, i] / expected[seen]
        # 96 draws of two squared normals a mode, about 150 modes
        assert ratio.mean() == pytest.approx(1, abs=0.03)
        assert np.abs(ratio - 1).max() < 0.7
        assert measured[~seen][:, i].max() < 1e-8 * expected.max()
        assert draws[..., i].std().item() == pytest.approx(survey.rms[i], rel=0.03)
    assert len(survey.rms) == 12
    assert survey.rms[11] > 1.3 * survey.rms[0]


def test_angular_channels_have_the_angle_and_the_band_of_the_sky() -> None:
    observable = bands(146.0, 170.0, field_of_view=0.8)
    survey = built(observable)
    for i in (0, 11):
        z = MHZ / observable.coordinates[i] - 1
        side = np.deg2rad(0.8) * Planck18.comoving_distance(z).value
        edges = [Planck18.comoving_distance(MHZ / (observable.coordinates[i] + d) - 1).value for d in (-1.0, 1.0)]
        sigma = mode_noise(COARSE, 16, side, edges[0] - edges[1], z)
        assert survey.rms[i] == pytest.approx(np.sqrt((sigma**2).sum()) / 16**2, rel=0.01)
        np.testing.assert_array_equal(survey.mask[0, :, :, i].numpy() > 0, sigma[:, :9] > 0)


def test_a_longest_baseline_is_a_wider_beam_at_a_lower_frequency() -> None:
    mask = built(bands(60.0, 180.0, field_of_view=1.6), SkaLow(integration=120.0, max_baseline=480.0)).mask[0]
    kept = mask.sum(dim=(0, 1))
    assert (kept.diff() >= 0).all()
    # Resolution goes with the frequency, the number of modes within it with the square.
    assert kept[-1] / kept[0] == pytest.approx((175 / 65) ** 2, rel=0.2)


def test_means_of_slices_are_lost_and_seen_modes_pass() -> None:
    survey = built(lightcone())
    signal = field(2, 1, 16, 16, 12)
    observed = survey(signal + torch.linspace(-30, 30, 12), seeded(2))
    assert observed.mean(dim=SKY).abs().max() < 1e-4
    passed = torch.fft.rfft2(observed - survey(torch.zeros_like(signal), seeded(2)), dim=SKY)
    torch.testing.assert_close(passed, torch.fft.rfft2(signal, dim=SKY) * survey.mask, atol=2e-2, rtol=0)
    assert torch.equal(observed, survey(signal + torch.linspace(-30, 30, 12), seeded(2)))


def test_slope_of_the_wedge_is_the_delay_of_a_source() -> None:
    """A flat source at `angle` on a baseline b: phase 2 pi nu b sin(angle) / c, followed over 1 MHz."""
    z, angle, baseline = 8.0, 30.0, 100.0
    nu = 1e6 * MHZ / (1 + z) + np.array([-5e5, 5e5])
    phase = 2 * np.pi * nu * baseline * np.sin(np.radians(angle)) / 299792458.0
    distances = Planck18.comoving_distance(1e6 * MHZ / nu - 1).value
    k_par = abs(np.diff(phase)[0] / np.diff(distances)[0])
    k_perp = 2 * np.pi * baseline / (299792458.0 / nu.mean()) / distances.mean()
    assert wedge_slope(z, angle) == pytest.approx(k_par / k_perp, rel=1e-3)
    assert 3 < wedge_slope(8.0, 90.0) < 3.5


@pytest.mark.parametrize("coeval", [True, False])
def test_wedge_cuts_its_modes_and_no_others(coeval: bool) -> None:
    settings = SkaLow(integration=120.0, wedge=True, wedge_angle=20.0, wedge_buffer=0.2)
    if coeval:
        cut = SkaLowSurvey(settings, (16, 16, 12), (8.0, 8.0, 4.0), (7.0, 9.0))
        whole = SkaLowSurvey(COARSE, (16, 16, 12), (8.0, 8.0, 4.0), (7.0, 9.0))
    else:
        cut, whole = built(lightcone(), settings), built(lightcone())
    signal = field(2, *cut.shape)
    one, other = (torch.fft.fftn(survey(signal, seeded(2)), dim=(-3, -2, -1)) for survey in (cut, whole))
    x = 2 * np.pi * np.fft.fftfreq(16, 8.0)
    z = 2 * np.pi * np.abs(np.fft.fftfreq(12, 4.0))
    for channel, redshift in enumerate((7.0, 9.0) if coeval else (9.0,)):
        slope = np.sin(np.radians(20.0)) * np.array(
            Planck18.comoving_distance(redshift).value * Planck18.H(redshift).value / 299792.458 / (1 + redshift)
        )
        inside = torch.from_numpy(z < (slope * np.hypot(x[:, None], x[None]))[..., None] + 0.2)
        assert 0.3 < inside.float().mean() < 0.9
        scale = other[:, channel].abs().max()
        assert one[:, channel, inside].abs().max() < 1e-5 * scale
        torch.testing.assert_close(one[:, channel, ~inside], other[:, channel, ~inside], rtol=1e-3, atol=1e-5 * scale)


def test_the_horizon_leaves_little_of_a_small_box() -> None:
    survey = built(lightcone(), SkaLow(integration=120.0, wedge=True))
    assert survey.window is not None
    assert 0 < survey.window.mean() < 0.1
    assert built(lightcone()).window is None


def test_power_of_a_cuboid_with_three_cell_sizes() -> None:
    """White noise has P = sigma^2 V / N_cells in every bin, whatever the shape; a plane wave falls into its own."""
    spectrum = PowerSpectrum((16, 16, 40), (96.0, 96.0, 320.0), n_bins=8)
    power = spectrum(2.0 * field(60, 1, 16, 16, 40)).mean(dim=(0, 1))
    np.testing.assert_allclose(power, 4 * 6 * 6 * 8, rtol=0.1)
    along, across = torch.arange(40) * 8.0, torch.arange(16) * 6.0
    k_along, k_across = 2 * np.pi * 5 / 320.0, 2 * np.pi * 6 / 96.0
    for k, wave in ((k_along, torch.cos(k_along * along)), (k_across, torch.cos(k_across * across)[:, None])):
        found = spectrum(wave.expand(16, 16, 40))
        edges = spectrum.edges.numpy()
        assert int(found.argmax()) == np.searchsorted(edges, k, side="right") - 1
        assert found.max() > 0.999 * found.sum()


@pytest.mark.parametrize(
    "settings",
    [
        SkaLow(integration=120.0),
        SkaLow(integration=120.0, min_baseline=150.0),
        SkaLow(integration=120.0, wedge=True, wedge_angle=20.0),
    ],
)
def test_nothing_is_measured_below_the_lowest_mode(settings: SkaLow) -> None:
    """The box is four times as deep as it is wide: its longest modes have no baseline."""
    deep = lightcone(shape=(1, 16, 16, 128), coordinates=tuple(np.linspace(7.0, 9.0, 128)))
    modes = torch.fft.fftn(built(deep, settings)(field(2, 1, 16, 16, 128), seeded(2)), dim=(-3, -2, -1)).abs()[:, 0]
    x, z = 2 * np.pi * np.fft.fftfreq(16, 8.0), 2 * np.pi * np.fft.fftfreq(128, 4.0)
    k = torch.from_numpy(np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + z**2))
    lowest = lowest_mode(settings, deep)
    assert lowest > 1.9 * 2 * np.pi / 512
    assert modes[:, k < 0.999 * lowest].max() < 1e-5 * modes.max()
    assert modes[:, (k > 0.999 * lowest) & (k < 1.001 * lowest)].max() > 1e-3 * modes.max()
    assert lowest_mode(NoSurvey(), deep) == 0


def test_power_spectra_begin_where_the_survey_measures() -> None:
    content = {
        "simulator": {
            "kind": "21cmfast-lightcone",
            "redshift_range": [7.0, 9.0],
            "cells": 16,
            "box_length": 128.0,
            "parameters": ["M_TURN"],
        },
        "survey": {"kind": "ska-low"},
        "observation": {"theta": {"M_TURN": 9.0}},
        "inference": {"rounds": [10]},
    }
    path = Path("run.toml")
    assert check_config(path, content).tables.power_spectrum.k_min == pytest.approx(2 * np.pi / 128)
    assert check_config(path, content | {"survey": {"kind": "none"}}).tables.power_spectrum.k_min is None
    assert check_config(path, content | {"power_spectrum": {"k_min": 0.1}}).tables.power_spectrum.k_min == 0.1
    with pytest.raises(InputError, match=r"k_min = 0\.02: the survey measures nothing below 0\.04909 1/Mpc"):
        check_config(path, content | {"power_spectrum": {"k_min": 0.02}})
    with pytest.raises(InputError, match=r"k_max = 0\.1: must be above 0\.2 1/Mpc, the lowest edge"):
        check_config(path, content | {"power_spectrum": {"k_min": 0.2, "k_max": 0.1}})
    with pytest.raises(InputError, match=r"\[survey\] the foreground wedge leaves no mode"):
        check_config(path, content | {"survey": {"kind": "ska-low", "wedge": True, "wedge_buffer": 5.0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "K"}, "is in K"),
        ({"coordinates": (7.0, 8.0)}, "2 slices: a light-cone has one channel and a coordinate for each"),
        ({"shape": (2, 16, 16, 12), "channels": (0.0, 1.0)}, "a light-cone has one channel"),
        ({"axes": ("channel", "x", "y", "wavelength")}, "'wavelength' along the line of sight, not z or frequency"),
        ({"coordinates": ()}, "has channels along 'channel'"),
        ({"coordinates": tuple(np.linspace(7.0, 29.0, 12))}, r"47\.3 MHz, outside the SEFD table"),
        ({"shape": (1, 16, 12, 12)}, "square sky"),
    ],
)
def test_other_lightcones_are_refused_before_anything_is_computed(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_survey(COARSE, lightcone(**changes))


@pytest.mark.parametrize("table", [{"wedge_angle": 0.0}, {"wedge_angle": 91.0}, {"wedge_buffer": -0.1}, {"wedge": 2}])
def test_settings_of_the_wedge_refuse(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SurveySettings).validate_python({"kind": "ska-low"} | table)


#: A wide, shallow cube: after the modes across the sky the wedge leaves the next ones far above.
GAPS: dict[str, Any] = {
    "simulator": {
        "kind": "21cmfast-lightcone",
        "frequency_range": [149.5, 154.0],
        "channels": 8,
        "transverse": "angular",
        "cells": 12,
        "box_length": 96.0,
        "parameters": ["M_TURN"],
    },
    "survey": {"kind": "ska-low", "integration": 120.0, "wedge": True, "wedge_angle": 10.0, "wedge_buffer": 0.03},
    "observation": {"theta": {"M_TURN": 8.7}},
    "inference": {"rounds": [8]},
}


def test_bins_between_measured_modes_are_named() -> None:
    path = Path("run.toml")
    config = check_config(path, GAPS)
    ours, embedding = config.notes
    assert ours.startswith("run.toml: [power_spectrum] bins = 8: the survey measures nothing in 1 of them, the first ")
    assert "from k = 0.132 to 0.165 1/Mpc" in ours
    assert ours.endswith("Take [power_spectrum] bins = 7")
    assert embedding.startswith("run.toml: [embedding] bins = 16: the survey measures nothing in 4 of them")
    observable, limits = config.observable, config.tables.power_spectrum
    for bins in (limits.bins, 7):
        edges = default_edges(observable.cells, observable.box_length, bins, k_min=limits.k_min)
        spectrum = PowerSpectrum(observable.cells, observable.box_length, edges.tolist())
        power = spectrum(built(observable, config.tables.survey)(field(3, *observable.shape), seeded(1)))[0, 0]
        named = [low for low, _ in unmeasured(edges, measured_modes(config.tables.survey, observable))]
        assert edges[:-1][power.numpy() < 1e-6 * power.max().item()].tolist() == named
        assert len(named) == (bins == 8)


def test_bins_beyond_the_longest_baseline_end_at_k_max() -> None:
    box = {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 12, "box_length": 96.0, "parameters": ["M_TURN"]}
    hera = GAPS | {"simulator": box, "survey": {"kind": "ska-low", "layout": "HERA", "integration": 120.0}}
    config = check_config(Path("run.toml"), hera)
    observable = config.observable
    edges = default_edges(observable.cells, observable.box_length, 8, k_min=config.tables.power_spectrum.k_min)
    spectrum = PowerSpectrum(observable.cells, observable.box_length, edges.tolist())
    power = spectrum(built(observable, config.tables.survey)(field(3, *observable.shape), seeded(1)))[0, 0]
    assert power[-1] < 1e-6 * power.max()
    assert power[:-1].min() > 1e-4 * power.max()
    ours, finer = config.notes
    value = float(ours.rpartition("Take [power_spectrum] k_max = ")[2])
    assert 0.4 < value < 0.6
    # Finer bins have one below it, between two baselines.
    assert finer.endswith(f"Take [power_spectrum] k_max = {value:g} and [embedding] bins = 15")
    hera["power_spectrum"] = {"k_max": value}
    (gap,) = check_config(Path("run.toml"), hera).notes
    assert gap.endswith("Take [embedding] bins = 15")
    assert check_config(Path("run.toml"), hera | {"embedding": {"bins": 15}}).notes == ()


def test_the_advice_on_bins_holds_when_it_is_followed() -> None:
    """A coarse box in which HERA leaves bins empty on both sides: k_max alone was not enough."""
    box = {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 8, "box_length": 64.0, "parameters": ["M_TURN"]}
    content = GAPS | {"simulator": box, "survey": {"kind": "ska-low", "layout": "HERA", "integration": 120.0}}
    notes = check_config(Path("run.toml"), content).notes
    assert notes
    tables: dict[str, dict[str, float]] = {}
    for note in notes:
        for key in note.rpartition("Take ")[2].split(" and "):
            table, name, _, value = key.split()
            tables.setdefault(table.strip("[]"), {})[name] = float(value) if name == "k_max" else int(value)
    assert check_config(Path("run.toml"), content | tables).notes == ()


@pytest.mark.parametrize(
    "change",
    [
        {"power_spectrum": {"bins": 7}, "embedding": {"bins": 7}},
        {"power_spectrum": {"bins": 7}, "embedding": {"summaries": []}},
        {"survey": {"kind": "white-noise", "sigma": 1.0}},
        {
            "simulator": GAPS["simulator"]
            | {"cells": 24, "box_length": 192.0, "channels": 32, "frequency_range": [149.5, 167.1]}
        },
    ],
)
def test_nothing_is_said_of_bins_that_are_measured(change: dict[str, Any]) -> None:
    assert check_config(Path("run.toml"), GAPS | change).notes == ()
