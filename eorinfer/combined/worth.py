"""What ln p of an image flow, and NPE's ln q, are worth together: learned on images that both held out."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

Array = NDArray[np.float64]
#: Largest weight; and strength of the pull towards NPE alone, weights of 0 and 1, in nats of all images together.
MOST, PULL = 2.0, 0.5
#: Share of NPE itself in a combined posterior: what ln p rules out by mistake costs four nats at most.
FLOOR = 0.02


def exponents(weights: Array, log_p: Array, log_q: Array) -> Array:
    """Compute what NPE's density is multiplied by, in nats (...), of ln p and NPE's ln q there (...)."""
    return np.asarray(weights[0] * log_p + (weights[1] - 1) * log_q)


def log_ratio(nats: Array, draws: int) -> Array:
    """Norm exponents (..., n), of which the first are at draws from NPE: log of the ratio to NPE's density (..., n)."""
    normed = nats - logsumexp(nats[..., :draws], axis=-1, keepdims=True) + np.log(draws)
    return np.asarray(np.logaddexp(np.log1p(-FLOOR) + normed, np.log(FLOOR)))


def learn_weights(log_p: Array, log_q: Array) -> Array:
    """Find the weights (2,) of ln p and of ln q with which the mean ln q of the truths is largest.

    The loss is that of an exponential family, so that it has one minimum.

    Parameters
    ----------
    log_p
        (n, D + 1) ln p of n images at D draws from NPE, and at their true theta, each up to a constant of the image.
    log_q
        (n, D + 1) NPE's ln q there, likewise.
    """
    features = np.stack([log_p, log_q], axis=2)
    features = features - features.mean(1, keepdims=True)

    def loss(weights: Array) -> tuple[float, Array]:
        off = weights - [0.0, 1.0]
        nats = features @ off
        norm = logsumexp(nats[:, :-1], axis=1)
        share = np.exp(nats[:, :-1] - norm[:, None])
        slope = (features[:, -1] - np.einsum("nd,ndk->nk", share, features[:, :-1])).sum(0)
        return float((norm - nats[:, -1]).sum() + PULL * np.square(off).sum()), 2 * PULL * off - slope

    found = minimize(loss, [0.0, 1.0], jac=True, method="L-BFGS-B", bounds=[(0.0, MOST)] * 2)
    return np.asarray(found.x)
