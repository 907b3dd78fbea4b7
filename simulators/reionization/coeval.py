"""Coeval cubes: the brightness temperature of a box at a few redshifts."""

from types import ModuleType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from simulators.base import Observable, Symmetry, derived_seed
from simulators.reionization.engine import evolve, initial_conditions
from simulators.reionization.model import Made, Reionization, distinct, means_of
from simulators.reionization.nodes import coarse_nodes, fine_nodes, refuse_small_steps
from simulators.reionization.observables import CUBES, with_history
from simulators.reionization.versions import with_parameters

Redshift = Annotated[float, Field(ge=4, le=35)]
Node = Annotated[float, Field(ge=4, le=50)]


class Coeval(Reionization):
    """Coeval boxes of the 21cm brightness temperature at a few redshifts, from 21cmFAST.

    The model is that of `Reionization`.

    Parameters
    ----------
    redshifts
        Redshifts of the channels, in this order; 4 to 35.
    cells
        Number of cells along each side of the box.
    box_length
        Side in comoving Mpc.
    hires_factor
        Number of cells of the initial conditions along one cell; it changes the realisation.
    sources
        ``"e-integral"``, with the nine parameters of `PARAMETERS`, or ``"const-ion-eff"``, with `CONSTANT_EFFICIENCY`.
    parameters
        Names of the parameters that vary, in the order of theta.
    fixed
        Values of parameters that do not vary; by default the fiducial ones.
    spin_temperature
        Whether to follow heating and Ly-alpha coupling; by default only if an X-ray parameter varies.
    nodes
        Steps of the thermal history with spin temperature: ``"fine"``, of 1.03 in 1 + z from z = 25, or ``"coarse"``,
        the few of version 0.1.
    node_redshifts
        Nodes in place of the named ones; they include all `redshifts`, and heating starts at the highest. They are
        part of the model.
    n_step_ts
        Number of shells around a cell that X-rays and Lyman-alpha photons are summed over: 20, with other nodes than
        the fine ones 40.
    independent_redshifts
        Whether every redshift has initial conditions of its own, as distant slices of a light-cone do, or all show one
        evolving box. The default is the former without spin temperature (where it costs little), else the latter.
    rsd
        Whether peculiar velocities displace the brightness temperature along z.
    rows_per_realisation
        Number of successive rows of a bank that share one seed, and so one set of initial conditions.
    observables
        Names of the arrays to return: ``brightness_temp`` (the image, first), ``neutral_fraction``, ``global_signal``,
        ``global_neutral_fraction`` (means at `history`), ``optical_depth`` (extends `history` from z = 5 to 18, at a
        cost) and ``luminosity_function``.
    luminosity_redshifts
        Redshifts of the UV luminosity functions.
    options
        Options of 21cmFAST by its own names, for another model of the same parameters: ``SOURCE_MODEL``, ``HMF``,
        ``PERTURB_ALGORITHM``, ``IONISE_ENTIRE_SPHERE``, ``USE_EXP_FILTER``, ``CELL_RECOMB``, ``R_BUBBLE_MAX`` (Mpc).
    """

    kind: str = "21cmfast-coeval"
    redshifts: tuple[Redshift, ...] = Field(min_length=1)
    node_redshifts: tuple[Node, ...] | None = Field(default=None, validate_default=True)
    independent_redshifts: bool | None = Field(default=None, validate_default=True)

    @field_validator("redshifts")
    @classmethod
    def _check_distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return distinct(values)

    @field_validator("node_redshifts", mode="before")
    @classmethod
    def _resolve_names(cls, nodes: Any, info: ValidationInfo) -> Any:
        """Make nodes of a name; None, the default, is ``"fine"`` with spin temperature."""
        redshifts = info.data.get("redshifts", ())
        if nodes is not None and not isinstance(nodes, str):
            return nodes
        if not redshifts or not info.data.get("spin_temperature"):
            if nodes is not None:
                raise ValueError("only a run with spin_temperature = true steps through nodes")
            return ()
        return coarse_nodes(redshifts) if nodes == "coarse" else fine_nodes(redshifts)

    @field_validator("node_redshifts")
    @classmethod
    def _check_nodes(cls, nodes: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...]:
        redshifts = info.data.get("redshifts", ())
        if not redshifts or not info.data.get("spin_temperature"):
            if nodes:
                raise ValueError("only a run with spin_temperature = true steps through nodes")
            return ()
        nodes = tuple(sorted(set(nodes or ()), reverse=True))
        if missing := set(redshifts) - set(nodes):
            raise ValueError(f"the nodes must contain every redshift; {min(missing):g} is missing")
        if max(redshifts) >= nodes[0]:
            raise ValueError(f"heating starts at the highest node: give one above z = {max(redshifts):g}")
        refuse_small_steps(nodes)
        return nodes

    @field_validator("independent_redshifts")
    @classmethod
    def _resolve_independent(cls, wanted: bool | None, info: ValidationInfo) -> bool:
        return not info.data.get("spin_temperature") if wanted is None else wanted

    @property
    def history(self) -> tuple[float, ...]:
        """Return the redshifts of the global signal, falling."""
        # 21cmFAST stops at the lowest cube, whatever nodes are below it.
        means = [z for z in self.node_redshifts or self.redshifts if z >= min(self.redshifts)]
        if "optical_depth" in self.wanted:
            return with_history(means, above=not self.spin_temperature, between=not self.spin_temperature)
        return tuple(sorted(means, reverse=True))

    @property
    def seconds_per_row(self) -> float:
        """Estimate the cost of one row on one core in seconds."""
        nodes = self._thermal_nodes
        groups = self._groups(seed=0)
        steps = sum(len({*zs, *(z for z in nodes if z > min(zs))}) for zs, _ in groups)
        displaced = len(self.redshifts) * 6.5e-6 * self.cells**3 if self.rsd else 0.0
        return self._seconds(len(groups), steps) + displaced

    def redshift_seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seed of the initial conditions of each of `redshifts`."""
        if self.independent_redshifts:
            return tuple(derived_seed(seed, index) for index in range(len(self.redshifts)))
        return (seed,) * len(self.redshifts)

    @property
    def _thermal_nodes(self) -> tuple[float, ...]:
        nodes = self.node_redshifts or ()
        return tuple(sorted({*nodes, *self.history}, reverse=True)) if nodes else ()

    def _cube(self, name: str) -> Observable:
        return Observable(
            name=name,
            shape=(len(self.redshifts), *(self.cells,) * 3),
            unit="mK" if name == "brightness_temp" else "",
            axes=("redshift", "x", "y", "z"),
            cell_size=(self.box_length / self.cells,) * 3,
            channels=self.redshifts,
            symmetry=Symmetry(periodic=(True,) * 3, rotations="transverse" if self.rsd else "all"),
        )

    def _groups(self, seed: int) -> list[tuple[tuple[float, ...], int]]:
        """List redshifts that share initial conditions, with their seed; the rest of `history` joins the lowest."""
        rest = tuple(z for z in self.history if z not in self.redshifts and z not in (self.node_redshifts or ()))
        if not self.independent_redshifts:
            return [((*self.redshifts, *rest), seed)]
        return [
            ((z, *rest) if z == min(self.redshifts) else (z,), own)
            for z, own in zip(self.redshifts, self.redshift_seeds(seed), strict=True)
        ]

    def _made(self, p21c: ModuleType, values: dict[str, float], seed: int) -> list[Made]:
        """Run each group; means at a redshift come from the group it belongs to, else from the lowest one."""
        groups = self._groups(seed)
        inputs = tuple(self._inputs(p21c, own_seed) for _, own_seed in groups)
        initial = initial_conditions(p21c, inputs)
        boxes: dict[float, dict[str, NDArray[np.float32]]] = {}
        means: dict[float, tuple[float, float]] = {}
        for (redshifts, _), base, own in zip(groups, inputs, initial, strict=True):
            for coeval in evolve(p21c, with_parameters(p21c, base, values), own, redshifts):
                z = coeval.redshift
                if z in redshifts or (min(redshifts) <= min(self.redshifts) and z not in self.redshifts):
                    means[z] = means_of(coeval)
                if z in redshifts and z in self.redshifts:
                    boxes[z] = {
                        "brightness_temp": self._brightness(coeval),
                        "neutral_fraction": coeval.neutral_fraction,
                    }
        cubes = {name: np.stack([boxes[z][name] for z in self.redshifts]) for name in self.wanted if name in CUBES}
        return [(cubes, means)]

    def _brightness(self, coeval: Any) -> NDArray[np.float32]:
        """Return a coeval's brightness temperature in real or redshift space."""
        # A coeval box is in real space. `apply_rsds` moves the cells and keeps their sum,
        # so it includes the factor 1/|1 + dv/dr/H| of the optical depth: it gives Kaiser's monopole (1.83
        # of 1.87 at z = 12 where k is lowest). `apply_velocity_corrections` counts it twice (3.2).
        cube: NDArray[np.float32] = (
            coeval.apply_rsds("brightness_temp", axis="z", periodic=True) if self.rsd else coeval.brightness_temp
        )
        return cube
