"""Images at posterior samples beside the observed one, and the noise beside its power."""

import numpy as np
import pytest
import torch

from eorinfer.cubes.observation import Observation
from eorinfer.figures.predictive import noise_power, observed_power, predictive_figure, predictive_images
from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.settings.survey import WhiteNoise
from eorinfer.summaries.power import build_power_spectrum
from eorinfer.survey import build_survey
from eorinfer.survey.base import Survey
from simulators import Coeval, GaussianField, LightCone, Observable

FLAT = GaussianField(cells=16, box_length=16.0).observables[0]
COEVAL = Coeval(redshifts=(7.0, 8.5), cells=8, box_length=40.0).observables[0]
CONE = LightCone(cells=8, box_length=64.0, frequency_range=(150.0, 160.0), channels=20).observables[0]


@pytest.mark.parametrize(("observable", "rows"), [(FLAT, 1), (COEVAL, 2), (CONE, 1)], ids=["flat", "coeval", "cone"])
def test_images_and_their_difference(observable: Observable, rows: int) -> None:
    survey = build_survey(WhiteNoise(kind="white-noise", sigma=1e-6), observable)
    clean = np.random.default_rng(1).standard_normal((3, *observable.shape)).astype(np.float32)
    observation = Observation.from_observable(observable, clean[0])
    figure = predictive_images(clean, observation, survey, observable, 1)
    images = [np.asarray(image.get_array()) for axis in figure.axes for image in axis.images]
    assert len(images) == 4 * rows
    np.testing.assert_allclose(images[0], images[1], atol=1e-4)
    np.testing.assert_allclose(images[3], 0, atol=1e-4)
    assert len({image.get_clim() for axis in figure.axes for image in axis.images}) == 1
    assert [axis.get_ylabel() for axis in figure.axes][-1] == (observable.unit or "value")


def test_power_of_the_noise() -> None:
    survey = build_survey(WhiteNoise(kind="white-noise", sigma=0.5), FLAT)
    settings = PowerSpectrumSettings(bins=4)
    spectrum = build_power_spectrum(FLAT, settings)
    expected = spectrum.k.numpy() ** 2 / (2 * np.pi) * 0.25  # cells of 1 Mpc²
    noise = noise_power(spectrum, FLAT, survey, 1)
    np.testing.assert_allclose(noise[0], expected, rtol=0.05)
    observation = Observation.from_observable(FLAT, np.zeros(FLAT.shape, np.float32))
    power = observed_power(observation, survey, FLAT, settings, 1)
    assert power["observed"] == [[0.0] * 4]
    assert sum(power["modes"]) == (16 * 16 - 1) / 2


def test_chunks_of_a_light_cone_are_named_by_their_redshifts() -> None:
    survey, settings = build_survey(WhiteNoise(kind="white-noise", sigma=0.5), CONE), PowerSpectrumSettings(chunks=2)
    clean = np.random.default_rng(1).standard_normal((20, *CONE.shape)).astype(np.float32)
    clean[..., 10:] *= 10
    observation = Observation.from_observable(CONE, clean[0])
    power = observed_power(observation, survey, CONE, settings, 1)
    # the means of the redshifts of 150 to 155 and of 155 to 160 MHz
    assert power["channels"] == ["z = 8.31", "z = 8.02"]
    low, high = np.array(power["observed"])
    assert (high > 20 * low).all()
    figure, check = predictive_figure(clean, observation, survey, CONE, settings, 1, power["noise"])
    assert [axis.get_title() for axis in figure.axes] == power["channels"]
    assert check["bins_inside"] > 0.8


class Counted(Survey):
    """White noise that counts the cubes that it observes."""

    def __init__(self) -> None:
        super().__init__()
        self.cubes = 0

    def forward(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        self.cubes += len(clean)
        return clean + 0.5 * torch.randn(clean.shape, generator=generator)


def test_the_noise_is_drawn_once_for_its_power_and_its_picture() -> None:
    """Up to 1,024 draws of it were made a second time for the picture."""
    survey, settings = Counted(), PowerSpectrumSettings(bins=4)
    clean = np.random.default_rng(1).standard_normal((20, *FLAT.shape)).astype(np.float32)
    observation = Observation.from_observable(FLAT, clean[0])
    noise = observed_power(observation, survey, FLAT, settings, 1)["noise"]
    before = survey.cubes
    figure, _ = predictive_figure(clean, observation, survey, FLAT, settings, 1, noise)
    assert survey.cubes - before == len(clean)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "noise"]
    np.testing.assert_allclose(line.get_ydata(), noise[0])
    without, _ = predictive_figure(clean, observation, survey, FLAT, settings, 1)
    assert not [line for line in without.axes[0].lines if line.get_label() == "noise"]
