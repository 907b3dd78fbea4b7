"""21cm cubes of the Epoch of Reionization from 21cmFAST.

21cmFAST: Mesinger, Furlanetto & Cen 2011 (arXiv 1003.3878) and Murray et al. 2020
(JOSS 5, 2582). The galaxies are parametrised as in Park et al. 2019 (arXiv 1809.08995).
"""

import difflib
import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveFloat, ValidationInfo, field_validator

from simulators.base import (
    Observable,
    Parameter,
    SimulationError,
    SimulatorSettings,
    Symmetry,
    check_theta,
    derived_seed,
    fingerprint_of,
)

#: The nine parameters of Park+2019 with the flat priors of 21cmEMU, in 21cmFAST's own names and units.
PARAMETERS: tuple[Parameter, ...] = (
    Parameter("F_STAR10", r"\log_{10} f_{*,10}", -3.0, 0.0, -1.3, "", "stellar fraction, 1e10 Msun"),
    Parameter("ALPHA_STAR", r"\alpha_*", -0.5, 1.0, 0.5, "", "mass slope of the stellar fraction"),
    Parameter("F_ESC10", r"\log_{10} f_{\rm esc,10}", -3.0, 0.0, -1.0, "", "escape fraction, 1e10 Msun"),
    Parameter("ALPHA_ESC", r"\alpha_{\rm esc}", -1.0, 0.5, -0.5, "", "mass slope of the escape fraction"),
    Parameter("M_TURN", r"\log_{10} M_{\rm turn}", 8.0, 10.0, 8.7, "log10 Msun", "turnover halo mass"),
    Parameter("t_STAR", r"t_*", 0.01, 1.0, 0.5, "1/H(z)", "star formation time"),
    Parameter("L_X", r"\log_{10} L_X", 38.0, 42.0, 40.5, "log10 erg/s/(Msun/yr)", "soft X-rays below 2 keV"),
    Parameter("NU_X_THRESH", r"E_0", 100.0, 1500.0, 500.0, "eV", "lowest X-ray energy that escapes"),
    Parameter("X_RAY_SPEC_INDEX", r"\alpha_X", -1.0, 3.0, 1.0, "", "slope of the X-ray spectrum"),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}

#: Beyond these 21cmFAST 4.1.1 raises, returns finite nonsense or dies of a segmentation fault (t_STAR = 0).
_SAFE_RANGE: dict[str, tuple[float, float]] = {
    "F_STAR10": (-3.0, 0.0),
    "ALPHA_STAR": (-1.0, 1.5),
    "F_ESC10": (-4.0, 0.0),
    "ALPHA_ESC": (-1.5, 1.0),
    "M_TURN": (7.0, 11.0),
    "t_STAR": (0.001, 1.0),
    "L_X": (36.0, 44.0),
    "NU_X_THRESH": (100.0, 1900.0),
    "X_RAY_SPEC_INDEX": (-2.0, 4.0),
}

#: Parameters that act only through the spin temperature.
_XRAY = ("L_X", "NU_X_THRESH", "X_RAY_SPEC_INDEX")

#: Steps of the thermal history where none are given; the output redshifts join them.
_NODES = (20.0, 17.0, 14.0, 12.0, 10.0, 8.0, 6.0)

#: Largest ionised bubble (Mpc): 21cmFAST's mean free path without and with local recombinations.
_BUBBLE_MAX = {False: 15.0, True: 50.0}

#: Initial conditions of the last realisation of this process, by their inputs. They hold
#: C memory and cannot be pickled, so they live here and not in the settings object.
_last_realisation: dict[tuple[Any, ...], tuple[Any, ...]] = {}


def _known(name: str) -> str:
    if name in _BY_NAME:
        return name
    near = difflib.get_close_matches(name.upper(), [known.upper() for known in _BY_NAME], n=1)
    hint = "".join(f' Did you mean "{known}"?' for known in _BY_NAME if [known.upper()] == near)
    raise ValueError(f'"{name}" is not a parameter.{hint} The parameters are {", ".join(_BY_NAME)}')


def _out_of_range(name: str, value: float) -> str:
    """What is wrong with the value, or nothing."""
    low, high = _SAFE_RANGE[name]
    if low <= value <= high:
        return ""
    return f"{name} = {value:g} is outside {low:g} to {high:g}, where 21cmFAST can be trusted"


Redshift = Annotated[float, Field(ge=4, le=35)]
Node = Annotated[float, Field(ge=4, le=50)]
ParameterName = Annotated[str, AfterValidator(_known)]


class Coeval(SimulatorSettings):
    """Coeval boxes of the 21cm brightness temperature at a few redshifts, from 21cmFAST.

    Sources are integrals over the conditional mass function (``E-INTEGRAL``), as in
    Park+2019. Without spin temperature the gas is taken to be much hotter than the
    CMB (T_s >> T_CMB, good once X-rays have heated it) and there are no recombinations;
    then ``t_STAR`` and the three X-ray parameters have no effect. With it the run is
    21cmFAST's ``Park19`` template, stepped through `node_redshifts`.

    Parameters
    ----------
    redshifts
        Channels of the cubes, in this order; 4 to 35.
    cells
        Cells along each side of the box.
    box_length
        Side in comoving Mpc.
    hires_factor
        Cells of the initial conditions along one cell. It changes the realisation.
    parameters
        Names of the parameters that vary, in the order of theta; any of `PARAMETERS`.
    fixed
        Values of parameters that do not vary, where not the fiducial ones.
    spin_temperature
        Follow heating and Ly-alpha coupling. By default only if an X-ray parameter varies.
    node_redshifts
        Steps of the thermal history with spin temperature; they hold all `redshifts`, and
        heating starts at the highest. They are part of the model: the 8 default ones give a mean
        of 9.7, 9.5, 3.6 mK at z = 9, 8, 7, and 51 of them 5.8, 8.8, 4.0 mK (96 Mpc, one seed).
    independent_redshifts
        Whether every redshift has initial conditions of its own, as distant slices of a
        light-cone do, or all show one evolving box. By default the former without
        spin temperature (where it costs little) and the latter with it.
    rsd
        Displace the brightness temperature along z by the peculiar velocities.
    rows_per_realisation
        Successive rows of a bank that share one seed, and so one set of initial conditions.
    """

    kind: str = "21cmfast-coeval"
    redshifts: tuple[Redshift, ...] = Field(min_length=1)
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
    node_redshifts: tuple[Node, ...] | None = Field(default=None, validate_default=True)
    independent_redshifts: bool | None = Field(default=None, validate_default=True)
    rsd: bool = False
    rows: int = Field(default=4, alias="rows_per_realisation", ge=1)

    @field_validator("redshifts", "varied")
    @classmethod
    def _check_distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{twice[0]} is given twice")
        return values

    @field_validator("fixed")
    @classmethod
    def _check_fixed(cls, fixed: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        for name, value in fixed.items():
            if name in info.data.get("varied", ()):
                raise ValueError(f"{name} varies (it is in parameters), so it cannot be fixed")
            if problem := _out_of_range(name, value):
                raise ValueError(problem)
        return fixed

    @field_validator("spin_temperature")
    @classmethod
    def _resolve_spin_temperature(cls, wanted: bool | None, info: ValidationInfo) -> bool:
        heating = [name for name in info.data.get("varied", ()) if name in _XRAY]
        if wanted is False and heating:
            raise ValueError(f"{', '.join(heating)} would have no effect without spin temperature")
        return bool(heating) if wanted is None else wanted

    @field_validator("node_redshifts")
    @classmethod
    def _resolve_nodes(cls, nodes: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...]:
        redshifts = info.data.get("redshifts", ())
        if not redshifts or not info.data.get("spin_temperature"):
            if nodes:
                raise ValueError("only a run with spin_temperature = true steps through nodes")
            return ()
        nodes = _default_nodes(redshifts) if nodes is None else tuple(sorted(set(nodes), reverse=True))
        if missing := set(redshifts) - set(nodes):
            raise ValueError(f"the nodes must contain every redshift; {min(missing):g} is missing")
        if max(redshifts) >= nodes[0]:
            raise ValueError(f"heating starts at the highest node: give one above z = {max(redshifts):g}")
        return nodes

    @field_validator("independent_redshifts")
    @classmethod
    def _resolve_independent(cls, wanted: bool | None, info: ValidationInfo) -> bool:
        return not info.data.get("spin_temperature") if wanted is None else wanted

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that vary, in the order of theta."""
        return tuple(_BY_NAME[name] for name in self.varied)

    @property
    def observables(self) -> tuple[Observable, ...]:
        """``brightness_temp`` in mK and ``neutral_fraction``, which has no redshift-space distortions."""
        symmetry = Symmetry(periodic=(True,) * 3, rotations="transverse" if self.rsd else "all")
        return tuple(
            Observable(
                name=name,
                shape=(len(self.redshifts), *(self.cells,) * 3),
                unit=unit,
                axes=("redshift", "x", "y", "z"),
                cell_size=(self.box_length / self.cells,) * 3,
                channels=self.redshifts,
                symmetry=symmetry,
            )
            for name, unit in (("brightness_temp", "mK"), ("neutral_fraction", ""))
        )

    @property
    def rows_per_realisation(self) -> int:
        """How many successive rows of a bank share one seed."""
        return self.rows

    @property
    def seconds_per_row(self) -> float:
        """Rough cost of one row on one core.

        Fitted to CPU seconds with 21cmFAST 4.1.1. Initial conditions: 1.25, 1.3, 1.6, 2.2 for
        32³, 64³, 96³, 144³ fine cells (1 s of it goes into seeding 21cmFAST's threads). One redshift:
        0.43, 0.45, 0.55 for 16³, 32³, 48³ cells; with spin temperature 0.65 for each node at 24³.
        """
        groups, nodes = self._groups(seed=0), self.node_redshifts or ()
        fine_cells, cells = (self.cells * self.hires_factor) ** 3, self.cells**3
        initial = len(groups) * (1.25 + 3.3e-7 * fine_cells)
        steps = sum(len({*zs, *(z for z in nodes if z > min(zs))}) for zs, _ in groups)
        one_step = 0.62 + 2.4e-6 * cells if self.spin_temperature else 0.42 + 1.4e-6 * cells
        displaced = len(self.redshifts) * 6.5e-6 * cells if self.rsd else 0.0
        return initial / self.rows + steps * one_step + displaced

    def check(self, theta: NDArray[np.float64]) -> None:
        """Raise `SimulationError` where theta is outside the range in which 21cmFAST is safe."""
        self._values(check_theta(self.parameters, theta))

    def fingerprint(self) -> str:
        """Hash of all settings, of this class's version and of 21cmFAST's."""
        return fingerprint_of({"21cmFAST": _installed_version(), "simulator": super().fingerprint()})

    def check_available(self) -> None:
        """Import 21cmFAST, or raise a `SimulationError` that says how to install it."""
        _import_21cmfast()

    def redshift_seeds(self, seed: int) -> tuple[int, ...]:
        """Seed of the initial conditions behind each of `redshifts`."""
        if self.independent_redshifts:
            return tuple(derived_seed(seed, index) for index in range(len(self.redshifts)))
        return (seed,) * len(self.redshifts)

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, NDArray[np.float32]]:
        """Brightness temperature (mK) and neutral fraction, each (C, cells, cells, cells).

        A fully ionised box is valid and exactly 0 mK.

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
            cannot be imported, or a cell is not finite.
        """
        values = self._values(check_theta(self.parameters, theta))
        p21c = _import_21cmfast()
        errors = p21c.wrapper.exceptions
        with _quiet():
            try:
                boxes = self._boxes(p21c, values, seed)
            except (errors.ParameterError, errors.FatalCError, ValueError) as error:
                text = " ".join(str(error).split())[:200]
                raise SimulationError(f"21cmFAST, {type(error).__name__}: {text}") from error
        result = {}
        for channel, observable in enumerate(self.observables):
            cube = np.stack([boxes[z][channel] for z in self.redshifts])
            if not np.isfinite(cube).all():
                raise SimulationError(f"21cmFAST returned NaN or infinite {observable.name}")
            result[observable.name] = cube
        return result

    def _groups(self, seed: int) -> list[tuple[tuple[float, ...], int]]:
        """The redshifts that share initial conditions, with their seed."""
        if self.independent_redshifts:
            return [((z,), own) for z, own in zip(self.redshifts, self.redshift_seeds(seed), strict=True)]
        return [(self.redshifts, seed)]

    def _values(self, theta: NDArray[np.float64]) -> dict[str, float]:
        """All nine parameters by name."""
        values = {parameter.name: parameter.fiducial for parameter in PARAMETERS} | self.fixed
        values |= dict(zip(self.varied, theta.tolist(), strict=True))
        for name, value in values.items():
            if problem := _out_of_range(name, value):
                raise SimulationError(problem)
        return values

    def _inputs(self, p21c: Any, seed: int) -> Any:
        """21cmFAST's inputs at its own default parameters: what the initial conditions depend on."""
        nodes = self.node_redshifts or ()
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

    def _boxes(
        self, p21c: Any, values: dict[str, float], seed: int
    ) -> dict[float, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Brightness temperature and neutral fraction by redshift."""
        groups = self._groups(seed)
        inputs = tuple(self._inputs(p21c, own_seed) for _, own_seed in groups)
        initial_conditions = _initial_conditions(p21c, inputs)
        boxes = {}
        for (redshifts, _), base, initial in zip(groups, inputs, initial_conditions, strict=True):
            with tempfile.TemporaryDirectory(prefix="21cmfast-") as folder:
                for coeval, wanted in p21c.generate_coeval(
                    inputs=base.evolve_input_structs(**values),
                    out_redshifts=list(redshifts),
                    initial_conditions=initial,
                    # By default it writes into the working directory and reads back what it finds there.
                    write=False,
                    cache=p21c.OutputCache(folder),
                    regenerate=True,
                ):
                    if wanted:
                        boxes[coeval.redshift] = (self._brightness(coeval), coeval.neutral_fraction)
        return boxes

    def _brightness(self, coeval: Any) -> NDArray[np.float32]:
        """The coeval's brightness temperature in real or redshift space."""
        # A coeval box is in real space until asked. `apply_rsds` moves the cells and keeps their sum,
        # so the factor 1/|1 + dv/dr/H| of the optical depth is in it: it gives Kaiser's monopole (1.83
        # of 1.87 at z = 12 where k is lowest). `apply_velocity_corrections` counts it twice (3.2).
        cube: NDArray[np.float32] = (
            coeval.apply_rsds("brightness_temp", axis="z", periodic=True) if self.rsd else coeval.brightness_temp
        )
        return cube


def _default_nodes(redshifts: tuple[float, ...]) -> tuple[float, ...]:
    """The redshifts, and those of `_NODES` that are above the lowest and no near twin of any."""
    above = [z for z in _NODES if z > min(redshifts)]
    between = [z for z in above if all(abs(z - out) > 0.03 * (1 + z) for out in redshifts)]
    return tuple(sorted({*redshifts, *between}, reverse=True))


def _installed_version() -> str:
    try:
        return importlib.metadata.version("21cmFAST")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _import_21cmfast() -> Any:
    """The package, imported late: it takes seconds and the settings alone do not need it."""
    try:
        with _quiet():
            import py21cmfast
    except ImportError as error:
        raise SimulationError(f"21cmFAST cannot be imported: {error}; pip install 21cmFAST==4.1.1") from error
    return py21cmfast


def _initial_conditions(p21c: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Initial conditions for each of `inputs`, kept until others are asked for."""
    if inputs not in _last_realisation:
        _last_realisation.clear()  # before the next ones, so that never two are in memory
        _last_realisation[inputs] = tuple(
            p21c.compute_initial_conditions(inputs=one, write=False, regenerate=True) for one in inputs
        )
    return _last_realisation[inputs]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep 21cmFAST's warnings and logged errors off the terminal; its exceptions say the same."""
    logger = logging.getLogger("py21cmfast")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
