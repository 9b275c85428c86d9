"""A network with warp layers between its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.conv4 import Conv4, channels_last
from quickstudy.nets.mlp import MLP
from quickstudy.nets.net import Net
from quickstudy.nets.norm import ChannelNorm


def warp_layers(net: Net) -> nn.ModuleList:
    """A linear map of the outputs of every hidden layer, the identity at first: for an mlp of its units, for a conv4
    a 3x3 convolution of its channels. Raises UserError for other networks.
    """
    if isinstance(net, MLP):
        layers: list[nn.Module] = [nn.Linear(net.width, net.width) for _ in range(net.depth)]
    elif isinstance(net, Conv4):
        layers = [nn.Conv2d(net.channels, net.channels, 3, padding=1) for _ in net.kernels]
    else:
        name = type(net).__name__
        raise UserError(f"warp layers have no place in {name}: give an mlp or a conv4.")
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
        net = self.net
        assert isinstance(net, Conv4)
        if len(x) > 1 and any(getattr(n, "uses_batch_statistics", False) for n in net.norms):
            return torch.cat([self.forward(x[t : t + 1]) for t in range(len(x))])
        h = channels_last(x.flatten(0, 1))
        for kernel, norm, warp in zip(net.kernels, net.norms, self.warps, strict=True):
            assert isinstance(norm, ChannelNorm)
            h = warp(net._block(h, kernel, norm, norm.weight, norm.bias))
        h = h.flatten(1) if net.pool == "max" else h.mean((2, 3))
        return (h if net.head is None else net.head(h)).unflatten(0, x.shape[:2])

    @property
    def per_task(self) -> Callable[[State, Tensor], Tensor] | None:
        """For an mlp: all tasks in one batched product a layer."""
        return self._dense if isinstance(self.net, MLP) else None

    def _dense(self, weights: State, x: Tensor) -> Tensor:
        net, h = self.net, x.flatten(2)
        assert isinstance(net, MLP)
        for i in range(len(net.layers)):
            h = _linear(weights, f"net.layers.{i}", h)
            if i < net.depth:
                h = _linear(weights, f"warps.{i}", torch.relu(h))
        return h


def _linear(weights: State, name: str, h: Tensor) -> Tensor:
    return torch.baddbmm(weights[f"{name}.bias"].unsqueeze(1), h, weights[f"{name}.weight"].transpose(1, 2))
