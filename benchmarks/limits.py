"""How fast this machine can be, and how much arithmetic a workload cannot do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from peers import plain_loop
from torch.utils.flop_counter import FlopCounterMode
from workloads import Workload

PRODUCTS = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices."""
CONVOLUTIONS = {
    "cpu": ((75, 64, 28), (75, 64, 14), (300, 64, 14), (16, 64, 56), (32, 128, 28)),
    "cuda": ((600, 64, 14), (2400, 64, 14), (4096, 64, 28), (1024, 256, 28)),
}
"""Images, channels in and out, and pixels a side; 3 x 3 kernels, channels_last."""
TRIALS = 7


def ceilings(device: str = "cpu") -> dict[str, float]:
    """The best GFLOP/s that torch reaches in float32, shape by shape."""
    found = {}
    with torch.no_grad():
        for n in PRODUCTS[device]:
            a, b = (torch.randn(n, n, device=device) for _ in range(2))
            found[f"matrix product, {n} x {n}"] = 2 * n**3 / _fastest(lambda a=a, b=b: a @ b) / 1e9
        for images, channels, side in CONVOLUTIONS[device]:
            x = torch.randn(images, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)
            kernel = torch.randn(channels, channels, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
            work = 2 * images * channels**2 * 9 * side**2
            spent = _fastest(lambda x=x, kernel=kernel: torch.conv2d(x, kernel, padding=1))
            found[f"convolution, {images} x {channels} x {side} x {side}"] = work / spent / 1e9
    return found


def counted(work: Workload) -> int:
    """Floating point operations of a step: the convolutions and matrix products of the plain loop, and no others.

    That loop holds no superfluous ones (no gradient of the images, no pass that is done twice), and every task takes
    as many as the first.
    """
    one = plain_loop.METHODS[work.method](replace(work, tasks=1), torch.float32)
    with FlopCounterMode(display=False) as counter:
        one.result()
    return work.tasks * counter.get_total_flops()


def wait() -> None:
    """Until the GPU has done what it was given, if there is one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _fastest(run: Callable[[], object]) -> float:
    spent = []
    for _ in range(TRIALS):
        begin = time.perf_counter()
        run()
        wait()
        spent.append(time.perf_counter() - begin)
    return min(spent)
