"""Rows weighed by external data: each likelihood by hand, and a joint prior made of the result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eorinfer.bank.external import External, weighed
from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from eorinfer.core.prior import Prior
from tests.runs import call, config

N = 1500
MODULE = """
import numpy as np
from simulators import GaussianField, Observable, Symmetry

def described(name, shape, axes, channels, coordinates):
    return Observable(name, shape, "", axes, (0.0,), channels, Symmetry((False,), "none"), coordinates)

class History(GaussianField):
    @property
    def observables(self):
        return (
            *super().observables,
            described("optical_depth", (1, 1), ("channel", "number"), (0.0,), ()),
            described("global_neutral_fraction", (1, 3), ("channel", "redshift"), (0.0,), (8.0, 6.0, 5.0)),
            described("luminosity_function", (2, 3), ("redshift", "magnitude"), (6.0, 8.0), (-20.0, -18.0, -16.0)),
        )

    def simulate(self, theta, seed):
        a, b = theta
        found = super().simulate(theta, seed)
        found["optical_depth"] = np.full((1, 1), 0.06 + 0.01 * a, np.float32)
        found["global_neutral_fraction"] = np.array([[1.0, 0.5 + 0.1 * b, 0.0]], np.float32)
        found["luminosity_function"] = np.array([[1e-4, 1e-3, 1e-2]] * 2, np.float32) * np.float32(10 ** (0.1 * a))
        return found
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which the first round is simulated, with observables that are functions of theta."""
    folder = tmp_path_factory.mktemp("external")
    (folder / "history.py").write_text(MODULE)
    path = config(
        folder,
        simulator={"kind": "history:History"},
        inference={"rounds": [N], "predictive": 0},
        prior={"log_amplitude": [-2.0, 3.0], "slope": [-4.0, 0.0]},
    )
    assert call("simulate", path, "--out", folder / "run") == 0
    return path


def opened(run: Path) -> tuple[Bank, Prior]:
    from eorinfer.run.config import load_config

    return Bank.open(run.parent / "run" / "bank"), load_config(run).prior


def test_each_likelihood_is_that_of_the_rows_own_observables(run: Path, tmp_path: Path) -> None:
    bank, prior = opened(run)
    rows = bank.rows().ok
    a, b = rows.theta.T
    depth = External(optical_depth=(0.0561, 0.0071)).log_likelihood(bank, rows)
    np.testing.assert_allclose(depth, -0.5 * ((0.06 + 0.01 * a - 0.0561) / 0.0071) ** 2, atol=1e-4)
    fraction = External(neutral_fraction=(5.9, 0.06, 0.05)).log_likelihood(bank, rows)
    above = np.maximum(0.9 * (0.5 + 0.1 * b) - 0.06, 0.0)
    np.testing.assert_allclose(fraction, -0.5 * (above / 0.05) ** 2, atol=1e-3)
    assert (fraction[above == 0] == 0).all()
    (tmp_path / "uv.txt").write_text("# z M phi sigma\n6 -18 1e-3 3e-4\n8.02, -19, 4e-4, 1e-4\n")
    luminosity = External(luminosity_function=tmp_path / "uv.txt").log_likelihood(bank, rows)
    model = 10 ** (0.1 * a)
    expected = -0.5 * ((1e-3 * model - 1e-3) / 3e-4) ** 2 - 0.5 * ((10**-3.5 * model - 4e-4) / 1e-4) ** 2
    np.testing.assert_allclose(luminosity, expected, rtol=1e-3, atol=1e-4)
    together = External((0.0561, 0.0071), (5.9, 0.06, 0.05), tmp_path / "uv.txt").log_likelihood(bank, rows)
    np.testing.assert_allclose(together, depth + fraction + luminosity)
    assert len(weighed(bank, prior, External(optical_depth=(0.0561, 0.0071)))) == N


def test_the_weighed_rows_are_a_joint_prior_of_another_run(run: Path) -> None:
    root = run.parent / "planck"
    data = ["--optical-depth", "0.0561", "0.0071", "--neutral-fraction", "5.9", "0.06", "0.05"]
    assert call("bank", "weigh", run, root, "--out", run.parent / "run", *data) == 0
    # What is there is not replaced, and a mistyped folder is not begun.
    assert call("bank", "weigh", run, root, "--out", run.parent / "run", *data) == 2
    assert call("bank", "weigh", run, run.parent / "new", "--out", run.parent / "rum", *data) == 2
    assert not (run.parent / "rum").exists()
    from eorinfer.run.config import load_config

    other = config(run.parent, "other.toml", prior={"log_amplitude": None, "slope": None, "table": "planck"})
    drawn = load_config(other).prior.sample(4000, np.random.default_rng(1))
    truth = np.random.default_rng(2).uniform([-2, -4], [3, 0], (200_000, 2))
    above = np.maximum(0.9 * (0.5 + 0.1 * truth[:, 1]) - 0.06, 0.0)
    weights = np.exp(-0.5 * ((0.06 + 0.01 * truth[:, 0] - 0.0561) / 0.0071) ** 2 - 0.5 * (above / 0.05) ** 2)
    for column in range(2):
        mean = np.average(truth[:, column], weights=weights)
        std = np.sqrt(np.cov(truth[:, column], aweights=weights))
        assert drawn[:, column].mean() == pytest.approx(mean, abs=0.2 * std)
        assert drawn[:, column].std() == pytest.approx(std, rel=0.15)


def test_what_the_bank_does_not_have_is_said(run: Path, tmp_path: Path) -> None:
    bank, prior = opened(run)
    rows = bank.rows().ok
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "give --optical-depth, --neutral-fraction or --luminosity-function"),
        ({"neutral_fraction": (12.0, 0.06, 0.05)}, "the history is known from z = 5 to 8, not at 12"),
        ({"optical_depth": (0.05, 0.0)}, "--optical-depth: the last number is a standard deviation"),
        ({"luminosity_function": tmp_path / "uv.txt"}, "z = 10, but the bank has luminosity functions at z = 6, 8"),
        ({"luminosity_function": tmp_path / "far.txt"}, "M_UV = 20, but the bank has .* from -20 to -16 mag"),
        ({"luminosity_function": tmp_path / "bad.txt"}, "must be redshift, magnitude, density, standard deviation"),
    ]
    (tmp_path / "uv.txt").write_text("10 -18 1e-3 3e-4\n")
    (tmp_path / "bad.txt").write_text("10 -18 1e-3\n")
    (tmp_path / "far.txt").write_text("6 20 1e-3 3e-4\n")
    for data, message in wrong:
        with pytest.raises(InputError, match=message):
            External(**data).log_likelihood(bank, rows)
    with pytest.raises(InputError, match="of 1500 simulations count under these data, 20 are needed"):
        weighed(bank, prior, External(optical_depth=(0.0899, 1e-6)))
