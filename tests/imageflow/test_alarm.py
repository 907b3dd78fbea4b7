"""The alarm of the image flow: false alarms as often as it says, also where images of one realisation are alike."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student

from eorinfer.imageflow.alarm import KnownImages, compare_scales

CELLS, SIGMA = 16, 0.3
K = 2 * np.pi * np.hypot(np.fft.fftfreq(CELLS)[:, None], np.fft.fftfreq(CELLS)[None])
K[0, 0] = K[0, 1]
EDGES = (0.0, 0.6, 1.2, 2.0, 2.8, 10.0)


def scales(
    realisations: int,
    images: int,
    seed: list[int],
    *,
    lognormal: bool = False,
    hidden: float = 0.3,
    noise: float = SIGMA,
) -> KnownImages:
    """Ln p of maps in bands of k under a Gaussian model that knows ln A = 2 y, and not what all maps of one box share.

    Parameters
    ----------
    realisations, images
        Boxes, and maps of each, whose conditions y are nearly the same.
    hidden
        Standard deviation of a box's own ln A, over that of the model.
    noise
        In the maps; the model's is `SIGMA`.
    """
    rng = np.random.default_rng(seed)
    n = realisations * images
    box = np.repeat(np.arange(realisations), images)
    y = rng.uniform(0, 1, realisations)[box] + 0.05 * rng.standard_normal(n)
    own = hidden * rng.standard_normal(realisations)[box]
    shape = (K / 0.4) ** -1.5
    white = np.fft.fft2(rng.standard_normal((n, CELLS, CELLS)))
    field = np.fft.ifft2(white * np.sqrt(np.exp(2 * y + own)[:, None, None] * shape)).real
    if lognormal:
        field = 2 * np.expm1(np.minimum(0.5 * field, 6))
    power = np.abs(np.fft.fft2(field + noise * rng.standard_normal(field.shape))) ** 2 / CELLS**2
    model = np.exp(2 * y)[:, None, None] * shape + SIGMA**2
    log_p = -0.5 * power / model - 0.5 * np.log(model)
    bands = [log_p[:, (low <= K) & (high > K)].sum(1) for low, high in pairwise(EDGES)]
    return KnownImages(np.stack(bands, axis=1), y[:, None], box)


def flagged(p: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Whether images of p-values (n, S) are called unlike."""
    return p.min(1) * p.shape[1] < level


def p_values(log_p: NDArray[np.float64], y: NDArray[np.float64], known: KnownImages) -> NDArray[np.float64]:
    """P-values of several images, or of one."""
    return compare_scales(np.atleast_2d(log_p), np.atleast_2d(y), known).p.reshape(np.shape(log_p))


@pytest.mark.parametrize("lognormal", [False, True], ids=["gaussian", "lognormal"])
@pytest.mark.parametrize(("realisations", "images"), [(15, 32), (60, 1)])
@pytest.mark.job
def test_false_alarms_where_images_of_a_realisation_are_alike(realisations: int, images: int, lognormal: bool) -> None:
    """Few boxes of many maps, or many boxes: with other known boxes each time, as a run has them."""
    repeats, tested = 30, 20
    right, wrong = [], []
    for i in range(repeats):
        known = scales(realisations, images, [i, 1], lognormal=lognormal)
        new = scales(tested, 1, [i, 2], lognormal=lognormal)
        right.append(compare_scales(new.log_p, new.y, known).p)
        noisy = scales(tested, 1, [i, 3], lognormal=lognormal, noise=3 * SIGMA)
        wrong.append(compare_scales(noisy.log_p, noisy.y, known).p)
    p, q = np.concatenate(right), np.concatenate(wrong)
    print(
        f"{realisations} boxes of {images}: called unlike at 5% {flagged(p, 0.05).mean():.1%}, at 1% "
        f"{flagged(p, 0.01).mean():.1%}; of those with three times the noise {flagged(q, 0.05).mean():.0%}"
    )
    # Images compared with the same known ones err together: counted as half as many.
    low, high = binom.ppf([0.005, 0.995], len(p) // 2, 0.05) / (len(p) // 2)
    assert low <= flagged(p, 0.05).mean() <= high
    assert flagged(p, 0.01).mean() < 0.045
    assert ((p < 0.05).mean(0) < 0.09).all()
    assert flagged(q, 0.05).mean() > 0.8, "the wrong noise is seen"


@pytest.mark.job
def test_images_that_are_independent_are_not_taken_for_one_realisation() -> None:
    """The numbers matter: maps of 15 boxes, said to be of 480, are compared with too small a spread."""
    rates = {}
    for honest in (True, False):
        found = []
        for i in range(12):
            known = scales(15, 32, [i, 1], hidden=0.6)
            box = known.realisation if honest else np.arange(len(known.y))
            new = scales(20, 1, [i, 2], hidden=0.6)
            found.append(compare_scales(new.log_p, new.y, KnownImages(known.log_p, known.y, box)).p)
        rates[honest] = flagged(np.concatenate(found), 0.05).mean()
    assert rates[True] < 0.1
    assert rates[False] > 1.5 * rates[True]


def images(n: int, seed: int) -> KnownImages:
    """Ln p at two scales, whose level and scatter depend on the condition; each of a realisation of its own."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(0, 1, (n, 1))
    log_p = 1000 * y + np.array([1.0, 10.0]) * (1 + y) * rng.standard_normal((n, 2))
    return KnownImages(log_p, y, np.arange(n))


@pytest.mark.job
def test_images_like_the_known_ones_have_uniform_p_values() -> None:
    new = images(2000, 1)
    p = p_values(new.log_p, new.y, images(4000, 2))
    assert p.shape == (2000, 2)
    for level in (0.05, 0.3, 0.7):
        assert (p < level).mean(0) == pytest.approx(np.full(2, level), abs=0.035)


def test_others_are_told_apart_at_their_scale() -> None:
    known, one = images(4000, 2), images(1, 3)
    log_p, y = one.log_p[0], one.y[0]
    at = p_values(log_p - np.array([0.0, 200.0]), y, known)
    assert at.shape == (2,)
    assert at[0] == p_values(log_p, y, known)[0]
    assert at[1] < 1e-6
    assert p_values(log_p + np.array([20.0, 0.0]), y, known)[0] < 1e-6
    found = compare_scales(one.log_p - np.array([0.0, 200.0]), one.y, known)
    assert found.deviation[0, 1] == pytest.approx(-200 / (10 * (1 + y[0])), rel=0.4)
    assert found.freedom[0, 0] == pytest.approx(99, abs=1)


def test_few_known_images() -> None:
    y = np.zeros((19, 1))
    known = KnownImages(np.arange(-9.0, 10).repeat(2).reshape(19, 2), y, np.arange(19))
    assert p_values(np.zeros(2), np.zeros(1), known) == pytest.approx([1.0, 1.0])
    # Of one realisation nothing can be said of others, whatever is seen.
    alone = KnownImages(known.log_p, y, np.zeros(19, int))
    assert p_values(np.full(2, 1e6), np.zeros(1), alone) == pytest.approx([1.0, 1.0])
    # Two realisations that hardly differ: one degree of freedom between them, and eighteen within.
    two = KnownImages(known.log_p, y, np.arange(19) % 2)
    assert p_values(np.full(2, 1e6), np.zeros(1), two).max() < 0.01
    # What never varies is what it is, or else.
    constant = KnownImages(np.ones((19, 2)), y, np.arange(19))
    assert p_values(np.array([1.0, 2.0]), np.zeros(1), constant) == pytest.approx([1.0, 0.0], abs=1e-6)


def test_the_variance_of_a_new_image_is_that_of_realisations_and_that_within() -> None:
    """Five boxes of three images at one condition, whose means and residuals are symmetric: all by hand."""
    box_spread, image_spread, off = 3.0, 2.0, 10.0
    log_p = np.add.outer(box_spread * np.array([-1, -1, 0, 1, 1]), image_spread * np.array([-1, 0, 1])).reshape(15, 1)
    known = KnownImages(log_p, np.zeros((15, 1)), np.repeat(np.arange(5), 3))
    found = compare_scales(np.array([[off]]), np.zeros((1, 1)), known)
    between, within = box_spread**2, image_spread**2  # of four and of ten degrees of freedom
    rest = (1 - 1 / 3) * within
    variance = between + rest
    freedom = variance**2 / (between**2 / 4 + rest**2 / 10) / 2
    # The error of the mean of five boxes; eight of the fifteen images are on either side, the median on both.
    spread = np.sqrt(variance + between / 5) * np.sqrt(15 / 16)
    assert found.deviation[0, 0] == pytest.approx(off / spread)
    assert found.freedom[0, 0] == pytest.approx(freedom)
    assert found.p[0, 0] == pytest.approx(2 * student.sf(off / spread, freedom))
