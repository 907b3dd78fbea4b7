"""Draws of lines: coloured noise, the flow where residuals are Gaussian, the correction, and the scores of draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eorinfer.networks.subpixel import SubpixelUNet
from eorinfer.separation.calibration import sureness
from eorinfer.separation.correction import Correction
from eorinfer.separation.draw_scores import Draws, beam_limit, score_draws
from eorinfer.separation.flow import CONDITIONS, ResidualFlow
from eorinfer.separation.health import too_sure
from eorinfer.separation.spectra import ModeBins
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.power import PowerSpectrum, build_joint_power_spectrum
from tests.mocks import mock_bank


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def red(n: int, lines: int, cells: tuple[int, ...], seed: int, slope: float = -1.0) -> torch.Tensor:
    """Gaussian maps (n, lines, *cells) whose power falls with k."""
    axes = tuple(range(-len(cells), 0))
    k = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(c) * c for c in cells], indexing="ij")).square().sum(0).sqrt()
    white = torch.randn(n, lines, *cells, generator=generator(seed))
    return torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * (1 + k) ** (slope / 2), dim=axes).real


def velocity_network(lines: int) -> SubpixelUNet:
    """Network for one observed channel and the means of lines."""
    size = {"width": 4, "widest": 4}
    return SubpixelUNet(1 + 2 * lines, lines, ((2, 2),), (True, True), shared=1 + lines, conditions=CONDITIONS, **size)


# -- spectra ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [(16, 16), (8, 8, 6)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_white_noise_has_a_spectrum_of_one(cells: tuple[int, ...], mirrored: bool) -> None:
    bins = ModeBins(cells, (1.0,) * len(cells), mirrored=mirrored)
    spectra = bins.spectra(torch.randn(800, 2, *cells, generator=generator()), torch.ones(800, 1, *cells))
    assert spectra.shape == (bins.count, 2, 1)
    white = torch.randn(800, 2, *cells, generator=generator())
    power = bins.spectra(white, white)
    torch.testing.assert_close(power, torch.eye(2, dtype=power.dtype).expand_as(power), atol=0.2, rtol=0)


@pytest.mark.parametrize("cells", [(16, 16), (8, 8, 6)])
def test_a_filter_is_the_same_on_larger_maps(cells: tuple[int, ...]) -> None:
    """A plane wave that fits both maps is multiplied by the same number; so is the mean."""
    bins = ModeBins(cells, (0.5,) * len(cells))
    table = torch.rand(bins.count, 1, generator=generator())
    size = cells[0]
    for n in (size, 2 * size):
        x = torch.arange(n).view(n, 1, *(1,) * (len(cells) - 2)).expand(n, n, *cells[2:])
        wave = torch.cos(2 * torch.pi * 3 * x / size)[None, None]
        gain = table[bins.number[3 * (len(bins.number) // size)], 0]
        torch.testing.assert_close(bins.filtered(wave, table), gain * wave, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(bins.filtered(torch.ones_like(wave), table), table[0, 0] * torch.ones_like(wave))


@pytest.mark.parametrize("cells", [(16, 12), (8, 8, 6)])
def test_a_mirrored_filter_sees_no_step_at_the_edge(cells: tuple[int, ...]) -> None:
    """A ramp has little power at small scales, where its other side has a step; filters are undone."""
    bins = ModeBins(cells, (1.0,) * len(cells), mirrored=True)
    maps = torch.randn(2, 2, *cells, generator=generator())
    table = 0.5 + torch.rand(bins.count, 2, generator=generator())
    made = bins.filtered(maps, table)
    torch.testing.assert_close(bins.filtered(made, table, inverse=True), maps, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bins.filtered(maps.flip(2), table), made.flip(2), atol=1e-4, rtol=1e-4)
    ramp = torch.arange(cells[0], dtype=torch.float32).view(-1, *(1,) * (len(cells) - 1)).expand(cells)[None, None]
    power = {}
    for name, some in (("mirror", bins), ("other side", ModeBins(cells, (1.0,) * len(cells)))):
        spectrum = some.spectra(ramp, ramp)[:, 0, 0]
        power[name] = float(spectrum[len(spectrum) // 2 :].mean() / spectrum.max())
    assert power["mirror"] < 0.2 * power["other side"]


@pytest.mark.parametrize("steps", [1, 4])
def test_power_lost_on_the_way_is_given_back(steps: int) -> None:
    """A velocity that loses power at each step leaves it as it was, for maps that the factors were not fitted on."""
    bins = ModeBins((16, 16), (1.0, 1.0), mirrored=True)
    flow = ResidualFlow(velocity_network(1), 1, bins, steps)
    noise = [flow.noise((200, 1, 16, 16), generator(i)) for i in (1, 2)]
    flow.integrated(lambda z, time: -0.3 * z, noise[0], fit=True)
    made = flow.integrated(lambda z, time: -0.3 * z, noise[1])
    ratio = bins.spectra(made, made) / bins.spectra(noise[1], noise[1])
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_coloured_noise_has_the_power_and_cross_power_that_it_is_made_with() -> None:
    lines = red(400, 1, (16, 16), 1)
    residuals = torch.cat([lines, -0.5 * lines], 1)
    bins = ModeBins((16, 16), (1.0, 1.0))
    flow = ResidualFlow(velocity_network(2), 2, bins, 3)
    flow.fit(residuals)
    noise = flow.residuals(flow.noise((400, 2, 16, 16), generator(2)))
    torch.testing.assert_close(noise[:, 1], -0.5 * noise[:, 0], atol=1e-3, rtol=1e-3)
    ratio = bins.spectra(noise, noise)[:, 0, 0] / bins.spectra(residuals, residuals)[:, 0, 0]
    assert (ratio[1:] - 1).abs().max() < 0.15
    torch.testing.assert_close(flow.residuals(flow.white(residuals)), residuals, atol=1e-5, rtol=1e-4)


def test_gaussian_residuals_need_no_network() -> None:
    """A network gives zero at first, leaves the noise as it is, and what it is to learn has a variance of one."""
    bins = ModeBins((16, 16), (1.0, 1.0))
    flow = ResidualFlow(velocity_network(1), 1, bins, 3)
    noise = flow.noise((50, 1, 16, 16), generator())
    context, white = torch.zeros(400, 2, 16, 16), torch.randn(400, 1, 16, 16, generator=generator(3))
    with torch.no_grad():
        made = flow.integrated(lambda z, time: flow.velocity(context[:50], z, time), noise)
        losses = flow.losses(context, white, generator())
    torch.testing.assert_close(made, noise)
    assert losses.mean().item() == pytest.approx(1.0, abs=0.02)


def test_a_known_residual_is_reached() -> None:
    """The velocity at z is (y1 - sin(a) z) / cos(a) where the residual is known, and leads to it."""
    wanted = torch.randn(3, 1, 16, 16, generator=generator())

    def velocity(z: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        angle = torch.atan2(time, 1 - time)[:, None, None, None]
        return (wanted - angle.sin() * z) / angle.cos()

    errors = []
    for steps in (10, 40):
        flow = ResidualFlow(velocity_network(1), 1, ModeBins((16, 16), (1.0, 1.0)), steps)
        made = flow.integrated(velocity, flow.noise((3, 1, 16, 16), generator(2)))
        errors.append((made - wanted).std().item())
    assert errors[0] < 0.2
    assert errors[1] < 0.3 * errors[0]


# -- correction ------------------------------------------------------------------------------------


def corrected(noise: float, error: float) -> tuple[torch.Tensor, ...]:
    """Exact draws of two Gaussian lines in their sum with noise, with errors added, before and after correction."""
    cells, n = (16, 16), 300
    bins = ModeBins(cells, (1.0, 1.0))
    correction = Correction(bins, (0, 0), 1)
    power = torch.ones(bins.count, 2, dtype=torch.float64)
    power[:, 0] = bins.spectra(red(2000, 1, cells, 9), red(2000, 1, cells, 9))[:, 0, 0]
    lines = torch.cat([red(n, 1, cells, 1), torch.randn(n, 1, *cells, generator=generator(2))], 1)
    observed = lines.sum(1, keepdim=True) + noise * torch.randn(n, 1, *cells, generator=generator(3)) + 0.3
    gain = (power / (power.sum(1, keepdim=True) + noise**2)).float()
    mean = bins.filtered((observed - 0.3).expand(-1, 2, -1, -1), gain)
    # A constrained realisation: lines that are drawn anew, moved to the observation.
    draws = []
    for i in range(2):
        new = torch.cat([red(n, 1, cells, 20 + i), torch.randn(n, 1, *cells, generator=generator(30 + i))], 1)
        rest = (
            observed - 0.3 - new.sum(1, keepdim=True) - noise * torch.randn(n, 1, *cells, generator=generator(40 + i))
        )
        draws.append(new + bins.filtered(rest.expand(-1, 2, -1, -1), gain))
    exact = torch.stack(draws)
    raw = mean + 0.7 * (exact - mean) + error * torch.randn(exact.shape, generator=generator(7)) if error else exact
    correction.fit_mean(observed, lines, mean)
    mean = correction.of_mean(observed, mean)
    correction.fit_draws(observed, lines, mean, raw, generator())
    made = torch.stack([correction.of_draw(observed, mean, draw, generator(8)) for draw in raw])
    return observed - 0.3, lines, mean, raw, made


def test_lines_of_a_draw_add_up_where_there_is_no_noise() -> None:
    observed, lines, mean, raw, made = corrected(0.0, 0.2)
    assert (observed[:, 0] - raw.sum(2)).std() > 0.2
    assert (observed[:, 0] - made.sum(2)).abs().max() < 1e-5
    assert (observed[:, 0] - mean.sum(1)).abs().max() < 1e-5
    ratio = (made - mean).square().mean() / (lines - mean).square().mean()
    assert ratio.item() == pytest.approx(1.0, abs=0.03)


def test_the_rest_of_a_draw_is_like_the_noise() -> None:
    noise = 0.5
    observed, lines, mean, raw, made = corrected(noise, 0.4)
    assert (observed[:, 0] - raw.sum(2)).std() > 1.2 * noise
    assert (observed[:, 0] - made.sum(2)).std().item() == pytest.approx(noise, rel=0.03)
    for line in range(2):
        wanted = (lines - mean)[:, line].square().mean().item()
        assert (made - mean)[:, :, line].square().mean().item() == pytest.approx(wanted, rel=0.05)


def test_draws_of_a_posterior_are_left_alone() -> None:
    _, _, mean, raw, made = corrected(0.5, 0.0)
    assert (made - raw).square().mean() < 0.02 * (raw - mean).square().mean()


# -- scores ----------------------------------------------------------------------------------------


def posterior_draws(spread: float) -> tuple[np.ndarray, Draws]:
    """Two lines whose sum is observed: Gaussian truths and draws about known means, drawn `spread` as wide."""
    mean = red(200, 1, (16, 16), 1, slope=-2.0) + 5
    several = 0.5 * red(9 * 200, 1, (16, 16), 2).view(9, 200, 1, 16, 16)
    true = torch.cat([mean + several[0], -several[0] - mean], 1)
    lines = torch.stack([torch.cat([mean + spread * one, -spread * one - mean], 1) for one in several[1:]])
    zero = np.zeros((200, 1, 16, 16), np.float32)
    both = torch.cat([mean, -mean], 1).numpy()
    return true.numpy(), Draws(both, lines.numpy(), zero, np.stack([zero] * 8))


@pytest.mark.parametrize(("spread", "uniform"), [(1.0, True), (0.6, False), (1.6, False)])
def test_ranks_tell_draws_that_are_too_sure_or_too_wide(spread: float, uniform: bool) -> None:
    true, draws = posterior_draws(spread)
    image = replace(mock_bank().observables[0], shape=(1, 16, 16), cell_size=(1.0, 1.0))
    found = score_draws(true, draws, image, PowerSpectrum((16, 16), (16.0, 16.0), n_bins=5), ["a", "b"])
    assert (found["p_holm"] > 0.01) == uniform
    line = found["lines"]["a"]
    assert line["mean"] == pytest.approx(1.0, abs=0.01)
    power = np.array(line["power"])[np.array(found["above_beam"])]
    assert (abs(power - 1) < 0.05).all() == uniform
    assert found["rest"] is None
    assert found["sum"] == 0
    sure = sureness(torch.from_numpy(true), torch.from_numpy(draws.lines), ["a", "b"])
    # Of 200 means of maps the ratio is known to about 5%.
    for quantity, error in [("pixels", 0.05), ("map mean", 0.15)]:
        assert sure["a"][quantity] == pytest.approx((2 * spread**2 / (1 + spread**2)) ** 0.5, rel=error)
    said = too_sure(sure)
    if spread == 1:
        assert said == []
    if spread < 1:
        assert len(said) == 2
        assert said[0].startswith("draws of a are too sure: pixels (0.")
        assert "map mean (0." in said[0]


def test_the_beam_ends_what_is_scored() -> None:
    image = mock_bank().observables[0]
    size = image.cell_size[0]
    assert beam_limit(image) == pytest.approx(np.pi / size)
    smoothed = replace(image, smoothing=1.6)  # two pixels
    assert beam_limit(smoothed) == pytest.approx(np.sqrt(np.log(100)) / (2 * size))


def test_joint_spectra_are_auto_and_cross_spectra() -> None:
    image = replace(mock_bank().observables[0], shape=(2, 32, 32))
    joint = build_joint_power_spectrum(image, PowerSpectrumSettings(bins=4))
    maps = red(3, 2, (32, 32), 1)
    power = joint(maps)
    cross = joint.spectrum.cross(maps[:, 0], maps[:, 1])
    assert power.shape == (3, 3, len(joint.spectrum.k))
    torch.testing.assert_close(power[:, 2], power[:, 0] + power[:, 1] + 2 * cross)
