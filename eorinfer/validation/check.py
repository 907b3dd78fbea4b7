"""Contract of every check of an observation against the simulations."""

from typing import Any, Protocol


class Check(Protocol):
    """Whether an observation is unlike the simulations."""

    @property
    def p(self) -> float:
        """How often simulations are as unusual."""

    @property
    def unlike(self) -> bool:
        """Whether to warn."""

    @property
    def deviations(self) -> tuple[tuple[str, float], ...]:
        """Deviations by name, in standard deviations; the largest first."""

    def line(self) -> str:
        """The result in plain words, on one line."""

    def content(self) -> dict[str, Any]:
        """Write the check for JSON: ``unlike``, ``p``, ``deviations_sigma``, ``line``, and more."""
