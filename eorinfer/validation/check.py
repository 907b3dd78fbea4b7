"""Contract of every check of an observation against the simulations."""

from typing import Any, Protocol

#: Held-out realisations below which an observation is not called like the simulations.
FEWEST = 20
#: Largest deviation, in standard deviations, and p-value, at which fewer realisations are enough for a warning.
FAR, HARDLY = 10.0, 0.1
#: What to do after a warning.
DISTRUST = (
    "Do not trust this posterior before you know why: the unit, the noise level, foregrounds, or physics that the "
    "simulator lacks"
)


class Check(Protocol):
    """Comparison of an observation with the simulations."""

    @property
    def p(self) -> float:
        """Share of simulations that are as unusual."""

    @property
    def unlike(self) -> bool:
        """True if a warning is due."""

    @property
    def weak(self) -> bool:
        """True if too few realisations were held out to call the observation like the simulations."""

    @property
    def deviations(self) -> tuple[tuple[str, float], ...]:
        """Deviations by name, in standard deviations; the largest first."""

    def line(self) -> str:
        """Say the result in plain words, on one line."""

    def content(self) -> dict[str, Any]:
        """Write the check for JSON: ``unlike``, ``p``, ``deviations_sigma``, ``line``, and more."""


def smallest_p(realisations: int, tests: int) -> float:
    """p-value of a rank beyond all held-out realisations, with Bonferroni's factor: the smallest without a model."""
    return min(1.0, tests / (realisations + 1))


def deviation_words(name: str, sigma: float) -> str:
    """Say by how much a quantity is off, and in which direction."""
    return f"{name} {abs(sigma):.1f} sigma too {'high' if sigma > 0 else 'low'}"


def is_far(p: float, deviations: tuple[tuple[str, float], ...]) -> bool:
    """Tell whether an observation is so far off that even a weak check should warn."""
    return p < HARDLY and any(abs(sigma) > FAR for _, sigma in deviations)


def weak_line(realisations: int, tests: int) -> str:
    """Say that too few realisations were held out, and what p they could give."""
    held_out = "1 realisation was" if realisations == 1 else f"{realisations} realisations were"
    return (
        f"CANNOT TELL whether the observation is like the simulations: {held_out} held out, "
        f"with which p is {smallest_p(realisations, tests):.2g} at best. "
        f"At least {FEWEST} are needed: give more simulations, or a larger [training] validation_fraction"
    )
