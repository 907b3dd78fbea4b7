"""Is an image like those that a field flow was trained on? Its ln p(x | y), scale by scale, among known images."""

import numpy as np
from numpy.typing import NDArray

#: Known images of the nearest conditions that an image is compared with.
NEIGHBOURS = 100


def scale_p_values(
    log_p: NDArray[np.float64],
    y: NDArray[np.float64],
    known_log_p: NDArray[np.float64],
    known_y: NDArray[np.float64],
    neighbours: int = NEIGHBOURS,
) -> NDArray[np.float64]:
    """How often known images of about the same condition have so low or so high a ln p, at each scale.

    As in Multiscale Flow (Dai & Seljak 2023, arXiv 2306.04689), where noise, beams and baryons shift the scales at
    which they act. An image may be too improbable (structure that training never saw) or too probable (too smooth).
    Known images have to be ones that training held out.

    Parameters
    ----------
    log_p
        (S,) or (n, S), of images: `ImageFlow.log_prob_scales` at their condition.
    y
        (P,) or (n, P), that condition: for an observation the posterior's mean.
    known_log_p, known_y
        (m, S) and (m, P) of known images.
    neighbours
        How many of them count, at most: those nearest in y, each condition over its own scatter.

    Returns
    -------
    NDArray
        (S,) or (n, S), two-sided; the smallest possible one is 2 / (neighbours + 1).
    """
    unit = known_y.std(0)
    unit = np.where(unit > 0, unit, 1.0)
    found, conditions = np.atleast_2d(log_p), np.atleast_2d(y)
    distance = np.square((conditions[:, None] - known_y) / unit).sum(-1)
    nearest = np.argsort(distance, axis=1)[:, :neighbours]
    others = known_log_p[nearest]
    lower = (others <= found[:, None]).sum(1) + 1
    higher = (others >= found[:, None]).sum(1) + 1
    p = np.minimum(1.0, 2 * np.minimum(lower, higher) / (nearest.shape[1] + 1))
    return p.reshape(np.shape(log_p))
