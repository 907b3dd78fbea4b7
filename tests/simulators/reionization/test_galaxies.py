"""Galaxies and 21cm of one box, held against 21cmFAST's own image and its grid of sources."""

import tempfile
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from simulators.reionization.galaxies import GalaxiesAnd21cm, GalaxyBox
from simulators.reionization.versions import names_of, renamed

SIDE, CELLS = 48.0, 32
YEAR = 3.15576e7


def settings(**fields: Any) -> GalaxiesAnd21cm:
    return GalaxiesAnd21cm(**({"redshift": 7.5, "cells": CELLS, "box_length": SIDE} | fields))


@cache
def made(escape: float = -1.0) -> GalaxyBox:
    return settings(fixed={"F_ESC10": escape}).simulate(3)


@cache
def run_directly(escape: float) -> Any:
    import py21cmfast as p21c

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        inputs = settings().inputs(p21c, 3).evolve_input_structs(**renamed(p21c, {"F_ESC10": escape}))
        cache = p21c.OutputCache(folder)
        (coeval,) = p21c.run_coeval(inputs=inputs, out_redshifts=[7.5], write=False, cache=cache, regenerate=True)
    return coeval


def shared_out(box: GalaxyBox) -> NDArray[np.float64]:
    """Star formation rates, each shared among the eight cells whose middles are next."""
    at = box.position.astype(np.float64) / (SIDE / CELLS) - 0.5
    first = np.floor(at).astype(int)
    total = np.zeros((CELLS,) * 3)
    for corner in np.ndindex(2, 2, 2):
        share = np.where(corner, at - first, 1 - (at - first)).prod(axis=1)
        np.add.at(total, tuple(((first + corner) % CELLS).T), share * box.sfr)
    return total


def test_the_image_is_that_of_a_direct_run() -> None:
    coeval = run_directly(-1.3)
    box = made(-1.3)
    np.testing.assert_array_equal(box.brightness_temp, coeval.brightness_temp)
    np.testing.assert_array_equal(box.neutral_fraction, coeval.neutral_fraction)
    np.testing.assert_array_equal(box.density, coeval.density)
    assert 0.5 < box.neutral_fraction.mean() < 0.95


def test_the_galaxies_are_the_sources_of_the_image_and_lie_in_its_cells() -> None:
    box = made(-1.3)
    import py21cmfast as p21c

    if names_of(p21c):
        pytest.skip("21cmFAST 4.3 keeps no grid of star formation without spin temperature")
    sources = run_directly(-1.3).halo_sfr.astype(np.float64) * (SIDE / CELLS) ** 3 * YEAR
    ours = shared_out(box)
    # Halos below mass_min are in the grid only: a share of its sum, and where the density is.
    assert 0.85 < ours.sum() / sources.sum() < 1
    assert np.corrcoef(ours.ravel(), sources.ravel())[0, 1] > 0.999
    bright = sources > np.quantile(sources, 0.99)
    assert ours[bright].sum() / sources[bright].sum() == pytest.approx(1, abs=0.02)
    assert (box.position >= 0).all()
    assert (box.position < SIDE).all()
    assert box.mass.min() >= 1e9


def test_galaxies_stay_when_more_of_their_photons_escape() -> None:
    few, many = made(-1.3), made(-1.0)
    np.testing.assert_array_equal(few.position, many.position)
    np.testing.assert_array_equal(few.sfr, many.sfr)
    assert many.neutral_fraction.mean() < few.neutral_fraction.mean() - 0.1
    # They sit where the gas is ionised.
    cell = tuple((many.position / (SIDE / CELLS)).astype(int).T)
    assert np.average(many.neutral_fraction[cell], weights=many.sfr) < 0.5 * many.neutral_fraction.mean()


def test_another_seed_is_another_box() -> None:
    other = settings(fixed={"F_ESC10": -1.3}).simulate(4)
    assert abs(np.corrcoef(other.density.ravel(), made(-1.3).density.ravel())[0, 1]) < 0.1


def test_refusals() -> None:
    with pytest.raises(ValidationError, match="F_ESC10 = 5 is outside -4 to 0"):
        settings(fixed={"F_ESC10": 5.0})
    with pytest.raises(ValidationError, match=r'"F_ESC" is not a parameter\. Did you mean "F_ESC10"'):
        settings(fixed={"F_ESC": -1.0})
    with pytest.raises(ValidationError, match="redshifts"):
        settings(redshifts=(7.0,))
