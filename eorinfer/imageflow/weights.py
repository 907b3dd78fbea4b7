"""What each term of ln p(x | y) is worth, learned on images that training held out.

A density that is wrong by little in each cell is wrong by much in sum. So q(y | x) ~ exp(sum_t w_t ln p_t(x | y)), with
weights w >= 0 for which the mean ln q of the true y of held-out images is largest. All one: the density as it is.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from eorinfer.core.kept_rows import read_rows, write_rows
from eorinfer.core.prior import Prior
from eorinfer.core.progress import Progress
from eorinfer.imageflow.diffusion import DiffusionFlow
from eorinfer.imageflow.interpolated import InterpolatedLikelihood

Array = NDArray[np.float64]
#: Nats below the peak of ln p that are looked at: posteriors may be much too narrow. Points y of each image.
DEPTH, POINTS = 60.0, 1024
#: Images from which on each term has a weight of its own. Weights learned on 25 and 75 maps did worse than one for all,
#: those of 300 no better.
MANY = 400
#: Strength of the pull of the weights towards one, in nats of all images together for a weight of e or 1/e.
PULL = 0.5
#: Arrays that are kept of each image, as `learn_weights` takes them.
KEPT = ("terms", "at_truth", "log_cell")


def weights_of_images(
    flow: DiffusionFlow, conditions: Prior, images: Tensor, y: Array, file: Path, key: str, progress: Progress
) -> Array:
    """Find the weights (1 + `BANDS`,) of a diffusion's terms from images (n, C, *cells) of conditions (n, P).

    Without images they are one. What is known of an image is kept in `file`, under the hash `key` of all that it
    depends on, so that a stopped call continues; the caller deletes it.
    """
    if not len(images):
        return np.ones(len(flow.terms))
    known = read_rows(file, key, KEPT)
    with progress.bar("image flow, what ln p is worth", len(images)) as advance:
        advance(len(known), "")
        for x, truth in zip(images[len(known) :].split(1), y[len(known) :], strict=False):
            log_l = InterpolatedLikelihood(flow, x, conditions, depth=DEPTH)
            points, cell = log_l.points(POINTS)
            at_truth = log_l.terms(truth[None])[0]
            known.append({"terms": log_l.terms(points), "at_truth": at_truth, "log_cell": np.array(cell)})
            write_rows(file, key, known)
            advance(1, "")
    arrays = (np.array([image[name] for image in known]) for name in KEPT)
    return learn_weights(*arrays) if len(images) >= MANY else learn_one_weight(*arrays)


def learn_one_weight(terms: Array, at_truth: Array, log_cell: Array) -> Array:
    """Find the weight that all terms have in common: (T,), all equal; parameters as of `learn_weights`."""
    one = learn_weights(terms.sum(2, keepdims=True), at_truth.sum(1, keepdims=True), log_cell)
    return np.repeat(one, terms.shape[2])


def learn_weights(terms: Array, at_truth: Array, log_cell: Array) -> Array:
    """Find the weights of terms, for a flat prior.

    Parameters
    ----------
    terms
        (n, G, T) terms of ln p(x | y) of n images, each at G points y, in nats.
    at_truth
        (n, T) the same at the true y.
    log_cell
        (n,) logarithm of the volume of y that each of the G points stands for.

    Returns
    -------
    (T,)
    """
    one = np.ones(terms.shape[2])

    def loss(log_w: Array) -> float:
        log_q = log_density(np.exp(log_w), terms, at_truth, log_cell)
        return float(-log_q.sum() + PULL * np.square(log_w).sum())

    return np.asarray(np.exp(minimize(loss, 0 * one, method="Powell", bounds=[(-6.0, 1.5)] * len(one)).x))


def log_density(weights: Array, terms: Array, at_truth: Array, log_cell: Array) -> Array:
    """Compute ln q(y | x) (n,) at the true y for weights (T,); other parameters as of `learn_weights`."""
    return np.asarray(at_truth @ weights - logsumexp(terms @ weights, axis=1) - log_cell)
