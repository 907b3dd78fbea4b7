"""Several simulators of the same parameters as one."""

import numpy as np
import pytest

import simulators
from simulators import Simulator, build
from simulators.worlds import WorldError, Worlds, first_world, world_names

TABLE = {"kind": "gaussian-field", "cells": 8}
LOGNORMAL = {"name": "lognormal", "kind": "lognormal-field"}


def made(*worlds: dict[str, object]) -> Worlds:
    simulator = build(TABLE | {"worlds": list(worlds)})
    assert isinstance(simulator, Worlds)
    return simulator


def test_a_seed_draws_a_world_and_a_number_names_one() -> None:
    simulator = made({}, LOGNORMAL)
    theta = np.array([0.0, -1.0])
    drawn = [simulator.world_of(seed) for seed in range(400)]
    assert 150 < sum(drawn) < 250
    for seed in range(4):
        for world, kind in enumerate(("gaussian-field", "lognormal-field")):
            alone = build(TABLE | {"kind": kind}).simulate(theta, seed)
            assert np.array_equal(simulator.simulate(theta, seed, world=world)["field"], alone["field"])
        own = simulator.simulate(theta, seed, world=drawn[seed])["field"]
        assert np.array_equal(simulator.simulate(theta, seed)["field"], own)


def test_only_worlds_to_train_on_are_drawn() -> None:
    simulator = made({}, LOGNORMAL | {"train": False})
    assert {simulator.world_of(seed) for seed in range(50)} == {0}


def test_settings_make_the_same_worlds_again() -> None:
    simulator = made({"name": "small"}, LOGNORMAL, {"pivot": 0.7, "train": False})
    again = build(simulator.settings())
    assert again == simulator
    assert world_names(simulator.settings()) == ("small", "lognormal", "world-3")
    assert simulators.fingerprint(again) == simulators.fingerprint(simulator)
    assert isinstance(simulator, Simulator)
    assert first_world(simulator) == build(TABLE)


def test_every_world_and_its_training_count_for_the_fingerprint() -> None:
    tables = ([{}], [{}, LOGNORMAL], [LOGNORMAL, {}], [{}, LOGNORMAL | {"train": False}], [{}, {"pivot": 0.7}])
    assert len({simulators.fingerprint(made(*worlds)) for worlds in tables}) == len(tables)


@pytest.mark.parametrize(
    ("worlds", "text"),
    [
        ([], "must be a list of tables"),
        ("other", "must be a list of tables"),
        ([{}, 3], r"worlds\[1\]: must be a table"),
        ([{}, {"cells": 16}], r"worlds\[1\]: field: shape is \(1, 16, 16\)"),
        ([{}, {"kind": "gaussien"}], r'worlds\[1\]: kind = "gaussien" is not known'),
        ([{"name": "a"}, {"name": "a"}], "each needs a name of its own"),
        ([{"train": False}], "one must be left to train on"),
        ([{"name": ""}], "must be text in quotes"),
        ([{"worlds": []}], "worlds inside of a world"),
    ],
)
def test_worlds_that_are_none_are_refused(worlds: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build(TABLE | {"worlds": worlds})


def test_a_world_of_other_parameters_is_refused() -> None:
    coeval = {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 16, "box_length": 128.0}
    with pytest.raises(WorldError, match="its parameters are"):
        build(coeval | {"parameters": ["F_ESC10"], "worlds": [{}, {"parameters": ["ALPHA_ESC"]}]})


def test_options_of_21cmfast_keep_the_fingerprint_where_there_are_none() -> None:
    coeval = {"kind": "21cmfast-coeval", "redshifts": [8.0], "cells": 16, "box_length": 128.0}
    plain, other = build(coeval), build(coeval | {"options": {"SOURCE_MODEL": "L-INTEGRAL"}})
    assert plain.fingerprint() == build(coeval | {"options": None}).fingerprint() != other.fingerprint()
    for options, text in (
        ({"HII_DIM": 3}, "HII_DIM is not among"),
        ({"HMF": "TINKER"}, "one of 'ST', 'PS'"),
        ({"IONISE_ENTIRE_SPHERE": 1}, "one of True, False"),
        ({"R_BUBBLE_MAX": -1.0}, "must be a length in Mpc"),
    ):
        with pytest.raises(ValueError, match=text):
            build(coeval | {"options": options})
