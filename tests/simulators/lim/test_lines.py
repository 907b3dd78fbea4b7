"""Star formation and luminosities against numbers from other implementations and published functions."""

from pathlib import Path

import numpy as np
import pytest

from simulators.lim.lines import LINES, STAR_FORMATION, gong17, line_label, read_table, scattered

MASSES = np.array([1e11, 3e11, 1e12, 3e12, 1e13])


@pytest.mark.parametrize(
    ("name", "z", "sfr"),
    [
        ("gong17", 1.3, [0.328, 2.44, 10.8, 24.2, 42.4]),
        ("gong17", 2.0, [0.715, 5.10, 21.7, 46.8, 79.0]),
        ("fonseca17", 1.3, [0.440, 2.98, 12.3, 22.8, 23.0]),
        ("fonseca17", 2.0, [1.26, 6.98, 23.4, 39.8, 41.6]),
    ],
)
def test_star_formation(name: str, z: float, sfr: list[float]) -> None:
    np.testing.assert_allclose(STAR_FORMATION[name](MASSES, np.full(5, z)), sfr, rtol=5e-3)


def test_silva_at_its_own_redshift() -> None:
    found = STAR_FORMATION["silva15"](np.array([1e11]), np.array([2.19]))
    np.testing.assert_allclose(found, 9.18e-9 * 1000**2.7 * 1.125**-4)


def test_luminosities() -> None:
    one = np.ones(1)
    assert LINES["ha"].luminosity(one) == pytest.approx(1.26582e41 * 10**-0.4, rel=1e-4)
    assert LINES["hb"].luminosity(one) / LINES["ha"].luminosity(one) == pytest.approx(0.35 * 10 ** (-0.4 * 0.38))
    assert LINES["oiii"].wavelength * 3.0 == pytest.approx(1.5021)


@pytest.mark.parametrize("dex", [0.2, 0.4])
def test_scatter_keeps_the_mean_or_the_median(dex: float) -> None:
    normal = np.random.default_rng(1).standard_normal(400_000)
    for keep in (True, False):
        found = scattered(np.ones(len(normal)), dex, normal, keep)
        assert np.log10(found).std() == pytest.approx(dex, rel=0.01)
        middle = found.mean() if keep else np.median(found)
        assert middle == pytest.approx(1.0, abs=0.01)


def test_a_table_gives_its_own_values_and_is_linear_between(tmp_path: Path) -> None:
    a, m = np.linspace(1.5, 4, 6), np.linspace(9, 15, 61)
    rows = [(x, y, float(np.log10(gong17(np.array([10**y]), np.array([x - 1]))[0]))) for x in a for y in m]
    np.savetxt(tmp_path / "table.txt", np.random.default_rng(1).permutation(rows))
    relation = read_table(tmp_path / "table.txt")
    on = np.array([row[2] for row in rows])
    grid = np.array(rows)
    np.testing.assert_allclose(np.log10(relation(10 ** grid[:, 1], grid[:, 0] - 1)), on, atol=1e-9)
    between = np.log10(relation(np.array([10**11.05]), np.array([1.25])))
    around = [r[2] for r in rows if abs(r[0] - 2.25) < 0.3 and abs(r[1] - 11.05) < 0.06]
    np.testing.assert_allclose(between, np.mean(around), atol=1e-9)
    low, high = relation(np.array([1e8, 1e16]), np.array([0.0, 9.0]))
    np.testing.assert_allclose(np.log10([low, high]), [rows[0][2], rows[-1][2]], atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3 4\n", "it has 2 columns"),
        ("1 10 1\n1 11 1\n2 10 1\n", "3 rows are no grid of 2 redshifts and 2 masses"),
        ("1 10 nan\n1 11 1\n", "1 points of the grid are missing or no numbers"),
        ("a b c\n", "no table of numbers"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "label"),
    [("ha", r"${\rm H}\alpha$"), ("oiii_1", r"$[{\rm O\,III}]$, channel 1"), ("total", "total")],
)
def test_lines_have_their_names_in_figures(name: str, label: str) -> None:
    assert line_label(name) == label
