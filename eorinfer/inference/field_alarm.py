"""Is an image like those that a field flow was trained on? Its ln p(x | y), scale by scale, among known images."""

import numpy as np
from numpy.typing import NDArray

#: Known images of the nearest conditions that an image is compared with.
NEIGHBOURS = 200


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
        How many of them count, at most: those nearest in y, each condition over its own scatter. Among these
        ln p is taken to be linear in y, which is removed.

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
    p = [
        _p_values(one, (known_y[some] - at) / unit, known_log_p[some])
        for one, at, some in zip(found, conditions, nearest, strict=True)
    ]
    return np.array(p).reshape(np.shape(log_p))


def _p_values(found: NDArray[np.float64], off: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one image (S,), among known ones (k, S) whose conditions are off by (k, P)."""
    # What ln p does along y is not part of its scatter.
    design = np.column_stack([np.ones(len(off)), off])
    level, *slopes = np.linalg.lstsq(design, known, rcond=None)[0]
    others = known - off @ np.array(slopes) - level
    lower, higher = (others <= found - level).sum(0) + 1, (others >= found - level).sum(0) + 1
    return np.minimum(1.0, 2 * np.minimum(lower, higher) / (len(known) + 1))
