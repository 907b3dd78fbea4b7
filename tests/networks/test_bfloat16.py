"""bfloat16 is taken where the processor has units for it, and nowhere else."""

import pytest
import torch

from eorinfer.imageflow import denoising_network
from eorinfer.imageflow.denoising_network import DenoisingNetwork
from eorinfer.networks import bfloat16

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
