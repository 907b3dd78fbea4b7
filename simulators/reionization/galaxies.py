"""Simulate the 21cm image of a box with the galaxies that ionise it, in one run of 21cmFAST."""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator

from simulators.base import SimulationError
from simulators.reionization.engine import as_simulation_errors, import_21cmfast, initial_conditions
from simulators.reionization.parameters import PARAMETERS, check_name, out_of_range
from simulators.reionization.versions import names_of, renamed, with_parameters

if TYPE_CHECKING:
    from py21cmfast import InputParameters

#: Year in s.
_YEAR = 3.15576e7
#: Mean free path of ionising photons in 21cmFAST's template, Mpc.
_BUBBLE_MAX = 50.0


@dataclass(frozen=True)
class GalaxyBox:
    """Periodic box in real space; cell i reaches from i to i + 1 cells.

    Attributes
    ----------
    brightness_temp
        (N, N, N) brightness temperature in mK.
    neutral_fraction
        (N, N, N) neutral fraction.
    density
        (N, N, N) density contrast of matter.
    position
        (n, 3) positions of the galaxies, comoving Mpc in [0, box_length).
    mass
        (n,) masses of their halos, Msun.
    sfr
        (n,) star formation rates, Msun/yr.
    """

    brightness_temp: NDArray[np.float32]
    neutral_fraction: NDArray[np.float32]
    density: NDArray[np.float32]
    position: NDArray[np.float32]
    mass: NDArray[np.float32]
    sfr: NDArray[np.float32]


class GalaxiesAnd21cm(BaseModel):
    """Simulation of a coeval 21cm box with its galaxies, by 21cmFAST's sampler of halos (``CHMF-SAMPLER``).

    Halos are drawn from the conditional mass function of each cell of the initial conditions (those heavier than a
    cell are found on the grid) and moved by second-order perturbation theory; stellar masses and star formation rates
    scatter around the relations of Park et al. 2019 (arXiv 1809.08995), as in Davies, Mesinger & Murray 2025
    (arXiv 2504.17254). Their ionising photons make the bubbles. The gas is much hotter than the CMB (T_s >> T_CMB).

    Parameters
    ----------
    redshift
        Redshift of the box, 4 to 35.
    cells, box_length, hires_factor
        See `Coeval`.
    mass_min
        Lowest halo mass of a galaxy, Msun. Lighter halos ionise by their mean only.
    fixed
        Values of the nine parameters; by default the fiducial ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    redshift: float = Field(ge=4, le=35)
    cells: int = Field(ge=8)
    box_length: PositiveFloat = Field(allow_inf_nan=False)
    hires_factor: int = Field(default=2, ge=2)
    mass_min: float = Field(default=1e9, ge=1e8, le=1e12)
    fixed: dict[str, float] = Field(default={})

    @field_validator("fixed")
    @classmethod
    def _check_fixed(cls, fixed: dict[str, float]) -> dict[str, float]:
        problems = [out_of_range(check_name(name), value) for name, value in fixed.items()]
        if any(problems):
            raise ValueError("; ".join(filter(None, problems)))
        return fixed

    def simulate(self, seed: int) -> GalaxyBox:
        """Simulate one realisation; initial conditions are used again for the same box and seed.

        Raises
        ------
        SimulationError
            If 21cmFAST fails or cannot be imported, or a value is not finite.
        """
        p21c = import_21cmfast()
        with as_simulation_errors(p21c):
            made = self._made(p21c, seed)
        for name, array in vars(made).items():
            if not np.isfinite(array).all():
                raise SimulationError(f"21cmFAST returned NaN or infinite {name}")
        return made

    def _made(self, p21c: ModuleType, seed: int) -> GalaxyBox:
        # Written out, since `run_coeval` does not return its halos; the image is the same to the last bit.
        base = self.inputs(p21c, seed)
        (initial,) = initial_conditions(p21c, (base,))
        values = {parameter.name: parameter.fiducial for parameter in PARAMETERS} | self.fixed
        inputs = with_parameters(p21c, base, values)
        # By default 21cmFAST writes into the working directory and reads back what it finds there.
        files: dict[str, Any] = {"write": False, "regenerate": True}
        both = {"initial_conditions": initial, "inputs": inputs, **files}
        density = p21c.perturb_field(redshift=self.redshift, **both)
        halos = p21c.determine_halo_catalog(redshift=self.redshift, **both)
        galaxies = p21c.perturb_halo_catalog(halo_catalog=halos, **both)
        names = {name: names_of(p21c).get(name, name) for name in ("compute_halo_grid", "halobox", "sfr")}
        sources = getattr(p21c, names["compute_halo_grid"])(redshift=self.redshift, halo_catalog=halos, **both)
        ionised = p21c.compute_ionization_field(perturbed_field=density, **{names["halobox"]: sources}, **both)
        image = p21c.brightness_temperature(ionized_box=ionised, perturbed_field=density, **files)
        mass = galaxies.get("halo_masses")
        there = mass > 0
        # 21cmFAST's cell i has its middle at i cells.
        half = np.float32(self.box_length / self.cells / 2)
        position = (galaxies.get("halo_coords")[there] + half) % np.float32(self.box_length)
        return GalaxyBox(
            brightness_temp=image.get("brightness_temp"),
            neutral_fraction=ionised.get("neutral_fraction"),
            density=density.get("density"),
            position=position,
            mass=mass[there],
            sfr=galaxies.get(names["sfr"])[there] * np.float32(_YEAR),
        )

    def inputs(self, p21c: ModuleType, seed: int) -> "InputParameters":
        """Return 21cmFAST's inputs at its default parameters, on which the initial conditions depend."""
        return p21c.InputParameters.from_template(
            "latest-discrete",
            random_seed=seed,
            # One step: halos are drawn at this redshift and not as progenitors of later ones.
            node_redshifts=(self.redshift,),
            HII_DIM=self.cells,
            BOX_LEN=self.box_length,
            HIRES_TO_LOWRES_FACTOR=self.hires_factor,
            # The number of threads changes 21cmFAST's random numbers.
            N_THREADS=1,
            SAMPLER_MIN_MASS=self.mass_min,
            R_BUBBLE_MAX=min(_BUBBLE_MAX, self.box_length / 3),
            USE_TS_FLUCT=False,
            **renamed(p21c, {"INHOMO_RECO": False}),
        )
