"""A network with warp layers between its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.mlp import MLP
from quickstudy.nets.net import Net
from quickstudy.nets.projection import Projection


def warp_layers(net: Net) -> nn.ModuleList:
    """A linear map of the outputs of every hidden layer, the identity at first: for an mlp of its units, for a
    projection of its units and of the sum before its last layer, for a conv4 a 3x3 convolution of its channels.

    Raises UserError for other networks.
    """
    if isinstance(net, MLP | Projection):
        layers: list[nn.Module] = [nn.Linear(size, size) for size in net.hidden]
    elif isinstance(net, Conv4):
        layers = [nn.Conv2d(net.channels, net.channels, 3, padding=1) for _ in net.kernels]
    else:
        name = type(net).__name__
        raise UserError(f"warp layers have no place in {name}: give an mlp, a projection or a conv4.")
    for layer in layers:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        (nn.init.eye_ if isinstance(layer, nn.Linear) else nn.init.dirac_)(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.ModuleList(layers)


class Warped(nn.Module):
    """`net` with `warps` (of `warp_layers`) in it: (task, n, *x_shape) -> (task, n, size).

    Its parameters are named net.* and warps.*; nothing is copied.
    """

    def __init__(self, net: Net, warps: nn.ModuleList):
        super().__init__()
        self.net = net
        self.warps = warps

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, lambda i, h: self.warps[i](h))

    @property
    def per_task(self) -> Callable[[State, Tensor], Tensor] | None:
        """For an mlp and a projection: all tasks in one batched product a layer."""
        return self._dense if isinstance(self.net, MLP | Projection) else None

    def _dense(self, weights: State, x: Tensor) -> Tensor:
        assert isinstance(self.net, MLP | Projection)
        own = {name.removeprefix("net."): w for name, w in weights.items() if name.startswith("net.")}

        def warp(i: int, h: Tensor) -> Tensor:
            w, b = weights[f"warps.{i}.weight"], weights[f"warps.{i}.bias"]
            return torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))

        return self.net.per_task(own, x, warp)
