"""DeViSE: features are mapped to where the descriptions are, and ranked there."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, row_mean
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.bilinear import description_sums
from quickstudy.inner.closed import prototypes
from quickstudy.nets import Net
from quickstudy.nets.projection import unchanged


class DeViSE(MetaLearner):
    """Deep visual-semantic embedding (Frome, Corrado, Shlens, Bengio, Dean, Ranzato, Mikolov, NIPS 2013).

    loss(x, y) = sum_{k != y} max(0, margin - t_y' M f(x) + t_k' M f(x)), t_k the unit description of class k and M a
    linear map of the features without a bias; the class of the largest t_k' M f(x) is predicted.

    (task, n, d) features -> (task, n, a). Logits are t_k' M f(x) / margin, so that a margin is one nat.
    Departures: the false classes are those of the task, not all of training, and all of them count (the paper stops
    at the first, chosen at random, that violates the margin, to save time); f is trained together with M (the paper
    starts from a trained network and moves M alone before both); an M with as many outputs as inputs starts as no
    change, so that sentences encoded as their classes' descriptions are begin at the nearest description.

    Several descriptions of a class: t_k is their mean, scaled to unit length. `prior`: classes and descriptions are
    added to those of the earlier state, exactly.
    """

    papers = ("frome2013devise",)
    choose = "Zero-shot where descriptions are word or sentence vectors, whose angles mean something already."
    cost = "nothing but a product"
    kinds = ("zero-shot",)
    objective: Classification
    any_way = True
    incremental = True

    def __init__(
        self, net: Net, objective: Classification, description_shape: tuple[int, ...], margin: float = 0.1
    ):
        super().__init__()
        if not 0 < margin < math.inf:
            raise UserError(f"margin is {margin}: a ranking loss needs a positive one (the paper's is 0.1).")
        self.net = net
        self.objective = objective
        self.description_shape = description_shape
        self.margin = margin
        self.map = nn.Linear(net.size, math.prod(description_shape), bias=False)
        unchanged(self.map.weight)

    def similarities(self, state: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """t_k' M f(x), (task, n, way)."""
        t = F.normalize(prototypes(state["sums"], state["counts"]), dim=-1)
        return self.map(apply_shared(self.net, x, weight)) @ t.transpose(1, 2)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return description_sums(self.objective, support, prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self.objective.hide_unseen(self.similarities(state, x, weight) / self.margin, state["counts"])

    def meta_loss(self, tasks: Task) -> Tensor:
        """The mean hinge rank loss over the rows of each query."""
        state, query = self.adapt(tasks.support), tasks.query
        near = self.similarities(state, query.x, query.weight)
        true = near.gather(-1, query.y.unsqueeze(-1))
        others = ~self.objective.indicators(query.y) & (state["counts"] > 0).unsqueeze(1)
        return row_mean(((self.margin - true + near).clamp_min(0) * others).sum(-1), query.weight)
