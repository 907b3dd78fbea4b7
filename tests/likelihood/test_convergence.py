"""R-hat of an ensemble: it sees walkers that keep to their modes, and leaves chains alone that mix."""

import numpy as np
import pytest
from numpy.typing import NDArray

from eorinfer.core.prior import Prior
from eorinfer.likelihood.convergence import AGREE, measures, split_r_hat
from eorinfer.likelihood.mcmc import run_mcmc
from eorinfer.settings.likelihood import McmcSettings
from simulators import Parameter


def test_parts_that_agree_and_parts_that_do_not() -> None:
    rng = np.random.default_rng(1)
    chain = rng.standard_normal((400, 32, 3))
    assert 1 <= split_r_hat(chain) < 1.002
    assert 1 <= split_r_hat(chain[:, :6]) < 1.004
    drifting, apart, wider = chain.copy(), chain.copy(), chain.copy()
    drifting[:, :, 1] += np.linspace(0, 1, 400)[:, None]
    apart[:, np.random.default_rng(3).random(32) < 0.5, 2] += 3.0
    wider[:, 16:, 0] *= 1.6
    for wrong in (drifting, apart, wider):
        assert split_r_hat(wrong) > AGREE
    heavy = np.random.default_rng(2).standard_cauchy((400, 32, 3))
    assert split_r_hat(heavy) < AGREE
    still = chain.copy()
    still[:, :, 1] = 0.0
    assert split_r_hat(still) == np.inf
    assert split_r_hat(chain[:3]) == np.inf


PRIOR = Prior(tuple(Parameter(name, name, -5.0, 5.0, 0.0) for name in "abcde"))


def two_modes(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the posterior in each of two Gaussians, one with half the other's width in each of five parameters."""
    wide, narrow = (-0.5 * np.square((theta - at) / s).sum(-1) - 5 * np.log(s) for at, s in ((-1.5, 0.5), (1.5, 0.25)))
    return np.asarray(np.logaddexp(wide, narrow))


@pytest.mark.job
def test_walkers_that_seldom_cross_between_modes_are_not_called_converged() -> None:
    """Real chains; their shares of the two modes scatter by 0.16 about 0.5 after so many steps."""
    settings = McmcSettings(walkers=32, steps=1000, max_steps=1000)
    chains = [run_mcmc(two_modes, PRIOR, settings, file=None, key="k", seed=seed) for seed in range(5)]
    found = [chain for chain in chains if (chain.samples.values[:, 0] < 0).mean() < 0.99]
    assert len(found) >= 3, "the others started in one mode alone, which nothing can see"
    assert sum(chain.r_hat > AGREE for chain in found) >= len(found) - 1
    assert not any(chain.converged for chain in found)


def test_what_is_said() -> None:
    assert measures(20.0, 1.05) == "20 autocorrelation times (50 needed), R-hat 1.050 (1.01 at most)"
    assert measures(20.0, None) == "20 autocorrelation times (50 needed)"
