"""Mean and deviation of the rows of every task, drawn towards what is known of all tasks."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.source import Scaling
from quickstudy.core.task import Examples, Inputs, State

PREFIX = "scaled."
"""Begins the names of a scale in a state."""
NO_SPREAD = 1e-6
"""A deviation under this share of the values themselves is rounding: the column does not vary."""


def centre(
    values: Float[Tensor, "task n k"], weight: Float[Tensor, "task n"], mean: Float[Tensor, " k"]
) -> Float[Tensor, "task 1 k"]:
    """The weighted mean of the rows; `mean` for a task without rows."""
    w = weight.to(values.dtype).unsqueeze(-1)
    total = w.sum(1, keepdim=True)
    return torch.where(total > 0, (w * values).sum(1, keepdim=True) / total.clamp_min(1e-12), mean)


def standardise(
    values: Float[Tensor, "task n k"],
    weight: Float[Tensor, "task n"],
    mean: Float[Tensor, " k"],
    deviation: Float[Tensor, " k"],
    rows: float,
) -> tuple[Float[Tensor, "task 1 k"], Float[Tensor, "task 1 k"]]:
    """Mean and standard deviation of the rows and of `rows` pseudo-rows that have the given ones.

    Those of the given alone for a task without rows or for rows = inf; the given deviation where nothing varies.

    >>> m, s = standardise(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2), torch.zeros(1), torch.ones(1), 2.0)
    >>> m.item(), round(s.square().item(), 5)
    (1.0, 2.0)
    """
    w = weight.to(values.dtype).unsqueeze(-1)
    total = w.sum(1, keepdim=True)
    share = torch.where(total > 0, total / (total + rows).clamp_min(1e-12), 0)
    own = centre(values, weight, mean)
    spread = (w * (values - own).square()).sum(1, keepdim=True) / total.clamp_min(1e-12)
    apart = own - mean
    variance = (1 - share) * deviation.square() + share * spread + share * (1 - share) * apart.square()
    least = NO_SPREAD * own.abs()
    found = variance.sqrt()
    return mean + share * apart, torch.where(found > least, found, deviation)


class Scale(NamedTuple):
    """Mean and deviation of the entries of x and of y, each (task, 1, entry); no entries where left as they are."""

    x_mean: Tensor
    x_deviation: Tensor
    y_mean: Tensor
    y_deviation: Tensor

    @classmethod
    def of(cls, support: Examples, given: Scaling, fixed: bool = False) -> Self:
        """The scale of every task, from its support alone; fixed: the given one in all tasks."""
        assert isinstance(support.x, Tensor)
        rows, weight = math.inf if fixed else given.rows, support.weight
        x = support.x.flatten(2)[..., : len(given.x_mean)]
        y = support.y if given.y_mean else x[..., :0]
        known = [x.new_tensor(part) for part in given[:4]]
        m, s = standardise(x, weight, known[0], known[1], rows)
        if given.relative and not fixed:
            apart = torch.tensor([j in given.relative for j in range(x.shape[-1])], device=x.device)
            m = torch.where(apart, centre(x, weight, known[0]), m)
            s = torch.where(apart, known[1], s)
        return cls(m, s, *standardise(y, weight, known[2], known[3], rows))

    def standard_x(self, x: Inputs) -> Tensor:
        """x (task, n, *x_shape) in units of this scale."""
        assert isinstance(x, Tensor)
        return ((x.flatten(2) - self.x_mean) / self.x_deviation).view(x.shape) if self.x_mean.shape[-1] else x

    def standard(self, rows: Examples) -> Examples:
        """Rows in units of this scale."""
        y = (rows.y - self.y_mean) / self.y_deviation if self.y_mean.shape[-1] else rows.y
        return Examples(self.standard_x(rows.x), y, rows.weight)

    def kept(self) -> State:
        """This scale as part of a state."""
        return {PREFIX + name: value for name, value in self._asdict().items() if value.shape[-1]}

    @classmethod
    def found(cls, state: State) -> tuple[Self, State]:
        """The scale that is kept in a state, and what is in it beside."""
        first = next(iter(state.values()))
        none = first.new_zeros(len(first), 1, 0)
        beside = {name: value for name, value in state.items() if not name.startswith(PREFIX)}
        return cls(*(state.get(PREFIX + name, none) for name in cls._fields)), beside
