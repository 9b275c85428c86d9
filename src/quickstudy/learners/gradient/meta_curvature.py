"""Meta-Curvature: MAML whose inner gradients are turned and stretched by learnt matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class MetaCurvature(FineTuning):
    """Meta-Curvature (Park and Oliva 2019, arXiv 1902.03356, MC1).

    theta <- theta - inner_lr * MC(G) with G = grad L_support(theta), `inner_steps` times. For a convolution,
    G (outputs, inputs, height * width):

        MC(G) = G x_3 M_f x_2 M_i x_1 M_o,    (G x_1 M)_jik = sum_l M_jl G_lik

    for a linear layer M_o G M_i', for a vector (biases, norms) M_o G. The matrices start as identities, where it is
    MAML, and are learnt together with theta: a preconditioner M_o (x) M_i (x) M_f for the price of its factors.

    state: the adapted weights (task, *shape), for classification seen (task, way). `prior`: descent goes on from
    there. first_order, eval_steps, memory: as in MAML.
    Departure: vectors have a matrix too; the paper speaks of layers' weights.

    >>> import quickstudy as qs
    >>> learner = MetaCurvature(qs.nets.MLP((1,), out=1), qs.Regression(), inner_lr=0.01)
    >>> [tuple(m.shape) for m in learner.matrices][:3]
    [(40, 40), (1, 1), (40, 40)]
    """

    papers = ("park2019metacurvature",)
    choose = (
        "As MAML or Meta-SGD where weights should not move one by one: it learns which directions of a layer belong "
        "together. A few matrices a layer more."
    )
    cost = "a few gradient steps"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        self.matrices = nn.ParameterList(torch.eye(size) for p in net.parameters() for size in modes(p.shape))

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def rate(self) -> Any:
        left = iter(self.matrices)
        named = self.net.named_parameters()
        return {name: (self.inner_lr, *(next(left) for _ in modes(p.shape))) for name, p in named}

    @staticmethod
    def rule(weights: State, slopes: State, losses: Tensor, rate: Any) -> State:
        return {n: weights[n] - rate[n][0] * curved(g, rate[n][1:]) for n, g in slopes.items()}


def modes(shape: Sequence[int]) -> tuple[int, ...]:
    """The sizes of a weight seen as (outputs, inputs, all the rest), as far as it has them."""
    return (*shape[:2], math.prod(shape[2:])) if len(shape) > 2 else tuple(shape)


def curved(g: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The mode products of each task's gradient (task, *shape) with one matrix a mode."""
    h = g.reshape(len(g), *(len(m) for m in matrices))
    for axis, matrix in enumerate(matrices, 1):
        h = (h.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return h.reshape(g.shape)
