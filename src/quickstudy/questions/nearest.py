"""Which examples of the support a row is most like, as the learner sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.adapted import ROWS, AdaptedTask
from quickstudy.core.learner import MetaLearner
from quickstudy.evaluate import dtype_of, evaluating
from quickstudy.inner.scale import Scale
from quickstudy.learners.scaled import Scaled
from quickstudy.questions.row_features import encoder_of, row_features


def nearest(task: AdaptedTask, support: Tensor, x: Tensor, most: int) -> Tensor:
    """The numbers of the `most` rows of the support nearest to each row of x (n, *x_shape): (n, most), nearest first.

    By the squared distance of features before any adaptation; of a learner without a network, of the rows themselves,
    every entry divided by its deviation in the support. It is no part of the prediction: methods that compare with the
    support do so in ways of their own.

    >>> import quickstudy as qs
    >>> learner = qs.make("centroid", qs.Spec("classification", (1,), way=2))
    >>> task = qs.adapt(qs.checkpoint.Checkpoint(learner, {}), torch.tensor([[0.0], [9.0]]), ["a", "b"])
    >>> nearest(task, torch.tensor([[0.0], [9.0], [4.0]]), torch.tensor([[8.0]]), 2)
    tensor([[1, 2]])
    """
    learner = task.learner
    with evaluating(learner, seed=0):
        known, asked = (_features(task, learner, rows) for rows in (support, x))
    if encoder_of(learner) is None:
        deviation = known.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1)
        known, asked = known / deviation, asked / deviation
    return torch.cdist(asked, known).topk(min(most, len(known)), largest=False, sorted=True).indices


def _features(task: AdaptedTask, learner: MetaLearner, rows: Tensor) -> Tensor:
    rows = rows.to(dtype_of(learner) or rows.dtype)
    parts = []
    for part in rows.split(ROWS):
        seen = part.unsqueeze(0)
        if isinstance(learner, Scaled):
            seen = Scale.found(task.state)[0].standard_x(seen)
            assert isinstance(seen, Tensor)
        parts.append(row_features(learner, seen)[0])
    return torch.cat(parts).double()
