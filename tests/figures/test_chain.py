"""The figure of a chain shows its walkers and how long they remember."""

import numpy as np

from eorinfer.figures.chain import TIMES, chain_figure
from simulators import Parameter


def test_autocorrelation_is_that_of_the_process() -> None:
    rng, memory = np.random.default_rng(1), 0.9
    chain = np.zeros((4000, 12, 2))
    for step in range(1, len(chain)):
        chain[step] = memory * chain[step - 1] + rng.standard_normal((12, 2))
    chain[:, 3] = 1.0  # a walker that never moved
    parameters = (Parameter("a", "a", -9, 9, 0), Parameter("b_c", "", -9, 9, 0))
    figure = chain_figure(chain, parameters, 19.0, "power-spectrum MCMC")
    trace, correlation = figure.axes[:2]
    assert len(trace.lines) == 8 + 1
    lag = np.asarray(correlation.lines[0].get_ydata())
    assert len(lag) == TIMES * 19 + 2
    np.testing.assert_allclose(lag[:8], memory ** np.arange(8), atol=0.05)
