"""Common part of coeval cubes and light-cones: parameters, fixed values and 21cmFAST's inputs."""

from abc import abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, ValidationInfo, field_validator

from simulators.base import Observable, Parameter, SimulationError, SimulatorSettings, check_theta, fingerprint_of
from simulators.reionization.engine import as_simulation_errors, import_21cmfast, installed_version
from simulators.reionization.observables import CUBES, Means, ObservableName, computed, described
from simulators.reionization.parameters import BY_NAME, PARAMETERS, XRAY, ParameterName, out_of_range
from simulators.reionization.versions import with_parameters

if TYPE_CHECKING:
    from py21cmfast import InputParameters

Value = TypeVar("Value")

#: Largest ionised bubble in Mpc: 21cmFAST's mean free path without and with local recombinations.
_BUBBLE_MAX = {False: 15.0, True: 50.0}

#: Cubes by name and the mean brightness temperature and neutral fraction by redshift.
Made = tuple[dict[str, NDArray[np.float32]], Means]


class Reionization(SimulatorSettings):
    """Simulation by 21cmFAST with the nine parameters; subclasses make coeval cubes or light-cones of it.

    Sources are integrals over the conditional mass function (``E-INTEGRAL``), as in
    Park+2019. Without spin temperature the gas is taken to be much hotter than the
    CMB (T_s >> T_CMB, good once X-rays have heated it) and there are no recombinations;
    then ``t_STAR`` and the three X-ray parameters have no effect on the image. With it the
    run is 21cmFAST's ``Park19`` template, stepped through nodes.
    """

    #: Settings added later, with the value at which they change nothing: older banks keep their fingerprint.
    _later: ClassVar[dict[str, Any]] = {
        "observables": list(CUBES),
        "luminosity_redshifts": [6.0, 7.0, 8.0, 10.0],
    }

    cells: int = Field(ge=8)
    box_length: PositiveFloat = Field(allow_inf_nan=False)
    # 32 cells: 1.1 s of initial conditions with 2, 1.35 s with 3 (21cmFAST's default), 1.6 s with 4. In four
    # seeds of 128 Mpc at z = 8, 2 and 4 gave the same neutral fraction (0.478) and rms (7.04, 6.94 mK).
    hires_factor: int = Field(default=2, ge=2)
    varied: tuple[ParameterName, ...] = Field(
        default=("F_ESC10", "ALPHA_ESC", "M_TURN"), alias="parameters", min_length=1
    )
    fixed: dict[ParameterName, float] = Field(default={})
    spin_temperature: bool | None = Field(default=None, validate_default=True)
    rsd: bool = False
    rows: int = Field(default=4, alias="rows_per_realisation", ge=1)
    wanted: tuple[ObservableName, ...] = Field(default=CUBES, alias="observables", min_length=1)
    luminosity_redshifts: tuple[PositiveFloat, ...] = Field(default=(6.0, 7.0, 8.0, 10.0), min_length=1)

    @field_validator("varied", "wanted")
    @classmethod
    def _check_distinct_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(values)

    @field_validator("wanted")
    @classmethod
    def _check_image(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names[0] != CUBES[0]:
            raise ValueError(f'the first one is the image: it must be "{CUBES[0]}", not "{names[0]}"')
        return names

    @field_validator("fixed")
    @classmethod
    def _check_fixed(cls, fixed: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        for name, value in fixed.items():
            if name in info.data.get("varied", ()):
                raise ValueError(f"{name} varies (it is in parameters), so it cannot be fixed")
            if problem := out_of_range(name, value):
                raise ValueError(problem)
        return fixed

    @field_validator("spin_temperature")
    @classmethod
    def _resolve_spin_temperature(cls, wanted: bool | None, info: ValidationInfo) -> bool:
        heating = [name for name in info.data.get("varied", ()) if name in XRAY]
        if wanted is False and heating:
            raise ValueError(f"{', '.join(heating)} would have no effect without spin temperature")
        return bool(heating) if wanted is None else wanted

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe the parameters that vary, in the order of theta."""
        return tuple(BY_NAME[name] for name in self.varied)

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Describe ``brightness_temp`` in mK and the other arrays; ``neutral_fraction`` is in real space."""
        return tuple(
            self._cube(name) if name in CUBES else described(name, self.history, self.luminosity_redshifts)
            for name in self.wanted
        )

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed."""
        return self.rows

    @property
    @abstractmethod
    def history(self) -> tuple[float, ...]:
        """Return the redshifts of the global signal, falling."""

    @abstractmethod
    def _cube(self, name: str) -> Observable:
        """Describe one of `CUBES`."""

    @abstractmethod
    def _made(self, p21c: ModuleType, values: dict[str, float], seed: int) -> Made:
        """Run 21cmFAST: compute the cubes of `wanted`, and the means at every redshift of `history`."""

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where theta is outside the range in which 21cmFAST is safe."""
        self._values(check_theta(self.parameters, theta))

    def fingerprint(self) -> str:
        """Hash all settings, the version of this class and that of 21cmFAST."""
        settings = {k: v for k, v in self.settings().items() if k not in self._later or v != self._later[k]}
        own = fingerprint_of({"class": type(self).__name__, "version": self.version, **settings})
        return fingerprint_of({"21cmFAST": installed_version(), "simulator": own})

    def check_available(self) -> None:
        """Import 21cmFAST, or raise a `SimulationError` that says how to install it."""
        import_21cmfast()

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Simulate the observables, brightness temperature (mK) first.

        A fully ionised cube is valid and exactly 0 mK.

        Parameters
        ----------
        theta
            The P parameters, in the order of `parameters`.
        seed
            Seed of the realisation, below 2**32.

        Raises
        ------
        SimulationError
            If theta is outside the range in which 21cmFAST is safe, 21cmFAST fails or
            cannot be imported, or a value is not finite.
        """
        values = self._values(check_theta(self.parameters, theta))
        p21c = import_21cmfast()
        with as_simulation_errors(p21c):
            cubes, means = self._made(p21c, values, seed)
            inputs = with_parameters(p21c, self._inputs(p21c, seed), values)
            result = {
                name: cubes[name]
                if name in CUBES
                else computed(name, p21c, inputs, means, self.history, self.luminosity_redshifts)
                for name in self.wanted
            }
        for name, array in result.items():
            if not np.isfinite(array).all():
                raise SimulationError(f"21cmFAST returned NaN or infinite {name}")
        return result

    def _values(self, theta: NDArray[np.float64]) -> dict[str, float]:
        """Return the values of all nine parameters by name."""
        values = {parameter.name: parameter.fiducial for parameter in PARAMETERS} | self.fixed
        values |= dict(zip(self.varied, theta.tolist(), strict=True))
        for name, value in values.items():
            if problem := out_of_range(name, value):
                raise SimulationError(problem)
        return values

    @property
    @abstractmethod
    def _thermal_nodes(self) -> tuple[float, ...]:
        """Return the steps of the thermal history, falling; none without spin temperature."""

    def _inputs(self, p21c: ModuleType, seed: int) -> "InputParameters":
        """Return 21cmFAST's inputs at its default parameters, on which the initial conditions depend."""
        nodes = self._thermal_nodes
        return p21c.InputParameters.from_template(
            "Park19" if self.spin_temperature else "simple",
            random_seed=seed,
            node_redshifts=nodes,
            HII_DIM=self.cells,
            BOX_LEN=self.box_length,
            HIRES_TO_LOWRES_FACTOR=self.hires_factor,
            # The number of threads changes 21cmFAST's random numbers.
            N_THREADS=1,
            # 21cmFAST refuses a bubble above a third of the box.
            R_BUBBLE_MAX=min(_BUBBLE_MAX[bool(self.spin_temperature)], self.box_length / 3),
            **({"Z_HEAT_MAX": nodes[0]} if nodes else {}),
        )

    def _seconds(self, boxes: int, steps: int) -> float:
        """Estimate the CPU seconds of one row with `boxes` initial conditions and `steps` redshifts.

        Fitted with 21cmFAST 4.1.1. Initial conditions: 1.25, 1.3, 1.6, 2.2 for
        32³, 64³, 96³, 144³ fine cells (1 s of it goes into seeding 21cmFAST's threads). One redshift:
        0.43, 0.45, 0.55 for 16³, 32³, 48³ cells; with spin temperature 0.65 for each node at 24³.
        """
        fine_cells, cells = (self.cells * self.hires_factor) ** 3, self.cells**3
        initial = boxes * (1.25 + 3.3e-7 * fine_cells)
        one_step = 0.62 + 2.4e-6 * cells if self.spin_temperature else 0.42 + 1.4e-6 * cells
        return initial / self.rows + steps * one_step


def distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values, or raise ValueError if one is given twice."""
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return values


def means_of(coeval: Any) -> tuple[float, float]:
    """Compute the mean brightness temperature (mK) and neutral fraction of a coeval in real space."""
    return (
        float(np.mean(coeval.brightness_temp, dtype=np.float64)),
        float(np.mean(coeval.neutral_fraction, dtype=np.float64)),
    )
