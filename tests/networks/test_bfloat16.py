"""bfloat16 is taken where the processor has units for it, and nowhere else, and its gradients are whole."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from eorinfer.imageflow import denoising_network
from eorinfer.imageflow.denoising_network import DenoisingNetwork
from eorinfer.networks import bfloat16
from eorinfer.networks.discriminator import Discriminator
from eorinfer.networks.subpixel import SubpixelUNet
from eorinfer.networks.unet import UNet

FLAGS = [({"avx2", "avx512f"}, False), ({"avx2", "amx_bf16"}, True), (set(), False)]


@pytest.mark.parametrize(("flags", "native"), FLAGS)
def test_the_flags_of_the_processor_tell(monkeypatch: pytest.MonkeyPatch, flags: set[str], native: bool) -> None:
    monkeypatch.setattr(bfloat16, "_processor_flags", lambda: flags)
    assert bfloat16.has_bfloat16.__wrapped__("cpu") is native
    assert not bfloat16.has_bfloat16.__wrapped__("mps")


def test_a_denoiser_is_as_exact_as_its_device_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    network = DenoisingNetwork(2, 1, (8, 8), 1, 16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    inputs = torch.randn(4, 2, 8, 8), torch.randn(4), torch.rand(4, 1), torch.zeros(4, 0)
    off = []
    with torch.no_grad():
        exact = network.double()(*(x.double() for x in inputs))
        network.float()
        for native in (False, True):
            monkeypatch.setattr(denoising_network, "has_bfloat16", lambda _, native=native: native)
            off.append(float((network(*inputs) - exact).abs().max() / exact.abs().max()))
    assert off[0] < 1e-5
    assert 1e-4 < off[1] < 0.1


HALF = ((2, 2, 1), (2, 2, 1))
NETWORKS: dict[str, Callable[[bool], nn.Module]] = {
    "subpixel": lambda wraps: SubpixelUNet(2, 1, HALF, (wraps,) * 3, shared=0, width=16),
    "unet": lambda wraps: UNet(2, 1, HALF, (wraps,) * 3, width=16),
    "discriminator": lambda wraps: Discriminator(2, HALF, (wraps,) * 3, width=16),
    "denoiser": lambda _: DenoisingNetwork(2, 1, (8, 8, 12), 1, 16),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cells", [(8, 8, 12), (4, 8, 12)])
@pytest.mark.parametrize("wraps", [True, False])
def test_gradients_of_small_cubes_are_whole(name: str, cells: tuple[int, ...], wraps: bool) -> None:
    """OneDNN left them as the memory was, where two cells were left along the first axis: here it is full of NaN."""
    torch.manual_seed(1)
    network = NETWORKS[name](wraps)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(4, 2, *cells)
    inputs = {
        "denoiser": (x, torch.randn(4), torch.rand(4, 1), torch.zeros(4, 0)),
        "discriminator": (x[:, :1], x[:, 1:]),
    }.get(name, (x,))
    gradients = []
    for low in (False, True):
        network.zero_grad()
        poison = [torch.full((n,), float("nan")) for n in (1000, 7000, 50_000, 400_000)]
        del poison
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = network(*inputs)
        out.float().square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for exact, coarse in zip(*gradients, strict=True):
        assert (coarse - exact).abs().max() < 0.3 * exact.abs().max() + 1e-6
