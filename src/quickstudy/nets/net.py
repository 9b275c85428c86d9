"""What a backbone is: rows with the task axis first in, features or predictions out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

After = Callable[[int, Tensor], Tensor]
"""What is put behind hidden layers: the number of the layer and what comes out of it, to what goes on."""


class Net(nn.Module, ABC):
    """A backbone: (task, n, *x_shape) -> (task, n, size). Tasks never mix in it."""

    x_shape: tuple[int, ...]
    out: int | None
    """The number of outputs of a last linear layer; None for features without one."""
    chunk: int | None = None
    """How many tasks one graph should hold when training; None for no limit."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of columns that come out."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class RowNet(Net):
    """Any torch module that maps rows (n, *x_shape) -> (n, size), as a net: one call a task.

    What makes gradient-based methods a wrapper around any architecture. It has no name
    in the catalogue: to save such a learner, give your module a class of its own that subclasses `Net`,
    and add it with `quickstudy.catalogue("net").add`.

    >>> RowNet(nn.Linear(3, 2), size=2)(torch.zeros(4, 5, 3)).shape
    torch.Size([4, 5, 2])
    """

    chunk = 1

    def __init__(self, module: nn.Module, size: int):
        super().__init__()
        self.module = module
        self.columns = size
        self.out = size

    @property
    def size(self) -> int:
        return self.columns

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether predictions depend on the other rows: a batch norm in it without running statistics."""
        norms = [m for m in self.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        return any(not m.track_running_stats or m.training for m in norms)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.module(rows) for rows in x])
