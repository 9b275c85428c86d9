"""Applying a network to rows of many tasks, with shared weights or with weights of each task's own.

All networks take rows with the task axis first: (task, n, *x_shape) -> (task, n, size).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.core.task import Inputs, State, select


@runtime_checkable
class Batched(Protocol):
    """A network that applies the weights of many tasks in one product (small MLPs)."""

    def per_task(self, weights: State, x: Tensor) -> Tensor: ...


def task_weights(net: nn.Module, tasks: int) -> State:
    """The network's parameters with a task axis in front, (task, *shape), as views.

    What is differentiated through these views reaches the shared parameters.
    """
    return {k: p.unsqueeze(0).expand(tasks, *p.shape) for k, p in net.named_parameters()}


def apply_shared(net: nn.Module, x: Inputs, weight: Tensor | None = None) -> Tensor:
    """net(x), (task, n, size), the same weights for every task.

    weight: (task, n); where the network's statistics come from the rows at hand, rows of weight 0
    (padding) are kept out of them. Their own outputs are then 0.
    """
    if weight is not None and _padding_counts(net, weight):
        return _without_padding(lambda t, rows: net(rows), x, weight)
    return net(x)


def apply_per_task(net: nn.Module, weights: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
    """net(x) with `weights` (task, *shape) in place of its parameters: (task, n, size).

    Convolutions go through a loop over tasks: on a CPU that is faster than the grouped convolution
    which vmap makes of it, and it leaves batch statistics to `F.batch_norm`, whose second
    derivative is wrong under vmap.
    """
    if isinstance(net, Batched) and isinstance(x, Tensor):
        return net.per_task(weights, x)
    # unbind once: its backward is one stack, where indexing would fill a zero tensor a task
    columns = {k: w.unbind(0) for k, w in weights.items()}

    def call(t: int, rows: Inputs) -> Tensor:
        return functional_call(net, {k: w[t] for k, w in columns.items()}, (rows,))

    tasks = len(next(iter(columns.values())))
    if weight is not None and _padding_counts(net, weight):
        return _without_padding(call, x, weight)
    if tasks == 1:
        return call(0, x)
    return torch.cat([call(t, select(x, slice(t, t + 1))) for t in range(tasks)])


def _padding_counts(net: nn.Module, weight: Tensor) -> bool:
    """Whether there is padding and the network would let it into its statistics."""
    statistics = any(getattr(m, "uses_batch_statistics", False) for m in net.modules())
    return statistics and bool((weight == 0).any())


def _without_padding(call: Callable[[int, Inputs], Tensor], x: Inputs, weight: Tensor) -> Tensor:
    columns = []
    for t, row_weight in enumerate(weight):
        kept = row_weight.nonzero().squeeze(1)
        rows = {k: v[t : t + 1, kept] for k, v in x.items()} if isinstance(x, dict) else x[t : t + 1, kept]
        out = call(t, rows)[0]
        columns.append(out.new_zeros(weight.shape[1], out.shape[-1]).index_copy(0, kept, out))
    return torch.stack(columns)
