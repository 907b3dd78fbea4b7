"""Seeds: every stream has a name, its number stays, and streams that share a root differ."""

import ast
from pathlib import Path

import numpy as np
import pytest

from eorinfer.core import seeds
from eorinfer.core.seeds import (
    PRIOR_ROUND,
    ImageFlowStream,
    RoundStream,
    RunStream,
    SeparationStream,
    StudyStream,
    WorkStream,
    item_seed,
    realisation_seed,
    round_seed,
    run_rng,
    run_seed,
    second_item_seed,
    stream_rng,
    stream_seed,
)

ROOT = Path(__file__).parents[2]
FUNCTIONS = {name for name in vars(seeds) if name.endswith(("_seed", "_rng"))}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Return the calls in a file that derive a seed or begin a generator, by the name of the function."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [getattr(node.func, "attr", getattr(node.func, "id", "")) for node in nodes]
    return [(name, node) for name, node in zip(names, nodes, strict=True) if name in FUNCTIONS | {"default_rng"}]


@pytest.mark.parametrize("top", ["eorinfer", "benchmarks"])
def test_no_seed_is_derived_from_a_bare_integer(top: str) -> None:
    files = [path for path in sorted((ROOT / top).rglob("*.py")) if path != ROOT / "eorinfer/core/seeds.py"]
    through_seeds = 0
    for path in files:
        for name, call in calls(path):
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            assert name != "derived_seed", f"{where} derives a seed past eorinfer.core.seeds"
            through_seeds += name in FUNCTIONS
            if name in FUNCTIONS:
                numbers = call.args
            elif top == "eorinfer" and call.args and isinstance(call.args[0], ast.List | ast.Tuple):
                numbers = call.args[0].elts
            else:
                continue  # a script's generator, or one that takes a seed as it is
            literal = [number for number in numbers if isinstance(number, ast.Constant)]
            assert not literal, f"{where} has a stream without a name"
    assert through_seeds > (60 if top == "eorinfer" else 5)


def test_seeds_are_those_of_before() -> None:
    # Banks, posteriors and chains that were kept under these numbers have to go on with them.
    assert run_seed(0, RunStream.OBSERVATION, 0) == 2318948548
    assert run_seed(3, RunStream.MCMC) == 1326708537
    assert run_seed(3, RunStream.TRUTHS_NOISE, 50) == 172655131
    assert run_seed(3, SeparationStream.TRAINING) == 95427338
    assert round_seed(3, PRIOR_ROUND, RoundStream.TRAINING) == 3009384938
    assert realisation_seed(3, 2, 17) == 3648584520
    assert stream_seed(3, WorkStream.SPLIT) == 1816766581
    assert stream_seed(3, StudyStream.SIMULATIONS, 4) == 3347982285
    assert item_seed(3, 2) == 404222042
    assert second_item_seed(3, 2) == 2291302849
    assert run_rng(3, RunStream.TRUNCATION_POOL).integers(2**32) == 2460764388
    assert stream_rng(3, StudyStream.HELD_OUT).integers(2**32) == 2916813781


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_streams_of_a_run_are_distinct(seed: int) -> None:
    rounds = [round_seed(seed, number, stream) for number in range(1, 20) for stream in RoundStream]
    whole = [run_seed(seed, stream) for stream in RunStream]
    indexed = [run_seed(seed, stream, i) for stream in RunStream for i in range(50)]
    roots = [*rounds, *whole, *indexed]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("streams", [StudyStream, ImageFlowStream, WorkStream, SeparationStream])
def test_streams_of_one_root_are_distinct(streams: type[StudyStream]) -> None:
    drawn = [stream_seed(7, stream) for stream in streams]
    drawn += [stream_seed(7, stream, i) for stream in streams for i in range(20)]
    assert len(set(drawn)) == len(drawn)


def test_items_and_their_second_seeds_are_distinct() -> None:
    drawn = [derive(7, item) for derive in (item_seed, second_item_seed) for item in range(1000)]
    assert len(set(drawn)) == len(drawn)


def test_the_known_repetitions_are_all_there_are() -> None:
    # They are named in the docstring of eorinfer.core.seeds; a third one would have to be named there too.
    same = {(a.name, b.name) for a in RunStream for b in SeparationStream if a == b}
    assert same == {("CONTEST_SAMPLES", "MAPS"), ("CONTEST_OBSERVATION", "TRAINING")}
    assert [round_seed(5, 3, stream) for stream in RoundStream] == [realisation_seed(5, 3, i) for i in range(2)]


def test_a_seed_is_one_that_torch_and_numpy_take() -> None:
    drawn = np.array([item_seed(11, item) for item in range(1000)])
    assert drawn.min() >= 0
    assert drawn.max() < 2**32
