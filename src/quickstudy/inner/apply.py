"""Applying a network to rows of many tasks, with shared weights or with weights of each task's own.

All networks take rows with the task axis first: (task, n, *x_shape) -> (task, n, size).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.core.device import on_processor
from quickstudy.core.task import Inputs, State, select
from quickstudy.core.tracing import is_tracing
from quickstudy.inner.picked import tell
from quickstudy.inner.shared_pass import from_shared_pass

Apply = Callable[[State, Tensor], Tensor]
"""(weights (task, *shape), x (task, n, *x_shape)) -> (task, n, size)."""
GROUPED = 2**15
"""Numbers of the rows in one grouped convolution: the maps of more fall out of the cache."""


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
    name = type(net).__name__
    together = from_shared_pass(net, x)
    if together is not None:
        return together
    if weight is not None and _padding_counts(net, weight):
        tell(f"{name}: shared weights, task by task, to keep padding out of the statistics")
        return _without_padding(lambda t, rows: net(rows), x, weight)
    if _statistics(net) and not _at_once(net, x):
        tell(f"{name}: shared weights, task by task, since statistics are of each task")
    else:
        tell(f"{name}: shared weights, the rows of all tasks folded into one batch")
    return net(x)


def apply_per_task(net: nn.Module, weights: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
    """net(x) with `weights` (task, *shape) in place of its parameters: (task, n, size).

    Convolutions go through a loop over tasks where the outer gradient goes through them: on a CPU that
    is faster than a grouped convolution, whose second derivative is slow, and it leaves batch statistics
    to `F.batch_norm`, whose second derivative is wrong under vmap. Where nothing lies behind the weights
    (evaluation), they are grouped, as many tasks at a time as the cache holds.

    A network says what it can do: `per_task(weights, x)` applies the weights of all tasks in one product a layer
    (small MLPs), `grouped(weights, x)` as one grouped convolution a layer, if `can_group`, and `at_once(weights, sets)`
    so that it can be differentiated twice, which pays on GPUs.
    """
    name = type(net).__name__
    # attributes and no Protocol: isinstance of one takes longer than a small network
    per_task: Apply | None = getattr(net, "per_task", None)
    if per_task is not None and isinstance(x, Tensor):
        tell(f"{name}: weights of each task, all tasks in one batched product a layer")
        return per_task(weights, x)
    padded = weight is not None and _padding_counts(net, weight)
    if isinstance(x, Tensor) and not padded and _at_once(net, x):
        tell(f"{name}: weights of each task, all tasks in one grouped convolution a layer")
        return net.at_once(weights, [x])[0]  # type: ignore[operator]
    grouped: Apply | None = getattr(net, "grouped", None) if getattr(net, "can_group", False) else None
    if grouped is not None and isinstance(x, Tensor) and not padded and _plain(weights):
        size = max(1, min(len(x), GROUPED // max(1, x[:1].numel())))
        how = f"up to {size} tasks in one grouped convolution a layer" if size > 1 else "one task after the other"
        tell(f"{name}: weights of each task, {how}")
        parts = zip(*(w.split(size) for w in weights.values()), strict=True)
        rows = zip(parts, x.split(size), strict=True)
        return torch.cat([grouped(dict(zip(weights, part, strict=True)), few) for part, few in rows])
    tell(f"{name}: weights of each task, one task after the other")
    # unbind once: its backward is one stack, where indexing would fill a zero tensor a task
    columns = {k: w.unbind(0) for k, w in weights.items()}

    def call(t: int, rows: Inputs) -> Tensor:
        return functional_call(net, {k: w[t] for k, w in columns.items()}, (rows,))

    tasks = len(next(iter(columns.values())))
    if padded:
        return _without_padding(call, x, weight)  # type: ignore[arg-type]
    if tasks == 1:
        return call(0, x)
    return torch.cat([call(t, select(x, slice(t, t + 1))) for t in range(tasks)])


def _at_once(net: nn.Module, x: Inputs) -> bool:
    """Whether the network takes these rows of many tasks in one pass, whatever their weights and statistics."""
    return isinstance(x, Tensor) and not on_processor(x) and hasattr(net, "at_once")


def _plain(weights: State) -> bool:
    """Whether no graph lies behind the weights."""
    return all(w.is_leaf for w in weights.values())


def _padding_counts(net: nn.Module, weight: Tensor) -> bool:
    """Whether there is padding and the network would let it into its statistics."""
    if is_tracing():
        return False
    return _statistics(net) and bool((weight == 0).any())


def _statistics(net: nn.Module) -> bool:
    return any(getattr(m, "uses_batch_statistics", False) for m in net.modules())


def _without_padding(call: Callable[[int, Inputs], Tensor], x: Inputs, weight: Tensor) -> Tensor:
    columns = []
    for t, row_weight in enumerate(weight):
        kept = row_weight.nonzero().squeeze(1)
        rows = {k: v[t : t + 1, kept] for k, v in x.items()} if isinstance(x, dict) else x[t : t + 1, kept]
        out = call(t, rows)[0]
        columns.append(out.new_zeros(weight.shape[1], out.shape[-1]).index_copy(0, kept, out))
    return torch.stack(columns)
