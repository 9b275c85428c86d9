"""One network for all tasks, without adaptation."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.nets import Net


class Pooled(MetaLearner):
    """One network trained on the rows of all training tasks thrown together; it never adapts.

    What is gained by adapting at all is the distance to this. Regression only: class indices mean
    something else in every task.
    """

    choose = "One network for all tasks without adapting: whether tasks differ at all."
    cost = "nothing"
    kinds = ("regression",)
    net_output = "objective"
    pooled = True
    incremental = True

    def __init__(self, net: Net, objective: Objective):
        super().__init__()
        self.net = net
        self.objective = objective

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        rows = support.weight.sum(1)
        return {"rows": rows if prior is None else prior["rows"] + rows}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return apply_shared(self.net, x, weight)
