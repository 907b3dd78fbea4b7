"""The U-Net that works at half resolution: sizes, edges, what it begins with, and what a step of it costs."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from eorinfer.networks.discriminator import Discriminator
from eorinfer.networks.subpixel import SubpixelUNet, cells_to_channels, channels_to_cells, shallow
from eorinfer.networks.unet import UNet, halvings

#: Pixels of 0.48 Mpc and channels of 118 Mpc.
CUBE = ((16, 16, 4), (0.48, 0.48, 118.0))


def network(
    cells: tuple[int, ...], size: tuple[float, ...], periodic: bool = False, **settings: object
) -> SubpixelUNet:
    torch.manual_seed(0)
    arguments = {"width": 4, "widest": 8, "shared": 1} | settings
    strides = shallow(cells, halvings(cells, size))
    return SubpixelUNet(3, 2, strides, (periodic,) * len(cells), **arguments)  # type: ignore[arg-type]


def with_weights(net: SubpixelUNet) -> SubpixelUNet:
    """Draw the weights that begin at zero."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


@pytest.mark.parametrize(("cells", "stride"), [((4, 6), (2, 2)), ((4, 6, 2), (2, 1, 2)), ((3, 4), (1, 2))])
def test_cells_become_channels_and_cells_again(cells: tuple[int, ...], stride: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *cells)
    y = cells_to_channels(x, stride)
    assert y.shape[2:] == tuple(n // s for n, s in zip(cells, stride, strict=True))
    torch.testing.assert_close(channels_to_cells(y, stride), x)
    if stride == (2, 2):
        torch.testing.assert_close(y, F.pixel_unshuffle(x, 2))


@pytest.mark.parametrize(("cells", "size"), [((16, 16), (1.0, 1.0)), ((8, 32), (1.0, 1.0)), CUBE])
@pytest.mark.parametrize("conditions", [0, 5])
def test_it_begins_with_a_share_of_its_input(cells: tuple[int, ...], size: tuple[float, ...], conditions: int) -> None:
    net = network(cells, size, start=1.0, conditions=conditions)
    x, condition = torch.randn(2, 3, *cells), torch.randn(2, conditions) if conditions else None
    torch.testing.assert_close(net(x, condition), x[:, 1:])
    joined = len(net.last.convolution.bias) // 4
    with torch.no_grad():
        # Two maps to be added, then two shares.
        net.last.convolution.bias.copy_(torch.tensor([0.0, 1.0, -1.0, -0.5]).repeat_interleave(joined))
    torch.testing.assert_close(net(x, condition), torch.stack([0 * x[:, 1], 0.5 * x[:, 2] + 1], 1))


@pytest.mark.parametrize("periodic", [True, False])
def test_a_periodic_shift_by_the_coarsest_cell_changes_nothing(periodic: bool) -> None:
    net = with_weights(network((32, 32), (1.0, 1.0), periodic))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        shifted, expected = net(x.roll((8, 16), (2, 3))), net(x).roll((8, 16), (2, 3))
    assert torch.allclose(shifted, expected, atol=1e-4) == periodic


def test_a_condition_changes_every_block() -> None:
    net = with_weights(network((16, 16), (1.0, 1.0), conditions=3))
    x = torch.randn(2, 3, 16, 16)
    assert not torch.allclose(net(x, torch.zeros(2, 3)), net(x, torch.ones(2, 3)))
    assert all(block.modulation is not None for block in (*net.before, *net.after))


def test_coarsest_maps_have_four_cells_along_an_axis() -> None:
    assert shallow((64, 64), halvings((64, 64), (1.0, 1.0))) == ((2, 2),) * 4
    assert shallow((48, 48), halvings((48, 48), (1.0, 1.0))) == ((2, 2),) * 3
    assert shallow((4, 4), ((2, 2), (2, 2))) == ((2, 2),)
    with pytest.raises(ValueError, match="divisible by 8 x 8"):
        network((48, 48), (1.0, 1.0))(torch.zeros(1, 3, 20, 24))


def test_a_step_multiplies_and_adds_less_than_one_of_pix2pix() -> None:
    strides, periodic = halvings((64, 64), (1.0, 1.0)), (False, False)
    size = {"width": 16, "widest": 128}
    source, target = torch.randn(1, 1, 64, 64), torch.randn(1, 2, 64, 64)
    generator, discriminator = UNet(1, 2, strides, periodic, **size), Discriminator(3, strides, periodic, **size)
    with FlopCounterMode(display=False) as plain:
        made = generator(source)
        (discriminator(source, target).sum() + discriminator(source, made.detach()).sum()).backward()
        discriminator.requires_grad_(False)
        discriminator(source, made).sum().backward()
    few = shallow((64, 64), strides)
    mean = SubpixelUNet(4, 2, few, periodic, shared=1, **size)
    velocity = SubpixelUNet(8, 2, few, periodic, shared=6, conditions=32, **size)
    with FlopCounterMode(display=False) as of_mean:
        mean(torch.randn(1, 4, 64, 64)).sum().backward()
    with FlopCounterMode(display=False) as of_flow:
        with torch.no_grad():
            mean(torch.randn(1, 4, 64, 64))
        velocity(torch.randn(1, 8, 64, 64), torch.randn(1, 32)).sum().backward()
    assert of_mean.get_total_flops() < of_flow.get_total_flops() < plain.get_total_flops()
