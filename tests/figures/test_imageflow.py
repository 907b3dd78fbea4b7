"""Images of a flow beside real ones: what the comparison says, and how the picture is labelled."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from eorinfer.figures.imageflow import Images, compare_images, comparison_line, images_figure
from simulators import GaussianField

FIELD = replace(GaussianField(cells=16, box_length=16.0).observables[0], unit="mK")


def white(n: int, sd: float, seed: int) -> np.ndarray:
    return (sd * np.random.default_rng(seed).standard_normal((n, 1, 16, 16))).astype(np.float32)


def test_power_and_cells_are_compared() -> None:
    """White noise of twice the standard deviation has four times the power, and other cells by a known amount."""
    images = Images("bright", white(400, 2.0, 1), white(400, 1.0, 2))
    content = compare_images(images, FIELD)
    (channel,) = content["channels"]
    np.testing.assert_allclose(channel["ratio"], 4.0, rtol=0.1)
    errors = (np.array(channel["ratio"]) / 4 - 1) / channel["ratio_error"]
    assert np.abs(errors).max() < 4
    farthest = np.sqrt(8 * np.log(2) / 3)  # where the two densities agree
    assert channel["ks"] == pytest.approx(norm.cdf(farthest) - norm.cdf(farthest / 2), abs=0.006)
    assert comparison_line(images, content).startswith("bright: P(k) within 3")


def test_labels_of_the_picture() -> None:
    images = Images("x_HI = 0.3, outside of training", white(4, 1.0, 1), white(4, 1.0, 3))
    figure = images_figure([images], [compare_images(images, FIELD)], FIELD)
    titles = [axis.get_title() for axis in figure.axes]
    assert "generated, x_HI = 0.3, outside of training" in titles
    assert "$P(k)$, mK² Mpc$^2$" in titles
    assert [axis.get_xlabel() for axis in figure.axes if axis.get_title() == "distribution of the cells"] == ["mK"]
