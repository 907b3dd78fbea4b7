"""Numbers from outside: what means something else than it says is refused by cell and value."""

from typing import Any

import numpy as np
import pytest
import torch
from astropy import units

from eorinfer.core.numbers import UnusableError, usable

GOOD = np.linspace(-3, 3, 12).reshape(3, 4)


def changed(value: Any, dtype: Any = np.float64) -> np.ndarray:
    array = GOOD.astype(dtype)
    array[1, 2] = value
    return array


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (changed(np.nan), r"1 of 12 values are NaN or infinite, the first is \[1, 2\] = nan"),
        (changed(-np.inf), r"1 of 12 values are NaN or infinite, the first is \[1, 2\] = -inf"),
        (
            changed(-1.6375e30),
            r"are fill values or too large \(beyond 1\.8e\+19\), the first is \[1, 2\] = -1\.6375e\+30",
        ),
        (changed(1e20), r"are fill values or too large .* = 1e\+20"),
        (changed(9.96921e36, np.float32), r"are fill values or too large .* = 9\.96921e\+36"),
        (np.ma.masked_array(GOOD, GOOD > 2), r"2 of 12 values are masked, the first is \[2, 2\]"),
        (GOOD + 1j, "the values are complex"),
        (GOOD.astype(str), "the values are <U32, not numbers"),
        (np.array([None, 1.0]), "the values are object, not numbers"),
        (GOOD * units.s, r"has the unit s, which is not converted to 'mK'"),
    ],
)
def test_what_cannot_be_used_is_named(values: Any, said: str) -> None:
    with pytest.raises(UnusableError, match=rf"^map: .*{said}"):
        usable(values, "map", "mK")


@pytest.mark.parametrize("scale", [1e-26, 1.0, 1e18])
def test_any_scale_of_a_map_passes(scale: float) -> None:
    assert np.array_equal(usable(GOOD * scale, "map"), GOOD * scale)
    assert np.array_equal(usable(np.ma.masked_array(GOOD, False), "map"), GOOD)
    assert np.array_equal(usable([1, 2], "map"), [1, 2])
    assert np.array_equal(usable(torch.from_numpy(GOOD).requires_grad_(True), "map"), GOOD)


def test_a_quantity_is_converted() -> None:
    assert np.allclose(usable(GOOD * units.K, "map", "mK"), 1000 * GOOD)
    intensity = GOOD * units.Unit("erg s-1 cm-2 sr-1")
    assert np.allclose(usable(intensity, "map", "nW/m^2/sr"), 1e6 * GOOD)
    with pytest.raises(UnusableError, match="where a plain number is expected"):
        usable(GOOD * units.K, "map")
