"""Surveys: noise levels against formulas written out here, uv coverage against tools21cm."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.cosmology import Planck18
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from eorinfer.settings.survey import survey_key
from eorinfer.summaries.power import PowerSpectrum, dimensionless
from eorinfer.survey import NoSurvey, SkaLow, SurveySettings, WhiteNoise, build_survey
from eorinfer.survey.ska import SkaLowSurvey, mode_noise, system_flux, uv_time
from simulators.base import Observable, Symmetry

COARSE = 120.0  # s between samples of a track: the same coverage to 0.4 per cent, twelve times as fast
SKY = (-3, -2)


def observable(**changes: object) -> Observable:
    content = {
        "name": "brightness_temp",
        "shape": (1, 16, 16, 8),
        "unit": "mK",
        "axes": ("redshift", "x", "y", "z"),
        "cell_size": (8.0, 8.0, 8.0),
        "channels": (8.0,),
        "symmetry": Symmetry((True, True, True), "all"),
    }
    return Observable(**(content | changes))  # type: ignore[arg-type]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(survey: SkaLowSurvey, batch: int, seed: int = 0) -> Tensor:
    return survey(torch.zeros(batch, *survey.shape), seeded(seed))


@pytest.fixture(scope="module")
def facts_survey() -> SkaLowSurvey:
    """128 Mpc, 32 cells, AA4, 1000 h, SEFD of the older design, z = 8, one polarisation."""
    settings = SkaLow(integration=COARSE, polarisations=1, sefd="818")
    return SkaLowSurvey(settings, (32, 32, 32), (4.0, 4.0, 4.0), (8.0,))


@pytest.fixture(scope="module")
def survey() -> SkaLowSurvey:
    """Two redshifts of a small box with cells of 8 x 8 x 4 Mpc."""
    return SkaLowSurvey(SkaLow(integration=COARSE, sefd="818"), (16, 16, 32), (8.0, 8.0, 4.0), (7.0, 9.0))


@pytest.mark.job
def test_coverage_agrees_with_tools21cm() -> None:
    with np.errstate():
        import tools21cm
        from tools21cm.cosmo import z_to_cdist

        theirs, n_stations = tools21cm.get_uv_map(
            32, 8.0, subarray_type="AA4", int_time=1200.0, boxsize=128.0, verbose=False
        )
        # The same angle in our cosmology; tools21cm has WMAP7.
        box_length = 128.0 * Planck18.comoving_distance(8.0).value / float(z_to_cdist(8.0))
    assert n_stations == 512
    settings = SkaLow(integration=1200.0, max_baseline=1e6)
    ours = uv_time(settings, 32, box_length, 8.0)
    # Ours folds both signs of the Nyquist frequency onto one; ours has no zero spacing.
    inner = np.ones((32, 32), dtype=bool)
    inner[16] = inner[:, 16] = inner[0, 0] = False
    ratio = ours[inner] / (2 * theirs[inner] * 3600 * settings.hours)
    assert ours[0, 0] == 0
    assert ratio.mean() == pytest.approx(1, abs=0.003)
    # Samples at the middle of each step, not at its end; a transposed or mirrored map has 0.2 or 0.5.
    assert ratio.std() < 0.05


@pytest.mark.parametrize("n_cells", [15, 16])
def test_coverage_is_symmetric(n_cells: int) -> None:
    time = uv_time(SkaLow(integration=COARSE), n_cells, 60.0, 8.0)
    np.testing.assert_array_equal(time, np.roll(time[::-1, ::-1], 1, axis=(0, 1)))
    assert (time > 0).sum() > n_cells


@pytest.mark.job
def test_coarse_sampling_is_close_to_ten_seconds() -> None:
    fine, coarse = (uv_time(SkaLow(integration=step), 32, 128.0, 8.0) for step in (10.0, COARSE))
    np.testing.assert_array_equal(coarse > 0, fine > 0)
    np.testing.assert_allclose(coarse[fine > 0], fine[fine > 0], rtol=0.01)


def independent_variance(settings: SkaLow, redshift: float) -> NDArray[np.float64]:
    """SEFD^2 / (n_pol bandwidth t_u) in Jy^2, with its own constants."""
    time = uv_time(settings, 16, 128.0, redshift)
    frequency = 1420.40575 / (1 + redshift)
    sefd = np.interp(frequency, [140, 150, 160, 170, 180], [2624.8, 2467.6, 2382.5, 2358.1, 2320.4])
    redshifts = redshift + np.array([-1e-3, 1e-3])
    distance = Planck18.comoving_distance(redshifts).value
    per_mpc = np.diff(1420.40575e6 / (1 + redshifts))[0] / np.diff(distance)[0]  # Hz / Mpc
    with np.errstate(divide="ignore"):
        return np.where(time > 0, sefd**2 / (2 * abs(per_mpc) * 4.0 * time), 0.0)


def test_noise_of_each_uv_cell(survey: SkaLowSurvey) -> None:
    settings = SkaLow(integration=COARSE)
    draws = noise_of(survey, batch=64).double()
    for channel, redshift in enumerate((7.0, 9.0)):
        wavelength = 0.21106114 * (1 + redshift)
        omega = (8.0 / Planck18.comoving_distance(redshift).value) ** 2
        kelvin = 1e-3 * draws[:, channel]
        intensity = 2 * 1.380649e-23 * kelvin / wavelength**2 / 1e-26  # Jy / sr
        visibility = omega * torch.fft.fft2(intensity, dim=SKY)
        measured = visibility.abs().square().mean(dim=(0, 3)).numpy()
        expected = independent_variance(settings, redshift)

        seen = expected > 0
        assert 50 < seen.sum() < 256
        # 2048 draws of two squared normals: 2.2 per cent, 3.1 for the real modes.
        ratio = measured[seen] / expected[seen]
        assert abs(ratio - 1).max() < 0.15
        assert ratio.mean() == pytest.approx(1, abs=0.006)
        assert measured[~seen].max() < 1e-8 * expected.max()

        rms = 1e3 * np.sqrt(expected.sum()) / omega / 16**2 * 1e-26 * wavelength**2 / (2 * 1.380649e-23)
        assert draws[:, channel].std().item() == pytest.approx(rms, rel=0.01)
        assert survey.rms[channel] == pytest.approx(rms, rel=1e-3)


def test_noise_against_known_numbers(facts_survey: SkaLowSurvey) -> None:
    """Numbers computed with tools21cm's map and the SKAO table, for one polarisation."""
    noise = noise_of(facts_survey, batch=16)
    spectrum = PowerSpectrum((32, 32, 32), (128.0,) * 3, edges=[0.06, 0.1, 0.15, 0.2, 0.3, 0.45])
    np.testing.assert_allclose(spectrum.k, [0.08, 0.13, 0.17, 0.25, 0.38], rtol=0.03)
    power = dimensionless(spectrum.k, spectrum(noise).mean(dim=(0, 1)), 3)
    np.testing.assert_allclose(power, [0.4, 2, 7, 45, 455], rtol=0.1)

    every_baseline = SkaLow(integration=COARSE, polarisations=1, max_baseline=1e6, sefd="818")
    sigma = mode_noise(every_baseline, 32, 128.0, 4.0, 8.0)
    assert np.sqrt((sigma**2).sum()) / 32**2 == pytest.approx(94, rel=0.1)


def test_nothing_where_no_baseline_falls(facts_survey: SkaLowSurvey) -> None:
    signal = torch.randn(4, 1, 32, 32, 32, generator=seeded(1))
    modes = torch.fft.rfft2(facts_survey(signal, seeded(2)), dim=SKY).abs()
    unseen = facts_survey.mask[0, :, :, 0] == 0
    assert 0.2 < unseen.float().mean() < 0.8
    assert modes[:, 0, unseen].max() < 1e-5 * modes.max()


def test_seen_signal_passes_unchanged(survey: SkaLowSurvey) -> None:
    signal = torch.randn(2, 2, 16, 16, 32, generator=seeded(1))
    passed = torch.fft.fft2(survey(signal, seeded(2)) - noise_of(survey, 2, seed=2), dim=SKY)
    expected = torch.fft.fft2(signal, dim=SKY)
    seen = torch.zeros(2, 16, 16, dtype=torch.bool)
    seen[:, :, :9] = survey.mask[..., 0] > 0
    for channel in range(2):
        torch.testing.assert_close(
            passed[:, channel, seen[channel]], expected[:, channel, seen[channel]], atol=1e-2, rtol=0
        )


def test_baseline_cut_keeps_signal_to_noise(facts_survey: SkaLowSurvey) -> None:
    settings = SkaLow(integration=COARSE, polarisations=1, min_baseline=300.0, max_baseline=1200.0, sefd="818")
    cut = SkaLowSurvey(settings, (32, 32, 32), (4.0, 4.0, 4.0), (8.0,))
    signal = torch.randn(2, 1, 32, 32, 32, generator=seeded(1))
    whole, part = (torch.fft.rfft2(survey(signal, seeded(2)), dim=SKY) for survey in (facts_survey, cut))
    kept = cut.mask[0, :, :, 0] > 0
    assert 0 < kept.sum() < (facts_survey.mask > 0).sum()
    torch.testing.assert_close(part[:, :, kept], whole[:, :, kept], rtol=1e-4, atol=0.05)
    assert part[:, :, ~kept].abs().max() < 1e-5 * whole.abs().max()

    metres = 135.52 * np.hypot(*np.meshgrid(np.fft.fftfreq(32, 1 / 32), np.arange(17), indexing="ij"))
    assert not kept[torch.from_numpy((metres < 295) | (metres > 1205))].any()
    assert kept[torch.from_numpy((metres > 305) & (metres < 1195))].all()


def test_seeds(survey: SkaLowSurvey) -> None:
    first, again, other = (noise_of(survey, 1, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    before = torch.random.get_rng_state()
    noise_of(survey, 1, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_is_independent_between_slices_and_channels() -> None:
    survey = SkaLowSurvey(SkaLow(integration=COARSE), (16, 16, 32), (8.0, 8.0, 8.0), (8.0, 8.0))
    noise = noise_of(survey, 64) / survey.rms[0]
    assert noise[0].std().item() == pytest.approx(1, abs=0.05)
    # About 3e5 independent modes: 0.002 is one standard deviation.
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 0.01
    assert abs((noise[..., 1:] * noise[..., :-1]).mean()) < 0.01
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01


def test_mean_of_each_slice_is_lost(survey: SkaLowSurvey) -> None:
    signal = torch.randn(2, 2, 16, 16, 32, generator=seeded(1))
    raised = signal + torch.linspace(-30, 30, 32)
    observed = survey(raised, seeded(2))
    assert observed.mean(dim=SKY).abs().max() < 1e-4
    torch.testing.assert_close(observed, survey(signal, seeded(2)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"hours": 4000.0}, 0.5),
        ({"hours": 250.0}, 2.0),
        ({"polarisations": 1}, 2**0.5),
        ({"sefd": 4800.0}, 2.0),
        ({"sefd": ((100.0, 3600.0), (200.0, 1200.0))}, 1907.293 / 2400),
    ],
)
def test_scaling(changes: dict[str, object], factor: float) -> None:
    base = SkaLow(integration=600.0, sefd=2400.0)
    changed = SkaLow(**(base.model_dump() | changes))
    before, after = (mode_noise(settings, 16, 128.0, 8.0, 8.0) for settings in (base, changed))
    np.testing.assert_allclose(after, factor * before, rtol=1e-4)


def test_smaller_array_is_noisier() -> None:
    full, staged = (
        SkaLowSurvey(SkaLow(integration=600.0, layout=layout), (16, 16, 4), (8.0,) * 3, (8.0,)).rms[0]
        for layout in ("AA4", "AA*")
    )
    assert 1.4 < staged / full < 2.2  # evenly thinned it would be 512 / 307


def test_older_table_is_that_of_tools21cm() -> None:
    with np.errstate():
        from tools21cm import get_SEFD
    for redshift in (6.0, 8.0, 13.0, 20.0):
        frequency = 1420.40575 / (1 + redshift)
        theirs = get_SEFD(frequency, sefd_data="SKA1-LOW")
        assert system_flux(SkaLow(sefd="818"), redshift) == pytest.approx(theirs, rel=1e-6)
    with pytest.raises(ValueError, match=r"47\.3 MHz, outside the SEFD table"):
        system_flux(SkaLow(), 29.0)


def test_a_table_may_be_rounded_at_its_ends() -> None:
    """Redshifts 6 and 10 are at 202.915 and 129.128 MHz; the table of the docs was refused at the first."""
    table = ((129.2, 3290.0), (157.8, 3037.0), (202.9, 3579.0))
    assert system_flux(SkaLow(layout="LOFAR", sefd=table), 6.0) == pytest.approx(3579)
    assert system_flux(SkaLow(layout="LOFAR", sefd=table), 10.0) == pytest.approx(3290)
    with pytest.raises(ValueError, match=r"redshift 5\.9 is at 205\.9 MHz, outside the SEFD table \(129\.2 to "):
        system_flux(SkaLow(layout="LOFAR", sefd=table), 5.9)


def test_table_of_aavs2_is_the_mean_square_of_two_polarisations() -> None:
    """Stokes I is half the sum of two independent polarisations: its variance is half their mean."""
    with np.errstate():
        import tools21cm
    data = Path(tools21cm.__file__).parent / "input_data" / "AAVS2_sensitivity_ra0.00deg_dec_-30.00deg_0.00hours.txt"
    frequency, _, x, _, y, *_ = np.loadtxt(data).T
    within = (frequency > 50) & (frequency < 250)
    for nu, flux in zip(frequency[within], np.sqrt((x**2 + y**2) / 2)[within], strict=True):
        assert system_flux(SkaLow(sefd="aavs2"), 1420.40575 / nu - 1) == pytest.approx(flux, rel=1e-4)


def test_noise_power_of_the_older_design_over_that_of_aavs2() -> None:
    for redshift, ratio in ((7.0, 1.1), (8.0, 1.5), (10.0, 2.1)):
        new, old = (system_flux(SkaLow(**table), redshift) for table in ({}, {"sefd": "818"}))
        assert (old / new) ** 2 == pytest.approx(ratio, abs=0.05)
    assert system_flux(SkaLow(), 8.0) == pytest.approx(1974, abs=1)
    with pytest.raises(ValidationError, match=r'"aavs3" is not known: one of "aavs2", "818", "sky", a value in Jy'):
        SkaLow(sefd="aavs3")


def test_bundles_of_older_versions_keep_the_table_of_their_time() -> None:
    """They have null where the only table was meant, and count for keys as they did."""
    before = SkaLow().model_dump(mode="json") | {"sefd": None}
    assert TypeAdapter(SurveySettings).validate_python(before) == SkaLow(sefd="818")
    assert "sefd" not in survey_key(SkaLow(sefd="818"))
    assert survey_key(SkaLow())["sefd"] == "aavs2"


@pytest.mark.job
def test_import_and_tracks_leave_no_trace(tmp_path: Path) -> None:
    """No torch for the settings; no file, no output and no change of numpy's warnings by the tracks."""
    code = (
        "import sys, numpy\n"
        "before = numpy.geterr()\n"
        "from eorinfer.survey import SkaLow\n"
        "assert 'torch' not in sys.modules\n"
        "from eorinfer.survey.ska import uv_time\n"
        "uv_time(SkaLow(integration=3600.0), 8, 64.0, 8.0)\n"
        "assert numpy.geterr() == before\n"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_simple_surveys() -> None:
    clean = torch.randn(8, 1, 16, 16, 8, generator=seeded(1))
    assert torch.equal(build_survey(NoSurvey(), observable())(clean, seeded(2)), clean)
    white = build_survey(WhiteNoise(sigma=3.0), observable(unit="", axes=("channel", "x", "y", "z")))
    noise = white(clean, seeded(2)) - clean
    assert noise.std().item() == pytest.approx(3.0, rel=0.03)
    assert torch.equal(white(clean, seeded(2)) - clean, noise)
    assert not torch.allclose(white(clean, seeded(3)) - clean, noise)


def test_build_ska_low() -> None:
    settings = TypeAdapter(SurveySettings).validate_python({"kind": "ska-low", "integration": 600})
    survey = build_survey(settings, observable())
    assert survey(torch.zeros(2, 1, 16, 16, 8), seeded(0)).std() > 1
    with pytest.raises(ValueError, match=r"observes \(B, \*\(1, 16, 16, 8\)\)"):
        survey(torch.zeros(2, 1, 16, 16, 9), seeded(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "K"}, "is in K"),
        ({"unit": ""}, "is in no unit"),
        ({"shape": (1, 16, 16), "axes": ("redshift", "x", "y"), "cell_size": (8.0, 8.0)}, "has 2 cell axes"),
        ({"axes": ("wavelength", "x", "y", "z")}, "has channels along 'wavelength'"),
        ({"channels": (7.0, 8.0)}, "has channels along 'redshift'"),
        ({"shape": (1, 16, 8, 8)}, "square sky"),
    ],
)
def test_ska_low_refuses_other_cubes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_survey(SkaLow(integration=600.0), observable(**changes))


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "white-noise", "sigma": 0.0},
        {"kind": "ska-low", "hour": 1.0},
        {"kind": "ska-low", "min_baseline": 3000.0},
        {"kind": "ska-low", "layout": "AA2"},
        {"kind": "ska-low", "integration": 7200.0, "hours_per_day": 1.0},
        {"kind": "ska-low", "sefd": [[150.0, 2400.0], [140.0, 2600.0]]},
        {"kind": "ska-low", "sefd": [[150.0, 2400.0]]},
        {"kind": "none", "sigma": 1.0},
        {"kind": "hera"},
    ],
)
def test_settings_refuse(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SurveySettings).validate_python(table)


def test_settings_survive_json() -> None:
    settings = SkaLow(sefd=((100.0, 3203.0), (200.0, 2258.0)), layout="AA*")
    assert SkaLow.model_validate_json(settings.model_dump_json()) == settings
