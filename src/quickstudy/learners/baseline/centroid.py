"""Nearest centroid on raw inputs."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.closed import class_state, prototypes, squared_distances


class Centroid(MetaLearner):
    """The nearest class mean of the raw inputs: logit_k(x) = -|x - c_k|^2, x flattened.

    What a learnt space has to beat.
    """

    choose = "Nearest mean of the raw inputs: what a learnt space has to beat."
    cost = "one pass"
    kinds = ("classification",)
    objective: Classification
    any_way = True
    trained = False
    incremental = True

    def __init__(self, objective: Classification):
        super().__init__()
        self.objective = objective

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        x = support.x.flatten(2)
        return class_state(x, self.objective.one_hot(support).to(x.dtype), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        logits = -squared_distances(x.flatten(2), prototypes(state["sums"], state["counts"]))
        return self.objective.hide_unseen(logits, state["counts"])
