"""How fast is the isotropic image flow, how much memory does it take, and how exact is it in float32?

    python -m benchmarks.imageflow.speed [--parts speed precision]

speed      Training and sampling of maps of 64², against the same flow with zuko's MonotonicRQSTransform on every cell;
           memory is what a batch of 320 takes over one of 64. Seconds of the processor.
precision  Round trip x -> z -> x in float32, against the condition number of T: its largest value over its smallest.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from eorinfer.imageflow.isotropic import BOUND, IsotropicFlow, PixelSpline
from eorinfer.imageflow.isotropic_convolution import IsotropicConvolution

PARTS = ("speed", "precision")


def main() -> None:
    """Print the parts that the command names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(peak(arguments.memory[0], int(arguments.memory[1])))
        return
    for part in arguments.parts:
        {"speed": speed, "precision": precision}[part]()


class ZukoSpline(PixelSpline):
    """The same layer by zuko: its knots are broadcast to every cell."""

    def __init__(self, channels: int, knots: int, condition: int, hidden: tuple[int, ...]) -> None:
        super().__init__(channels, knots, condition, hidden)
        self.knots = knots

    def _transform(self, x: Tensor, u: Tensor) -> MonotonicRQSTransform:
        k = self.knots - 1
        raw = self.conditioner(u)[:, : (3 * k - 1) * self.channels]
        shape = (len(x), self.channels, *(1,) * (x.ndim - 2), -1)
        return MonotonicRQSTransform(*(p.reshape(shape) for p in raw.split([k, k, k - 1], dim=1)), bound=BOUND)

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, 1, *cells) to maps, and the log-determinant (B,)."""
        z, log_slope = self._transform(x, u).call_and_ladj(x)
        return z, log_slope.flatten(1).sum(-1, dtype=torch.float64)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Undo `forward`."""
        inverted: Tensor = self._transform(z, u).inv(z)
        return inverted


def flow_of(kind: str) -> IsotropicFlow:
    """Default settings on maps of 64²; with zuko's spline in place of ours."""
    torch.manual_seed(0)
    flow = IsotropicFlow((1, 64, 64), (1.0, 1.0), torch.zeros(2), torch.ones(2))
    if kind == "zuko":
        for i, layer in enumerate(flow.layers):
            if isinstance(layer, PixelSpline):
                flow.layers[i] = ZukoSpline(1, 8, 2, (64, 64))
    for p in flow.parameters():
        nn.init.normal_(p, std=0.05)
    return flow


def step(flow: IsotropicFlow, n: int) -> Callable[[], None]:
    """One training step on n maps."""
    x, y = torch.randn(n, 1, 64, 64), torch.rand(n, 2)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        (-flow.log_prob(x, y).mean() / 4096).backward()
        optimizer.step()

    return run


def speed() -> None:
    """Maps a second, and memory a map."""
    print("\nspeed: maps of 64² a second of the processor, batches of 64; memory a map")
    rows = {}
    for kind in ("ours", "zuko"):
        flow = flow_of(kind)
        y, generator = torch.rand(64, 2), torch.Generator().manual_seed(1)
        with torch.no_grad():
            sampling = 64 / quickest(lambda: flow.sample(y, generator))  # noqa: B023
            density = 64 / quickest(lambda: flow.log_prob(torch.randn(64, 1, 64, 64), y))  # noqa: B023
        training = 64 / quickest(step(flow, 64))
        command = [sys.executable, __file__, "--memory", kind]
        one, many = (int(subprocess.check_output([*command, str(n)])) for n in (64, 320))
        rows[kind] = np.array([training, density, sampling, (many - one) / 256 / 1e3])
        print(
            f"{kind:5s} training {training:.0f}, ln p {density:.0f}, sampling {sampling:.0f} maps a second; "
            f"{rows[kind][3]:.2f} MB a map",
            flush=True,
        )
    training, density, sampling, memory = rows["ours"] / rows["zuko"]
    print(f"over zuko's: training {training:.1f}, ln p {density:.1f}, sampling {sampling:.1f}, memory {memory:.2f}")


def quickest(call: Callable[[], object], repeats: int = 12) -> float:
    """Fewest seconds of the processor: other work on the machine only adds."""
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def peak(kind: str, n: int) -> int:
    """Kilobytes that a process holds at most, above what it held before, in which batches of n are trained on."""
    step(flow_of(kind), 1)()
    run = step(flow_of(kind), n)
    Path("/proc/self/clear_refs").write_text("5")  # what it held before, when all was imported, does not count
    before = _held("VmRSS")
    run()
    return _held("VmHWM") - before


def _held(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@torch.no_grad()
def precision() -> None:
    """Errors of the round trip."""
    print("\nprecision: condition number of T, rms and largest error of x -> z -> x over the rms of x")
    white = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.full((8, 2), 0.5)
    for decades in (0, 1, 2, 3, 4):
        flow = flow_of("ours")
        for layer in flow.layers:
            if isinstance(layer, IsotropicConvolution):
                # Straight in log k, half of the decades in each of the two.
                bias = layer.conditioner.linear.bias
                bias[1:] += torch.linspace(0, decades / 2 * math.log(10), len(bias) - 1)
        x = flow.double().inverse(white, y)
        exact = flow.log_prob(x, y)
        texts = []
        for dtype in (torch.float32, torch.float64):
            flow.to(dtype)
            error = (flow.inverse(flow(x.to(dtype), y)[0], y) - x).double() / x.std()
            texts.append(f"{error.square().mean().sqrt():.1e}, {error.abs().max():.1e}")
        off = (flow.float().log_prob(x.float(), y) - exact).abs().max()
        print(f"10^{decades}: float32 {texts[0]}; float64 {texts[1]}; ln p in float32 off by {off:.1e} nats at most")


if __name__ == "__main__":
    main()
