"""Samples: weights mean what repetition means, and getdist reads what is written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from getdist import loadMCSamples

from eorinfer.core.errors import InputError
from eorinfer.core.samples import Samples
from simulators import Parameter

PARAMETERS = (
    Parameter("F_ESC10", r"\log_{10} f_{\rm esc, 10}", -3.0, 0.0, -1.0),
    Parameter("M_TURN", "M_t", 8.0, 10.0, 8.7, "log10 Msun"),
)


def weighted(n: int = 3000) -> Samples:
    rng = np.random.default_rng(1)
    values = np.column_stack([-1.5 + 0.2 * rng.standard_normal(n), 9 + 0.3 * rng.standard_normal(n)])
    values[:, 1] += values[:, 0]
    return Samples(values, rng.integers(0, 4, n).astype(float), PARAMETERS, "A, weighted = yes")


def test_weights_are_repetitions() -> None:
    samples = weighted()
    repeated = np.repeat(samples.values, samples.weights.astype(int), axis=0)
    np.testing.assert_allclose(samples.mean, repeated.mean(0), rtol=1e-12)
    np.testing.assert_allclose(samples.covariance, np.cov(repeated.T), rtol=1e-3)
    np.testing.assert_allclose(samples.std, repeated.std(0), rtol=1e-3)
    for q in (0.025, 0.16, 0.5, 0.9):
        share = (repeated <= samples.quantile(q)).mean(0)
        np.testing.assert_allclose(share, q, atol=3 / len(repeated))
    low, high = samples.interval(0.68)
    np.testing.assert_array_equal([low, high], [samples.quantile(0.16), samples.quantile(0.84)])
    assert len(samples) == 3000


def test_without_weights_it_is_numpy() -> None:
    values = np.random.default_rng(2).standard_normal((501, 2))
    samples = Samples.unweighted(values, PARAMETERS, "x")
    np.testing.assert_allclose(samples.covariance, np.cov(values.T), rtol=1e-12)
    for q in (0.1, 0.5, 0.77):
        np.testing.assert_allclose(samples.quantile(q), np.quantile(values, q, axis=0, method="hazen"), rtol=1e-9)


def test_samples_of_no_weight_do_not_count() -> None:
    values = np.array([[0.0, 0.0], [100.0, 100.0], [1.0, 2.0]])
    samples = Samples(values, np.array([1.0, 0.0, 1.0]), PARAMETERS, "x")
    assert samples.mean.tolist() == [0.5, 1.0]
    drawn = samples.resample(1000, seed=3)
    assert drawn.weights.tolist() == [1.0] * 1000
    assert set(drawn.values[:, 0]) == {0.0, 1.0}
    assert abs(drawn.mean[0] - 0.5) < 5 * 0.5 / np.sqrt(1000)
    assert drawn.values.tobytes() == samples.resample(1000, seed=3).values.tobytes()


def test_parameters_go_by_their_names() -> None:
    samples = weighted()
    assert samples.only("M_TURN").names == ["M_TURN"]
    assert np.array_equal(samples.only(["M_TURN", "F_ESC10"]).values, samples.values[:, ::-1])
    assert "M_TURN" in samples
    assert "L_X" not in samples
    for wrong in (samples.only, samples.__getitem__):
        with pytest.raises(KeyError, match="'L_X' is no parameter of these samples, which have F_ESC10, M_TURN"):
            wrong("L_X")
    with pytest.raises(TypeError, match="not iterable"):
        list(samples)  # type: ignore[call-overload]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"values \(3, 1\) and weights \(3,\) do not fit 2 parameters"):
        Samples.unweighted(np.zeros((3, 1)), PARAMETERS, "x")


@pytest.mark.parametrize("name", ["npe", "run_z7.5"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    samples = weighted()
    samples.write(tmp_path / "chains" / name)
    suffixes = (".txt", ".paramnames", ".ranges", ".properties.ini")
    assert {path.name for path in (tmp_path / "chains").iterdir()} == {name + suffix for suffix in suffixes}
    back = Samples.read(tmp_path / "chains" / name)
    np.testing.assert_allclose(back.values, samples.values, rtol=1e-9)
    assert back.weights.tolist() == samples.weights.tolist()
    assert (back.label, back.correlated) == ("A, weighted = yes", False)
    for ours, theirs in zip(PARAMETERS, back.parameters, strict=True):
        assert (theirs.name, theirs.label, theirs.low, theirs.high) == (
            ours.name,
            ours.label,
            ours.low,
            ours.high,
        )


def test_one_sample_and_a_chain(tmp_path: Path) -> None:
    Samples.unweighted(np.array([[-1.0, 9.0]]), PARAMETERS, "one", correlated=True).write(tmp_path / "one")
    back = Samples.read(tmp_path / "one")
    assert back.values.tolist() == [[-1.0, 9.0]]
    assert back.correlated
    assert np.isnan(back.std).all()
    assert "nan" in str(back)


def test_getdist_reads_the_files(tmp_path: Path) -> None:
    samples = weighted()
    samples.write(tmp_path / "npe")
    chain = loadMCSamples(str(tmp_path / "npe"), no_cache=True)
    kept = samples.weights > 0
    assert chain.getParamNames().list() == ["F_ESC10", "M_TURN"]
    assert chain.getParamNames().labels() == [p.label for p in PARAMETERS]
    for p in PARAMETERS:
        assert (chain.ranges.getLower(p.name), chain.ranges.getUpper(p.name)) == (p.low, p.high)
    np.testing.assert_allclose(chain.getMeans(), samples.mean, rtol=1e-8)
    assert chain.sampler == "uncorrelated"
    assert chain.numrows in (len(samples), kept.sum()), "no burn-in is cut"
    low, high = samples.interval(0.68)
    limits = chain.getMargeStats().parWithName("M_TURN").limits[0]
    assert (limits.lower, limits.upper) == pytest.approx((low[1], high[1]), abs=0.02)
    assert chain.getLabel() == "A, weighted = yes"
    assert samples.to_getdist().sampler == "uncorrelated"
    assert replace(samples, correlated=True).to_getdist().sampler == "mcmc"


@pytest.mark.parametrize("correlated", [False, True])
def test_the_density_at_an_edge_is_not_halved(tmp_path: Path, correlated: bool) -> None:
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.uniform(-3, 0, 20_000), rng.uniform(8, 10, 20_000)])
    samples = Samples.unweighted(values, PARAMETERS, "flat", correlated)
    samples.write(tmp_path / "flat")
    for chain in (loadMCSamples(str(tmp_path / "flat"), no_cache=True), samples.to_getdist()):
        density = chain.get1DDensity("F_ESC10")
        at = density(np.array([-3.0, -2.99, -1.5, -0.01, 0.0]))
        assert (at > 0.85).all(), at


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".txt", None),
        (".txt", "1 0 -1.0 nine\n"),
        (".txt", "1 0 -1.0\n"),
        (".paramnames", None),
        (".paramnames", "F_ESC10\nOTHER\n"),
        (".ranges", "F_ESC10 -3 0\nM_TURN 8\n"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, suffix: str, content: str | None) -> None:
    weighted(10).write(tmp_path / "npe")
    if content is None:
        (tmp_path / f"npe{suffix}").unlink()
    else:
        (tmp_path / f"npe{suffix}").write_text(content)
    with pytest.raises(InputError, match=r"npe\.txt: cannot be read as a chain in getdist's format"):
        Samples.read(tmp_path / "npe")


def test_ranges_without_a_bound(tmp_path: Path) -> None:
    weighted(10).write(tmp_path / "npe")
    (tmp_path / "npe.ranges").write_text("F_ESC10 N 0\nM_TURN 8 N\n")
    first, second = Samples.read(tmp_path / "npe").parameters
    assert (first.low, first.high, second.low, second.high) == (-np.inf, 0.0, 8.0, np.inf)


def test_samples_go_where_astronomers_take_them() -> None:
    samples = weighted()
    np.testing.assert_array_equal(samples["M_TURN"], samples.values[:, 1])
    with pytest.raises(KeyError, match="'M_TURM' is no parameter of these samples, which have F_ESC10, M_TURN"):
        samples["M_TURM"]
    with pytest.raises(ValueError, match=r"resample\(n, seed\)"):
        np.asarray(samples)
    drawn = samples.resample(400, seed=1)
    np.testing.assert_array_equal(np.asarray(drawn), drawn.values)
    frame = samples.to_pandas()
    assert list(frame.columns) == ["F_ESC10", "M_TURN", "weight"]
    assert np.average(frame["M_TURN"], weights=frame["weight"]) == pytest.approx(samples.mean[1])
    arviz = pytest.importorskip("arviz")
    summary = arviz.summary(drawn.to_arviz(), kind="stats")
    assert summary.loc["M_TURN", "mean"] == pytest.approx(drawn.mean[1], abs=0.001)


def test_a_table_has_two_digits_of_each_error() -> None:
    values = np.column_stack([np.linspace(-2, -1, 1001), np.linspace(8.96, 9.04, 1001)])
    samples = Samples.unweighted(values, PARAMETERS, "x")
    assert samples.table().splitlines() == [
        "parameter   mean    std    68% interval    95% interval",
        "F_ESC10    -1.50   0.29  -1.84 to -1.16  -1.98 to -1.02",
        "M_TURN     9.000  0.023  8.973 to 9.027  8.962 to 9.038",
    ]
    latex = samples.table("latex")
    assert r"$M_t$ [log10 Msun] & 9.000 & 0.023" in latex
    assert r"68\% interval" in latex


def test_the_name_of_the_table_means_the_chain(tmp_path: Path) -> None:
    weighted(50).write(tmp_path / "npe.txt")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".ini", ".paramnames", ".ranges", ".txt"]
    assert len(Samples.read(tmp_path / "npe.txt")) == len(Samples.read(tmp_path / "npe"))
    with pytest.raises(ValueError, match='style = "html": must be "text" or "latex"'):
        weighted(50).table("html")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [np.float64, np.float32, int])
def test_ranges_may_be_numbers_of_any_kind(tmp_path: Path, number: type) -> None:
    """A simulator of one's own has `np.log(0.1)` in its ranges."""
    own = tuple(replace(p, low=number(p.low - 1), high=number(p.high + 1)) for p in PARAMETERS)
    Samples.unweighted(np.ones((4, 2)), own, "mine").write(tmp_path / "npe")
    assert "np." not in (tmp_path / "npe.ranges").read_text()
    again = Samples.read(tmp_path / "npe")
    assert [(p.low, p.high) for p in again.parameters] == [(float(p.low), float(p.high)) for p in own]
