"""The summary's numbers, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from eorinfer.core.samples import Samples
from eorinfer.report.summary import summary, wider_line
from simulators import Parameter

PARAMETERS = (Parameter("a", "a", -6.0, 6.0, 0.0), Parameter("b", "b", 0.0, 1.0, 0.5))


def gaussian(label: str, mean: tuple[float, float], std: tuple[float, float], n: int = 20_000) -> Samples:
    """Samples of two independent Gaussians."""
    values = np.random.default_rng(1).standard_normal((n, 2))
    return Samples.unweighted((values - values.mean(0)) / values.std(0) * std + mean, PARAMETERS, label)


def test_what_it_says_of_a_posterior() -> None:
    chains = {"npe": gaussian("NPE", (1.0, 0.5), (0.5, 0.02)), "mcmc": gaussian("MCMC", (0.0, 0.5), (1.0, 0.01))}
    content = summary(chains, {"a": 2.0, "b": 0.49}, {"seed": 7})
    assert content["seed"] == 7
    found = content["posteriors"]["npe"]
    assert (found["label"], found["samples"]) == ("NPE", 20_000)
    a, b = found["parameters"]["a"], found["parameters"]["b"]
    assert (a["mean"], a["std"]) == (pytest.approx(1.0), pytest.approx(0.5, rel=1e-3))
    assert a["bias_sigma"] == pytest.approx(-2.0, rel=1e-3), "the mean is two widths below the truth"
    assert b["bias_sigma"] == pytest.approx(0.5, rel=1e-3), "and half a width above it"
    assert a["std_over_prior"] == pytest.approx(0.5 / (12 / 12**0.5), rel=1e-3)
    assert a["interval_68"] == pytest.approx([0.503, 1.497], abs=0.02)
    assert a["interval_95"] == pytest.approx([0.020, 1.980], abs=0.03)
    assert found["volume"] == pytest.approx(0.01, rel=0.02)
    assert content["npe_over_mcmc"]["std"] == pytest.approx({"a": 0.5, "b": 2.0})
    assert content["npe_over_mcmc"]["volume"] == pytest.approx(1.0)


def test_without_a_truth_there_is_no_bias() -> None:
    chains = {"npe": gaussian("NPE", (1.0, 0.5), (0.5, 0.02))}
    assert "npe_over_mcmc" not in summary(chains, None, {})
    for truth in (None, {"b": 0.5}):
        a = summary(chains, truth, {})["posteriors"]["npe"]["parameters"]["a"]
        assert "bias_sigma" not in a
        assert "truth" not in a


def test_npe_of_some_parameters_or_of_other_targets() -> None:
    """Widths are compared by name: NPE may infer targets, and the chain always has all parameters."""
    npe, mcmc = gaussian("NPE", (1.0, 0.5), (0.5, 0.02)), gaussian("MCMC", (0.0, 0.5), (1.0, 0.01))
    some = summary({"npe": npe.only("b"), "mcmc": mcmc}, {"a": 2.0, "b": 0.49}, {})["npe_over_mcmc"]
    assert some == {"std": pytest.approx({"b": 2.0}), "volume": pytest.approx(2.0)}
    turned = summary({"npe": npe.only(["b", "a"]), "mcmc": mcmc}, None, {})["npe_over_mcmc"]
    assert turned["std"] == pytest.approx({"a": 0.5, "b": 2.0})
    others = (Parameter("xHI", "x", 0.0, 1.0, 0.5), Parameter("b", "b", 0.0, 1.0, 0.5))
    for shared, chain in (
        ({"b"}, replace(npe, parameters=others)),
        (None, replace(npe, parameters=others).only("xHI")),
    ):
        content, line = summary({"npe": chain, "mcmc": mcmc}, None, {}), wider_line({"npe": chain, "mcmc": mcmc})
        assert (set(content["npe_over_mcmc"]["std"]) if shared else content.get("npe_over_mcmc")) == shared
        assert (line is not None) == (shared is not None)
