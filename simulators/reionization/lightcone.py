"""Light-cones: the sky as observed, each slice at the time when its light left."""

from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from simulators.base import Observable, SimulationError, Symmetry, derived_seed
from simulators.reionization.coeval import Redshift
from simulators.reionization.engine import evolve, initial_conditions
from simulators.reionization.geometry import (
    distance,
    overlaps,
    redshift_at,
    redshift_of,
    slice_distances,
)
from simulators.reionization.model import Made, Reionization, means_of
from simulators.reionization.nodes import CONE_STEP, FINE_STEP, SMALLEST_STEP, cone_nodes, refuse_small_steps
from simulators.reionization.observables import CUBES, with_history
from simulators.reionization.slices import View, fill_slices, nearest_slices, refuse_empty, refuse_other_cosmology
from simulators.reionization.versions import with_parameters

#: Largest displacement of a cell in redshift space, Mpc: in 12 boxes of up to 300 Mpc it was 6.1 at z = 6 and 8.5 at
#: z = 4.
_REACH = 10.0
#: Cubes of the views of the last run of this process, by simulator, parameters and seed.
_last_views: dict[tuple[Any, ...], list[Made]] = {}

Node = Annotated[float, Field(ge=3.5, le=50)]
Frequency = Annotated[float, Field(ge=40.0, le=284.0)]


class LightCone(Reionization):
    """Light-cone of the 21cm brightness temperature from 21cmFAST, one channel, line of sight last.

    The model is that of `Reionization`. The box is evaluated at nodes; each slice is interpolated in
    comoving distance between the two nodes around it, and the periodic box is repeated along the line
    of sight. 21cmFAST's own light-cones are not used: a slice that they do not reach stays zero, which
    is what a fully ionised one is (21cmFAST issue 666), and where rounding falls wrong they hold a
    slice twice. Here a cube with a slice that was not reached raises.

    Parameters
    ----------
    redshift_range
        Nearest and farthest redshift, 4 to 35; slices as deep as the cells. This or `frequency_range`.
    frequency_range, channels
        Lowest and highest frequency in MHz, and the number of equal channels between them. Each holds the
        mean over its band; the last axis is then ``frequency``, rising.
    transverse
        ``"comoving"``: the transverse axes are those of the periodic box; ``"angular"``: each slice shows the
        same field of view, in the flat-sky approximation. A pixel holds the mean over its extent.
    pixels
        Number of pixels along a side of an angular light-cone; by default that of the cells.
    field_of_view
        Side of an angular light-cone in degrees; by default that of the box at the far end, the largest that shows
        nothing twice.
    nodes
        With spin temperature: ``"fine"``, steps of `node_step` from z = 25 on, or ``"coarse"``, those of version 0.1,
        with steps of 1.1 above the cube from z = 20 on.
    node_step
        Factor in 1 + z between nodes: 1.05, with spin temperature and its fine nodes 1.03.
    node_redshifts
        Nodes in place of the automatic ones. With spin temperature heating starts at the highest.
        They are part of the model.
    views
        Number of light-cones made of one run: along the three axes of its box in turn, the first from the box's
        corner, the others from random cells. They have the same parameters, and the same realisation where rows are
        split; each is a row of the bank.
    cells, box_length, hires_factor, sources, parameters, fixed, spin_temperature, n_step_ts, observables, \
luminosity_redshifts, options
        As for `Coeval`.
    rsd
        Whether peculiar velocities displace the cells along the line of sight, as on the sky.
    rows_per_realisation
        Number of successive runs that share initial conditions.
    """

    later: ClassVar[dict[str, Any]] = Reionization.later | {"views": 1}
    _with_other_nodes: ClassVar[dict[str, Any]] = Reionization._with_other_nodes | {"node_step": CONE_STEP}

    kind: str = "21cmfast-lightcone"
    rsd: bool = True
    redshift_range: tuple[Redshift, Redshift] | None = None
    frequency_range: tuple[Frequency, Frequency] | None = None
    channels: int | None = Field(default=None, ge=4)
    transverse: Literal["comoving", "angular"] = "comoving"
    pixels: int | None = Field(default=None, ge=8)
    field_of_view: PositiveFloat | None = Field(default=None, allow_inf_nan=False)
    node_step: float | None = Field(default=None, ge=1.005, le=1.2, validate_default=True)
    node_redshifts: tuple[Node, ...] | None = Field(default=None, validate_default=True)
    views: int = Field(default=1, ge=1, le=12)

    @field_validator("redshift_range", "frequency_range")
    @classmethod
    def _check_rising(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError(f"must be [lowest, highest]: {limits[0]:g} is not below {limits[1]:g}")
        return limits

    @field_validator("node_step")
    @classmethod
    def _resolve_step(cls, step: float | None, info: ValidationInfo) -> float:
        heated = info.data.get("spin_temperature")
        if heated and step is not None and step < SMALLEST_STEP:
            raise ValueError(
                f"must be at least {SMALLEST_STEP:g} with spin temperature: 21cmFAST can go wrong in smaller steps "
                "(its issue 667)"
            )
        return (FINE_STEP if heated else CONE_STEP) if step is None else step

    @field_validator("node_redshifts", mode="before")
    @classmethod
    def _resolve_names(cls, nodes: Any, info: ValidationInfo) -> Any:
        """Make nodes of a name; None, the default, is ``"fine"`` with spin temperature."""
        if nodes is not None and not isinstance(nodes, str):
            return nodes
        heated = info.data.get("spin_temperature")
        if nodes is not None and not heated:
            raise ValueError("nodes has a name only with spin_temperature = true; without, say node_step = 1.05")
        limits = _redshifts_needed(info.data)
        return limits and cone_nodes(*limits, info.data["node_step"], bool(heated), nodes == "coarse")

    @field_validator("node_redshifts")
    @classmethod
    def _check_nodes(cls, nodes: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if (limits := _redshifts_needed(info.data)) is None:
            return None  # said elsewhere
        low, high = limits
        nodes = tuple(sorted(set(nodes or ()), reverse=True))
        if len(nodes) < 2 or nodes[-1] > low or nodes[0] < high:
            raise ValueError(f"must reach from z = {low:.3f} or below to z = {high:.3f} or above, where the slices are")
        if info.data["spin_temperature"]:
            refuse_small_steps(nodes)
        return nodes

    @model_validator(mode="after")
    def _check_axes(self) -> "LightCone":
        if (self.redshift_range is None) == (self.frequency_range is None):
            raise ValueError("give one of the two: redshift_range = [7.0, 9.0], or frequency_range = [142.0, 177.0]")
        if (self.channels is None) != (self.frequency_range is None):
            raise ValueError("channels and frequency_range go together: give both, or neither")
        if self.transverse == "comoving" and (self.pixels or self.field_of_view):
            raise ValueError('pixels and field_of_view are those of transverse = "angular"')
        near, far = _edges(self.redshift_range, self.frequency_range)
        if (far - near) / self.cell < 4:
            raise ValueError(f"the light-cone is {far - near:.3g} Mpc deep, less than 4 cells of {self.cell:.3g} Mpc")
        largest = float(np.degrees(self.box_length / far))
        if self.field_of_view is not None and self.field_of_view > largest * (1 + 1e-6):
            raise ValueError(
                f"field_of_view = {self.field_of_view:g} degrees would show parts of the box twice: "
                f"{self.box_length:g} Mpc subtend {largest:.4g} degrees at the far end"
            )
        return self

    @property
    def cell(self) -> float:
        """Return the side of a cell in Mpc."""
        return self.box_length / self.cells

    @property
    def angle(self) -> float:
        """Return the side of an angular light-cone in degrees; 0 for comoving axes."""
        if self.transverse == "comoving":
            return 0.0
        far = _edges(self.redshift_range, self.frequency_range)[1]
        return self.field_of_view or float(np.degrees(self.box_length / far))

    @property
    def slices(self) -> NDArray[np.float64]:
        """Return the distances in Mpc to the slices of the box that make up the cube, rising."""
        near, far = _edges(self.redshift_range, self.frequency_range)
        return slice_distances(near, far, self.cell, whole=self.frequency_range is not None)

    @property
    def channel_edges(self) -> NDArray[np.float64]:
        """Return the edges of the frequency channels in MHz, rising; none for a range of redshifts."""
        if self.frequency_range is None or self.channels is None:
            return np.empty(0)
        return np.linspace(*self.frequency_range, self.channels + 1)

    @property
    def history(self) -> tuple[float, ...]:
        """Return the redshifts of the global signal, falling."""
        assert self.node_redshifts is not None
        if "optical_depth" in self.wanted:
            return with_history(self.node_redshifts, above=not self.spin_temperature, between=False)
        return self.node_redshifts

    @property
    def seconds_per_row(self) -> float:
        """Estimate the cost of one row on one core in seconds."""
        slices = self.cells**2 * len(self.slices)
        return self._seconds(1, len(self.history)) / self.views + (1e-6 if self.rsd else 2e-8) * slices

    @property
    def rows_per_realisation(self) -> int:
        """Number of successive rows of a bank that share one seed: views of a few runs."""
        return self.rows * self.views

    @property
    def views_of_a_run(self) -> int:
        """Number of light-cones made of one run."""
        return self.views

    @property
    def _options(self) -> dict[str, Any]:
        # By default 21cmFAST keeps the velocities along z alone.
        return {"KEEP_3D_VELOCITIES": True} if self.rsd and self.views > 1 else {}

    @property
    def _thermal_nodes(self) -> tuple[float, ...]:
        return self.history if self.spin_temperature else ()

    def _cube(self, name: str) -> Observable:
        slices, edges = self.slices, self.channel_edges
        angular = self.transverse == "angular"
        pixels = (self.pixels or self.cells) if angular else self.cells
        middle = float(slices.mean())
        side = np.radians(self.angle) * middle / pixels if angular else self.cell
        if len(edges):
            middles = (edges[1:] + edges[:-1]) / 2
            far, near = (distance(redshift_of(f)) for f in (edges[0], edges[-1]))
            depth, coordinates, axis = (far - near) / len(middles), middles, "frequency"
        else:
            depth, coordinates, axis = self.cell, redshift_at(slices), "z"
        return Observable(
            name=name,
            shape=(1, pixels, pixels, len(coordinates)),
            unit="mK" if name == "brightness_temp" else "",
            axes=("channel", *(("theta_x", "theta_y") if angular else ("x", "y")), axis),
            cell_size=(float(side), float(side), float(depth)),
            channels=(0.0,),
            symmetry=Symmetry(periodic=(not angular, not angular, False), rotations="transverse"),
            coordinates=tuple(float(c) for c in coordinates),
            field_of_view=self.angle,
        )

    def _made(self, p21c: ModuleType, values: dict[str, float], seed: int) -> list[Made]:
        """Make all views at once, and keep them for the rows that follow."""
        key = (self.fingerprint(), *values.items(), seed)
        if key not in _last_views:
            _last_views.clear()
            made = self._run(p21c, values, seed)
            if self.views == 1:
                return made
            _last_views[key] = made
        return _last_views[key]

    def _run(self, p21c: ModuleType, values: dict[str, float], seed: int) -> list[Made]:
        """Step down the nodes, fill the slices between each two, then make channels and pixels."""
        base = self._inputs(p21c, seed)
        inputs = with_parameters(p21c, base, values)
        (initial,) = initial_conditions(p21c, (base,))
        extra = _extra_slices(self.rsd, self.cell)
        slices = self.slices
        wide = np.concatenate([
            slices[0] - self.cell * np.arange(extra, 0, -1), slices, slices[-1] + self.cell * np.arange(1, extra + 1)
        ])  # fmt: skip
        refuse_other_cosmology(inputs.cosmo_params.cosmo, wide)
        names = [name for name in CUBES if name in self.wanted] + ["velocity"] * self.rsd
        shape = (self.cells, self.cells, len(wide))
        views = self._views(seed)
        made = [{name: np.full(shape, np.nan, np.float32) for name in names} for _ in views]
        means: dict[float, tuple[float, float]] = {}
        above: Any = None
        for coeval in evolve(p21c, inputs, initial, self.history):
            means[coeval.redshift] = means_of(coeval)
            if above is not None:
                for cubes, view in zip(made, views, strict=True):
                    fill_slices(cubes, view.planes(len(wide), -extra, self.cells), view.axis, wide, above, coeval)
            above = coeval
        inside = slice(extra, len(wide) - extra)
        for cubes, view in zip(made, views, strict=True):
            refuse_empty(cubes, wide)
            if self.rsd:
                cubes["brightness_temp"] = p21c.rsds.apply_rsds(
                    field=cubes["brightness_temp"],
                    los_velocity=cubes.pop("velocity"),
                    redshifts=redshift_at(wide),
                    inputs=inputs,
                    periodic=False,
                )
            for name, cube in cubes.items():
                across = np.roll(cube[..., inside], tuple(-start for start in view.start[:2]), axis=(0, 1))
                cubes[name] = self._observed(across)[None]
        return [(cubes, means) for cubes in made]

    def _views(self, seed: int) -> list[View]:
        """Return the views of a realisation; the first one is that of `views` = 1."""
        views = [View(2, (0, 0, 0))]
        for i in range(1, self.views):
            x, y, z = np.random.default_rng(derived_seed(seed, i)).integers(self.cells, size=3).tolist()
            views.append(View((2 + i) % 3, (x, y, z)))
        return views

    def from_slices(
        self, cube: NDArray[np.float32], distances: NDArray[np.float64], cell: float
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Make the light-cone of these settings from slices that were made elsewhere.

        Parameters
        ----------
        cube
            (N, N, n) slices of a box of the same cells.
        distances
            (n,) comoving distances to their middles in Mpc, rising or falling.
        cell
            Side of a cell in Mpc.

        Returns
        -------
        cube, notes
            (1, *cells), and a line for what a reader should know.

        Raises
        ------
        SimulationError
            If the box or its cells are others, or the slices do not reach from end to end.
        """
        if cube.shape[:2] != (self.cells, self.cells) or abs(cell / self.cell - 1) > 1e-4:
            raise SimulationError(
                f"slices of {cube.shape[0]} x {cube.shape[1]} cells of {cell:g} Mpc, expected {self.cells} x "
                f"{self.cells} of {self.cell:g} Mpc: [simulator] cells and box_length"
            )
        nearest, off = nearest_slices(distances, self.slices, self.cell)
        note = f"{len(nearest)} of {len(distances)} slices are taken, each within {off:.3g} Mpc of the config's"
        return self._observed(np.asarray(cube[..., nearest], np.float32))[None], [note]

    def _observed(self, cube: NDArray[np.float32]) -> NDArray[np.float32]:
        """Average slices (N, N, n) over pixels and channels: (pixels, pixels, channels)."""
        slices = self.slices
        if self.transverse == "angular":
            pixels = self.pixels or self.cells
            cells = np.linspace(0.0, self.box_length, self.cells + 1, dtype=np.float64)
            out = np.empty((pixels, pixels, len(slices)), np.float32)
            for i, d in enumerate(slices):
                # The middle of the field is the middle of the box at every distance.
                side = min(np.radians(self.angle) * d, self.box_length)
                weights = overlaps(cells, self.box_length / 2 + side * (np.arange(pixels + 1) / pixels - 0.5))
                out[..., i] = weights @ cube[..., i] @ weights.T
            cube = out
        if len(edges := self.channel_edges):
            inner = np.append(slices - self.cell / 2, slices[-1] + self.cell / 2)
            # Rising frequency is falling distance.
            outer = np.array([distance(redshift_of(f)) for f in edges[::-1]])
            cube = (cube @ overlaps(inner, outer).T)[..., ::-1].astype(np.float32)
        return np.ascontiguousarray(cube, dtype=np.float32)


def _edges(redshifts: tuple[float, float] | None, frequencies: tuple[float, float] | None) -> tuple[float, float]:
    """Compute the distances in Mpc to the near and the far end."""
    if redshifts is not None:
        return distance(redshifts[0]), distance(redshifts[1])
    assert frequencies is not None
    return distance(redshift_of(frequencies[1])), distance(redshift_of(frequencies[0]))


def _extra_slices(rsd: bool, cell: float) -> int:
    """Count the slices made beyond either end, which move into the cube in redshift space."""
    return int(np.ceil(_REACH / cell)) if rsd else 0


def _redshifts_needed(data: dict[str, Any]) -> tuple[float, float] | None:
    """Compute the redshifts that nodes must reach, from the settings that were read; None if one was wrong."""
    given = [data.get(key) for key in ("redshift_range", "frequency_range")]
    if not any(given) or not {"cells", "box_length", "node_step", "spin_temperature", "rsd"} <= data.keys():
        return None
    cell = data["box_length"] / data["cells"]
    near, far = _edges(*given)
    reach = cell * _extra_slices(data["rsd"], cell)
    # The slices may end up to a cell beyond the far edge. A little more, against rounding.
    low = float(np.floor(1e3 * redshift_at(near - reach))) / 1e3
    high = float(np.ceil(1e3 * redshift_at(far + cell + reach))) / 1e3
    return low, high
