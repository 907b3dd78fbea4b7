"""What pictures, the page and the preflight show of a prior."""

import numpy as np
from numpy.typing import NDArray

from eorinfer.core.marginals import Marginal
from eorinfer.core.prior import Prior

#: Points of a density that is drawn.
POINTS = 500


def prior_line(prior: Prior, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Points, and the density there of one parameter that is not flat, one at its highest; None for others."""
    if (marginal := _marginal(prior, name)) is None:
        return None
    theta = np.linspace(marginal.low, marginal.high, POINTS)
    log_p = marginal.log_pdf(theta)
    return theta, np.exp(log_p - log_p.max())


def prior_words(prior: Prior, name: str) -> str:
    """Say what the density of a parameter is."""
    joint = prior.dependence is not None and prior.names.index(name) in prior.dependence.columns
    marginal = _marginal(prior, name)
    return "flat" if marginal is None else marginal.words() + (", with others" if joint else "")


def joined(prior: Prior, other: Prior) -> Prior:
    """Join parameters and marginals of two priors; how parameters depend on each other is left out."""
    names = [*prior.names, *(name for name in other.names if name not in prior.names)]
    sources = [prior if name in prior.names else other for name in names]
    both = tuple(_marginal(source, name) for source, name in zip(sources, names, strict=True))
    parameters = tuple(source.parameters[source.names.index(name)] for source, name in zip(sources, names, strict=True))
    return Prior(parameters, both if any(both) else ())


def _marginal(prior: Prior, name: str) -> Marginal | None:
    return dict(zip(prior.names, prior.marginals, strict=False)).get(name)
