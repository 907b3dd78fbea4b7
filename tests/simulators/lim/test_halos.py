"""Halo catalogues: counts against the mass function, clustering and motion against theory."""

import itertools
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.base import SimulationError
from simulators.lim import halos
from simulators.lim.cosmology import Cosmology, tinker_bias
from simulators.lim.halos import Halos, box_halos, cone_halos

COSMOLOGY = Cosmology()
BOX, CELLS = 200.0, 64


@lru_cache
def catalogue(z: float, seed: int) -> Halos:
    return box_halos(COSMOLOGY, z, BOX, CELLS, (3e11, 1e16), seed)


def contrast(halos: Halos, cells: int = CELLS) -> NDArray[np.float64]:
    count = np.histogramdd(halos.position, bins=cells, range=[(0, side) for side in halos.box])[0]
    return count / count.mean() - 1


def modes(field: NDArray[np.float64], box: float, low: float, high: float) -> NDArray[np.complex128]:
    n = len(field)
    f = [np.fft.fftfreq(n, box / n), np.fft.fftfreq(n, box / n), np.fft.rfftfreq(n, box / n)]
    k = 2 * np.pi * np.sqrt(sum(x**2 for x in np.meshgrid(*f, indexing="ij")))
    return np.asarray(np.fft.rfftn(field)[(k > low) & (k < high)])


def test_background_and_growth() -> None:
    """Distances from facts of the same cosmology by another code; growth against hmf's."""
    assert COSMOLOGY.distance(1.3) * COSMOLOGY.h == pytest.approx(2765, rel=1e-3)
    assert COSMOLOGY.distance(2.0) * COSMOLOGY.h == pytest.approx(3598.6, rel=1e-3)
    assert COSMOLOGY.redshift(COSMOLOGY.distance(1.7)) == pytest.approx(1.7, abs=1e-4)
    assert COSMOLOGY.growth(1.3) == pytest.approx(0.53691, rel=2e-3)
    assert COSMOLOGY.growth(2.0) == pytest.approx(0.41839, rel=2e-3)


def test_the_linear_spectrum_has_the_right_sigma8() -> None:
    k = np.geomspace(1e-4, 50, 20000)
    x = k * 8 / COSMOLOGY.h
    window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    variance = np.trapezoid(COSMOLOGY.power(k) * window**2 * k**3 / (2 * np.pi**2), np.log(k))
    assert np.sqrt(variance) == pytest.approx(COSMOLOGY.sigma8, rel=5e-3)


def test_counts_are_those_of_the_mass_function() -> None:
    m, dn_dlnm, _ = COSMOLOGY.mass_function(2.0)
    counts = np.zeros(4)
    edges = np.array([3e11, 6e11, 1.5e12, 5e12, 1e16])
    for seed in range(4):
        counts += np.histogram(catalogue(2.0, seed).mass, edges)[0]
    fine = [np.geomspace(a, b, 400) for a, b in itertools.pairwise(edges)]
    number = [np.trapezoid(np.exp(np.interp(np.log(x), np.log(m), np.log(dn_dlnm))), np.log(x)) for x in fine]
    expected = 4 * BOX**3 * np.array(number)
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected) + 0.003 * expected), (counts, expected)


@pytest.mark.parametrize("z", [1.3, 2.0])
def test_bias_on_large_scales(z: float) -> None:
    """Cross-power of two mass bins of one realisation over the linear power, against Tinker et al."""
    m, dn_dlnm, sigma = COSMOLOGY.mass_function(z)
    found, expected = [], []
    for low, high in ((3e11, 1e12), (1e12, 1e14)):
        inside = (m > low) & (m < high)
        expected.append(np.average(tinker_bias(sigma)[inside], weights=dn_dlnm[inside]))
    for seed in range(4):
        halos = catalogue(z, seed)
        a, b = (
            modes(contrast(halos[(halos.mass > low) & (halos.mass < high)]), BOX, 0.03, 0.2)
            for low, high in ((3e11, 1e12), (1e12, 1e14))
        )
        found.append(np.mean((a * b.conj()).real) * BOX**3 / CELLS**6)
    f = np.fft.fftfreq(CELLS, BOX / CELLS)
    k = 2 * np.pi * np.sqrt(sum(x**2 for x in np.meshgrid(f, f, np.fft.rfftfreq(CELLS, BOX / CELLS), indexing="ij")))
    linear = COSMOLOGY.growth(z) ** 2 * COSMOLOGY.power(k[(k > 0.03) & (k < 0.2)]).mean()
    ratio = np.mean(found) / linear / np.prod(expected)
    assert ratio == pytest.approx(1.0, abs=0.25)


def test_velocities_are_those_of_linear_theory_on_large_scales() -> None:
    """The divergence of v is -a H f delta / b."""
    halos = catalogue(2.0, 1)
    n = 16
    edges = [(0.0, BOX)] * 3
    count = np.histogramdd(halos.position, bins=n, range=edges)[0]
    momentum = [
        np.histogramdd(halos.position, bins=n, range=edges, weights=halos.velocity[:, i])[0] / np.maximum(count, 1)
        for i in range(3)
    ]
    f = np.fft.fftfreq(n, BOX / n)
    k = np.meshgrid(*[2 * np.pi * x for x in (f, f, np.fft.rfftfreq(n, BOX / n))], indexing="ij")
    divergence = sum(1j * ki * np.fft.rfftn(v) for ki, v in zip(k, momentum, strict=True))
    delta = np.fft.rfftn(count / count.mean() - 1)
    size = np.sqrt(sum(ki**2 for ki in k))
    some = (size > 0) & (size < 0.12)
    slope = -np.sum((divergence * delta.conj()).real[some]) / np.sum(np.abs(delta[some]) ** 2)
    m, dn_dlnm, sigma = COSMOLOGY.mass_function(2.0)
    bias = np.average(tinker_bias(sigma)[m > 3e11], weights=dn_dlnm[m > 3e11])
    wanted = COSMOLOGY.hubble(2.0) / 3 * COSMOLOGY.growth_rate(2.0) / bias
    assert slope == pytest.approx(wanted, rel=0.25)


def test_the_same_seed_gives_the_same_halos() -> None:
    first, again, other = (box_halos(COSMOLOGY, 2.0, 60.0, 16, (3e11, 1e16), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.position, again.position)
    np.testing.assert_array_equal(first.mass, again.mass)
    assert len(first) != len(other) or not np.array_equal(first.mass, other.mass)


def test_halos_that_find_no_place_end_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a cell's chance is nearly zero everywhere but at one of them."""
    monkeypatch.setattr(halos, "MOST_ROUNDS", 3)
    monkeypatch.setattr(halos, "MOST_TRIES", 0)
    with pytest.raises(SimulationError, match=r"find no place: .* are left after 3 rounds; raise mass_min"):
        box_halos(COSMOLOGY, 2.0, 60.0, 16, (3e11, 1e16), 5)


def test_a_light_cone_grows() -> None:
    """Number with distance follows the mass function, but for structure; nothing piles up at the ends."""
    cone = cone_halos(COSMOLOGY, (1.0, 2.0), 120.0, 4.0, (3e11, 1e16), 3)
    near, far = COSMOLOGY.distance(1.0), COSMOLOGY.distance(2.0)
    edges = np.linspace(near, far, 5)
    counts = np.histogram(cone.position[:, 2], edges)[0]
    assert counts.sum() == len(cone)
    expected = []
    for middle in (edges[1:] + edges[:-1]) / 2:
        m, dn_dlnm, _ = COSMOLOGY.mass_function(float(COSMOLOGY.redshift(middle)))
        some = m >= 3e11
        expected.append(np.trapezoid(dn_dlnm[some], np.log(m[some])) * 120.0**2 * (edges[1] - edges[0]))
    np.testing.assert_allclose(counts, expected, rtol=0.2)
    assert counts.sum() == pytest.approx(np.sum(expected), rel=0.06)
    ends = np.histogram(cone.position[:, 2], [near, near + 10, far - 10, far])[0][[0, 2]]
    np.testing.assert_allclose(ends, np.array(expected)[[0, -1]] * 10 / (edges[1] - edges[0]), rtol=0.35)
    np.testing.assert_allclose(cone.redshift, COSMOLOGY.redshift(cone.position[:, 2]), rtol=1e-5)
    assert np.abs(cone.position[:, :2]).max() <= 60.001


def test_an_unknown_mass_function() -> None:
    with pytest.raises(ValueError, match='mass function "Watsn": hmf knows Angulo'):
        COSMOLOGY.mass_function(1.0, "Watsn")
