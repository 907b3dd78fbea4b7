"""Contract of every check of an observation against the simulations."""

from typing import Any, Protocol


class Check(Protocol):
    """Comparison of an observation with the simulations."""

    @property
    def p(self) -> float:
        """Share of simulations that are as unusual."""

    @property
    def unlike(self) -> bool:
        """True if a warning is due."""

    @property
    def deviations(self) -> tuple[tuple[str, float], ...]:
        """Deviations by name, in standard deviations; the largest first."""

    def line(self) -> str:
        """Say the result in plain words, on one line."""

    def content(self) -> dict[str, Any]:
        """Write the check for JSON: ``unlike``, ``p``, ``deviations_sigma``, ``line``, and more."""
