"""Logistic regression on raw inputs."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.linear import check_strength, linear, logistic


class Logistic(MetaLearner):
    """scikit-learn's logistic regression on the flattened raw inputs of each task.

    strength: its C, the inverse of the L2 penalty.
    """

    papers = ("pedregosa2011scikit",)
    choose = "Logistic regression on the raw inputs: what one would do without any training tasks."
    cost = "a convex fit"
    kinds = ("classification",)
    objective: Classification
    any_way = True
    trained = False

    def __init__(self, objective: Classification, strength: float = 1.0):
        super().__init__()
        check_strength(strength)
        self.objective = objective
        self.strength = strength

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        """A fit of its own for every task; a convex problem has no use for `prior`."""
        assert isinstance(support.x, Tensor)
        state = logistic(
            support.x.flatten(2), support.y, support.weight, self.objective.way, self.strength
        )
        return {**state, "seen": self.objective.seen(support)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        return self.objective.hide_unseen(linear(state, x.flatten(2)), state["seen"])
