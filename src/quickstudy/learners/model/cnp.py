"""Conditional neural process: a network that reads the support and answers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.nets import MLP


class CNP(MetaLearner):
    """Conditional neural process (Garnelo et al. 2018, arXiv 1807.01613).

    r = mean_i h(x_i, y_i) over the support; prediction at x = g(r, x): the mean and the raw scale of
    a Gaussian. No gradients at test time; the state is one vector a task.

    The sum and the weight of the support are kept, so more examples can be added exactly.
    """

    papers = ("garnelo2018cnp",)
    choose = "Functions with uncertainty: one pass over the examples, any number of them, more can be added later."
    cost = "one pass"
    says_deviation = True
    kinds = ("regression",)
    incremental = True
    objective: GaussianRegression

    def __init__(
        self, objective: GaussianRegression, x_shape: tuple[int, ...], width: int = 128, depth: int = 3
    ):
        super().__init__()
        self.objective = objective
        self.x_shape = x_shape
        self.width = width
        self.depth = depth
        x_size = math.prod(x_shape)
        self.encoder = MLP((x_size + objective.y_size,), out=width, width=width, depth=depth)
        self.decoder = MLP((width + x_size,), out=objective.size, width=width, depth=depth)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        rows = torch.cat([support.x.flatten(2), support.y], -1)
        weight = support.weight.to(rows.dtype)
        state = {"sum": (self.encoder(rows) * weight.unsqueeze(-1)).sum(1), "weight": weight.sum(1)}
        return {k: v + prior[k] for k, v in state.items()} if prior is not None else state

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        rows = x.flatten(2)
        mean = state["sum"] / state["weight"].clamp_min(1e-12).unsqueeze(-1)
        context = mean.unsqueeze(1).expand(-1, rows.shape[1], -1)
        return self.decoder(torch.cat([context, rows], -1))
