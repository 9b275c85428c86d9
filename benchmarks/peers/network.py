"""The network of the torch peers in the form that their examples give it, and the outer step around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workloads import Workload

from peers import Built, Numbers


def network(work: Workload, dtype: torch.dtype) -> nn.Sequential:
    """The layers of a workload with its starting weights."""
    if not work.images:
        sizes = ((1, work.width), (work.width, work.width))
        hidden = [layer for a, b in sizes for layer in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*hidden, nn.Linear(work.width, 1))
    else:
        # MAML takes the statistics of the rows at hand; a prototypical network keeps running ones as well
        running = work.method == "protonet"
        layers: list[nn.Module] = []
        for i in range(4):
            layers += [
                nn.Conv2d(work.channels if i else 1, work.channels, 3, padding=1),
                nn.BatchNorm2d(work.channels, track_running_stats=running),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        layers.append(nn.Flatten())
        if work.method != "protonet":
            layers.append(nn.Linear(work.channels * (work.pixels // 16) ** 2, work.way))
        net = nn.Sequential(*layers)
    weights = work.weights()
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.zero_()
        for name, parameter in named(net).items():
            parameter.copy_(weights[name])
    return net.to(work.device, dtype).train()


def named(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by the names of `Workload.weights`; the bias before a norm, whose gradient is 0, is left out."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm2d)]
    kinds = {kind: [m for m in layers if isinstance(m, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)}
    found: dict[str, Any] = {}
    for i, (convolution, norm) in enumerate(zip(kinds[nn.Conv2d], kinds[nn.BatchNorm2d], strict=True)):
        found[f"kernels.{i}"] = convolution.weight
        found |= {f"norms.{i}.weight": norm.weight, f"norms.{i}.bias": norm.bias}
    for i, linear in enumerate(kinds[nn.Linear]):
        name = "head" if kinds[nn.Conv2d] else f"layers.{i}"
        found |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
    return found


def criterion(work: Workload) -> Callable[[Tensor, Tensor], Tensor]:
    return F.cross_entropy if work.images else F.mse_loss


def training(net: nn.Module, backward: Callable[[], object]) -> Built:
    """The usual outer step. backward: put the meta-gradient of the mean query loss into the parameters."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        backward()
        optimizer.step()

    def result() -> Numbers:
        optimizer.zero_grad()
        backward()
        return {name: parameter.grad.clone() for name, parameter in named(net).items() if parameter.grad is not None}

    return Built(step, result)


def evaluation(losses: Callable[[], list[Tensor]]) -> Built:
    """losses: adapt to every task and give the mean loss over its query rows."""
    return Built(losses, lambda: {"loss": torch.stack(losses()).detach()})
