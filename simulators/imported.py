"""Cubes that were simulated elsewhere: a bank keeps them, and nothing new can be simulated."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, PositiveInt, model_validator

from simulators.base import Observable, Parameter, SimulationError, SimulatorSettings, Symmetry, fingerprint_of


class ImportedParameter(BaseModel):
    """Name, flat prior and LaTeX label of a parameter of imported simulations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: FiniteFloat
    high: FiniteFloat
    label: str = ""
    unit: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_two_ends(cls, content: Any) -> Any:
        """Take [low, high], as ``[prior]`` does."""
        if isinstance(content, list | tuple) and len(content) == 2:
            return dict(zip(("low", "high"), content, strict=True))
        return content

    @model_validator(mode="after")
    def _ordered(self) -> "ImportedParameter":
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


class Imported(SimulatorSettings):
    """Description of cubes and parameters that the user simulated elsewhere.

    Parameters
    ----------
    ranges
        Flat prior from which theta was drawn, for each parameter in the order of theta: [low, high], or a table with
        `low`, `high`, `label` and `unit`.
    observable
        Name of the image in the bank.
    shape
        (C, *cells), channels first, line of sight last; or (C, n), or (n), for data vectors, such as measured spectra.
    unit
        Unit of the image, e.g. ``mK``.
    cell_size
        Comoving Mpc, one number for all cell axes; 0 for a data vector, which needs none.
    redshifts
        Redshift of each channel; empty if the channels are no redshifts.
    periodic
        Whether the cubes are periodic boxes.
    rotations
        Rotations used for augmentation, see `simulators.base.Symmetry`.
    """

    kind: str = "imported"
    ranges: dict[str, ImportedParameter] = Field(min_length=1)
    observable: str = "image"
    shape: tuple[PositiveInt, ...] = Field(min_length=2, max_length=4)
    unit: str = ""
    cell_size: NonNegativeFloat = Field(allow_inf_nan=False)
    redshifts: tuple[FiniteFloat, ...] = ()
    periodic: bool = False
    rotations: Literal["all", "transverse", "none"] = "none"

    @model_validator(mode="before")
    @classmethod
    def _vectors_have_no_cells(cls, content: Any) -> Any:
        shape = content.get("shape") if isinstance(content, dict) else None
        if isinstance(shape, list | tuple) and len(shape) in (1, 2):
            return {"cell_size": 0.0} | content | {"shape": shape if len(shape) == 2 else (1, *shape)}
        return content

    @model_validator(mode="after")
    def _images_have_cells(self) -> "Imported":
        if (len(self.shape) == 2) != (self.cell_size == 0):
            wanted = "0 for data vectors" if len(self.shape) == 2 else "above 0 for images"
            raise ValueError(f"cell_size = {self.cell_size:g}: must be {wanted}")
        return self

    @model_validator(mode="after")
    def _one_redshift_each(self) -> "Imported":
        if self.redshifts and len(self.redshifts) != self.shape[0]:
            raise ValueError(f"{len(self.redshifts)} redshifts for {self.shape[0]} channels (shape[0])")
        return self

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe the parameters of `ranges`."""
        return tuple(
            Parameter(name, p.label or name, p.low, p.high, (p.low + p.high) / 2, p.unit)
            for name, p in self.ranges.items()
        )

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe the image."""
        dimension = len(self.shape) - 1
        cells = tuple("xyz"[:dimension]) if dimension > 1 else ("element",)
        return (
            Observable(
                name=self.observable,
                shape=self.shape,
                unit=self.unit,
                axes=("redshift" if self.redshifts else "channel", *cells),
                cell_size=(self.cell_size,) * dimension,
                channels=self.redshifts or tuple(float(i) for i in range(self.shape[0])),
                symmetry=Symmetry((self.periodic,) * dimension, self.rotations),
            ),
        )

    def fingerprint(self) -> str:
        """Hash all settings but the texts of labels and units: they change no number."""
        settings = self.settings()
        ranges = {name: {**p, "label": "", "unit": ""} for name, p in settings["ranges"].items()}
        return fingerprint_of(
            {"class": type(self).__name__, "version": self.version, **settings} | {"ranges": ranges, "unit": ""}
        )

    @property
    def earlier_fingerprints(self) -> tuple[str, ...]:
        """Fingerprint with the texts, which banks of older versions have."""
        return (super().fingerprint(),)

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Raise `SimulationError`: these simulations were made elsewhere."""
        raise SimulationError(
            "a bank of imported cubes makes no new simulations: use one round of at most the imported number"
        )
