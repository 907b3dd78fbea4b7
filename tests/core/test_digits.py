"""Errors have two significant digits."""

import pytest

from eorinfer.core.digits import decimals, with_error


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.5, 0.2, "0.50 ± 0.20"),
        (-1.5, 0.0996, "-1.50 ± 0.10"),
        (1234.5, 321.0, "1230 ± 320"),
        (-0.0001, 0.12, "0.00 ± 0.12"),
        (8.7, 1.26, "8.7 ± 1.3"),
        (98765.0, 13.0, "98765 ± 13"),
        (1.0, 0.0, "1 ± 0"),
    ],
)
def test_a_value_with_its_error(mean: float, error: float, text: str) -> None:
    assert with_error(mean, error) == text


def test_signs_and_decimals() -> None:
    assert with_error(0.25, 0.031, "+") == "+0.250 ± 0.031"
    assert [decimals(error) for error in (0.2, 0.0996, 12.0, 321.0, float("nan"))] == [2, 2, 0, 0, 4]
