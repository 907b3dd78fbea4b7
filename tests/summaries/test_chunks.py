"""Chunks of a light-cone: where they lie, what each of them has for a spectrum, and their names."""

import pytest
import torch

from eorinfer.settings.likelihood import PowerSpectrumSettings
from eorinfer.summaries.chunks import chunked, in_chunks, joined
from eorinfer.summaries.power import PowerSpectrum, build_power_spectrum
from simulators import LightCone, Observable, Symmetry

CONE = LightCone.model_validate(
    {"frequency_range": [142.0, 166.0], "channels": 14, "transverse": "angular", "cells": 8, "box_length": 64.0}
).observables[0]
BOX = Observable("x", (1, 8, 8, 8), "", ("channel", "x", "y", "z"), (2.0,) * 3, (0.0,), Symmetry((True,) * 3, "all"))


def test_chunks_are_parts_of_the_line_of_sight_and_each_has_its_own_spectrum() -> None:
    cubes = torch.randn(3, 1, *CONE.cells, generator=torch.Generator().manual_seed(1))
    cubes[..., 4:8] *= 10  # the second of three, of four slices each
    spectrum = build_power_spectrum(CONE, PowerSpectrumSettings(bins=2, chunks=3))
    power = spectrum(cubes)
    assert power.shape == (3, 3, 2)
    dx, dy, dz = CONE.cell_size
    alone = PowerSpectrum((8, 8, 4), (8 * dx, 8 * dy, 4 * dz), spectrum.edges.tolist())
    for i in range(3):
        torch.testing.assert_close(power[:, i], alone(cubes[..., 4 * i : 4 * i + 4])[:, 0])
    assert (power[:, 1] > 20 * power[:, 0]).all()


def test_slices_that_are_left_over_are_in_no_chunk() -> None:
    cubes = torch.randn(2, 3, 4, 4, 14, generator=torch.Generator().manual_seed(1))
    parts = in_chunks(cubes, 3)
    assert parts.shape == (2, 9, 4, 4, 4)
    torch.testing.assert_close(parts[:, 4], cubes[:, 1, ..., 4:8])
    torch.testing.assert_close(joined(parts, 3), cubes[..., :12])
    assert in_chunks(cubes, 1) is cubes


def test_a_chunk_is_named_by_its_redshift() -> None:
    part = chunked(CONE, 3)
    assert part.shape == (3, 8, 8, 4)
    assert part.box_length[-1] == pytest.approx(4 * CONE.cell_size[-1])
    # 1420.4 MHz over the means of 142 + 24 / 14 (i + 1/2), i from 0 to 3, 4 to 7, 8 to 11
    assert part.channels == pytest.approx((8.77, 8.33, 7.93), abs=0.02)
    assert chunked(CONE, 1) is CONE


@pytest.mark.parametrize(
    ("observable", "n", "message"),
    [(CONE, 4, "chunk would have 3 of the 14 slices; take 3"), (BOX, 2, "only a light-cone has chunks")],
)
def test_what_has_no_such_chunks_is_refused(observable: Observable, n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_power_spectrum(observable, PowerSpectrumSettings(chunks=n))


def test_settings_without_chunks_are_as_before() -> None:
    assert "chunks" not in PowerSpectrumSettings().model_dump()
    assert PowerSpectrumSettings(chunks=4).model_dump()["chunks"] == 4
    assert PowerSpectrumSettings(chunks=4, bins=5).whole == PowerSpectrumSettings(bins=5)
