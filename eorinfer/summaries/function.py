"""A plain function of cubes as a summary."""

from collections.abc import Callable

from torch import Tensor, nn


class FunctionSummary(nn.Module):
    """A function as a module without weights.

    Parameters
    ----------
    function
        Cubes (B, C, *cells) to (B, ...); its attribute ``positive``, if it has one, is taken over.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))
        self.positive = bool(getattr(function, "positive", False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *cells) to (B, ...)."""
        return self._function(x)
