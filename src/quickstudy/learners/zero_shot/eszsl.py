"""ESZSL: a bilinear score between rows and descriptions, by ridge regression."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.bilinear import bilinear_loss, bilinear_ridge, description_sums
from quickstudy.inner.closed import prototypes
from quickstudy.nets.projection import unchanged


class ESZSL(MetaLearner):
    """An embarrassingly simple approach to zero-shot learning (Romera-Paredes and Torr, ICML 2015).

    logit_k(x) = x' V s_k for the description s_k of class k, with V the minimiser of
    |X' V S - Y|^2 + m gamma |V S|^2 + z penalty |X' V|^2 + m z gamma penalty |V|^2 over m rows and z classes:
    V = (X X' + m gamma I)^-1 X Y S' (S S' + z penalty I)^-1; Y = 1 for the class of a row, `others` for the rest.
    x and s are flattened: this is a method for ready features, and has no network. Penalties are those of a row and
    of a class (the paper's divided by m and z), so that they mean the same for any number of rows.

    Departures: the paper solves for V once, from all training rows and classes. `meta_loss` is that objective on the
    rows and classes of a training task, divided by m z, and V descends on it. Its minimiser over tasks of all training
    classes is the paper's V; with fewer classes in a task, the others of a row count for less. A square V starts as no
    change: where rows and descriptions are encoded alike, a descent that is stopped in time begins at the nearest
    description. `solve` sets V to the closed form of given rows, without training. The paper's Y is -1 for the others
    (`others=-1`); with many classes and descriptions that are not centred, V then spends itself on that constant, so
    the default is 0. Logits are the scores (about 0 to 1), which rank classes and are no log probabilities: likelihood
    and calibration say little.

    `prior`: classes and descriptions are added to those of the earlier state, exactly.
    """

    papers = ("romera2015embarrassingly",)
    choose = "Zero-shot on ready features (of a trained network, say): linear, convex, two penalties to tune."
    cost = "nothing but a product"
    kinds = ("zero-shot",)
    objective: Classification
    any_way = True
    incremental = True

    def __init__(
        self,
        objective: Classification,
        x_shape: tuple[int, ...],
        description_shape: tuple[int, ...],
        gamma: float = 0.01,
        penalty: float = 0.01,
        others: float = 0.0,
    ):
        super().__init__()
        for name, value in (("gamma", gamma), ("penalty", penalty)):
            if not 0 < value < math.inf:
                raise UserError(f"{name} is {value}: the ridge regression of eszsl needs a positive number.")
        self.objective = objective
        self.x_shape = x_shape
        self.description_shape = description_shape
        self.gamma = gamma
        self.penalty = penalty
        self.others = others
        d, a = math.prod(x_shape), math.prod(description_shape)
        self.weight = nn.Parameter(0.01 * torch.randn(d, a))
        unchanged(self.weight)

    def targets(self, own: Tensor) -> Tensor:
        """Y: 1 for the class of a row and `others` for the rest, (task, n, way)."""
        return torch.where(own, 1.0, self.others).to(self.weight.dtype)

    def solve(self, rows: Examples, descriptions: Tensor) -> None:
        """Set V to the closed form of `rows` (1, m, *x_shape), y the class number, and `descriptions` (z, ...)."""
        support = Examples(descriptions.unsqueeze(0), torch.arange(len(descriptions)).unsqueeze(0), rows.weight)
        targets = self.targets(rows.y.unsqueeze(-1) == support.y.to(rows.y.device).unsqueeze(1))
        assert isinstance(rows.x, Tensor) and isinstance(support.x, Tensor)
        x, s = (part.flatten(2).to(self.weight.dtype) for part in (rows.x, support.x))
        v = bilinear_ridge(x, targets, s, rows.weight.to(x.dtype), torch.ones_like(s[..., 0]), self.gamma, self.penalty)
        with torch.no_grad():
            self.weight.copy_(v[0])

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return description_sums(self.objective, support, prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        s = prototypes(state["sums"], state["counts"])
        return self.objective.hide_unseen(x.flatten(2) @ self.weight @ s.transpose(1, 2), state["counts"])

    def meta_loss(self, tasks: Task) -> Tensor:
        """The ridge objective of each task's rows and classes."""
        state, query = self.adapt(tasks.support), tasks.query
        assert isinstance(query.x, Tensor)
        x, s = query.x.flatten(2), prototypes(state["sums"], state["counts"])
        targets = self.targets(self.objective.indicators(query.y))
        seen = (state["counts"] > 0).to(x.dtype)
        v = self.weight.expand(len(x), -1, -1)
        return bilinear_loss(v, x, targets, s, query.weight.to(x.dtype), seen, self.gamma, self.penalty)
