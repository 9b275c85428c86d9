"""What a support says of itself: every row answered by a learner that adapted to the others."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, values_of
from quickstudy.core.task import Examples

FOLDS = 5
"""Parts that a support is left out in; a row alone where there are no more rows than that."""


def left_out(learner: MetaLearner, support: Examples, folds: int = FOLDS) -> tuple[Tensor, Tensor]:
    """Predictions (task, n, size) for the rows of a support, each from the other parts; and which rows have one.

    A class is dealt over the parts, so that no part holds all of it; the only row of a class, like the only row of a
    regression task, has no prediction: its column of the second result (task, n) is 0, and that of padding too.

    >>> import quickstudy as qs
    >>> learner = qs.make("centroid", qs.Spec("classification", (1,), way=2))
    >>> rows = qs.examples(torch.tensor([[[0.0], [1.0], [9.0]]]), torch.tensor([[0, 0, 1]]))
    >>> left_out(learner, rows)[1]
    tensor([[1., 1., 0.]])
    """
    real = support.weight > 0
    if isinstance(learner.objective, Classification):
        kin = support.y.unsqueeze(1) == support.y.unsqueeze(2)
    else:
        kin = torch.ones(*support.y.shape[:2], support.y.shape[1], dtype=torch.bool, device=real.device)
    kin = kin & real.unsqueeze(1) & real.unsqueeze(2)
    part = kin.tril(-1).sum(-1) % folds
    asked = real & (kin.sum(-1) > 1)
    found: Tensor | None = None
    for number in range(folds):
        out = asked & (part == number)
        if not bool(out.any()):
            continue
        state = learner.adapt(support._replace(weight=support.weight * ~out))
        prediction = learner.predict(state, support.x, out.to(support.weight.dtype))
        found = torch.zeros_like(prediction) if found is None else found
        found = torch.where(out.unsqueeze(-1), prediction, found)
    if found is None:
        found = support.weight.new_zeros(*support.weight.shape, learner.objective.size)
    return found, asked.to(support.weight.dtype)


def left_out_loss(learner: MetaLearner, support: Examples) -> Tensor:
    """The mean loss of the rows of a support when left out, (task,); NaN where none can be."""
    prediction, asked = left_out(learner, support)
    losses = learner.objective.row_loss(prediction, support.y) * asked
    return torch.where(asked.sum(1) > 0, losses.sum(1) / asked.sum(1).clamp_min(1), torch.nan)


def spread(learner: MetaLearner, support: Examples) -> Tensor:
    """How far off the values of left out rows are: the root of the mean squared error, (task,); NaN where none can be.

    For regression, in the unit of y.
    """
    prediction, asked = left_out(learner, support)
    mean, _ = values_of(learner.objective, prediction)
    squares = (mean - support.y).square().mean(-1) * asked
    return torch.where(asked.sum(1) > 0, squares.sum(1) / asked.sum(1).clamp_min(1), torch.nan).sqrt()
