"""Learners that read the support row by row: what they share."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner, unless_batch_statistics
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State, Task, examples, join_rows
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.sequence import in_turn, label_columns, shuffled
from quickstudy.nets import Net


class InSequence(MetaLearner):
    """A learner whose network reads features and labels in the order of the support.

    Rows of weight 0 are skipped, as if they were not there; all others count as one row each, whatever their
    weight. In training `meta_loss` puts the support into a random order: sources give rows in the order of their
    labels, and place would be learnt for class. `prior`: reading goes on where it ended.

    in_sequence, where a learner has it: trained on support and query as one sequence in random order, with the loss
    at every row, which is answered before its label is read (Santoro et al. 2016, arXiv 1605.06065).
    """

    exchangeable = False
    incremental = unless_batch_statistics
    net: Net
    objective: Objective
    in_sequence: bool = False

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        if not self.in_sequence:
            return super().meta_loss(tasks._replace(support=shuffled(tasks.support)))
        rows = shuffled(join_rows(*tasks))
        return self.objective.loss(self.sequence_predictions(*rows), rows)

    def sequence_predictions(self, x: Inputs, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """The prediction (task, n, size) for every row x_t of a sequence, from x_1, y_1, ..., x_t-1, y_t-1 and x_t.

        Here the support grows row by row, and classes that were not shown are hidden; learners that are trained in
        sequence answer in one pass and hide none, since they may know a class for new.
        """
        return in_turn(self, examples(x, y, weight))

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
