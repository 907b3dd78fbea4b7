"""``[prior]`` from a file: what each form gives, and what is said of those that are wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from eorinfer.core.samples import Samples
from eorinfer.core.shown_prior import prior_words
from eorinfer.run.config import load_config
from eorinfer.settings.build_prior import build_prior
from eorinfer.settings.prior import PriorSettings
from simulators import GaussianField, Parameter
from tests.runs import config

TABLE = Path("density.txt")


def load(folder: Path, prior: dict[str, Any]) -> Prior:
    """Read a config whose table ``[prior]`` has these entries alone."""
    return load_config(config(folder, prior={"log_amplitude": None, "slope": None} | prior)).prior


def test_each_form_gives_its_density(tmp_path: Path) -> None:
    prior = load(
        tmp_path, {"log_amplitude": {"normal": [0.5, 0.4]}, "slope": {"normal": [-1.5, 1.0], "range": [-2, 0]}}
    )
    assert np.column_stack([prior.low, prior.high]) == pytest.approx(np.array([[-1.9, 2.9], [-2.0, 0.0]]))
    theta = prior.sample(5, np.random.default_rng(1))
    truth = stats.truncnorm(-6, 6, 0.5, 0.4).logpdf(theta[:, 0]) + stats.truncnorm(-0.5, 1.5, -1.5, 1).logpdf(
        theta[:, 1]
    )
    np.testing.assert_allclose(prior.log_prob(theta), truth)


def test_a_table_is_read_from_beside_the_config(tmp_path: Path) -> None:
    grid = np.linspace(-2.0, 3.0, 40)
    np.savetxt(tmp_path / TABLE, np.column_stack([grid, 3.0 - grid]), header="amplitude, density")
    prior = load(tmp_path, {"log_amplitude": {"table": str(TABLE)}, "slope": [-2.0, -1.0]})
    drawn = prior.sample(20_000, np.random.default_rng(1))
    assert drawn[:, 0].mean() == pytest.approx(-2 + 5 / 3, abs=0.03)  # of a falling line
    assert prior_words(prior, "log_amplitude") == "from a table"
    assert prior_words(prior, "slope") == "flat"


def test_a_chain_gives_a_joint_density(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.multivariate_normal([0.5, -1.5, 7.0], [[0.04, 0.03, 0], [0.03, 0.04, 0], [0, 0, 1]], 3000)
    parameters = tuple(
        Parameter(n, n, a, b, 0.0) for n, a, b in (("log_amplitude", -2, 3), ("slope", -3, 0), ("x", 0, 9))
    )
    Samples.unweighted(values, parameters, "earlier", correlated=True).write(tmp_path / "earlier")
    prior = load(tmp_path, {"table": "earlier"})
    drawn = prior.sample(20_000, np.random.default_rng(2))
    np.testing.assert_allclose(drawn.mean(0), [0.5, -1.5], atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), [[0.04, 0.03], [0.03, 0.04]], atol=0.004)
    # The same from a table with a line of names.
    np.savetxt(tmp_path / "samples.csv", values[:, :2], delimiter=",", header="log_amplitude,slope")
    other = load(tmp_path / "b", {"table": "../samples.csv"})
    np.testing.assert_allclose(other.sample(20_000, np.random.default_rng(2)).mean(0), [0.5, -1.5], atol=0.02)
    # Content says where the file is, so that the run folder can be opened from anywhere.
    content = load_config(tmp_path / "run.toml").content()
    assert content["prior"] == {"table": str(tmp_path / "earlier")}


def test_a_joint_density_is_cut_where_it_is_asked_for_and_may_be_wider_than_the_ranges(tmp_path: Path) -> None:
    """A table that reached beyond the simulator's own range was cut there in silence, and another prior than it."""
    rows = np.random.default_rng(1).multivariate_normal([0.5, 1.2], [[0.04, 0.03], [0.03, 0.04]], 4000)
    np.savetxt(tmp_path / "edge.csv", rows, delimiter=",", header="log_amplitude,slope")

    def built(prior: dict[str, Any]) -> Prior:
        return build_prior(tmp_path / "run.toml", PriorSettings.model_validate(prior), GaussianField().parameters)

    wide = built({"table": "edge.csv", "slope": {"range": [-4.0, 3.0]}})
    np.testing.assert_allclose(wide.sample(20_000, np.random.default_rng(2)).mean(0), [0.5, 1.2], atol=0.02)
    cut = built({"table": "edge.csv", "slope": {"range": [-4.0, 1.0]}})
    left = rows[rows[:, 1] < 1]
    drawn = cut.sample(20_000, np.random.default_rng(2))
    assert drawn[:, 1].max() <= 1
    np.testing.assert_allclose(drawn.mean(0), left.mean(0), atol=0.02)
    # Of a parameter that no table has it is a flat prior.
    alone = built({"log_amplitude": {"range": [0.0, 1.0]}})
    assert (alone.low[0], alone.high[0], alone.flat) == (0.0, 1.0, True)


def test_a_joint_density_has_the_marginals_of_its_samples(tmp_path: Path) -> None:
    """With long tails its widths were up to 15% off: those of the 1,000 samples that are kept were."""
    rng = np.random.default_rng(5)
    first = rng.standard_t(4, 10_000) * 0.2
    rows = np.column_stack([first, 0.5 * first + 0.1 * rng.standard_normal(10_000) - 1.5])
    rows = rows[(np.abs(first) < 2)]
    np.savetxt(tmp_path / "tails.csv", rows, delimiter=",", header="log_amplitude,slope")
    drawn = load(tmp_path, {"table": "tails.csv"}).sample(50_000, np.random.default_rng(2))
    np.testing.assert_allclose(drawn.std(0), rows.std(0), rtol=0.03)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"slop": {"normal": [0.0, 1.0]}}, 'slop: unknown parameter, did you mean "slope"?'),
    ({"slope": {"normal": [0.0]}}, "slope.normal: must be [low, high], { normal"),
    ({"slope": {"normal": [0.0, -1.0]}}, "slope.normal = [0.0, -1.0]: must be [mean, sigma], finite, sigma above 0"),
    ({"slope": {"normal": [0.0, 0.0]}}, "slope.normal = [0.0, 0.0]: must be [mean, sigma], finite, sigma above 0"),
    ({"slope": [0.5, 0.5]}, "slope = [0.5, 0.5]: must be [low, high], finite, low below high"),
    ({"slope": [0.5, 0.5 + 1e-9]}, "slope = [0.5, 0.500000001]: the ends are too close; give a wider range"),
    ({"slope": [-1e308, 1e308]}, "slope = [-1e+308, 1e+308]: must be [low, high], finite"),
    ({"slope": {"normale": [0.0, 1.0]}}, "slope.normale: unknown key"),
    ({"slope": {"normal": [0.0, 1.0], "log_uniform": [1.0, 2.0]}}, "slope: must be [low, high], { normal"),
    ({"slope": {"normal": [90.0, 1.0]}}, "slope.normal = [90.0, 1.0]: has nothing in the range, which is [-4, 1]"),
    ({"slope": {"log_uniform": [-1.0, 2.0]}}, "slope.log_uniform = [-1.0, 2.0]: must be above 0"),
    ({"slope": {"log_uniform": [3.0, 2.0]}}, "slope.log_uniform = [3.0, 2.0]: must be [low, high], finite"),
    ({"slope": {"table": "no.txt"}}, "no.txt: cannot be read (No such file or directory)"),
    ({"slope": {"table": "text.txt"}}, "text.txt: must be a table of numbers"),
    ({"slope": {"table": "three.txt"}}, "three.txt: has 3 columns instead of two"),
    ({"table": "no"}, "no is neither a table nor the root of a chain"),
    ({"table": "three.txt"}, "three.txt has none of log_amplitude, slope"),
    ({"table": "both.csv", "slope": [-1.0, 0.0]}, "both.csv has slope too; give each parameter once, or slope.range"),
    ({"table": "beyond.csv"}, "beyond.csv: 25% of the samples have slope outside of [-4, 1]; give slope.range = [low"),
    (
        {"table": "beyond.csv", "slope": {"range": [5, 6]}},
        "beyond.csv: 100% of the samples have slope outside of [5, 6]",
    ),
    ({"table": "empty.txt"}, "empty.txt is empty; its first line must name the columns"),
    ({"slope": {"normal": [-1.5, 1e-12]}}, "the ends are too close; give a wider range"),
    ({"slope": {"range": [2.0, 1.0]}}, "slope.range = [2.0, 1.0]: must be [low, high], finite, low below high"),
    ({"slope": {}}, "slope: must be [low, high], { normal"),
]


@pytest.mark.parametrize(("prior", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_what_is_wrong_is_said_with_the_key_and_the_file(tmp_path: Path, prior: dict[str, Any], message: str) -> None:
    (tmp_path / "text.txt").write_text("a b\nc d\n")
    (tmp_path / "three.txt").write_text("1 2 3\n4 5 6\n")
    rows = np.random.default_rng(1).uniform(-1, 0, (100, 2))
    np.savetxt(tmp_path / "both.csv", rows, delimiter=",", header="log_amplitude,slope")
    rows[::4, 1] += 3
    np.savetxt(tmp_path / "beyond.csv", rows, delimiter=",", header="log_amplitude,slope")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError) as caught:
        load(tmp_path, prior)
    assert message in str(caught.value)
    assert "[prior]" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
