"""R2-D2: ridge regression on learnt features as the inner learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import weighted_ridge
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import Net


class R2D2(SharedPass):
    """Ridge regression differentiable discriminator (Bertinetto et al. 2019, arXiv 1805.08136).

    W = argmin sum_i w_i |f(x_i) W - y_i|^2 + penalty |W|^2 in closed form; prediction = f(x) W, for
    classification scale * f(x) W + shift with one-hot y. Learnt: the features, penalty, scale, shift.

    `prior`: the penalty then pulls towards the earlier W instead of 0. Departure: a constant feature
    can be added (`intercept`), which regression needs.
    """

    papers = ("bertinetto2019r2d2",)
    choose = (
        "As ProtoNet where classes are no round clouds, and for regression on learnt features: a ridge "
        "regression a task."
    )
    cost = "one pass and a closed form"
    any_way = True

    def __init__(self, net: Net, objective: Objective, penalty: float = 1.0, intercept: bool = True):
        super().__init__()
        if not penalty > 0:
            raise UserError(f"penalty is {penalty}: ridge regression needs a positive one.")
        self.net = net
        self.objective = objective
        self.penalty = penalty
        self.intercept = intercept
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())
        if isinstance(objective, Classification):
            self.scale = nn.Parameter(torch.tensor(10.0))
            self.shift = nn.Parameter(torch.tensor(0.0))

    def features(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """f(x), with a constant 1 added if there is an intercept: (task, n, d)."""
        f = apply_shared(self.net, x, weight)
        return torch.cat([f, torch.ones_like(f[..., :1])], -1) if self.intercept else f

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f = self.features(support.x, support.weight)
        state: State = {}
        if isinstance(self.objective, Classification):
            y = self.objective.indicators(support.y).to(f.dtype)
            seen = self.objective.seen(support)
            state["seen"] = seen if prior is None else torch.maximum(seen, prior["seen"])
        else:
            y = support.y
        before = prior["weight"] if prior is not None else f.new_zeros(len(f), f.shape[-1], y.shape[-1])
        step = weighted_ridge(f, y - f @ before, support.weight.to(f.dtype), self.log_penalty.exp())
        return {**state, "weight": before + step}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        out = self.features(x, weight) @ state["weight"]
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(self.scale * out + self.shift, state["seen"])
        return out
