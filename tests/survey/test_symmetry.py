"""Augmentation: it leaves the power as it is, moves only what the model allows, and reaches all of the group."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from eorinfer.summaries.power import PowerSpectrum
from eorinfer.survey import symmetry as module
from eorinfer.survey.symmetry import Moves, augment
from simulators import Symmetry

BOX = Symmetry((True, True, True), "all")
CONE = Symmetry((True, True, False), "transverse")
NOTHING = Symmetry((False, False, False), "none")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cubes(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=generator(0))


def images(cube: Tensor, symmetry: Symmetry, n: int) -> set[bytes]:
    """The different images of one cube among n draws."""
    out = augment(cube.expand(n, *cube.shape), symmetry, generator())
    return {image.numpy().tobytes() for image in out}


@pytest.mark.parametrize("dimension", [2, 3])
def test_power_is_left_as_it_is(dimension: int) -> None:
    clean = cubes(20, 2, *(6,) * dimension)
    moved = augment(clean, Symmetry((True,) * dimension, "all"), generator())
    spectrum = PowerSpectrum((6,) * dimension, (6.0,) * dimension, n_bins=3)
    torch.testing.assert_close(spectrum(moved), spectrum(clean), rtol=1e-5, atol=1e-6)
    assert all(not torch.equal(a, b) for a, b in pairwise(moved - clean))


def test_no_symmetry_is_the_identity() -> None:
    clean = cubes(20, 1, 4, 4, 4)
    assert torch.equal(augment(clean, NOTHING, generator()), clean)


def test_the_line_of_sight_is_never_swapped_nor_flipped() -> None:
    depth = torch.arange(4.0).expand(200, 1, 4, 4, 4)
    assert torch.equal(augment(depth, CONE, generator()), depth)
    # A model that is periodic along it may be rolled, still without a flip.
    rolled = augment(depth, Symmetry((True, True, True), "transverse"), generator())
    steps = torch.diff(rolled, dim=-1) % 4
    assert torch.equal(steps, torch.ones_like(steps))
    assert len(set(rolled[:, 0, 0, 0, 0].tolist())) == 4


def test_only_periodic_axes_are_rolled() -> None:
    """Without rotations a mark stays in its row along the axis that is not periodic."""
    mark = torch.zeros(200, 1, 4, 4)
    mark[:, 0, 1, 2] = 1
    moved = augment(mark, Symmetry((False, True), "none"), generator())
    assert moved[:, 0, 1].sum() == 200
    assert (moved[:, 0, 1].sum(0) > 0).all()


def test_all_channels_move_together() -> None:
    clean = cubes(50, 1, 4, 4, 4).repeat(1, 3, 1, 1, 1) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    moved = augment(clean, BOX, generator())
    assert torch.equal(moved[:, 1], 2 * moved[:, 0])
    assert torch.equal(moved[:, 2], 3 * moved[:, 0])


def test_cubes_of_a_batch_move_apart() -> None:
    assert len(images(cubes(1, 1, 6, 6)[0], Symmetry((True, True), "all"), 40)) > 30


@pytest.mark.parametrize(
    ("cells", "symmetry", "order"),
    [
        ((3, 3), Symmetry((True, True), "all"), 9 * 8),
        ((3, 3), Symmetry((False, False), "all"), 8),
        ((3, 3, 3), Symmetry((False, False, False), "all"), 48),
        ((3, 3, 3), Symmetry((False, False, False), "transverse"), 8),
        ((3, 3, 2), Symmetry((True, False, False), "transverse"), 3 * 8),
        # Unequal sides can be flipped but not swapped.
        ((3, 4), Symmetry((False, False), "all"), 4),
        ((3, 4, 4), Symmetry((False, False, False), "transverse"), 4),
        ((3, 3), Symmetry((True, False), "none"), 3),
    ],
)
def test_every_element_of_the_group_and_no_other(cells: tuple[int, ...], symmetry: Symmetry, order: int) -> None:
    """A cube whose cells all differ has as many images as the group has elements."""
    cube = torch.arange(float(torch.tensor(cells).prod())).view(1, *cells)
    found = images(cube, symmetry, 30 * order)
    assert len(found) == order


def test_the_generator_alone_decides() -> None:
    clean = cubes(10, 1, 4, 4, 4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = augment(clean, BOX, generator(3))
    assert torch.equal(torch.get_rng_state(), before), "global random state is untouched"
    torch.manual_seed(6)
    assert torch.equal(augment(clean, BOX, generator(3)), first)
    assert not torch.equal(augment(clean, BOX, generator(4)), first)


@pytest.mark.parametrize(
    ("cells", "symmetry"),
    [
        ((5, 5), Symmetry((True, False), "all")),
        ((4, 4, 3), CONE),
        ((4, 4, 4), BOX),
        ((3, 4, 5), BOX),
        ((4, 5), Symmetry((True, True), "none")),
    ],
)
def test_cubes_move_the_same_together_and_one_by_one(cells: tuple[int, ...], symmetry: Symmetry) -> None:
    """Small cubes go by an index of all cells, large ones through permute, flip and roll."""
    clean = cubes(60, 2, *cells)
    moves = Moves.draw(60, cells, symmetry, generator())
    moved = moves.together(clean)
    assert torch.equal(moved, moves.one_by_one(clean))
    assert not torch.equal(moved, clean)


def test_large_cubes_are_moved_without_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = cubes(30, 1, 4, 4, 4)
    small = augment(clean, BOX, generator())
    monkeypatch.setattr(module, "SMALL", 63)
    monkeypatch.delattr(Moves, "together")
    assert torch.equal(augment(clean, BOX, generator()), small)
