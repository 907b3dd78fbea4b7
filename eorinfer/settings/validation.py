"""Settings of the check of a trained posterior: the table ``[validation]``."""

from typing import Annotated

from pydantic import Field

from eorinfer.settings.base import Settings


class ValidationSettings(Settings):
    """``[validation]``: the check of a trained posterior against known truths.

    Parameters
    ----------
    truths
        Parameters whose posteriors are compared with them.
    field_truths
        The same for ``[inference] method = "field-flow"``, each of whose posteriors is sampled anew.
    samples
        Posterior samples of each truth.
    simulate
        Simulate truths that nothing was trained on; false takes the rows that training
        held out, which cost nothing, but chose the best weights.
    references
        Truths whose widths are compared with those of the power-spectrum posterior
        and of the exact one; 0 for none.
    """

    truths: Annotated[int, Field(ge=20)] = 200
    field_truths: Annotated[int, Field(ge=20)] = 100
    samples: Annotated[int, Field(ge=100)] = 1000
    simulate: bool = True
    references: Annotated[int, Field(ge=0)] = 20
