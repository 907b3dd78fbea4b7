"""Names of the parameters in the installed 21cmFAST."""

import warnings
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from simulators import SimulationError
from simulators.reionization import CONSTANT_EFFICIENCY, PARAMETERS, Coeval
from simulators.reionization.engine import import_21cmfast
from simulators.reionization.versions import NAMES, names_of, with_parameters


@pytest.fixture(scope="module")
def p21c() -> Any:
    return import_21cmfast()


def fields(inputs: Any) -> dict[str, Any]:
    """Values of every input that is no old name of another."""
    return {f.name: getattr(inputs, f.name) for f in attrs.fields(type(inputs)) if not f.metadata.get("deprecated")}


@pytest.mark.parametrize(
    "parameter", {p.name: p for p in PARAMETERS + CONSTANT_EFFICIENCY}.values(), ids=lambda p: p.name
)
def test_each_parameter_changes_its_own_input_alone(p21c: Any, parameter: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Coeval(redshifts=(8.0,), cells=16, box_length=48.0)._inputs(p21c, 1)
        value = 0.9 * parameter.fiducial + 0.1 * parameter.high
        after = with_parameters(p21c, before, {parameter.name: value})
    old, new = fields(before.astro_params), fields(after.astro_params)
    theirs = names_of(p21c).get(parameter.name, parameter.name)
    assert {name: new[name] for name in new if new[name] != old[name]} == {theirs: value}
    assert old[theirs] == parameter.fiducial


def test_a_version_without_a_table_is_refused() -> None:
    assert set(NAMES) == {"4.1", "4.3"}
    with pytest.raises(SimulationError, match=r"21cmFAST 4\.2\.0 is not supported, only 4\.1 and 4\.3"):
        names_of(SimpleNamespace(__version__="4.2.0"))  # type: ignore[arg-type]


def test_a_parameter_that_is_not_taken_is_an_error(p21c: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As 4.3 takes M_TURN and goes on with another turnover mass."""

    class Deaf:
        astro_params = SimpleNamespace(M_TURN=8.7, M_TURN_STELLAR_FEEDBACK=8.7)

        def evolve_input_structs(self, **fields: float) -> "Deaf":
            return self

    with pytest.raises(SimulationError, match=r"did not take M_TURN\w* = 9\.2"):
        with_parameters(p21c, Deaf(), {"M_TURN": 9.2})  # type: ignore[arg-type]
