"""What networks and power-spectrum likelihoods see of a separated map."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from eorinfer.core.arrays import state_hash
from eorinfer.core.errors import InputError
from eorinfer.separation.apply import draw_each, estimate, posterior
from eorinfer.separation.model import Separator
from eorinfer.separation.preprocessing import LineSeparation, LineSpectra
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.separation import PreprocessingSettings
from eorinfer.summaries.power import build_joint_power_spectrum
from tests.mocks import mock_bank, separator_spec


@pytest.fixture(scope="module")
def separator() -> Separator:
    torch.manual_seed(0)
    return Separator(separator_spec(mock_bank(), flow_steps=2))


def test_networks_see_means_draws_or_both(separator: Separator) -> None:
    observed = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    mean = estimate(separator, observed)
    image = mock_bank().observables[0]
    for what, count in [("mean", 2), ("draw", 2), ("both", 4)]:
        seen = LineSeparation(separator, "both", what)  # type: ignore[arg-type]
        made = seen(observed)
        assert made.shape == (3, 1 + count, 32, 32)
        torch.testing.assert_close(made[:, :1], observed)
        assert torch.allclose(made[:, 1:3], mean, atol=1e-4 * float(mean.std())) == (what != "draw")
        assert seen.observable(image).shape == (1 + count, 32, 32)
        assert len(seen.observable(image).channels) == 1 + count
        assert LineSeparation(separator, **seen.choices).digest() == seen.digest()  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["mean", "draw", "both"])
@pytest.mark.parametrize("kind", ["flow-matching", "cgan"])
def test_a_map_always_gives_the_same(what: Any, kind: str) -> None:
    """Draws had the noise of their place in the batch: training, validation and an observation had others."""
    torch.manual_seed(0)
    separator = Separator(separator_spec(mock_bank(), kind=kind, flow_steps=2))
    observed = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    seen = LineSeparation(separator, "lines", what)
    made = seen(observed)
    assert torch.equal(seen(observed), made)
    for again in (seen(observed.flip(0)).flip(0), torch.cat([seen(x[None]) for x in observed])):
        torch.testing.assert_close(again, made, rtol=1e-4, atol=1e-4 * float(made.std()))


@pytest.mark.parametrize("kind", ["flow-matching", "cgan"])
def test_draws_of_maps_together_are_those_of_each_alone(kind: str) -> None:
    torch.manual_seed(0)
    separator = Separator(separator_spec(mock_bank(), kind=kind, flow_steps=2))
    separator.correction.fresh.fill_(0.5)
    observed = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, draw = draw_each(separator, observed, [5, 6, 7])
    for i, seed in enumerate((5, 6, 7)):
        own_mean, own_draws = posterior(separator, observed[i : i + 1], 1, seed)
        for made, own in ((mean[i], own_mean[0]), (draw[i], own_draws[0, 0])):
            torch.testing.assert_close(made, own, rtol=1e-4, atol=1e-4 * float(own.std()))


def test_each_map_has_noise_of_its_own(separator: Separator) -> None:
    observed = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    made = LineSeparation(separator, "lines", "both")(observed)
    first, second = (made[:, 2:] - made[:, :2]).flatten(1).numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_a_posterior_from_before_there_was_a_choice_is_found(separator: Separator) -> None:
    old = state_hash(b"lines", sorted(separator.state_dict().items()))
    assert LineSeparation(separator, "lines").digest() == old
    others = {LineSeparation(separator, "lines", *more).digest() for more in [("draw",), ("both",), ("mean", "lines")]}
    assert len(others | {old}) == 4


def test_spectra_of_lines_have_their_cross_spectrum(separator: Separator) -> None:
    image = mock_bank().observables[0]
    joint = build_joint_power_spectrum(replace(image, shape=(2, *image.cells)), PowerSpectrumSettings(bins=4))
    observed = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    data = LineSpectra(LineSeparation(separator, "both", "both", "lines"), joint)(observed)
    lines = estimate(separator, observed)
    torch.testing.assert_close(data[:, :2], joint.spectrum(lines))
    cross = (data[:, 2] - data[:, 0] - data[:, 1]) / 2
    torch.testing.assert_close(cross, joint.spectrum.cross(lines[:, 0], lines[:, 1]))


def test_a_mean_alone_gives_networks_no_draws(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mean")
    torch.manual_seed(0)
    Separator(separator_spec(mock_bank(), kind="mean")).save(folder / "separator")
    settings = PreprocessingSettings(model=folder / "separator", estimate="draw")
    with pytest.raises(InputError, match='estimate = "draw": a separator of kind = "mean" makes no draws'):
        LineSeparation.from_settings(settings, mock_bank().observables[0], folder)
