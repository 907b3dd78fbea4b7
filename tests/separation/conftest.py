"""Fewer validation maps for the correction of draws than a user's training takes."""

import pytest

from eorinfer.separation import calibration


@pytest.fixture(autouse=True)
def few_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the correction be fitted on 64 maps."""
    monkeypatch.setattr(calibration, "MAPS", 64)
