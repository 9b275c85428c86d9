"""Ridge regression on raw inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Regression
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.posterior import wide


class Ridge(MetaLearner):
    """Ridge regression with an intercept on the flattened raw inputs of each task, as scikit-learn's RidgeCV: of the
    `penalties` p, the one of least leave-one-out error.

    With inputs and targets centred and scaled by sqrt(w), K = X X' and A = (K + p I)^-1:

        W = X' A Y,   error_i = (Y - K A Y)_i / (1 - (K A)_ii - w_i / sum w)

    Computed in float64.
    """

    papers = ("pedregosa2011scikit",)
    choose = "Ridge regression on the raw inputs: what one would do for values without any training tasks."
    cost = "a closed form"
    kinds = ("regression",)
    objective: Regression
    trained = False

    def __init__(self, objective: Regression, penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)):
        super().__init__()
        if not penalties or not min(penalties) > 0:
            raise UserError(f"penalties is {penalties}: give one positive number or more.")
        self.objective = objective
        self.penalties = penalties

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        """A fit of its own for every task; a closed form has no use for `prior`."""
        assert isinstance(support.x, Tensor)
        weight = wide(support.weight).unsqueeze(-1)
        total = weight.sum(1, keepdim=True).clamp_min(1e-12)
        x, y = wide(support.x.flatten(2)), wide(support.y)
        centre, mean = ((weight * part).sum(1, keepdim=True) / total for part in (x, y))
        # the derivative of sqrt at 0 is infinite: rows of no weight are cut off before it
        root = torch.where(weight > 0, torch.where(weight > 0, weight, 1).sqrt(), 0)
        x, y = root * (x - centre), root * (y - mean)
        gram = x @ x.transpose(1, 2)
        one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        fits, errors = [], []
        for penalty in self.penalties:
            inverse = torch.linalg.inv(gram + penalty * one)
            fit = inverse @ y
            hat = (gram * inverse).sum(-1, keepdim=True) + weight / total
            left_out = (y - gram @ fit) / (1 - hat).clamp_min(1e-9)
            fits.append(x.transpose(1, 2) @ fit)
            errors.append(left_out.square().sum((1, 2)))
        best = torch.stack(errors).argmin(0)
        w = torch.stack(fits)[best, torch.arange(len(best), device=best.device)]
        return {"weight": w, "bias": (mean - centre @ w).squeeze(1)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        out = wide(x.flatten(2)) @ state["weight"] + state["bias"].unsqueeze(1)
        return out.to(x.dtype)
