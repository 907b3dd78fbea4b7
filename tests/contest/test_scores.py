"""Scores of posteriors whose quality is known: exact ones, too narrow ones, and ones that know less."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from eorinfer.contest.contest import notes
from eorinfer.contest.method import Method
from eorinfer.contest.scores import Score, compare, mean_over_trainings
from eorinfer.contest.tables import contest_tables, cost_table, text_lines
from eorinfer.core.prior import Prior
from eorinfer.likelihood.truth_posteriors import TruthPosteriors
from eorinfer.settings.contest import ContestSettings, MethodName
from eorinfer.validation.sharpness import NO_DENSITY, mean_and_error
from simulators import Parameter

PRIOR = Prior((Parameter("a", "a", -50.0, 50.0, 0.0),))
TRUTHS, SAMPLES = 400, 500


def evaluates_nothing(*_: Any) -> TruthPosteriors:
    raise AssertionError


def score(name: MethodName, noise: float, width: float = 1.0, good: float = 1.0) -> Score:
    """Score N(data, (width noise)^2), where data = theta + noise."""
    rng = np.random.default_rng(1)
    theta = rng.uniform(-40, 40, (TRUTHS, 1))
    data = theta + noise * rng.standard_normal((TRUTHS, 1))
    values = data[:, None] + width * noise * rng.standard_normal((TRUTHS, SAMPLES, 1))
    posteriors = TruthPosteriors.on_whole_prior(
        values,
        norm.logpdf(theta, data, width * noise)[:, 0],
        norm.logpdf(values, data[:, None], width * noise)[..., 0],
        rng.random(TRUTHS) < good,
        np.full(TRUTHS, 0.5),
    )
    return Score.from_posteriors(Method(name, "key", 12.0, evaluates_nothing), posteriors, theta, PRIOR, seed=2)


def test_an_exact_posterior_is_calibrated_and_gains_what_it_should() -> None:
    found = score("ps-full", 1.0)
    content = found.content(PRIOR)
    assert content["calibrated"]
    assert abs(content["tarp_deviation"]) < content["tarp_chance"] < 0.07
    known = np.log(100) - 0.5 * np.log(2 * np.pi * np.e)
    assert content["gain"]["mean"] == pytest.approx(known, abs=4 * content["gain"]["error"])
    assert content["volume_over_prior"] == pytest.approx(np.sqrt(2 * np.pi * np.e) / 100, rel=0.02)


def test_a_narrow_posterior_is_called_so() -> None:
    found = score("ps-fixed", 1.0, width=0.6)
    assert not found.content(PRIOR)["calibrated"]
    assert found.calibration.area_to_curve < -0.03
    assert found.content(PRIOR)["recovery"]["a"]["pull_std"] == pytest.approx(1 / 0.6, rel=0.1)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_an_error_of_width_shows_in_tarp(width: float) -> None:
    """The mean of its curve is near zero for either: errors above and below the middle cancel."""
    found = score("ps-fixed", 1.0, width=width)
    content = found.content(PRIOR)
    credibility, coverage = found.calibration.tarp.T
    assert abs((coverage - credibility).mean()) < 0.03
    assert abs(content["tarp_deviation"]) > 1.5 * content["tarp_chance"]
    effect = content["effects"]["coverage"]
    assert effect["width"] == pytest.approx(width - 1, abs=4 * effect["width_error"])


def test_an_exact_likelihood_takes_no_simulation() -> None:
    rows = cost_table([score("exact", 1.0), score("npe-power", 1.0)], 600, 0.5, None, None)["rows"]
    assert [row[1:3] for row in rows] == [[0, 0], [600, 300]]


def test_what_imported_simulations_took_is_not_known() -> None:
    """A contest on imported rows ended with a ValueError after all its work."""
    sequential = {"label": "rounds", "simulations": 30, "training_seconds": 2.0}
    rows = cost_table([score("exact", 1.0), score("npe-power", 1.0)], 600, None, sequential, None)["rows"]
    assert [row[1:3] for row in rows] == [[0, 0], [600, None], [30, None]]


def test_one_against_another() -> None:
    sharp, dull = score("npe-image", 0.5), score("npe-power", 1.0)
    found = compare(sharp, dull, seed=3)
    assert found["gain"] == pytest.approx(np.log(2), abs=4 * found["gain_error"])
    assert found["gain_error"] < 0.1
    assert found["volume"] == pytest.approx(0.5, rel=0.05)
    assert found["smaller"] == 1.0
    assert found["widths"][0] == pytest.approx(0.5, rel=0.05)
    assert compare(dull, sharp, seed=3)["smaller"] == 0.0


def test_what_cannot_be_relied_on_is_left_out() -> None:
    some, all_ = score("ps-2d", 1.0, good=0.7), score("ps-full", 1.0)
    content = some.content(PRIOR)
    assert content["left_out"] == (~some.posteriors.good).sum() > 50
    assert compare(some, all_, seed=1)["truths"] == some.posteriors.good.sum()


def test_the_tables_have_a_line_for_each_and_numbers_to_sort_by() -> None:
    scores = [score("ps-full", 1.0), score("npe-power", 1.0), score("npe-image", 0.5)]
    tables = contest_tables(scores, ContestSettings(methods=("ps-full", "npe-power", "npe-image")), PRIOR, seed=1)
    for table in tables:
        assert len(table["rows"]) == 3
        assert all(len(row) == len(table["columns"]) <= 6 for row in table["rows"])
    volumes = next(table for table in tables if table["title"] == "Volumes")
    assert volumes["rows"][0][-2:] == [None, None]  # the reference against itself
    assert volumes["rows"][2][-1] == "100%"
    text = text_lines(tables[0])
    assert len({line.find("nats more") for line in text[1:2]}) == 1
    assert "NPE on the image" in text[-1]


def test_columns_compare_the_same_truths() -> None:
    """A method of fewer truths, which happen to be easy, does not look better in the column of gains."""
    scores = [score("ps-full", 1.0), score("npe-power", 1.0)]
    easy = scores[0].posteriors.at_truth > np.median(scores[0].posteriors.at_truth)
    order = np.argsort(~easy, kind="stable")
    sorted_ = [replace(s, posteriors=s.posteriors[order], theta=s.theta[order]) for s in scores]
    few = replace(sorted_[0], posteriors=sorted_[0].posteriors[:200], theta=sorted_[0].theta[:200])
    settings = ContestSettings(methods=("ps-full", "npe-power"), truths=400, sampled_truths=200)
    table = contest_tables([few, sorted_[1]], settings, PRIOR, seed=1)[0]
    assert table["columns"][2] == "information gained, nats, on the same 200 truths"
    assert table["rows"][0][2] == table["rows"][1][2]
    assert few.gain(PRIOR)["mean"] > sorted_[1].gain(PRIOR)["mean"] + 0.3, "over their own truths they differ"
    shortest = replace(few, posteriors=few.posteriors[:50], theta=few.theta[:50])
    table = contest_tables([shortest, sorted_[1]], settings, PRIOR, seed=1)[0]
    assert table["rows"][0][2] is None


def test_errors_include_the_scatter_of_training() -> None:
    rng = np.random.default_rng(1)
    truths = rng.standard_normal(1000)
    one = mean_over_trainings([truths])
    assert one == mean_and_error(truths)
    means = np.array(
        [mean_over_trainings([truths + 0.3 * rng.standard_normal() for _ in range(3)])["mean"] for _ in range(300)]
    )
    said = [mean_over_trainings([truths + 0.3 * rng.standard_normal() for _ in range(3)]) for _ in range(300)]
    of_training = np.sqrt(np.mean([found["error"] ** 2 for found in said]) - one["error"] ** 2)
    assert of_training == pytest.approx(means.std(), rel=0.15)
    a, b = score("npe-image", 1.0), score("npe-power", 1.0)
    shifted = [replace(b, posteriors=replace(b.posteriors, at_truth=b.posteriors.at_truth + x)) for x in (0.4, -0.4)]
    found = compare(a, replace(b, again=tuple(shifted)), seed=1)
    assert found["training_scatter"] == pytest.approx(0.4)
    assert found["gain_error"] == pytest.approx(0.4 / 3**0.5)


def test_posteriors_are_read_only_with_their_key(tmp_path: Path) -> None:
    posteriors = score("ps-full", 1.0).posteriors
    posteriors.write(tmp_path / "00000.h5", "one")
    again = TruthPosteriors.read(tmp_path / "00000.h5", "one")
    assert again is not None
    assert np.array_equal(again.values, posteriors.values)
    assert TruthPosteriors.read(tmp_path / "00000.h5", "two") is None
    assert TruthPosteriors.read(tmp_path / "00050.h5", "one") is None
    (tmp_path / "00000.h5").write_bytes((tmp_path / "00000.h5").read_bytes()[:1000])
    assert TruthPosteriors.read(tmp_path / "00000.h5", "one") is None
    assert len(TruthPosteriors.concatenate([posteriors, posteriors[:10]])) == TRUTHS + 10


def without_density(found: Score, n: int, value: float) -> Score:
    """Score the same posteriors, n of which have `value` as the log density at the truth."""
    at_truth = found.posteriors.at_truth.copy()
    at_truth[:n] = value
    posteriors = replace(found.posteriors, at_truth=at_truth)
    return Score.from_posteriors(found.method, posteriors, found.theta, PRIOR, seed=2)


@pytest.mark.parametrize("value", [-np.inf, np.nan, np.inf])
def test_a_truth_without_density_counts_as_the_failure_it_is(value: float) -> None:
    whole, failed = score("ps-full", 1.0), without_density(score("npe-power", 1.0), 10, value)
    assert len(failed.calibration.fractions["coverage"]) == TRUTHS, "none is dropped"
    assert (failed.calibration.fractions["coverage"][:10] < 1 / SAMPLES).all(), "rank 0"
    gain, known = failed.content(PRIOR)["gain"], whole.content(PRIOR)["gain"]
    assert gain["without_density"] == 10
    lost = 10 / TRUTHS * (NO_DENSITY - whole.posteriors.at_truth[:10].mean())
    assert gain["mean"] == pytest.approx(known["mean"] + lost)
    assert gain["mean"] < known["mean"] - 2
    found = compare(failed, whole, seed=1)
    assert found["gain"] == pytest.approx(lost)
    assert "10 of 400 truths have no density in their posteriors" in notes([failed])[-1]
    json.dumps([failed.content(PRIOR), found], allow_nan=False)


def test_many_truths_without_density_are_no_calibration() -> None:
    assert not without_density(score("npe-power", 1.0), 40, -np.inf).calibration.calibrated
