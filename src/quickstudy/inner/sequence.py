"""Rows read one after the other: padding out of the way, labels as columns, a random order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, State, map_tensors


def label_columns(objective: Objective, y: Tensor, dtype: torch.dtype) -> Float[Tensor, "task n columns"]:
    """Labels as a network reads them: an indicator a class, or the targets and a 1 that says they are known.

    A row of zeros stands for a label that is not known.

    >>> label_columns(Classification(3), torch.tensor([[2]]), torch.float32)
    tensor([[[0., 0., 1.]]])
    """
    if isinstance(objective, Classification):
        return objective.indicators(y).to(dtype)
    y = y.to(dtype)
    return torch.cat([y, torch.ones_like(y[..., :1])], -1)


def label_size(objective: Objective) -> int:
    """How many columns `label_columns` gives."""
    return objective.size if isinstance(objective, Classification) else getattr(objective, "y_size", objective.size) + 1


def packed(
    rows: Float[Tensor, "task n d"], real: Bool[Tensor, "task n"]
) -> tuple[Float[Tensor, "task n d"], Bool[Tensor, "task n"]]:
    """The rows that are real moved to the end, in their order, and zeros before them; and where they then are.

    >>> packed(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[True, False, True]]))[0].flatten()
    tensor([0., 1., 3.])
    """
    order = real.long().argsort(dim=1, stable=True)
    rows = torch.where(real.unsqueeze(-1), rows, 0)
    return rows.gather(1, order.unsqueeze(-1).expand_as(rows)), real.gather(1, order)


def unless_padding(moved: State, before: State, real: Bool[Tensor, " task"]) -> State:
    """The state after a row, task by task: as it was where the row is padding."""
    return {k: torch.where(real.view(-1, *[1] * (v.dim() - 1)), v, before[k]) for k, v in moved.items()}


def shuffled(rows: Examples) -> Examples:
    """The rows of every task in a random order of its own, drawn from torch's global generator."""
    order = torch.rand(rows.weight.shape, device=rows.weight.device).argsort(1)

    def pick(values: Tensor) -> Tensor:
        return values.gather(1, order.view(*order.shape, *[1] * (values.dim() - 2)).expand_as(values))

    return map_tensors(rows, pick)


def in_turn(learner: MetaLearner, rows: Examples) -> Float[Tensor, "task n size"]:
    """The prediction for every row from the rows before it alone: adapt, predict, and on to the next.

    The first is answered from one row of weight 0. A learner that adds up goes on from its state, another one begins
    anew with every row.
    """
    answers, state = [], learner.adapt(_cut(rows, 0, 1)._replace(weight=torch.zeros_like(rows.weight[:, :1])))
    for t in range(rows.weight.shape[1]):
        asked = _cut(rows, t, t + 1)
        answers.append(learner.predict(state, asked.x, asked.weight))
        state = learner.adapt(asked, state) if learner.incremental else learner.adapt(_cut(rows, 0, t + 1))
    return torch.cat(answers, 1)


def _cut(rows: Examples, first: int, end: int) -> Examples:
    return map_tensors(rows, lambda t: t[:, first:end])


def presentation(objective: Classification, rows: Examples) -> Int[Tensor, "task n"]:
    """Which presentation of its class each row is, counted from 1 in the order of the rows; 0 for padding.

    What a method that answers before it is told the label is judged by: by chance at the first, better after.

    >>> y = torch.tensor([[0, 1, 0, 0, 1]])
    >>> presentation(Classification(2), Examples(y, y, torch.tensor([[1, 1, 0, 1, 1]])))
    tensor([[1, 1, 0, 2, 2]])
    """
    shown = objective.indicators(rows.y) & (rows.weight > 0).unsqueeze(-1)
    return (shown.long().cumsum(1) * shown).sum(-1)
