"""Settings of the check of a trained posterior: the table ``[validation]``."""

from typing import Annotated

from pydantic import Field

from eorinfer.settings.base import Settings


class ValidationSettings(Settings):
    """``[validation]``: the check of a trained posterior against known truths.

    Parameters
    ----------
    truths
        Number of test observations with known parameters.
    image_flow_truths
        Number of them for ``[inference] method = "image-flow"``, which samples each posterior anew.
    samples
        Posterior samples of each test observation.
    simulate
        Simulate the test observations; false takes the rows that training held out. Those cost nothing, but the
        best weights were chosen on them.
    references
        Number of test observations whose posterior widths are compared with those of the power spectrum and of the
        exact posterior; 0 for none.
    worlds
        Worlds of ``[simulator] worlds`` to test one by one; by default all, where there are two or more.
    world_truths
        Number of test observations of each.
    """

    truths: Annotated[int, Field(ge=20)] = 200
    image_flow_truths: Annotated[int, Field(ge=20)] = 100
    samples: Annotated[int, Field(ge=100)] = 1000
    simulate: bool = True
    references: Annotated[int, Field(ge=0)] = 20
    worlds: tuple[str, ...] | None = None
    world_truths: Annotated[int, Field(ge=20)] = 100
