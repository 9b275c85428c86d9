"""Which of the examples it was given make a learner say what it says: each is left out, and it adapts again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, values_of
from quickstudy.core.task import Examples, Task, map_tensors

TOGETHER = 20
"""Supports, each without one row, that are adapted to at once."""


@dataclass(frozen=True)
class Influence:
    """What each support row of one task does to each answer and to its loss, by leaving the row out.

    rows: (row,), where the real rows of the support stand in it; asked: (query,), where those of the query stand in it.
    moved: (row, query). For classes: log p(a | all rows) - log p(a | all but this one), in nats, where a is the answer
        with all rows; above 0 the row speaks for the answer, below 0 for another; inf where the row is the only one of
        the class a, which would be unknown without it. For values: the predicted value with all rows less that without
        this one, in the unit of y (of several targets, the length of that difference).
    helped: (row, query), the loss without the row less the loss with it; above 0 the row made the answer better.
    noise: how far two adaptations to the same rows are apart, as the largest |moved| between them: rounding alone,
        unless the learner draws at random while it adapts. What does not exceed it means nothing.
    """

    rows: Tensor
    asked: Tensor
    moved: Tensor
    helped: Tensor
    noise: float

    @property
    def strength(self) -> Tensor:
        """(row,), the mean over the queries of |moved|; inf for the only row of a class that is answered."""
        return self.moved.abs().mean(1)

    def order(self) -> list[int]:
        """The rows, the most influential first; equal ones as they stand."""
        return self.strength.argsort(descending=True, stable=True).tolist()


def influence(learner: MetaLearner, task: Task) -> Influence:
    """What each support row of one task does, exactly: the learner adapts to all rows and to all but each one.

    No gradient or other approximation is used. A row is left out by giving it weight 0, which by the contract is the
    same as its not being there; tasks do not mix, so many are adapted to at once. To be called in
    `quickstudy.evaluate.evaluating`. Not measured: what two rows do together, where either alone would do.

    Raises UserError for a batch of several tasks, fewer than two rows, or nothing asked.

    >>> import quickstudy as qs
    >>> learner = qs.make("centroid", qs.Spec("classification", (1,), way=2))
    >>> rows = qs.examples(torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([[0, 0, 1]]))
    >>> asked = qs.examples(torch.tensor([[[1.5]]]), torch.tensor([[0]]))
    >>> influence(learner, Task(rows, asked)).moved[2] < 0   # without the other class the answer would be surer
    tensor([True])
    """
    support, query = task
    if support.tasks != 1:
        raise UserError(f"influence was given {support.tasks} tasks: give one, as a batch of size 1.")
    rows, asked = ((part.weight[0] > 0).nonzero().flatten() for part in (support, query))
    if len(rows) < 2 or not len(asked):
        raise UserError(
            f"influence was given {len(rows)} row(s) to learn from and {len(asked)} to ask: give at least 2 and 1."
        )
    weights = support.weight.repeat(len(rows), 1)
    weights[torch.arange(len(rows)), rows] = 0
    whole = _predictions(learner, support, query, support.weight.repeat(2, 1))[:, asked]
    without = torch.cat([_predictions(learner, support, query, part)[:, asked] for part in weights.split(TOGETHER)])
    y = query.y[:, asked]
    loss = learner.objective.row_loss(without, y.expand(len(rows), *y.shape[1:]))
    helped = loss - learner.objective.row_loss(whole[:1], y)
    if isinstance(learner.objective, Classification):
        answer = whole[:1].argmax(-1)
        said = [_log_probability(part, answer) for part in (whole, without)]
        moved, noise = said[0][:1] - said[1], float((said[0][0] - said[0][1]).abs().max())
        shown = learner.objective.one_hot(support._replace(weight=(support.weight > 0).to(weights)))[0]
        alone = shown[rows].bool() & (shown.sum(0) == 1)  # (row, way): the only row of the class
        moved = moved.masked_fill(alone[:, answer[0]], math.inf)
        helped = helped.masked_fill(alone[:, y[0]], math.inf)
    else:
        said = [values_of(learner.objective, part)[0] for part in (whole, without)]
        moved, noise = _difference(said[0][:1], said[1]), float(_difference(said[0][:1], said[0][1:]).abs().max())
    return Influence(rows, asked, moved.double(), helped.double(), noise)


def _predictions(learner: MetaLearner, support: Examples, query: Examples, weights: Tensor) -> Tensor:
    """Predictions (case, n, size) for the query after adapting to the support with each row of weights (case, n)."""
    spread = lambda t: t.expand(len(weights), *t.shape[1:])  # noqa: E731
    some = map_tensors(support, spread)._replace(weight=weights)
    asked = map_tensors(query, spread)
    return learner.predict(learner.adapt(some), asked.x, asked.weight)


def _log_probability(logits: Tensor, answer: Tensor) -> Tensor:
    index = answer.expand(len(logits), -1).unsqueeze(-1)
    return logits.double().log_softmax(-1).gather(-1, index).squeeze(-1)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    gap = a - b
    return gap[..., 0] if gap.shape[-1] == 1 else gap.norm(dim=-1)
