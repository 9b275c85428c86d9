"""Pretraining on the training classes, then a linear probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import weighted_ridge
from quickstudy.inner.linear import check_strength, class_loss, linear, logistic
from quickstudy.nets import Net


class LinearProbe(MetaLearner):
    """An ordinary network trained on all training classes at once; on a task its features are frozen
    and scikit-learn's logistic regression is fitted on the support (ridge for regression).

    The strong plain baseline of the field (Tian et al. 2020, arXiv 2003.11539). Features are scaled
    to unit length there and here.

    classes: how many classes the train split holds; 0 for as many as a task has (or regression). strength: C of the
    logistic regression; the ridge penalty is its inverse.
    """

    papers = ("tian2020rethinking", "pedregosa2011scikit")
    choose = "Pretraining on all training classes and a logistic regression on top: often as good as meta-learning."
    cost = "one pass and a convex fit"
    any_way = True
    pooled = True

    def __init__(self, net: Net, objective: Objective, classes: int = 0, strength: float = 10.0):
        super().__init__()
        check_strength(strength)
        if classes < 0:
            raise UserError(f"classes is {classes}: give the number of classes to train on.")
        self.net = net
        self.objective = objective
        self.classes = classes
        self.strength = strength
        self.head = nn.Linear(net.size, classes or objective.size)

    def features(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """Unit-length features (task, n, d); for regression with a constant 1 added."""
        f = apply_shared(self.net, x, weight)
        if isinstance(self.objective, Classification):
            return nn.functional.normalize(f, dim=-1)
        return torch.cat([f, torch.ones_like(f[..., :1])], -1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        """A fit of its own for every task; a convex problem has no use for `prior`."""
        with torch.no_grad():
            f = self.features(support.x, support.weight)
        if isinstance(self.objective, Classification):
            state = logistic(f, support.y, support.weight, self.objective.way, self.strength)
            return {**state, "seen": self.objective.seen(support)}
        w = weighted_ridge(f, support.y, support.weight.to(f.dtype), 1 / self.strength)
        return {"weight": w.transpose(1, 2), "bias": w.new_zeros(w.shape[0], w.shape[2])}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        out = linear(state, self.features(x, weight))
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(out, state["seen"])
        return out

    def meta_loss(self, tasks: Task) -> Tensor:
        """The loss of telling all training classes apart: `tasks.query` holds pooled rows."""
        query = tasks.query
        out = self.head(apply_shared(self.net, query.x, query.weight))
        if isinstance(self.objective, Classification):
            return class_loss(out, query)
        return self.objective.loss(out, query)
