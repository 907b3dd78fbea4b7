"""A run: one config, one folder, and the steps from simulations to a corner plot, each resumable."""

from eorinfer.run.steps import Run

__all__ = ["Run"]
