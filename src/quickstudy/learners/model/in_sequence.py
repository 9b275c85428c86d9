"""Learners that read the support row by row: what they share."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.sequence import label_columns, shuffled
from quickstudy.nets import Net


class InSequence(MetaLearner):
    """A learner whose network reads features and labels in the order of the support.

    Rows of weight 0 are skipped, as if they were not there; all others count as one row each, whatever their
    weight. In training `meta_loss` puts the support into a random order: sources give rows in the order of their
    labels, and place would be learnt for class. `prior`: reading goes on where it ended.
    """

    exchangeable = False
    incremental = unless_batch_statistics
    net: Net
    objective: Objective

    def meta_loss(self, tasks: Task) -> Tensor:
        return super().meta_loss(tasks._replace(support=shuffled(tasks.support)) if self.training else tasks)

    def read(self, rows: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """Features (task, n, d), labels (task, n, columns) and which rows are real (task, n)."""
        features = apply_shared(self.net, rows.x, rows.weight)
        return features, label_columns(self.objective, rows.y, features.dtype), rows.weight > 0

    def seen(self, support: Examples, prior: State | None) -> State:
        """For classification which classes were shown, {"seen": (task, way)}; else nothing."""
        if not isinstance(self.objective, Classification):
            return {}
        seen = self.objective.seen(support)
        return {"seen": seen if prior is None else torch.maximum(seen, prior["seen"])}

    def ask(self, x: Inputs, weight: Tensor | None, columns: int) -> Tensor:
        """The queries as rows whose label is not known: features and `columns` zeros."""
        features = apply_shared(self.net, x, weight)
        return torch.cat([features, features.new_zeros(*features.shape[:2], columns)], -1)

    def hide(self, prediction: Tensor, state: State) -> Tensor:
        """The prediction, with classes that were not shown hidden."""
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(prediction, state["seen"])
        return prediction
