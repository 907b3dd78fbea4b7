"""``[prior]``: what is known of the parameters before the observation."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, model_validator

from eorinfer.settings.base import Settings

#: What an entry may be, for messages.
FORMS = (
    "must be [low, high], { normal = [mean, sigma] }, { log_uniform = [low, high] } or "
    '{ table = "file" }, the first and last with an optional range = [low, high]'
)
Range = tuple[float, float]


class Density(Settings):
    """A density of one parameter: one of `normal`, `log_uniform` and `table`, or its range alone.

    Parameters
    ----------
    normal
        Mean and standard deviation.
    log_uniform
        Ends of a density that is flat in the logarithm.
    table
        File with two columns: values of the parameter, rising, and the density there up to a factor.
    range
        Where a normal or a table is cut; by default the parameter's own range, and six standard deviations. Alone it is
        where the joint table is cut, or the ends of a flat prior.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # what is not finite is said where the prior is built

    normal: tuple[float, float] | None = None
    log_uniform: Range | None = None
    table: Path | None = None
    range: Range | None = None

    @model_validator(mode="after")
    def _one(self) -> "Density":
        given = [form for form in (self.normal, self.log_uniform, self.table) if form is not None]
        alone = not given and self.range is not None
        if (len(given) != 1 and not alone) or (self.log_uniform is not None and self.range is not None):
            raise ValueError(FORMS)
        return self


def _entry(value: Any) -> Any:
    """Choose the member by its shape, so that messages are about that one."""
    if isinstance(value, dict):
        return Density.model_validate(value)
    return value


Entry = Annotated[Range | Density, BeforeValidator(_entry)]


class PriorSettings(Settings):
    """``[prior]``: for each parameter that is named, a range or a `Density`.

    Parameters
    ----------
    table
        Chain of an earlier analysis, in getdist's format, or a table of samples with a line of names: a joint density
        of all parameters that it has.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=True)
    __pydantic_extra__: dict[str, Entry]

    table: Path | None = None

    @property
    def entries(self) -> dict[str, Range | Density]:
        """Entries of the table by name of the parameter."""
        return self.__pydantic_extra__

    def files(self) -> dict[str, Path]:
        """Files that it names, by key."""
        named = {f"{name}.table": entry.table for name, entry in self.entries.items() if isinstance(entry, Density)}
        return {key: file for key, file in ({"table": self.table} | named).items() if file is not None}
