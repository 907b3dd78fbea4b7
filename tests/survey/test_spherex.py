"""SPHEREx: noise against numbers worked out from the public table, shared channels, beam and masks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from eorinfer.survey import SphereX, build_survey, check_survey
from simulators import GaussianField, build
from simulators.base import Observable

SLAB = build({"kind": "lim-mock", "mass_min": 12.0}).observables[0]
CUBES = build({"kind": "lim-mock", "geometry": "cubes", "mass_min": 12.0, "pixels": 16}).observables[0]


def observe(observable: Observable, clean: torch.Tensor | None = None, n: int = 4, **settings: Any) -> torch.Tensor:
    survey = build_survey(SphereX(**settings), observable)
    start = torch.zeros(n, *observable.shape) if clean is None else clean
    observed: torch.Tensor = survey(start, torch.Generator().manual_seed(1))
    assert observed.shape == start.shape
    assert observed.dtype == start.dtype
    return observed


@pytest.mark.parametrize(
    ("field", "pixel", "expected"),
    [("deep", 0.4, 1.21e-2), ("deep", 1.6, 3.04e-3), ("all-sky", 0.4, 8.80e-2), ("all-sky", 0.8, 4.40e-2)],
)
def test_noise_at_one_and_a_half_micrometres(field: str, pixel: float, expected: float) -> None:
    """In-band, nW/m^2/sr, falling with the side of a pixel."""
    observable = replace(SLAB, field_of_view=256 * pixel / 60)
    assert observe(observable, field=field).std().item() == pytest.approx(expected, rel=0.01)
    assert observe(observable, field=field, nyquist=True).std().item() == pytest.approx(2**0.5 * expected, rel=0.01)


@pytest.mark.parametrize(
    ("wavelength", "resolution", "expected"),
    # Of the table's own channels: nu I_nu of 1.78 over 41 at 1.509 um, of 1.17 over 130 at 4.6 um.
    [(1.509, 41.0, 1.0), (1.509, 0.0, 1.0), (1.509, 164.0, 0.5), (4.6, 130.0, 1.0), (4.6, 41.0, (130 / 41) ** 0.5)],
)
def test_noise_is_that_of_the_width_of_the_channels(wavelength: float, resolution: float, expected: float) -> None:
    """Independent noise adds up in power: a channel of four times the width has twice the in-band noise."""
    own = replace(SLAB, channels=(wavelength,), resolution=0.0)
    other = replace(own, resolution=resolution)
    assert observe(other).std().item() == pytest.approx(expected * observe(own).std().item(), rel=1e-4)


def test_line_mocks_say_the_width_of_their_channels() -> None:
    for geometry in ("slab", "cubes"):
        settings = {"kind": "lim-mock", "mass_min": 12.0, "geometry": geometry, "pixels": 16, "resolution": 60.0}
        assert {o.resolution for o in build(settings).observables} == {60.0}


def test_common_channels_have_the_same_noise() -> None:
    observed = observe(CUBES, n=30)
    a, b = observed[:, 0], observed[:, 1]
    assert torch.equal(a[..., :5], b[..., 11:])
    rest = torch.corrcoef(torch.stack([a[..., 5:].flatten(), b[..., :11].flatten()]))[0, 1]
    assert abs(rest) < 0.02
    # 1.168 and 1.680 um: nu I_nu of 2.585 and 1.7515 over 41, in pixels of 1.6 arcmin.
    for cube, slice_, expected in ((b, 0, 2.585), (a, 4, 1.7515)):
        sigma = expected / 41 * 6.2 / 96
        assert cube[..., slice_].std().item() == pytest.approx(sigma, rel=0.04)


def test_three_cubes_are_one_run_of_channels() -> None:
    """Data that two cubes share are the same data, whichever of the cubes they are; noise is that of each channel."""
    three = build({"kind": "lim-mock", "geometry": "cubes", "cubes": 3, "mass_min": 12.0, "pixels": 16}).observables[0]
    assert three.channels[2] / three.channels[0] == pytest.approx(three.channels[0] / three.channels[1])
    a, b, c = observe(three, torch.zeros(20, *three.shape)).unbind(1)
    assert torch.equal(a[..., :5], b[..., 11:])
    assert torch.equal(c[..., :5], a[..., 11:])
    first_two = observe(CUBES, torch.zeros(20, *CUBES.shape))
    assert a.std().item() == pytest.approx(first_two[:, 0].std().item(), rel=0.02)
    # The continuum's fit is to all channels: with a flat spectrum nothing is left in any cube.
    flat = noiseless(three, torch.ones(1, *three.shape), continuum={"mean": 1e-9, "order": 0})
    assert flat.abs().max() < 1e-5


def test_the_beam_keeps_the_mean_and_has_its_width() -> None:
    point = torch.zeros(1, *SLAB.shape)
    point[0, 0, 128, 100] = 1.0
    survey = build_survey(SphereX(beam=120.0), SLAB)
    survey._sigma.zero_()
    seen = survey(point, torch.Generator()).double()[0, 0]
    assert seen.sum().item() == pytest.approx(1.0, abs=1e-4)
    x = (torch.arange(256) - 128) * 0.4
    second = (seen.sum(1) * x**2).sum() / seen.sum()
    assert second.sqrt().item() == pytest.approx(2.0 / 2.3548, rel=0.01)
    edge = torch.zeros(1, *SLAB.shape)
    edge[0, 0, 0, 128] = 1.0
    assert survey(edge, torch.Generator())[0, 0, -10:].abs().max() < 1e-6, "nothing comes out at the other side"


def test_smoothing_acts_on_noise_too() -> None:
    rough, smooth = observe(SLAB), observe(SLAB, smoothing=1.2)
    # White noise under a Gaussian of sigma s pixels: variance over 4 pi s^2.
    s = 1.2 / 2.3548 / 0.4
    assert (smooth.std() / rough.std()).item() == pytest.approx(1 / (2 * np.sqrt(np.pi) * s), rel=0.03)


def test_masks() -> None:
    clean = torch.ones(40, *SLAB.shape)
    stars = observe(SLAB, clean, stars=200.0, star_radius=1.0) == 0
    area = np.pi * 1.0**2 * 200 / 3600
    assert stars.float().mean().item() == pytest.approx(1 - np.exp(-area), rel=0.1)
    dead = observe(SLAB, clean, dead_pixels=0.1) == 0
    assert dead.float().mean().item() == pytest.approx(0.1, rel=0.02)
    masked = observe(CUBES, torch.ones(8, *CUBES.shape), stars=100.0, star_radius=2.0) == 0
    assert torch.equal(masked[:, 0, ..., 0], masked[:, 1, ..., 7]), "a star hides all channels"


def test_a_table_of_ones_own(tmp_path: Any) -> None:
    path = tmp_path / "noise.txt"
    path.write_text("1.0 4 2 50\n2.0 4 2 50\n")
    observed = observe(replace(SLAB, resolution=50.0), table=str(path))
    assert observed.std().item() == pytest.approx(2 / 50 * 6.2 / 24, rel=0.02)
    path.write_text("1.0 4 2\n")
    with pytest.raises(ValueError, match="expected rows of rising wavelength"):
        check_survey(SphereX(table=str(path), field="deep"), replace(SLAB, channels=(1.5,)))


@pytest.mark.parametrize(
    ("observable", "message"),
    [
        (GaussianField().observables[0], "'field' is in no unit, with channels along 'channel'"),
        (replace(SLAB, channels=(0.7,)), r"a channel at 0\.700 um: the noise is known from 0\.75 to 4\.9965"),
        (replace(SLAB, field_of_view=0.0), "has no field of view"),
        (replace(CUBES, coordinates=()), "a cube needs the redshift of each slice"),
        (replace(CUBES, channels=(1.5, 1.2)), r"are 9\.15 channels apart"),
        (replace(CUBES, channels=(1.5, 1.5)), r"are 0\.00 channels apart"),
        (replace(CUBES, channels=(1.5, 1.5 * np.exp(-17 / 41))), r"have 16 channels are 17\.00 channels apart.*no gap"),
    ],
)
def test_what_it_cannot_observe(observable: Observable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_survey(SphereX(), observable)


def test_noise_is_smoothed_as_the_lines_were() -> None:
    """The lines come smoothed from the simulator, and are not smoothed again."""
    smooth = replace(SLAB, smoothing=1.2)
    # White noise under a Gaussian of s pixels: standard deviation over 2 sqrt(pi) s.
    ratio = (observe(smooth).std() / observe(SLAB).std()).item()
    assert ratio == pytest.approx(1 / (2 * np.sqrt(np.pi) * 3), rel=0.03)
    point = torch.zeros(1, *SLAB.shape)
    point[0, 0, 100, 100] = 1e3
    signals = [observe(o, point) - observe(o, torch.zeros_like(point)) for o in (SLAB, smooth)]
    torch.testing.assert_close(*signals, rtol=0, atol=1e-3)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_smooth_continuum_leaves_what_the_polynomial_cannot_follow(order: int) -> None:
    """Without scatter of the slope every pixel has the same spectrum, whose residual is known."""
    table = {"mean": 2.0, "fluctuation": 0.0, "slope": -1.0, "slope_scatter": 0.0, "order": order, "channels": 6}
    quiet = {"continuum": table, "beam": 0.0}
    left = noiseless(SLAB, **quiet)
    x = np.array([i / 41 for i in range(-6, 7) if i])
    expected = 2.0 * (1 - np.polyval(np.polyfit(x, np.exp(-x), order), 0.0))
    np.testing.assert_allclose(left.numpy(), expected, rtol=2e-3, atol=3e-6)
    cubes = noiseless(CUBES, **quiet)
    # Both cubes together have 27 channels, A the last 16.
    depth = np.log(np.concatenate([wavelengths(CUBES, 1)[:11], wavelengths(CUBES, 0)]))
    depth -= depth.mean()
    residual = 2.0 * (np.exp(-depth) - np.polyval(np.polyfit(depth, np.exp(-depth), order), depth))
    np.testing.assert_allclose(cubes[0, 0, 3, 5].numpy(), residual[11:], atol=1e-5)
    np.testing.assert_allclose(cubes[0, 1, 3, 5].numpy(), residual[:16], atol=1e-5)


def test_the_fit_takes_smooth_modes_of_the_lines_and_adds_the_noise_of_other_channels() -> None:
    faint = {"mean": 1e-9, "order": 1, "channels": 4}
    flat = torch.ones(1, *CUBES.shape)
    assert noiseless(CUBES, flat, continuum=faint).abs().max() < 1e-5
    assert noiseless(SLAB, torch.ones(1, *SLAB.shape), continuum=faint).mean().item() == pytest.approx(1.0, abs=1e-5)
    # The value of a line at the middle of eight channels is their mean.
    ratio = (observe(SLAB, continuum=faint).std() / observe(SLAB).std()).item()
    assert ratio == pytest.approx(np.sqrt(1 + 1 / 8), rel=0.01)
    with pytest.raises(ValueError, match=r"order = 5: there are 6 channels to fit, and it takes 7"):
        check_survey(SphereX(continuum={"order": 5, "channels": 3}), SLAB)


def test_fluctuations_of_the_continuum() -> None:
    """Order 0 of a constant spectrum is subtracted; of one of known slope what is left follows the light of pixels."""
    assert noiseless(CUBES, continuum={"slope": 0.0, "slope_scatter": 0.0, "order": 0}).abs().max() < 1e-6
    table = {"mean": 1.0, "fluctuation": 0.2, "slope": -2.0, "slope_scatter": 0.0, "order": 0, "index": -1.0}
    left = noiseless(CUBES, n=30, continuum=table, beam=0.0)[:, 0, ..., -1]
    assert (left.std() / left.mean()).abs().item() == pytest.approx(0.2, rel=0.1)


def wavelengths(observable: Observable, cube: int) -> np.ndarray[Any, Any]:
    z = np.array(observable.coordinates)
    return np.asarray(observable.channels[cube] * (1 + z) / (1 + z[0]))


def noiseless(observable: Observable, clean: torch.Tensor | None = None, n: int = 1, **settings: Any) -> torch.Tensor:
    survey = build_survey(SphereX(**settings), observable)
    survey._sigma.zero_()
    start = torch.zeros(n, *observable.shape) if clean is None else clean
    return survey(start, torch.Generator().manual_seed(1))
