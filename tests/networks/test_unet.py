"""Generator and discriminator: sizes, edges, draws that differ, and the scaling around them."""

import pytest
import torch

from eorinfer.networks.discriminator import Discriminator
from eorinfer.networks.padding import pad
from eorinfer.networks.scaling import AsinhScaling
from eorinfer.networks.unet import UNet, dropped, halvings

#: Pixels of 0.48 Mpc and channels of 118 Mpc.
CUBE = ((16, 16, 4), (0.48, 0.48, 118.0))


def unet(cells: tuple[int, ...], size: tuple[float, ...], periodic: bool = False, **settings: object) -> UNet:
    torch.manual_seed(0)
    arguments = {"width": 4, "widest": 8} | settings
    return UNet(2, 3, halvings(cells, size), (periodic,) * len(cells), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "size"), [((16, 16), (1.0, 1.0)), ((8, 32), (1.0, 1.0)), ((8, 8, 8), (1.0,) * 3), CUBE]
)
@pytest.mark.parametrize("periodic", [True, False])
def test_maps_and_cubes_of_any_size(cells: tuple[int, ...], size: tuple[float, ...], periodic: bool) -> None:
    generator = unet(cells, size, periodic)
    discriminator = Discriminator(5, halvings(cells, size), (periodic,) * len(cells), width=4)
    x = torch.randn(4, 2, *cells)
    y = generator(x, torch.Generator().manual_seed(1))
    assert y.shape == (4, 3, *cells)
    logits = discriminator(x, y)
    assert logits.shape == (4,)
    assert len(set(logits.tolist())) == 4
    logits.sum().backward()
    for parameter in (*generator.parameters(), *discriminator.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


def test_a_larger_map_goes_through_the_same_network() -> None:
    net = unet((16, 16), (1.0, 1.0)).eval()
    assert net(torch.randn(1, 2, 32, 48)).shape == (1, 3, 32, 48)
    with pytest.raises(ValueError, match=r"4 levels needs sides that are divisible by 16 x 16: got 24 x 32 cells"):
        net(torch.randn(1, 2, 24, 32))


def test_deep_channels_are_left_alone_until_pixels_are_as_large() -> None:
    assert halvings((64, 64, 4), (1.9, 1.9, 118.0)) == ((2, 2, 1),) * 6 + ((1, 1, 2),) * 2
    assert halvings((16, 16, 16), (7.0, 7.0, 30.0), 3) == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert halvings((8, 8), (0.0, 0.0)) == ((2, 2),) * 3
    assert len(halvings((1024, 1024), (1.0, 1.0))) == 8
    assert len(halvings((48, 48), (1.0, 1.0))) == 4


@pytest.mark.parametrize(
    ("cells", "depth", "said"),
    [
        ((48, 48), 5, "48 x 48 cells can be halved 4 times, not 5: a network of n levels needs"),
        ((16, 16), 5, "16 x 16 cells can be halved 4 times, not 5"),
        ((15, 16), None, "15 x 16 cells can be halved 0 times: a network"),
    ],
)
def test_sides_that_cannot_be_halved(cells: tuple[int, ...], depth: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        halvings(cells, (1.0,) * len(cells), depth)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_periodic_shift_by_the_coarsest_cell_changes_nothing(periodic: bool) -> None:
    net = UNet(1, 1, halvings((32, 32), (1.0, 1.0), 3), (periodic,) * 2, width=4).eval()
    x = torch.randn(1, 1, 32, 32)
    there, back = net(x.roll((8, 16), (2, 3))).roll((-8, -16), (2, 3)), net(x)
    assert torch.allclose(there, back, atol=1e-5) == periodic


def test_each_axis_has_its_own_edge() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    expected = torch.tensor([[4.0, 3, 4, 5, 4], [1, 0, 1, 2, 1], [4, 3, 4, 5, 4], [1, 0, 1, 2, 1]])
    assert torch.equal(pad(x, (True, False))[0, 0], expected)
    assert torch.equal(pad(x[:, :, :1], (False, False))[0, 0], expected[1:2].repeat(3, 1))


def test_draws_of_one_observation_differ_and_come_from_the_generator() -> None:
    net = unet((32, 32), (1.0, 1.0)).eval()
    x = torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        draws = torch.cat([net(x, torch.Generator().manual_seed(seed)) for seed in (1, 2, 1)])
        without = net(x)
        assert torch.equal(without, net(x))
    assert torch.equal(draws[0], draws[2])
    with torch.no_grad():
        both = net(x, torch.Generator().manual_seed(3), draws=2)
        same = net(x.repeat(2, 1, 1, 1), torch.Generator().manual_seed(3))
        some = net(x.repeat(3, 1, 1, 1), torch.Generator().manual_seed(3), draws=3, paired=1)
        first = net(x.repeat(5, 1, 1, 1), torch.Generator().manual_seed(3))
    torch.testing.assert_close(both, same)
    torch.testing.assert_close(some, first)
    # Over what the decoder makes of the input, which itself is the same in all.
    assert (draws[0] - draws[1]).std() > 0.05 * (without - x[:, [0, 1, 0]]).std()


@pytest.mark.parametrize(("cells", "size"), [((16, 16), (1.0, 1.0)), CUBE])
def test_it_begins_with_its_input_and_takes_a_share_of_it(cells: tuple[int, ...], size: tuple[float, ...]) -> None:
    net = unet(cells, size).eval()
    last = net.decoder[0].convolution
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    x = torch.randn(2, 2, *cells)
    torch.testing.assert_close(net(x), x[:, [0, 1, 0]])
    with torch.no_grad():
        # Three maps to be added, then three gains.
        last.bias.copy_(torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, -0.5]))
    torch.testing.assert_close(net(x), torch.stack([0 * x[:, 0], x[:, 1] + 1, 0.5 * x[:, 0]], 1))


def test_dropout_keeps_the_mean() -> None:
    x = torch.ones(200, 200)
    y = dropped(x, 0.3, torch.Generator().manual_seed(1))
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1.0, abs=0.02)


def test_the_scaling_is_undone() -> None:
    x = torch.randn(8, 2, 16, 16).exp() * torch.tensor([1e-3, 5.0])[:, None, None]
    scaling = AsinhScaling(2, 2)
    scaling.fit(x)
    y = scaling(x)
    torch.testing.assert_close(scaling.inverse(y), x)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(2))
    assert scaling(torch.zeros(1, 2, 1, 1)).abs().max() == 0
    scaling.fit(x, softening=1e4)
    torch.testing.assert_close(scaling(x), x / x.std((0, 2, 3), keepdim=True), rtol=1e-3, atol=1e-6)
    constant = AsinhScaling(1, 2)
    constant.fit(torch.zeros(2, 1, 4, 4))
    assert constant(torch.ones(1, 1, 4, 4)).isfinite().all()
