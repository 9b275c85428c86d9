"""The data: what one task is, and how a batch of tasks is cut, joined and moved.

The task axis always comes first; one task is a batch of size one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

Inputs: TypeAlias = "Tensor | dict[str, Tensor]"
T = TypeVar("T")
State: TypeAlias = dict[str, Tensor]
"""What adaptation returns: named tensors, task axis first. Nothing else is ever kept of a task."""


class Examples(NamedTuple):
    """Rows of one or many tasks.

    x: (task, n, *x_shape), or a dict of such tensors (tokens and their mask).
    y: (task, n) class index, or (task, n, *y_shape) real values.
    weight: (task, n); 1 is a real row, 0 is padding, anything between is importance.
    """

    x: Inputs
    y: Tensor
    weight: Tensor

    @property
    def tasks(self) -> int:
        """How many tasks are in the batch."""
        return self.weight.shape[0]

    @property
    def padded(self) -> bool:
        """Whether there is a row without weight among them."""
        return not bool(self.weight.all())


class Task(NamedTuple):
    """A batch of tasks: `support` may be learnt from, `query` is what is asked."""

    support: Examples
    query: Examples


def examples(x: Inputs, y: Tensor, weight: Tensor | None = None) -> Examples:
    """Examples in which every row counts, unless a weight is given.

    >>> examples(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long)).weight.shape
    torch.Size([2, 5])
    """
    if weight is None:
        first = next(iter(x.values())) if isinstance(x, Mapping) else x
        dtype = first.dtype if first.is_floating_point() else torch.float32
        weight = torch.ones(y.shape[:2], dtype=dtype, device=y.device)
    return Examples(x, y, weight)


def map_tensors(tree: T, f: Callable[[Tensor], Tensor]) -> T:
    """Apply `f` to every tensor of a Task, Examples, State, dict or tuple of tensors."""
    if isinstance(tree, Tensor):
        return f(tree)  # type: ignore[return-value]
    if isinstance(tree, Mapping):
        return {k: map_tensors(v, f) for k, v in tree.items()}  # type: ignore[return-value]
    if isinstance(tree, tuple):
        parts = (map_tensors(v, f) for v in tree)
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)  # type: ignore
    raise TypeError(f"expected tensors, a dict or a tuple of them, got {type(tree).__name__}")


def select(tree: T, index: slice | Tensor) -> T:
    """The tasks at `index` of a batch of tasks, examples or a state."""
    return map_tensors(tree, lambda t: t[index])


def concatenate(trees: Sequence[T]) -> T:
    """Join batches of tasks (or states) of equal shapes along the task axis."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(list(trees))  # type: ignore
    if isinstance(first, Mapping):
        return {k: concatenate([t[k] for t in trees]) for k in first}  # type: ignore
    parts = [concatenate(list(column)) for column in zip(*trees, strict=True)]  # type: ignore
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)  # type: ignore


def join_rows(a: Examples, b: Examples) -> Examples:
    """The rows of `a` followed by the rows of `b`, task by task."""
    if isinstance(a.x, Mapping) and isinstance(b.x, Mapping):
        x: Inputs = {k: torch.cat([a.x[k], b.x[k]], 1) for k in a.x}
    else:
        x = torch.cat([a.x, b.x], 1)  # type: ignore[list-item]
    return Examples(x, torch.cat([a.y, b.y], 1), torch.cat([a.weight, b.weight], 1))
