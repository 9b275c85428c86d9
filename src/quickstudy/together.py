"""Several tasks in one call: their rows filled up to one length with padding, which never counts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from quickstudy.core.task import Examples, State


def alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal keys, in the order in which each key is first met.

    >>> alike(["a", "b", "a"])
    [[0, 2], [1]]
    """
    found: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return list(found.values())


def bucket(rows: int) -> int:
    """The power of two from `rows` on: tasks of one bucket go together, so that padding at most doubles the work."""
    return 1 << max(rows - 1, 0).bit_length()


def filled(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Rows (n, ...) of several tasks as (task, longest, ...), and the weight of each row, (task, longest).

    The weight is None where no row is padding.

    >>> filled([torch.ones(2), torch.ones(1)])
    (tensor([[1., 1.],
            [1., 0.]]), tensor([[1., 1.],
            [1., 0.]]))
    """
    longest = max(len(part) for part in parts)
    if all(len(part) == longest for part in parts):
        return torch.stack(list(parts)), None
    x = parts[0].new_zeros(len(parts), longest, *parts[0].shape[1:])
    weight = torch.zeros(len(parts), longest, dtype=x.dtype if x.is_floating_point() else torch.float32)
    for i, part in enumerate(parts):
        x[i, : len(part)] = part
        weight[i, : len(part)] = 1
    return x, weight


def filled_examples(parts: Sequence[Examples]) -> Examples:
    """Examples of one task each, with rows as tensors, as one batch."""
    if len(parts) == 1:
        return parts[0]
    columns = [[getattr(part, name)[0] for part in parts] for name in ("x", "y", "weight")]
    x, y, weight = (filled(column)[0] for column in columns)
    return Examples(x, y, weight)


def shapes(state: State) -> Hashable:
    """What must be equal for states to be joined."""
    return tuple((name, t.shape[1:], t.dtype) for name, t in sorted(state.items()))


def each(state: State, tasks: int) -> list[State]:
    """The states of the tasks of a batch, each in memory of its own."""
    return [{k: t[i : i + 1].clone() for k, t in state.items()} for i in range(tasks)] if tasks > 1 else [state]
