"""The benchmark of NPE that reads a density of cubes, where the density is a known second measurement."""

import numpy as np
import pytest
import torch

from benchmarks.imageflow.cube_features import ALONE, Cubes, Weighed, fitted, networks, scores

#: NPE measures two parameters with unit errors, and so does the density: each alone has half of what both tell.
EXACT = np.log(2)


def cubes(n: int, seed: int) -> Cubes:
    generator = torch.Generator().manual_seed(seed)
    delta, drawn = torch.randn(n, 2, generator=generator), torch.randn(n, 500, 2, generator=generator)
    seen = delta + torch.randn(n, 2, generator=generator)
    log_p = torch.cat([seen, torch.tensor([-0.5, 0.0, -0.5]).expand(n, 3)], 1)
    terms = log_p[:, None] * torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1])[:, None]
    log_q, log_q_drawn = -0.5 * delta.square().sum(1), -0.5 * drawn.square().sum(2)
    of_npe = torch.randn(n, 12, generator=generator)
    return Cubes(delta, drawn, log_q, log_q_drawn, terms, of_npe, np.repeat(np.arange(n // 4), 4))


@pytest.mark.usefixtures("quick_diffusion")
def test_what_a_density_adds_is_found_and_no_more() -> None:
    learn, test = cubes(280, 1), cubes(240, 2)
    alone = Weighed([])
    fitted(alone, learn)
    assert abs(scores(test, [alone])["more than NPE"][0]) < 0.02, "NPE is right as far as it goes"
    weighed = Weighed([[i for (i,) in ALONE]])
    fitted(weighed, learn)
    assert weighed.weights.tolist() == pytest.approx([1, 1], abs=0.15)
    found = scores(test, [weighed])
    gain, error = found["more than NPE"]
    assert gain == pytest.approx(EXACT, abs=2.5 * error)
    assert found["width over NPE's"] == pytest.approx([0.5**0.5] * 2, rel=0.05)
    assert found["inside 68%"][0][0] == pytest.approx(0.68, abs=0.08)
    (read, _), (noise, _) = (
        scores(test, networks(learn, (part,)))["more than NPE"] for part in ("of_density", "of_npe")
    )
    assert read > 0.7 * EXACT
    assert abs(noise) < 0.1, "features that say nothing add nothing"
