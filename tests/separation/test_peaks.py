"""Peaks, their matches and the scores: against brute force, and on maps whose scores are known."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eorinfer.separation.calibration import peak_thresholds
from eorinfer.separation.draw_scores import Draws
from eorinfer.separation.peaks import Counts, Peaks, best_threshold, count, find_peaks, matches
from eorinfer.separation.scores import Maps, score
from simulators import Observable, Symmetry

IMAGE = Observable(
    "total", (1, 32, 32), "nW/m^2/sr", ("wavelength", "x", "y"), (1.0, 1.0), (1.5,), Symmetry((False, False), "all")
)


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.0])
def test_peaks_are_the_highest_within_the_radius(radius: float) -> None:
    image = np.random.default_rng(1).normal(size=(20, 24))
    cells = list(np.ndindex(image.shape))
    expected = [
        c for c in cells if all(image[c] >= image[o] for o in cells if np.hypot(c[0] - o[0], c[1] - o[1]) <= radius)
    ]
    peaks = find_peaks(image, radius)
    assert {tuple(p) for p in peaks.position.astype(int).tolist()} == set(expected)
    assert (np.diff(peaks.height) <= 0).all()
    np.testing.assert_array_equal(peaks.height, image[tuple(peaks.position.astype(int).T)])
    assert len(peaks.above(1.0)) == sum(image[c] > 1.0 for c in expected)


def test_empty_pixels_are_no_peaks() -> None:
    image = np.zeros((16, 16))
    assert len(find_peaks(image, 3).height) == 0
    image[4, 5] = 1.0
    assert find_peaks(image, 3).position.tolist() == [[4.0, 5.0]]


def brute_force(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> int:
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) < radius
    few, many = (near, len(b)) if len(a) <= len(b) else (near.T, len(a))
    return max(sum(few[i, j] for i, j in enumerate(chosen)) for chosen in itertools.permutations(range(many), len(few)))


@pytest.mark.parametrize("seed", range(12))
def test_matches_are_as_many_as_there_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 20, (rng.integers(1, 6), 2)), rng.uniform(0, 20, (rng.integers(1, 7), 2))
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) < 6
    assert matches(a, b, 6.0) == (brute_force(a, b, 6.0), near.sum())
    assert matches(a, b[:0], 6.0) == (0, 0)


def test_peaks_at_the_radius_itself_are_no_pair() -> None:
    """As in the published count, which asks for a distance of less than ten pixels."""
    a, b = np.array([[20.0, 20.0]]), np.array([[30.0, 20.0]])
    assert matches(a, b, 10.0) == (0, 0)
    assert matches(a, b - 0.01, 10.0) == (1, 1)


def test_the_radius_is_in_arcmin() -> None:
    """Two pixels of 2 arcmin apart: a radius of 5 arcmin holds both, one of 3 arcmin does not."""
    true = np.zeros((2, 1, 32, 32), np.float32)
    true[:, 0, 8, 8] = true[:, 0, 20, 20] = 1.0
    made = np.roll(true, 2, axis=2)
    image = replace(IMAGE, field_of_view=32 * 2.0 / 60)
    for radius, found in ((5.0, 1.0), (3.0, 0.0)):
        maps = Maps(true, {"moved": made}, 0 * true, (0,), np.ones(1))
        rows = score(maps, image, ["ha"], radius)["lines"]["ha"]["peaks"]["moved"]
        assert rows[0]["precision"] == rows[0]["legacy_recall"] == found
    with pytest.raises(ValueError, match=r"a peak radius of 1\.5 arcmin is less than a pixel, 2 arcmin"):
        score(maps, image, ["ha"], 1.5)


def test_one_to_one_and_the_authors_pairs() -> None:
    """Three peaks found about one true one are one that is right and two that are not; as pairs all three are right."""
    true = Peaks(np.array([[10.0, 10.0], [40.0, 40.0]]), np.array([5.0, 4.0]))
    found = Peaks(np.array([[10.0, 12.0], [12.0, 10.0], [14.0, 10.0]]), np.array([9.0, 8.0, 7.0]))
    counts = count([true], [found], 10.0, 3.0, 3.0)
    assert counts == Counts(2, 3, 1, 3)
    assert counts.rates() == {"precision": 1 / 3, "recall": 0.5, "legacy_precision": 1.0, "legacy_recall": 1.5}
    assert count([true], [found], 10.0, 4.5, 8.5) == Counts(1, 1, 1, 1)
    assert np.isnan(count([true], [found], 10.0, 9.0, 3.0).rates()["recall"])


def test_the_best_threshold_divides_right_peaks_from_wrong_ones() -> None:
    rng = np.random.default_rng(5)
    places = np.stack(np.meshgrid(np.arange(0, 200, 20), np.arange(0, 200, 20)), -1).reshape(-1, 2).astype(float)
    true = Peaks(places[:40], np.full(40, 5.0))
    # Those at the true places are higher than 2, the other ones lower.
    height = np.where(np.arange(100) < 40, 2.0, 0.0) + rng.uniform(0.1, 1.9, 100)
    order = np.argsort(-height)
    threshold = best_threshold([true], [Peaks(places[order], height[order])], 5.0, 3.0)
    assert height[40:].max() < threshold < height[:40].min()
    assert best_threshold([true], [Peaks(np.empty((0, 2)), np.empty(0))], 5.0, 3.0) == np.inf
    # Where right and wrong ones overlap: against every threshold there is.
    height = np.where(np.arange(100) < 40, 1.0, 0.0) + rng.uniform(0.1, 1.9, 100)
    order = np.argsort(-height)
    found = Peaks(places[order], height[order])
    rates = [count([true], [found], 5.0, 3.0, level - 1e-9).rates() for level in height]
    recall = max(r["legacy_recall"] for r in rates if r["legacy_precision"] >= 0.8)
    chosen = count([true], [found], 5.0, 3.0, best_threshold([true], [found], 5.0, 3.0, precision=0.8)).rates()
    assert 0.3 < recall < 0.95
    assert chosen["legacy_recall"] == recall
    assert chosen["legacy_precision"] >= 0.8
    wrong = Peaks(np.array([[500.0, 500.0]]), np.array([9.0]))
    assert best_threshold([true], [wrong], 5.0, 3.0, precision=0.5) == np.inf


def test_the_threshold_of_a_mean_is_lower_where_it_shrinks_and_is_what_is_scored() -> None:
    rng = np.random.default_rng(4)
    true = np.zeros((30, 1, 32, 32), np.float32)
    for image in true[:, 0]:
        image[rng.integers(4, 28, 3), rng.integers(4, 28, 3)] = rng.uniform(1, 2, 3)
    image = replace(IMAGE, field_of_view=32 * 2.0 / 60)
    shrunk = 0.3 * true + 0.001 * rng.random(true.shape, np.float32)
    chosen = peak_thresholds(torch.from_numpy(true), torch.from_numpy(shrunk), ["ha"], image)
    found = chosen["ha"]
    assert found["sought"] == pytest.approx(3 * true.std(), rel=1e-4)
    assert 0.001 < found["best"] < 0.3 < found["sought"] * 3
    maps = Maps(true, {"mean": shrunk, "itself": true}, 0 * true, (0,), np.ones(1), thresholds=chosen)
    scored = score(maps, image, ["ha"], 4.0)["lines"]["ha"]
    assert scored["at_threshold"]["best"]["legacy_precision"] == 1.0
    assert scored["at_threshold"]["best"]["recall"] == 1.0
    # Where as many wrong peaks are higher than right ones, a precision of 60% cannot be had.
    wrong = np.roll(shrunk, 15, axis=2)
    mixed = peak_thresholds(torch.from_numpy(true), torch.from_numpy(np.maximum(wrong, 0.9 * shrunk)), ["ha"], image)
    assert mixed["ha"]["precise"] is None
    assert mixed["ha"]["best"] is not None
    nothing = peak_thresholds(torch.from_numpy(true), torch.zeros(true.shape), ["ha"], image)
    assert nothing["ha"]["best"] is None


def known(cells: tuple[int, ...] = (32, 32)) -> tuple[dict[str, Any], Maps]:
    rng = np.random.default_rng(3)
    true = rng.lognormal(sigma=1.5, size=(40, 1, *cells)).astype(np.float32)
    noise = rng.normal(scale=0.5 * true.std(), size=(40, 1, *cells)).astype(np.float32)
    made = {
        "itself": true,
        "half": 0.5 * true,
        "noisy": true + noise,
        "nothing": np.zeros_like(true),
        "other": np.roll(true, 1, axis=0),
    }
    maps = Maps(true, made, noise, (0,), np.array([true.mean()]))
    observable = Observable(
        "total",
        (1, *cells),
        "nW/m^2/sr",
        ("wavelength", "x", "y", "redshift")[: 1 + len(cells)],
        (1.0,) * len(cells),
        (1.5,),
        Symmetry((False,) * len(cells), "transverse"),
    )
    return score(maps, observable, ["ha"], 3.0), maps


@pytest.mark.parametrize("cells", [(32, 32), (16, 16, 4)])
@pytest.mark.job
def test_scores_of_what_is_known(cells: tuple[int, ...]) -> None:
    scores, maps = known(cells)
    found = scores["lines"]["ha"]
    spectra, errors, brightness = found["spectra"], found["mean_error"], found["brightness"]
    np.testing.assert_allclose(spectra["itself"]["correlation"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(spectra["half"]["ratio"], 0.25, rtol=1e-5)
    np.testing.assert_allclose([spectra["half"]["off"], spectra["half"]["off_68"]], 0.75, rtol=1e-5)
    np.testing.assert_allclose(spectra["half"]["correlation"], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(spectra["nothing"]["correlation"], 0.0)
    # White signal and white noise.
    ratio = maps.noise.reshape(40, -1).var(1) / maps.true.reshape(40, -1).var(1)
    assert np.mean(spectra["noisy"]["correlation"][3:]) == pytest.approx(np.mean((1 + ratio) ** -0.5), abs=0.015)
    assert np.abs(spectra["other"]["correlation"][4:]).max() < 0.05
    assert errors["half"] == pytest.approx({"rms": 0.5, "bias": -0.5, "off": 0.5, "off_68": 0.5}, rel=1e-5)
    own = maps.true.reshape(40, -1).mean(1, dtype=float)
    assert errors["training mean"]["rms"] == pytest.approx(np.sqrt(np.mean((own.mean() / own - 1) ** 2)), rel=1e-4)
    # Two thirds of Gaussian errors are within a standard deviation.
    off = own.mean() / own - 1
    assert errors["training mean"]["off"] < errors["training mean"]["off_68"] == pytest.approx(off.std(), rel=0.3)
    assert brightness["itself"]["distance"] == 0
    assert brightness["nothing"]["distance"] == pytest.approx(maps.true.mean() / maps.true.std(), rel=1e-3)
    assert sum(brightness["true"]) == maps.true.size
    perfect = found["at_recall"]["itself"]["precision"]
    assert perfect == [1.0, 1.0, 1.0]
    # Half as bright as it should be, its peaks are still at the right places.
    assert found["at_recall"]["half"]["precision"] == pytest.approx(perfect, abs=1e-9)
    assert found["at_recall"]["nothing"]["precision"] == [None] * 3
    # The first method's maps against those of other skies.
    assert found["at_recall"]["chance"]["precision"][1] < 0.6
    at_three = {m: next(p for p in rows if p["of"] == "map" and p["sigmas"] == 3) for m, rows in found["peaks"].items()}
    assert at_three["itself"]["precision"] == at_three["itself"]["recall"] == 1.0
    assert at_three["half"]["recall"] < 0.5
    assert scores["maps"] == 40


@pytest.mark.job
def test_signal_and_noise_are_equal_only_where_one_falls_through_the_other() -> None:
    scores, maps = known()
    assert "equal" not in scores["lines"]["ha"], "the signal has four times the power of the noise at every k"
    smooth = sum(np.roll(maps.noise, shift, (-2, -1)) for shift in ((0, 0), (1, 0), (0, 1), (1, 1)))
    crossing = score(Maps(maps.true, maps.made, 1.5 * smooth, (0,), np.ones(1)), IMAGE, ["ha"], 3.0)
    assert 0 < crossing["lines"]["ha"]["equal"] < len(crossing["k"]) - 1
    clean = score(Maps(maps.true, maps.made, 0 * maps.noise, (0,), np.ones(1)), IMAGE, ["ha"], 3.0)
    assert "equal" not in clean["lines"]["ha"]
    assert {p["of"] for p in clean["lines"]["ha"]["peaks"]["itself"]} == {"map"}


@pytest.mark.job
def test_power_of_draws_is_the_mean_of_theirs() -> None:
    scores, maps = known()
    assert "power_of_draws" not in scores["lines"]["ha"]
    # Powers of 1 and 9 times the true one.
    draws = Draws(maps.true, np.stack([maps.true, 3 * maps.true]), maps.noise, np.stack(2 * [maps.noise]))
    with_draws = Maps(maps.true, {"itself": maps.true}, maps.noise, (0,), np.ones(1), draws)
    found = score(with_draws, IMAGE, ["ha"], 3.0)["lines"]["ha"]["power_of_draws"]
    np.testing.assert_allclose(found["ratio"], 5.0, rtol=1e-5)
    np.testing.assert_allclose([found["off"], found["off_68"]], 4.0, rtol=1e-5)


@pytest.mark.job
def test_without_a_map_the_power_of_the_others_is_answered() -> None:
    _, maps = known()
    two = np.concatenate([maps.true[:1], 2 * maps.true[:1]])
    scores = score(Maps(two, {"itself": two}, 0 * two, (0,), np.ones(1)), IMAGE, ["ha"], 3.0)
    # Four times too much for the first, a quarter for the second; 68% of the way between two values by interpolation.
    without = scores["lines"]["ha"]["power_without_map"]
    np.testing.assert_allclose(without["off"], (3 + 0.75) / 2, rtol=1e-5)
    np.testing.assert_allclose(without["off_68"], 0.75 + 0.68 * (3 - 0.75), rtol=1e-5)
