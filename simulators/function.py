"""A plain function as a simulator: ``f(theta, seed)`` gives an array, and a table describes it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from simulators.base import Observable, Parameter, SimulationError
from simulators.cell import kind_of
from simulators.imported import Imported

Function = Callable[[NDArray[np.float64], int], Any]


class FunctionSimulator(Imported):
    """Simulator around a function, which the config names as ``kind = "module:function"``.

    The function takes theta (P,) and a seed, and returns the image, or a dict that has it under the name `observable`.
    An image of one channel may lack the channel axis. The keys are those of imported cubes.
    """

    kind: str
    _function: Function = PrivateAttr()

    @classmethod
    def around(cls, function: Function, settings: Mapping[str, Any]) -> "FunctionSimulator":
        """Make the simulator of a function from a ``[simulator]`` table.

        Raises
        ------
        pydantic.ValidationError
            If a setting is wrong.
        """
        simulator = cls(**settings)
        simulator._function = function
        return simulator

    @property
    def function(self) -> Function:
        """The user's function."""
        return self._function

    def simulate(self, theta: NDArray[np.float64], seed: int) -> dict[str, Any]:
        """Call the function; whoever calls this checks shape and numbers."""
        made = self._function(theta, seed)
        if made is None:
            raise SimulationError(f"{self.kind} returned nothing; it must end with return and the array")
        if not isinstance(made, Mapping):
            made = {self.observable: made}
        if self.observable not in made:
            raise SimulationError(f'{self.kind} returned {", ".join(map(str, made))}, and no "{self.observable}"')
        return {name: self._with_channel(value) for name, value in made.items() if name == self.observable}

    def _with_channel(self, value: Any) -> Any:
        """Add the channel axis to an image of one channel that lacks it."""
        array = value if hasattr(value, "shape") else np.asarray(value)
        return array[None] if self.shape[0] == 1 and tuple(array.shape) == self.shape[1:] else array


def simulator(
    function: Function,
    parameters: Mapping[str, tuple[float, float] | Mapping[str, Any]] | list[Parameter] | tuple[Parameter, ...],
    observable: Observable | Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a function as a simulator: the ``[simulator]`` table of a config.

    Parameters
    ----------
    function
        ``f(theta, seed)``, with theta (P,) float64, to an array (C, *cells) or a dict of arrays. It runs in processes
        of their own. A function of a notebook is written, with all that it uses, to a module of its own.
    parameters
        Ends of each parameter's flat prior, ``{"A": (0.5, 2.0)}``; a dict with `low`, `high`, `label` and `unit`; or
        `Parameter` objects.
    observable
        ``shape`` (C, *cells), or two numbers for one map, or one for a data vector; ``cell_size`` in Mpc; as needed
        ``name``, ``unit``, ``redshifts``, ``periodic`` and ``rotations``. Or an `Observable`.

    Returns
    -------
    dict
        For ``load_config({"simulator": ..., ...})``.

    Raises
    ------
    ValueError
        If the function uses something that cannot be written to a file, or a parameter has no ends; says what.

    Examples
    --------
    >>> import numpy as np
    >>> from eorinfer import simulator
    >>> def noise(theta, seed):
    ...     return theta[0] * np.random.default_rng(seed).standard_normal((8, 8))
    >>> table = simulator(noise, {"sigma": (0.5, 2.0)}, {"shape": (8, 8), "cell_size": 1.0})
    >>> table["shape"]
    [1, 8, 8]
    """
    ranges: dict[str, Any] = {}
    if isinstance(parameters, Mapping):
        for name, ends in parameters.items():
            if not isinstance(ends, Mapping) and np.shape(ends) != (2,):
                raise ValueError(f"parameters: {name} needs two ends, for example (0.5, 2.0), not {ends!r}")
            ranges[name] = dict(ends) if isinstance(ends, Mapping) else dict(zip(("low", "high"), ends, strict=True))
    else:
        for p in parameters:
            if not isinstance(p, Parameter):
                raise ValueError(f'parameters: must be a dict of names and ends, for example {{"{p}": (0.5, 2.0)}}')
            ranges[p.name] = {"low": p.low, "high": p.high, "label": p.label, "unit": p.unit}
    return {"kind": kind_of(function), "ranges": ranges, **_described(observable)}


def _described(observable: Observable | Mapping[str, Any]) -> dict[str, Any]:
    """Write an observable as keys of the table."""
    if isinstance(observable, Observable):
        o = observable
        if len(set(o.cell_size)) > 1 or len(set(o.symmetry.periodic)) > 1:
            raise ValueError("observable: cells of a function's image are cubic, and all axes are periodic or none")
        described: dict[str, Any] = {"observable": o.name, "shape": list(o.shape), "unit": o.unit}
        described |= {"cell_size": o.cell_size[0], "periodic": o.symmetry.periodic[0]}
        described |= {"rotations": o.symmetry.rotations}
        return described | ({"redshifts": list(o.channels)} if o.axes[0] == "redshift" else {})
    if not isinstance(observable, Mapping):
        raise ValueError(f'observable: must be a dict, for example {{"shape": (1, 32, 32)}}, not {observable!r:.40}')
    described = dict(observable)
    if "shape" not in described:
        raise ValueError("observable: lacks shape, for example (1, 32, 32), channels first")
    shape = [int(n) for n in np.atleast_1d(described.pop("shape"))]
    made: dict[str, Any] = {"observable": described.pop("name", "image")}
    if len(shape) == 1:
        return made | {"shape": [1, *shape]} | described
    return made | {"shape": [1, *shape] if len(shape) == 2 else shape, "cell_size": 1.0} | described
