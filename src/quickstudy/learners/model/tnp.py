"""Transformer neural process: the support and what is asked as one sequence, seen through a mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import GaussianRegression
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.nets import MLP
from quickstudy.nets.attention import RELU, RowTransformer, scaled


class TNP(MetaLearner):
    """Transformer neural process, the diagonal variant TNP-D (Nguyen, Grover 2022, arXiv 2207.04179).

    A row of the support is the token h(x_i, y_i), a query the token h(x, 0). In each of `depth` layers all tokens look
    at the support's and at no other; g of a query's last token is the mean and the raw scale of a Gaussian.

    The state holds the support's tokens, and what each layer shows of them: (task, depth, n, width). `prior`: the
    rows of both are read together, exactly. Departures: normalised before each layer and not after, GELU, no dropout.
    """

    papers = ("nguyen2022tnp",)
    choose = "Functions with uncertainty, sharper than ANP and CNP, where a transformer's training can be afforded."
    cost = "one pass"
    says_deviation = True
    kinds = ("regression",)
    incremental = True
    objective: GaussianRegression

    def __init__(
        self,
        objective: GaussianRegression,
        x_shape: tuple[int, ...],
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        embed_depth: int = 3,
    ):
        super().__init__()
        self.objective = objective
        self.x_shape = x_shape
        self.width = width
        self.depth = depth
        self.heads = heads
        self.embed_depth = embed_depth
        inputs = math.prod(x_shape) + objective.y_size
        self.embed = scaled(MLP((inputs,), out=width, width=width, depth=embed_depth), RELU)
        self.transformer = RowTransformer(width, depth, heads)
        self.head = MLP((width,), out=objective.size, width=width, depth=1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        tokens = self.embed(torch.cat([support.x.flatten(2), support.y], -1))
        weight = support.weight
        if prior is not None:
            tokens, weight = torch.cat([prior["tokens"], tokens], 1), torch.cat([prior["weight"], weight], 1)
        return {"tokens": tokens, "weight": weight, "shown": self.transformer.read(tokens, weight)}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        rows = x.flatten(2)
        unknown = rows.new_zeros(*rows.shape[:2], self.objective.y_size)
        tokens = self.embed(torch.cat([rows, unknown], -1))
        return self.head(self.transformer.answer(tokens, state["shown"], state["weight"]))
