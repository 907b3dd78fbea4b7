"""21cmFAST behind the simulator's contract, held against direct calls of the package."""

import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from eorinfer.bank.store import Bank
from eorinfer.core.errors import InputError
from simulators import SimulationError, Simulator, build
from simulators.reionization import PARAMETERS, Coeval
from simulators.reionization.versions import renamed

Cubes = dict[str, NDArray[np.float32]]

BOX: dict[str, Any] = {"cells": 16, "box_length": 48.0}
FIDUCIAL = np.array([-1.0, -0.5, 8.7])


def small(**settings: Any) -> Coeval:
    return Coeval(**({"redshifts": (8.0,)} | BOX | settings))


def run_directly(
    template: str, redshifts: list[float], seed: int, nodes: tuple[float, ...] = (), **fields: Any
) -> dict[float, Any]:
    """Coevals by redshift, from 21cmFAST's public functions alone."""
    import py21cmfast as p21c

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        inputs = p21c.InputParameters.from_template(
            template,
            random_seed=seed,
            node_redshifts=nodes,
            **{
                "HII_DIM": 16,
                "DIM": 32,
                "HIRES_TO_LOWRES_FACTOR": None,
                "BOX_LEN": 48.0,
                "N_THREADS": 1,
                **renamed(p21c, fields),
            },
        )
        cache = p21c.OutputCache(folder)
        coevals = p21c.run_coeval(inputs=inputs, out_redshifts=redshifts, write=False, cache=cache, regenerate=True)
    return {coeval.redshift: coeval for coeval in coevals}


def assert_same(cubes: Cubes, coevals: dict[float, Any], redshifts: tuple[float, ...]) -> None:
    for name, cube in cubes.items():
        assert cube.dtype == np.float32
        np.testing.assert_array_equal(cube, np.stack([getattr(coevals[z], name) for z in redshifts]), name)


def same(one: Cubes, other: Cubes) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_each_redshift_is_a_direct_run_with_its_own_seed() -> None:
    simulator = small(redshifts=(7.0, 9.0), parameters=("M_TURN", "F_ESC10"), fixed={"F_STAR10": -1.1})
    cubes = simulator.simulate(np.array([8.9, -0.8]), 7)
    coevals: dict[float, Any] = {}
    for z, seed in zip((7.0, 9.0), simulator.redshift_seeds(7), strict=True):
        coevals |= run_directly("simple", [z], seed, F_STAR10=-1.1, F_ESC10=-0.8, M_TURN=8.9)
    assert_same(cubes, coevals, simulator.redshifts)
    assert {o.name: o.shape for o in simulator.observables} == {n: c.shape for n, c in cubes.items()}
    assert next(iter(cubes)) == "brightness_temp"


def test_one_evolving_box_is_a_direct_run_with_the_seed_of_the_row() -> None:
    simulator = small(redshifts=(7.0, 9.0), independent_redshifts=False)
    assert simulator.redshift_seeds(7) == (7, 7)
    assert_same(simulator.simulate(FIDUCIAL, 7), run_directly("simple", [7.0, 9.0], 7), (7.0, 9.0))


def test_spin_temperature_is_a_direct_run_through_the_nodes() -> None:
    nodes = (20.0, 15.0, 11.0, 8.0)
    simulator = small(redshifts=(8.0, 11.0), parameters=("L_X", "t_STAR"), node_redshifts=nodes)
    cubes = simulator.simulate(np.array([39.0, 0.3]), 7)
    fields = {"L_X": 39.0, "t_STAR": 0.3, "R_BUBBLE_MAX": 16.0, "Z_HEAT_MAX": 20.0}
    assert_same(cubes, run_directly("Park19", [8.0, 11.0], 7, nodes, **fields), simulator.redshifts)
    assert cubes["brightness_temp"].min() < -50, "a cold neutral Universe is seen in absorption"


def test_same_theta_and_seed_give_the_same_bits() -> None:
    simulator = small()
    first = simulator.simulate(FIDUCIAL, 1)
    assert same(first, simulator.simulate(FIDUCIAL, 1)), "initial conditions kept"
    assert not same(first, simulator.simulate(FIDUCIAL + np.array([0.3, 0.0, 0.0]), 1))
    assert not same(first, simulator.simulate(FIDUCIAL, 2))
    assert same(first, small().simulate(FIDUCIAL, 1)), "initial conditions made again"
    assert pickle.loads(pickle.dumps(simulator)) == simulator == small()


def test_other_settings_with_the_same_seed_do_not_share_initial_conditions() -> None:
    one = small(redshifts=(8.0,)).simulate(FIDUCIAL, 1)
    wider = small(redshifts=(8.0,), box_length=64.0).simulate(FIDUCIAL, 1)
    assert not same(one, wider)


def test_a_fully_ionised_box_is_zero_and_valid() -> None:
    cubes = small(redshifts=(5.0,)).simulate(np.array([0.0, -0.5, 8.0]), 1)
    assert not cubes["brightness_temp"].any()
    assert not cubes["neutral_fraction"].any()


def test_redshift_space_moves_the_temperature_along_z() -> None:
    simulator = small(rsd=True)
    moved, real = simulator.simulate(FIDUCIAL, 1), small().simulate(FIDUCIAL, 1)
    shift = moved["brightness_temp"] - real["brightness_temp"]
    assert np.abs(shift).mean() > 0.1
    np.testing.assert_allclose(shift.sum(axis=-1), 0, atol=1e-3)
    np.testing.assert_array_equal(moved["neutral_fraction"], real["neutral_fraction"])
    assert {o.symmetry.rotations for o in simulator.observables} == {"transverse"}
    assert {o.symmetry.rotations for o in small().observables} == {"all"}
    assert all(o.symmetry.periodic == (True, True, True) for o in simulator.observables)


def test_further_observables_are_of_every_redshift_that_was_simulated() -> None:
    names = ("brightness_temp", "global_signal", "global_neutral_fraction", "optical_depth")
    cold = small(redshifts=(9.0, 7.0), observables=names)
    assert (cold.history[0], cold.history[-1], len(cold.history)) == (17.831, 5.0, 14)
    assert np.diff(np.log1p(cold.history)).max() < -0.03, "no near twins"
    assert set(cold.redshifts) < set(cold.history)
    made = cold.simulate(FIDUCIAL, 7)
    assert {o.name: o.shape for o in cold.observables} == {name: array.shape for name, array in made.items()}
    assert next(o for o in cold.observables if o.name == "global_signal").coordinates == cold.history
    np.testing.assert_array_equal(
        made["brightness_temp"], small(redshifts=(9.0, 7.0)).simulate(FIDUCIAL, 7)["brightness_temp"]
    )
    for channel, z in enumerate((9.0, 7.0)):
        mean = made["brightness_temp"][channel].mean(dtype=np.float64)
        assert made["global_signal"][0, cold.history.index(z)] == pytest.approx(mean, rel=1e-6)
    assert made["global_neutral_fraction"][0, 0] > 0.98
    assert 0.04 < made["optical_depth"][0, 0] < 0.09


def test_global_signal_of_a_heated_box_is_that_of_its_nodes() -> None:
    """21cmFAST stops at the lowest cube: a node below it is in no history."""
    nodes = (20.0, 14.0, 10.0, 8.0)
    settings: dict[str, Any] = {"parameters": ("L_X",), "redshifts": (14.0, 10.0), "node_redshifts": nodes}
    heated = small(**settings, observables=("brightness_temp", "global_signal"), independent_redshifts=True)
    made = heated.simulate(np.array([40.0]), 7)
    assert heated.history == (20.0, 14.0, 10.0)
    means = made["brightness_temp"].mean(axis=(1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(made["global_signal"][0, 1:], means, rtol=1e-6)


def test_luminosity_functions_count_what_the_stars_shine() -> None:
    """Twice the stars in every halo: the same halos at magnitudes brighter by 2.5 log10 2."""
    names = ("brightness_temp", "luminosity_function")
    simulator = small(parameters=("F_STAR10",), observables=names, luminosity_redshifts=(6.0, 8.0))
    faint, bright = (simulator.simulate(np.array([f]), 1)["luminosity_function"] for f in (-1.4, -1.0))
    observable = simulator.observables[1]
    assert (faint.shape, observable.unit, observable.channels) == ((2, 29), "1/Mpc3/mag", (6.0, 8.0))
    magnitudes = np.array(observable.coordinates)
    # A factor of 10^0.4 is one magnitude, two places of the table.
    assert magnitudes[2] - magnitudes[0] == 1
    seen = (magnitudes > -21) & (magnitudes < -15)
    np.testing.assert_allclose(np.log10(bright[:, :-2][:, seen[2:]]), np.log10(faint[:, seen]), atol=0.02)
    # Bouwens et al. 2015 (arXiv 1403.4295) count 10^-2.9 a magnitude at -19 and z = 6: within a factor of three.
    fiducial = simulator.simulate(np.array([-1.3]), 1)["luminosity_function"]
    assert -3.4 < np.log10(fiducial[0, magnitudes == -19.0][0]) < -2.4


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    small().simulate(FIDUCIAL, 3)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "home", "tmp"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t_STAR", 0.0),  # these three would kill the process
        ("t_STAR", np.nan),
        ("F_STAR10", np.nan),
        ("F_STAR10", 0.1),
        ("F_ESC10", 5.0),
        ("M_TURN", 16.0),
        ("ALPHA_STAR", np.inf),
        ("L_X", 60.0),
        ("NU_X_THRESH", 50.0),
        ("X_RAY_SPEC_INDEX", -50.0),
    ],
)
def test_what_21cmfast_cannot_do_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SimulationError, match=f"{name} = "):
        small(parameters=(name,)).simulate(np.array([value]), 1)


def test_wrong_length_of_theta_is_refused() -> None:
    with pytest.raises(SimulationError, match=r"F_ESC10, ALPHA_ESC, M_TURN"):
        small().simulate(np.array([-1.0]), 1)


def test_priors_are_within_what_is_safe() -> None:
    for parameter in PARAMETERS:
        for value in (parameter.low, parameter.fiducial, parameter.high):
            other = "F_ESC10" if parameter.name != "F_ESC10" else "M_TURN"
            assert small(parameters=(other,), fixed={parameter.name: value})


def test_automatic_choices_are_recorded() -> None:
    cold = small(redshifts=(7.0, 8.0)).settings()
    assert (cold["spin_temperature"], cold["independent_redshifts"], cold["node_redshifts"]) == (
        False,
        True,
        [],
    )
    heated = small(redshifts=(7.0, 8.1), parameters=("L_X",)).settings()
    assert (heated["spin_temperature"], heated["independent_redshifts"]) == (True, False)
    nodes = heated["node_redshifts"]
    assert (nodes[0], nodes[-1], len(nodes), heated["n_step_ts"]) == (25, 7, 41, 20)
    assert 8.1 in nodes
    coarse = small(redshifts=(7.0, 8.1), parameters=("L_X",), nodes="coarse").settings()
    assert (coarse["node_redshifts"], coarse["n_step_ts"]) == ([20, 17, 14, 12, 10, 8.1, 7], 40)
    assert "nodes" not in coarse
    both = small(spin_temperature=True, independent_redshifts=True)
    assert (both.spin_temperature, both.independent_redshifts) == (True, True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"redshifts": (9.0, 7.0, 8.0), "rsd": True, "hires_factor": 3, "rows_per_realisation": 2},
        {"parameters": ("M_TURN", "L_X"), "fixed": {"t_STAR": 0.4}, "independent_redshifts": True},
    ],
)
def test_settings_round_trip(settings: dict[str, Any]) -> None:
    simulator = small(**settings)
    again = build(simulator.settings())
    assert isinstance(again, Simulator)
    assert again == simulator
    assert again.settings() == simulator.settings()
    assert again.fingerprint() == simulator.fingerprint()
    assert simulator.seconds_per_row > 0
    assert [p.name for p in again.parameters] == list(settings.get("parameters", ("F_ESC10", "ALPHA_ESC", "M_TURN")))


def test_every_setting_is_in_the_fingerprint() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"redshifts": (8.5,)},
        {"cells": 18},
        {"box_length": 50.0},
        {"hires_factor": 3},
        {"parameters": ("F_ESC10",)},
        {"parameters": ("ALPHA_ESC", "F_ESC10", "M_TURN")},
        {"fixed": {"F_STAR10": -1.2}},
        {"spin_temperature": True},
        {"spin_temperature": True, "node_redshifts": (20.0, 8.0)},
        {"spin_temperature": True, "nodes": "coarse"},
        {"spin_temperature": True, "n_step_ts": 40},
        {"sources": "const-ion-eff"},
        {"independent_redshifts": False},
        {"rsd": True},
        {"rows_per_realisation": 5},
        {"observables": ("brightness_temp",)},
        {"luminosity_redshifts": (7.0,)},
    ]
    fingerprints = {small(**change).fingerprint() for change in changes}
    assert len(fingerprints) == len(changes)


def test_banks_of_version_0_1_keep_their_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "4.1.1")
    assert (
        small(cells=24, box_length=192.0, redshifts=(7.0, 8.0, 9.0), parameters=("F_ESC10",)).fingerprint()
        == "5d2415ec1aca506e"
    )
    heated: dict[str, Any] = {"redshifts": (7.0, 8.1), "parameters": ("L_X",)}
    assert small(**heated, nodes="coarse").fingerprint() == "d3a075186b118161"
    assert small(spin_temperature=True, node_redshifts=(20, 12, 8)).fingerprint() == "0fa4652a8e130897"


def test_another_21cmfast_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = small().fingerprint()
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"{package} 9.9")
    assert small().fingerprint() != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"redshift": (8.0,)}, "redshift"),
        ({"redshifts": ()}, "redshifts"),
        ({"redshifts": (8.0, 8.0)}, "8.0 is given twice"),
        ({"redshifts": (3.0,)}, "greater than or equal to 4"),
        ({"box_length": float("inf")}, "finite"),
        ({"parameters": ()}, "parameters"),
        ({"parameters": ("M_TURN", "M_TURN")}, "M_TURN is given twice"),
        ({"parameters": ("F_ESC",)}, 'Did you mean "F_ESC10"'),
        ({"parameters": ("T_star",)}, 'Did you mean "t_STAR"'),
        ({"fixed": {"hubble": 0.7}}, "The parameters are F_STAR10, ALPHA_STAR"),
        ({"fixed": {"M_TURN": 9.0}}, "M_TURN varies"),
        ({"fixed": {"t_STAR": 0.0}}, "t_STAR = 0 is outside"),
        ({"parameters": ("L_X",), "spin_temperature": False}, "L_X would have no effect"),
        ({"node_redshifts": (20.0, 8.0)}, "spin_temperature = true"),
        ({"spin_temperature": True, "node_redshifts": (20.0, 7.0)}, "8 is missing"),
        ({"spin_temperature": True, "redshifts": (25.0,), "nodes": "coarse"}, "give one above z = 25"),
        ({"spin_temperature": True, "node_redshifts": (20.0, 8.1, 8.0)}, "8.1 and 8 are a step of 1.011"),
        ({"spin_temperature": True, "redshifts": (8.0, 8.1)}, "8.1 and 8 are a step of 1.011"),
        ({"spin_temperature": True, "nodes": "course"}, '"fine" or "coarse"'),
        ({"spin_temperature": True, "nodes": "coarse", "node_redshifts": (20.0, 8.0)}, "give one"),
        ({"spin_temperature": True, "node_redshifts": "many"}, '"many" is no list'),
        ({"nodes": "coarse"}, "spin_temperature = true"),
        ({"n_step_ts": 20}, "spin_temperature = true"),
        ({"parameters": ("HII_EFF_FACTOR",)}, '"HII_EFF_FACTOR" is not a parameter'),
        ({"sources": "const-ion-eff", "parameters": ("F_ESC10",)}, '"F_ESC10" is not a parameter'),
        ({"sources": "const-ion-eff", "fixed": {"t_STAR": 0.5}}, "The parameters are HII_EFF_FACTOR, ION_Tvir_MIN"),
        ({"sources": "const-ion-eff", "box_length": 14.0}, "R_BUBBLE_MAX cannot vary in a box of 14 Mpc"),
        ({"sources": "const-ion-eff", "observables": ("brightness_temp", "luminosity_function")}, "e-integral"),
        ({"sources": "zeta"}, "e-integral"),
        ({"observables": ("global_signal",)}, 'must be "brightness_temp"'),
        ({"observables": ("brightness_temp", "tau")}, '"tau" is not an observable; there are'),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**settings)


@pytest.mark.parametrize("redshifts", [(6.0,), (9.0, 7.0, 8.0), (8.0, 8.35), (8.0, 8.45, 24.0), (35.0,)])
def test_default_nodes_are_even_and_pass_through_the_redshifts(redshifts: tuple[float, ...]) -> None:
    nodes = small(redshifts=redshifts, spin_temperature=True).node_redshifts
    assert nodes is not None
    steps = (1 + np.array(nodes[:-1])) / (1 + np.array(nodes[1:]))
    assert set(redshifts) <= set(nodes)
    assert nodes[0] >= 25
    assert 1.02 <= steps.min() <= steps.max() < 1.046


def test_banks_of_other_defaults_are_named_by_their_keys(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"parameters": ("L_X",), "redshifts": (7.0, 8.0)}
    Bank.create(tmp_path / "bank", small(**settings, nodes="coarse"))
    with pytest.raises(InputError, match=r'\[simulator\] nodes = "coarse" would be the bank\'s'):
        Bank.create(tmp_path / "bank", small(**settings))
    Bank.create(tmp_path / "bank", small(**settings, nodes="coarse"))
    with pytest.raises(InputError) as error:
        Bank.create(tmp_path / "bank", small(**settings | {"redshifts": (7.0, 9.0)}))
    assert "coarse" not in str(error.value)


def test_constant_efficiency_is_a_direct_run() -> None:
    simulator = small(sources="const-ion-eff", box_length=96.0)
    assert [p.name for p in simulator.parameters] == ["HII_EFF_FACTOR", "ION_Tvir_MIN", "R_BUBBLE_MAX"]
    cubes = simulator.simulate(np.array([40.0, 5.0, 12.0]), 7)
    fields = {
        "HII_EFF_FACTOR": 40.0,
        "ION_Tvir_MIN": 5.0,
        "R_BUBBLE_MAX": 12.0,
        "BOX_LEN": 96.0,
        "M_MIN_in_Mass": False,
    }
    own = simulator.redshift_seeds(7)[0]
    assert_same(cubes, run_directly("const-zeta", [8.0], own, **fields), (8.0,))
    assert 0.2 < cubes["neutral_fraction"].mean() < 0.99
    for changed in ([60.0, 5.0, 12.0], [40.0, 5.3, 12.0], [40.0, 5.0, 6.0]):
        assert not same(simulator.simulate(np.array(changed), 7), cubes)


def test_heated_gas_with_constant_efficiency_has_xrays_from_the_same_halos() -> None:
    nodes = (18.0, 12.0)
    heated = small(sources="const-ion-eff", parameters=("ION_Tvir_MIN", "L_X"), redshifts=(12.0,), node_redshifts=nodes)
    assert heated._values(np.array([5.3, 40.0]))["X_RAY_Tvir_MIN"] == 5.3
    warm, cold = (heated.simulate(np.array([t, 40.5]), 7)["brightness_temp"].mean() for t in (4.5, 5.3))
    assert warm > cold + 5, "fewer halos heat less"


def test_the_largest_bubble_is_a_third_of_the_box() -> None:
    simulator = small(sources="const-ion-eff", parameters=("R_BUBBLE_MAX",))
    assert [(p.low, p.high) for p in simulator.parameters] == [(5.0, 16.0)]
    with pytest.raises(SimulationError, match=r"R_BUBBLE_MAX = 20 Mpc is more than a third of the box"):
        simulator.check(np.array([20.0]))


def test_seeds_of_the_redshifts_differ() -> None:
    simulator = small(redshifts=(7.0, 8.0, 9.0))
    seeds = [seed for row in range(50) for seed in simulator.redshift_seeds(row)]
    assert len(set(seeds)) == 150
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert simulator.redshift_seeds(3) == small(redshifts=(7.0, 8.0, 9.0)).redshift_seeds(3)


def test_settings_do_not_import_21cmfast() -> None:
    code = (
        "import sys; from simulators.reionization import Coeval;"
        "Coeval(redshifts=(8.0,), cells=16, box_length=48.0).fingerprint();"
        "sys.exit('py21cmfast' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_a_missing_21cmfast_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    small().check_available()
    monkeypatch.setitem(sys.modules, "py21cmfast", None)
    with pytest.raises(SimulationError, match=r"pip install 21cmFAST==4\.1\.1"):
        small().check_available()
