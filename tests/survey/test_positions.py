"""Layouts: antennas from a file, arrays by name, and what is assumed of their noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from eorinfer.core.errors import InputError
from eorinfer.run import Run
from eorinfer.run.config import check_config, load_config
from eorinfer.settings.layouts import read_antennas
from eorinfer.settings.survey import survey_key
from eorinfer.survey import SkaLow, build_survey, lowest_mode
from eorinfer.survey.coverage import uv_time
from eorinfer.survey.positions import baselines_of
from eorinfer.survey.ska import SkaLowSurvey
from eorinfer.survey.sky import system_flux
from simulators.base import Observable, Symmetry

COEVAL: dict[str, Any] = {
    "simulator": {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 16, "box_length": 128.0}
    | {"parameters": ["F_ESC10", "ALPHA_ESC"]},
    "survey": {"kind": "ska-low", "layout": "antennas.csv", "latitude": -30.0, "diameter": 30.0},
    "observation": {"theta": {"F_ESC10": -1.0, "ALPHA_ESC": -0.5}},
    "inference": {"rounds": [10]},
}
HEADED = "east,north,up\n0,0,0\n100,0,0.5\n0,150,1\n"


def test_antennas_of_a_file_have_the_coverage_of_the_same_stations_by_name() -> None:
    """East, north and up of AA4 turn into tools21cm's baselines."""
    with np.errstate():
        from tools21cm import get_SKA_Low_layout
    antennas = tuple(map(tuple, get_SKA_Low_layout("AA4", unit="enu", verbose=False).to_value("m").tolist()))
    known = SkaLow(integration=1800.0)
    own = SkaLow(integration=1800.0, layout="mine.csv", antennas=antennas, latitude=-26.824722, sefd=2000.0)
    mine, theirs = (baselines_of(s.layout, s.antennas, s.array.latitude) for s in (own, known))
    np.testing.assert_allclose(mine, theirs, atol=0.01)
    assert SkaLow.model_validate_json(own.model_dump_json()) == own
    one, other = (uv_time(settings, 16, 128.0, 8.0) for settings in (own, known))
    np.testing.assert_allclose(one, other, rtol=0.01, atol=1e-3 * other.max())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0\n", "has 1 antennas; an interferometer needs two or more"),
        ("e,n,u\na,b,c\n", "line 2: 'a,b,c' has no numbers"),
        ("0,0\n1,1\n", "line 1: '0,0'; expected east, north and up in m"),
        ("0,0,nan\n1,1,1\n", "line 1: '0,0,nan'; expected east, north and up"),
        ("0,0,0\n# two\n1,1,1\n0,0,0\n", "line 4 repeats the antenna of line 1"),
        ("-2559454.1,5095372.1,-2849057.2\n-2559450.1,5095372.1,-2849057.2\n", "geocentric"),
    ],
)
def test_files_of_antennas_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_antennas(tmp_path / "a.csv", "a.csv")


@pytest.mark.parametrize("text", [HEADED, "# mine\n0 0 0\n100 0 0.5\n\n0 150 1", "0;0;0\n100;0;0.5\n0;150;1\n"])
def test_a_run_keeps_the_antennas_of_its_file(tmp_path: Path, text: str) -> None:
    path, out = tmp_path / "run.toml", tmp_path / "out"
    (tmp_path / "antennas.csv").write_text(text)
    config = check_config(path, COEVAL)
    survey = config.tables.survey
    assert isinstance(survey, SkaLow)
    assert survey.antennas == ((0.0, 0.0, 0.0), (100.0, 0.0, 0.5), (0.0, 150.0, 1.0))
    Run(config, out)
    assert '    "100.0 0.0 0.5",\n' in (out / "config.toml").read_text()

    (tmp_path / "antennas.csv").rename(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"\[survey\]: layout: .*antennas\.csv: cannot be read \(No such file"):
        check_config(path, COEVAL)
    kept = load_config(out / "config.toml")
    assert kept.key_of("survey") == config.key_of("survey")
    Run(kept, out)
    renamed = check_config(path, COEVAL | {"survey": COEVAL["survey"] | {"layout": "other.csv"}})
    assert renamed.key_of("survey") == config.key_of("survey")

    (tmp_path / "antennas.csv").write_text(text.replace("100", "101"))
    changed = check_config(path, COEVAL)
    assert changed.key_of("survey") != config.key_of("survey")
    with pytest.raises(InputError, match=r"\[survey\] antennas = .* but .* holds a run with") as error:
        Run(changed, out)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"layout": "AA2"}, 'layout = "AA2" is not known: one of "AA4", "AA[*]", "HERA", "LOFAR", "MWA", or a file'),
        ({"layout": "HERA", "diameter": 12.0}, 'diameter: only with layout = "antennas.csv"; HERA has its own'),
        ({"layout": "LOFAR", "declination": -30.0}, "latitude 52.9153 the field is below the horizon"),
        ({"layout": "a.csv", "antennas": [[0, 0, 0], [9, 0, 0]]}, "latitude is missing"),
        ({"layout": "a.csv", "antennas": [[0, 0, 0], [9, 0, 0]], "latitude": -30.0}, "diameter is missing"),
    ],
)
def test_settings_refuse(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SkaLow(**table)


@pytest.mark.parametrize(
    ("layout", "stations", "shortest"), [("HERA", 331, 14.6), ("LOFAR", 48, 35.0), ("MWA", 128, 7.0)]
)
def test_arrays_by_name(layout: str, stations: int, shortest: float) -> None:
    settings = SkaLow(layout=layout, integration=300.0)
    lengths = np.linalg.norm(baselines_of(layout, None, settings.array.latitude), axis=1)
    assert len(lengths) == stations * (stations - 1) / 2
    assert lengths.min() == pytest.approx(shortest, rel=0.3)
    temperature = 100 + 60 * (300 / (1420.40575 / 9)) ** 2.55
    flux = 2 * 1.380649e-23 * temperature / settings.array.area / 1e-26
    assert system_flux(settings, 8.0) == pytest.approx(flux, rel=1e-9)
    survey = SkaLowSurvey(settings, (16, 16, 4), (8.0, 8.0, 8.0), (8.0,))
    observed = survey(torch.randn(2, 1, 16, 16, 4), torch.Generator().manual_seed(1))
    assert observed.isfinite().all()
    # A cell of the uv plane is 135 m wide: nothing is seen beyond the longest baseline, and not all within it.
    metres = 135.5 * np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.arange(9), indexing="ij"))
    seen = survey.mask[0, :, :, 0].numpy() > 0
    assert not seen[metres > lengths.max() + 100].any()
    assert seen.sum() >= 6
    assert survey.rms[0] > 1
    assert SkaLow.model_validate_json(settings.model_dump_json()) == settings


def test_spectra_begin_where_an_array_has_baselines() -> None:
    """Two antennas 700 m apart see nothing on the largest scales of a box, to which 135 m would belong."""
    box = Observable(
        "brightness_temp", (1, 16, 16, 4), "mK", ("redshift", "x", "y", "z"), (8.0, 8.0, 8.0), (8.0,),
        Symmetry((True, True, True), "all"),
    )  # fmt: skip
    own = {"layout": "a.csv", "latitude": -30.0, "sefd": 2000.0, "integration": 120.0}
    far = SkaLow(**own, antennas=((0.0, 0.0, 0.0), (700.0, 0.0, 0.0)))
    lowest = lowest_mode(far, box)
    assert 4 * 2 * np.pi / 128 < lowest < 5.5 * 2 * np.pi / 128
    modes = torch.fft.rfft2(
        build_survey(far, box)(torch.randn(1, *box.shape), torch.Generator().manual_seed(1)), dim=(2, 3)
    )
    k = 2 * np.pi * np.hypot(*np.meshgrid(np.fft.fftfreq(16, 8.0), np.fft.rfftfreq(16, 8.0), indexing="ij"))
    assert modes[0, 0, k < 0.99 * lowest].abs().max() < 1e-4 * modes.abs().max()
    assert lowest_mode(SkaLow(layout="HERA"), box) == pytest.approx(2 * np.pi / 128)
    near = SkaLow(**own, antennas=((0.0, 0.0, 0.0), (20.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match=r"no baseline of layout a\.csv measures a mode of this cube: it is too small"):
        lowest_mode(near, box)


def test_noise_of_a_dish_under_the_sky_is_that_of_tools21cm() -> None:
    with np.errstate():
        from tools21cm import get_SEFD
    for redshift in (7.0, 10.0):
        theirs = get_SEFD(1420.40575 / (1 + redshift), D_station=14.0, ep_aperture=1.0)
        assert system_flux(SkaLow(layout="HERA"), redshift) == pytest.approx(theirs, rel=1e-3)


def test_keys_of_ska_low_are_those_from_before_other_arrays() -> None:
    assert not {"antennas", "latitude", "diameter"} & set(survey_key(SkaLow()))
