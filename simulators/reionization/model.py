"""Common part of coeval cubes and light-cones: parameters, fixed values and 21cmFAST's inputs."""

from abc import abstractmethod
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from simulators.base import Observable, Parameter, SimulationError, SimulatorSettings, check_theta, fingerprint_of
from simulators.reionization.engine import as_simulation_errors, import_21cmfast, installed_version
from simulators.reionization.nodes import COARSE_SHELLS, FINE_SHELLS, NAMES
from simulators.reionization.observables import CUBES, Means, ObservableName, computed, described
from simulators.reionization.parameters import BUBBLE, SOURCES, VARIED, XRAY, check_name, out_of_range
from simulators.reionization.versions import with_parameters

if TYPE_CHECKING:
    from py21cmfast import InputParameters

Value = TypeVar("Value")

#: Largest ionised bubble in Mpc: 21cmFAST's mean free path without and with local recombinations.
_BUBBLE_MAX = {False: 15.0, True: 50.0}

#: Options of 21cmFAST that make another model of the same parameters, by its own names, and what each may be.
OPTIONS: dict[str, tuple[bool | str, ...] | None] = {
    "SOURCE_MODEL": ("E-INTEGRAL", "L-INTEGRAL"),
    "HMF": ("ST", "PS"),
    "PERTURB_ALGORITHM": ("2LPT", "ZELDOVICH", "LINEAR"),
    "IONISE_ENTIRE_SPHERE": (True, False),
    "USE_EXP_FILTER": (True, False),
    "CELL_RECOMB": (True, False),
    "R_BUBBLE_MAX": None,
}

#: Cubes by name and the mean brightness temperature and neutral fraction by redshift.
Made = tuple[dict[str, NDArray[np.float32]], Means]


class Reionization(SimulatorSettings):
    """Simulation by 21cmFAST; subclasses make coeval cubes or light-cones of it.

    By default the sources are integrals over the conditional mass function (``E-INTEGRAL``) with the nine parameters
    of Park+2019; with ``sources = "const-ion-eff"`` all halos above a virial temperature have one ionising efficiency
    (Greig & Mesinger 2015, arXiv 1501.06576). Without spin temperature the gas is taken to be much hotter than the
    CMB (T_s >> T_CMB, good once X-rays have heated it) and there are no recombinations;
    then ``t_STAR`` and the three X-ray parameters have no effect on the image. With it the
    run is 21cmFAST's ``Park19`` template, stepped through nodes.
    """

    #: Settings added later, with the value at which they change nothing: older banks keep their fingerprint.
    later: ClassVar[dict[str, Any]] = {
        "observables": list(CUBES),
        "luminosity_redshifts": [6.0, 7.0, 8.0, 10.0],
        "sources": "e-integral",
        "n_step_ts": COARSE_SHELLS,
        "options": {},
    }

    #: What other nodes than the default ones go with, as before there was a choice.
    _with_other_nodes: ClassVar[dict[str, Any]] = {"n_step_ts": COARSE_SHELLS}

    cells: int = Field(ge=8)
    box_length: PositiveFloat = Field(allow_inf_nan=False)
    # 32 cells: 1.1 s of initial conditions with 2, 1.35 s with 3 (21cmFAST's default), 1.6 s with 4. In four
    # seeds of 128 Mpc at z = 8, 2 and 4 gave the same neutral fraction (0.478) and rms (7.04, 6.94 mK).
    hires_factor: int = Field(default=2, ge=2)
    sources: Literal["e-integral", "const-ion-eff"] = "e-integral"
    varied: tuple[str, ...] = Field(
        default_factory=lambda content: VARIED[content.get("sources", "e-integral")], alias="parameters", min_length=1
    )
    fixed: dict[str, float] = Field(default={})
    spin_temperature: bool | None = Field(default=None, validate_default=True)
    n_step_ts: int | None = Field(default=None, ge=5, le=100, validate_default=True)
    rsd: bool = False
    rows: int = Field(default=4, alias="rows_per_realisation", ge=1)
    wanted: tuple[ObservableName, ...] = Field(default=CUBES, alias="observables", min_length=1)
    luminosity_redshifts: tuple[PositiveFloat, ...] = Field(default=(6.0, 7.0, 8.0, 10.0), min_length=1)
    options: dict[str, bool | float | str] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _read_nodes(cls, content: Any) -> Any:
        """Take ``nodes``, a name, as `node_redshifts`; other nodes go with the old defaults."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if "nodes" in content:
            if content.get("node_redshifts") is not None:
                raise ValueError("nodes and node_redshifts both say what the nodes are: give one")
            content["node_redshifts"] = content.pop("nodes")
            if content["node_redshifts"] not in NAMES:
                raise ValueError(f'nodes = {content["node_redshifts"]!r} is not known: "fine" or "coarse"')
        if isinstance(nodes := content.get("node_redshifts"), str) and nodes not in NAMES:
            raise ValueError(f'node_redshifts = "{nodes}" is no list: node_redshifts = [20.0, 15.0, ...]')
        if content.get("node_redshifts") not in (None, "fine"):
            content = cls._with_other_nodes | content
        return content

    @field_validator("varied")
    @classmethod
    def _check_names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in names:
            check_name(name, SOURCES[info.data.get("sources", "e-integral")])
        return names

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
            check_name(name, SOURCES[info.data.get("sources", "e-integral")])
            if name in info.data.get("varied", ()):
                raise ValueError(f"{name} varies (it is in parameters), so it cannot be fixed")
            if problem := out_of_range(name, value):
                raise ValueError(problem)
        return fixed

    @field_validator("options", mode="before")
    @classmethod
    def _without_options(cls, options: Any) -> Any:
        return {} if options is None else options  # as banks may have it; TOML has no such value

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, bool | float | str]) -> dict[str, bool | float | str]:
        for name, value in options.items():
            if name not in OPTIONS:
                raise ValueError(f"{name} is not among those that may be set: {', '.join(OPTIONS)}")
            allowed = OPTIONS[name]
            if allowed is None:
                if isinstance(value, bool | str) or not value > 0:
                    raise ValueError(f"{name} = {value!r}: must be a length in Mpc")
            elif not any(value is one or (isinstance(one, str) and value == one) for one in allowed):
                raise ValueError(f"{name} = {value!r}: one of {', '.join(map(repr, allowed))}")
        return options

    @field_validator("spin_temperature")
    @classmethod
    def _resolve_spin_temperature(cls, wanted: bool | None, info: ValidationInfo) -> bool:
        heating = [name for name in info.data.get("varied", ()) if name in XRAY]
        if wanted is False and heating:
            raise ValueError(f"{', '.join(heating)} would have no effect without spin temperature")
        return bool(heating) if wanted is None else wanted

    @field_validator("n_step_ts")
    @classmethod
    def _resolve_shells(cls, wanted: int | None, info: ValidationInfo) -> int:
        if info.data.get("spin_temperature"):
            return FINE_SHELLS if wanted is None else wanted
        if wanted not in (None, COARSE_SHELLS):
            raise ValueError("only a run with spin_temperature = true has shells to sum over")
        return COARSE_SHELLS

    @model_validator(mode="after")
    def _check_sources(self) -> "Reionization":
        if self.sources == "e-integral":
            return self
        if "luminosity_function" in self.wanted:
            raise ValueError('luminosity_function is that of sources = "e-integral"')
        lowest = next(p.low for p in SOURCES[self.sources] if p.name == BUBBLE)
        if BUBBLE in self.varied and self._largest_bubble <= lowest:
            raise ValueError(
                f"{BUBBLE} cannot vary in a box of {self.box_length:g} Mpc: 21cmFAST's limit is a third of the box, "
                f"and the prior begins at {lowest:g} Mpc"
            )
        return self

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Describe the parameters that vary, in the order of theta."""
        return tuple(parameter for name in self.varied for parameter in self._all_parameters if parameter.name == name)

    @property
    def _all_parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters of these sources; bubbles have at most a third of the box."""
        largest = self._largest_bubble
        return tuple(
            replace(p, high=min(p.high, largest), fiducial=min(p.fiducial, largest)) if p.name == BUBBLE else p
            for p in SOURCES[self.sources]
        )

    @property
    def _largest_bubble(self) -> float:
        """Return the largest bubble that 21cmFAST accepts in the box, in Mpc."""
        return self.box_length / 3

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
    def _made(self, p21c: ModuleType, values: dict[str, float], seed: int) -> list[Made]:
        """Run 21cmFAST: compute the cubes of `wanted`, and the means at every redshift of `history`, of each view."""

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where theta is outside the range in which 21cmFAST is safe."""
        self._values(check_theta(self.parameters, theta))

    def fingerprint(self) -> str:
        """Hash all settings, the version of this class and that of 21cmFAST."""
        settings = {k: v for k, v in self.settings().items() if k not in self.later or v != self.later[k]}
        own = fingerprint_of({"class": type(self).__name__, "version": self.version, **settings})
        return fingerprint_of({"21cmFAST": installed_version(), "simulator": own})

    def remedy(self, other: dict[str, Any]) -> str:
        """Say which keys would give a bank's settings `other`, where its defaults were others than today's."""
        keys = []
        if self.spin_temperature and other.get("spin_temperature"):
            ours = self.settings() | {"rsd": other.get("rsd", self.rsd)}
            coarse = {k: v for k, v in ours.items() if k not in ("node_redshifts", "n_step_ts", "node_step")}
            theirs = type(self).model_validate(coarse | {"nodes": "coarse"}).settings()["node_redshifts"]
            if theirs == other.get("node_redshifts") != ours["node_redshifts"]:
                keys.append('nodes = "coarse"')
        if self.rsd and other.get("rsd") is False:
            keys.append("rsd = false")
        if not keys:
            return ""
        return f"[simulator] {' and '.join(keys)} would be the bank's, as the default was when it was made"

    def check_available(self) -> None:
        """Import 21cmFAST, or raise a `SimulationError` that says how to install it."""
        import_21cmfast()

    def simulate(self, theta: NDArray[np.float64], seed: int, view: int = 0) -> dict[str, NDArray[np.float32]]:
        """Simulate the observables, brightness temperature (mK) first.

        A fully ionised cube is valid and exactly 0 mK.

        Parameters
        ----------
        theta
            The P parameters, in the order of `parameters`.
        seed
            Seed of the realisation, below 2**32.
        view
            Number of the view, below `views_of_a_run`.

        Raises
        ------
        SimulationError
            If theta is outside the range in which 21cmFAST is safe, 21cmFAST fails or
            cannot be imported, or a value is not finite.
        """
        values = self._values(check_theta(self.parameters, theta))
        p21c = import_21cmfast()
        with as_simulation_errors(p21c):
            cubes, means = self._made(p21c, values, seed)[view]
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
        """Return the values of all parameters by 21cmFAST's name."""
        values = {parameter.name: parameter.fiducial for parameter in self._all_parameters} | self.fixed
        values |= dict(zip(self.varied, theta.tolist(), strict=True))
        for name, value in values.items():
            if problem := out_of_range(name, value):
                raise SimulationError(problem)
        if values.get(BUBBLE, 0.0) > self._largest_bubble:
            raise SimulationError(
                f"{BUBBLE} = {values[BUBBLE]:g} Mpc is more than a third of the box, 21cmFAST's limit"
            )
        if "ION_Tvir_MIN" in values:
            values["X_RAY_Tvir_MIN"] = values["ION_Tvir_MIN"]  # 21cmFAST would leave it at its default
        return values

    @property
    @abstractmethod
    def _thermal_nodes(self) -> tuple[float, ...]:
        """Return the steps of the thermal history, falling; none without spin temperature."""

    def _inputs(self, p21c: ModuleType, seed: int) -> "InputParameters":
        """Return 21cmFAST's inputs at its default parameters, on which the initial conditions depend."""
        nodes = self._thermal_nodes
        # 21cmFAST refuses a bubble above a third of the box.
        bubble = min(_BUBBLE_MAX[bool(self.spin_temperature)], self._largest_bubble)
        options: dict[str, Any] = {"R_BUBBLE_MAX": bubble} | self.options
        return p21c.InputParameters.from_template(
            "Park19" if self.spin_temperature else "simple",
            random_seed=seed,
            node_redshifts=nodes,
            HII_DIM=self.cells,
            BOX_LEN=self.box_length,
            HIRES_TO_LOWRES_FACTOR=self.hires_factor,
            # The number of threads changes 21cmFAST's random numbers.
            N_THREADS=1,
            **({"Z_HEAT_MAX": nodes[0], "N_STEP_TS": self.n_step_ts} if nodes else {}),
            **({"SOURCE_MODEL": "CONST-ION-EFF", "M_MIN_in_Mass": False} if self.sources == "const-ion-eff" else {}),
            **options,
            **self._options,
        )

    @property
    def _options(self) -> dict[str, Any]:
        """Return further options of 21cmFAST."""
        return {}

    def _seconds(self, boxes: int, steps: int) -> float:
        """Estimate the CPU seconds of one row with `boxes` initial conditions and `steps` redshifts.

        Fitted with 21cmFAST 4.1.1. Initial conditions: 1.25, 1.3, 1.6, 2.2 for
        32³, 64³, 96³, 144³ fine cells (1 s of it goes into seeding 21cmFAST's threads). One redshift:
        0.43, 0.45, 0.55 for 16³, 32³, 48³ cells; with spin temperature 0.65 for each node at 24³.
        """
        fine_cells, cells = (self.cells * self.hires_factor) ** 3, self.cells**3
        initial = boxes * (1.25 + 3.3e-7 * fine_cells)
        one_step = 0.62 + 2.4e-6 * cells if self.spin_temperature else 0.42 + 1.4e-6 * cells
        if self.spin_temperature and self.n_step_ts is not None:
            one_step *= 0.62 + 0.38 * self.n_step_ts / COARSE_SHELLS  # 20 shells cost 19% less than 40
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
