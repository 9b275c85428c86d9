"""LR-D2: logistic regression on learnt features as the inner learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.logistic import logistic_newton
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import Net


class LRD2(SharedPass):
    """Logistic regression differentiable discriminator (Bertinetto et al. 2019, arXiv 1805.08136).

    W = argmin sum_i w_i log(1 + exp(-t_i f(x_i) W)) + penalty / 2 |W|^2 by `steps` Newton steps (iteratively
    reweighted least squares), through which the outer gradient goes. Learnt: the features and the penalty.

    Departure: the paper's is for two classes; here one regression a class tells it from the rest, and the logits are
    their margins f(x) W_k, which for two classes are opposite and so halved: then the probabilities
    are those of the paper's one regression. A constant feature can be added (`intercept`).

    `prior`: the penalty then pulls towards the earlier W instead of 0, and the steps start there.
    """

    papers = ("bertinetto2019r2d2",)
    choose = (
        "As R2-D2 where probabilities matter: a logistic regression a task, whose loss is the one that counts in the "
        "end. A few times the price of a ridge regression."
    )
    cost = "one pass and a few Newton steps"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self, net: Net, objective: Classification, penalty: float = 1.0, steps: int = 5, intercept: bool = True
    ):
        super().__init__()
        if not penalty > 0:
            raise UserError(f"penalty is {penalty}: logistic regression needs a positive one.")
        if steps < 1:
            raise UserError(f"steps is {steps}: give 1 Newton step or more.")
        self.net = net
        self.objective = objective
        self.penalty = penalty
        self.steps = steps
        self.intercept = intercept
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())

    def features(self, x: Inputs, weight: Tensor | None) -> Tensor:
        """f(x), with a constant 1 added if there is an intercept: (task, n, d)."""
        f = apply_shared(self.net, x, weight)
        return torch.cat([f, torch.ones_like(f[..., :1])], -1) if self.intercept else f

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f, seen = self.features(support.x, support.weight), self.objective.seen(support)
        targets = self.objective.indicators(support.y).to(f.dtype)
        if prior is None:
            start = f.new_zeros(len(f), f.shape[-1], self.objective.way)
        else:
            start, seen = prior["weight"], torch.maximum(seen, prior["seen"])
        weight = support.weight.to(f.dtype)
        return {
            "weight": logistic_newton(f, targets, weight, self.log_penalty.exp(), self.steps, start),
            "seen": seen,
        }

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        margins = self.features(x, weight) @ state["weight"]
        pair = (state["seen"].sum(1) == 2).view(-1, 1, 1)
        return self.objective.hide_unseen(torch.where(pair, margins / 2, margins), state["seen"])
