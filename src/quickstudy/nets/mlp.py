"""The small multilayer perceptron."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.net import After, Net


class MLP(Net):
    """`depth` hidden layers of `width` ReLU units, then a linear layer if `out` is given.

    (task, n, *x_shape) -> (task, n, out or width). Weights of many tasks are applied in one batched
    product a layer.

    >>> MLP((1,), out=1)(torch.zeros(4, 10, 1)).shape
    torch.Size([4, 10, 1])
    """

    def __init__(self, x_shape: tuple[int, ...], out: int | None = None, width: int = 40, depth: int = 2):
        super().__init__()
        if not 0 <= depth <= 1000 or width < 1:
            raise UserError(f"an MLP of depth {depth} and width {width}: give a depth of 0 to 1000, a width from 1.")
        self.x_shape = x_shape
        self.out = out
        self.width = width
        self.depth = depth
        sizes = [math.prod(x_shape)] + [width] * depth + ([out] if out else [])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    @property
    def size(self) -> int:
        return self.out or self.width

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(2)
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i < self.depth:
                h = torch.relu(h)
        return h

    @property
    def hidden(self) -> tuple[int, ...]:
        """The units of each hidden layer."""
        return (self.width,) * self.depth

    def per_task(self, weights: State, x: Tensor, after: After | None = None) -> Tensor:
        """forward with weights (task, *shape) of its own for every task, and `after` behind every hidden layer."""
        h = x.flatten(2)
        for i in range(len(self.layers)):
            w, b = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
            h = torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))
            if i < self.depth:
                h = torch.relu(h)
                h = h if after is None else after(i, h)
        return h
