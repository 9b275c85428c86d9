"""A learnt projection that starts as no change at all: for inputs that are good features already."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.net import After, Net


class Projection(Net):
    """f(x) = x + B relu(A x + a) + b, and a linear layer after it if `out` is given. B and b start at 0.

    An untrained one gives its inputs back, flattened: what a frozen encoder says of a text or an image is kept, and
    training moves away from it only as far as it pays (a residual adapter, Houlsby and others 2019, arXiv 1902.00751,
    put once behind the encoder instead of into its layers; here without a bottleneck or a norm).

    width: of the hidden layer A x + a.

    (task, n, *x_shape) -> (task, n, out or the number of inputs). Weights of many tasks are applied in one batched
    product a layer.

    >>> x = torch.randn(4, 10, 3)
    >>> bool(torch.equal(Projection((3,))(x), x))
    True
    """

    papers = ("houlsby2019adapters",)

    def __init__(self, x_shape: tuple[int, ...], out: int | None = None, width: int = 256):
        super().__init__()
        if width < 1:
            raise UserError(f"a projection of width {width}: give a width from 1.")
        self.x_shape = x_shape
        self.out = out
        self.width = width
        inputs = math.prod(x_shape)
        self.down = nn.Linear(inputs, width)
        self.up = nn.Linear(width, inputs)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.last = nn.Linear(inputs, out) if out else None

    @property
    def size(self) -> int:
        return self.out or math.prod(self.x_shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        h = x + self.up(torch.relu(self.down(x)))
        return self.last(h) if self.last is not None else h

    @property
    def hidden(self) -> tuple[int, ...]:
        """The columns of what goes from layer to layer: the units, and the sum if a layer comes after it."""
        return (self.width,) if self.last is None else (self.width, math.prod(self.x_shape))

    def per_task(self, weights: State, x: Tensor, after: After | None = None) -> Tensor:
        """forward with weights (task, *shape) of its own for every task, and `after` behind what goes on."""

        def layer(name: str, h: Tensor) -> Tensor:
            w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))

        x = x.flatten(2)
        h = torch.relu(layer("down", x))
        h = x + layer("up", h if after is None else after(0, h))
        if self.last is None:
            return h
        return layer("last", h if after is None else after(1, h))


def unchanged(weight: Tensor, bias: Tensor | None = None) -> None:
    """Start a linear map as no change at all, where it gives as many numbers as it takes: what goes in may then be of
    the space of what it is compared with. One that does not keeps its start."""
    if weight.shape[0] == weight.shape[1]:
        nn.init.eye_(weight)
        if bias is not None:
            nn.init.zeros_(bias)
