"""The benchmark of NPE and a density of cubes together, where the density is a known second measurement."""

import numpy as np
import pytest

from benchmarks.imageflow.cube_features import Cubes, scores, ways

#: NPE measures two parameters with unit errors, and so does the density: each alone has half of what both tell.
EXACT = np.log(2)


def cubes(n: int, seed: int) -> Cubes:
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((n, 501, 2))
    seen = theta[:, -1] + rng.standard_normal((n, 2))
    log_p = np.concatenate([seen, np.broadcast_to([-0.5, 0.0, -0.5], (n, 3))], 1)
    terms = log_p[:, None] * np.array([0.4, 0.2, 0.2, 0.1, 0.1])[:, None]
    return Cubes(theta, -0.5 * np.square(theta).sum(2), terms, np.repeat(np.arange(n // 4), 4))


def test_what_a_density_adds_is_found_and_no_more() -> None:
    found = {name: (scores(cubes(240, 2), ratio), w) for name, (ratio, w) in ways(cubes(280, 1), cubes(240, 2)).items()}
    alone, _ = found["NPE with a weight"]
    assert abs(alone["more than NPE"][0]) < 0.02, "NPE is right as far as it goes"
    for name in ("as a run", "one weight"):
        both, weights = found[name]
        assert weights == pytest.approx([1, 1], abs=0.15)
        gain, error = both["more than NPE"]
        assert gain == pytest.approx(EXACT, abs=2.5 * error)
        assert both["width over NPE's"] == pytest.approx([0.5**0.5] * 2, rel=0.05)
        assert both["inside 68%"][0][0] == pytest.approx(0.68, abs=0.08)
