"""Chance: what the labels alone say."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State


class Chance(MetaLearner):
    """The baseline that never looks at x.

    Classification: the share of each class in the support. Regression: the mean of its y.
    """

    choose = "What the labels alone say; everything has to beat it."
    cost = "counting"
    kinds = ("classification", "regression", "zero-shot")
    any_way = True
    trained = False
    incremental = True

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        if isinstance(self.objective, Classification):
            state = {"sum": self.objective.one_hot(support).sum(1)}
        else:
            state = {"sum": (support.y * support.weight.to(support.y.dtype).unsqueeze(-1)).sum(1)}
        state["weight"] = support.weight.to(state["sum"].dtype).sum(1)
        return {k: v + prior[k] for k, v in state.items()} if prior is not None else state

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        rows = next(iter(x.values())) if isinstance(x, dict) else x
        share = state["sum"] / state["weight"].clamp_min(1e-12).unsqueeze(-1)
        answer = share.unsqueeze(1).expand(-1, rows.shape[1], -1)
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(answer.clamp_min(1e-12).log(), state["sum"])
        if self.objective.size > answer.shape[-1]:  # a scale is asked for: one unit, as softplus gives it
            return torch.cat([answer, torch.full_like(answer, 0.5413)], -1)
        return answer
