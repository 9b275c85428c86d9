"""Transductive propagation network: labels spread from the support over all rows, along a learnt graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.neighbours import kept_rows, real_rows
from quickstudy.inner.propagation import neighbour_graph, propagated
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import MLP, Net

SHORTEST = 1e-3
"""The least length-scale."""
START = -1.0
"""What the softplus of a length-scale is first taken of, give or take: 0.31."""


class TPN(SharedPass):
    """Transductive propagation network (Liu et al. 2019, arXiv 1805.10002).

    Support and query together are a graph: with s_i = g(f(x_i)) a length-scale of each row's own,
    W_ij = exp(-|f(x_i) / s_i - f(x_j) / s_j|^2 / 2d) for the `neighbours` nearest of each row, else 0. Labels spread:

        (I - alpha D^-1/2 W D^-1/2)^-1 Y,   Y one-hot for the support and 0 for the query; its rows are logits.

    Predictions look at the other queries (transductive). Trained, as in the paper, on the loss of all rows,
    support and query. As in the authors' code distances are divided by the number d of features, and each row is the
    first of its own neighbours; g has one hidden layer of `hidden` units on f(x). Departures: g is kept positive
    by a softplus (theirs is any number) and starts small, since a graph of equal weights tells nothing; it has no
    convolutions before it.

    The state holds the support's features and labels, so more examples can be added exactly (`prior`). A row's weight
    scales its label.

    >>> import quickstudy as qs
    >>> tpn = TPN(qs.nets.MLP((4,)), qs.Classification(3))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> tpn.predict(tpn.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("liu2019tpn", "zhou2004consistency")
    choose = (
        "Many queries are asked at once and may help each other: few labels spread along what lies close together. "
        "Not for queries that come one by one."
    )
    cost = "one pass and a linear system of all rows"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True
    transductive = True  # type: ignore[assignment]

    def __init__(
        self, net: Net, objective: Classification, alpha: float = 0.99, neighbours: int = 20, hidden: int = 8
    ):
        super().__init__()
        if not 0 <= alpha < 1:
            raise UserError(f"alpha is {alpha}: what a row takes from its neighbours is from 0 to below 1.")
        if neighbours < 1 or hidden < 1:
            raise UserError(f"neighbours is {neighbours} and hidden {hidden}: give 1 or more of each.")
        self.net = net
        self.objective = objective
        self.alpha = alpha
        self.neighbours = neighbours
        self.hidden = hidden
        self.length = MLP((net.size,), out=1, width=hidden, depth=1)
        nn.init.constant_(self.length.layers[-1].bias, START)  # type: ignore[arg-type]

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        return kept_rows(features, self.objective.one_hot(support), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self._spread(state, x, weight)[:, state["rows"].shape[1] :]

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        logits = self._spread(self.adapt(tasks.support), tasks.query.x, tasks.query.weight)
        return self.objective.loss(logits, join_rows(tasks.support, tasks.query))

    def _spread(self, state: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """Logits of all rows, (task, support + query, way)."""
        asked, one_hot = apply_shared(self.net, x, weight), state["one_hot"]
        rows = torch.cat([state["rows"], asked], 1)
        real = torch.cat([one_hot.sum(-1) > 0, real_rows(asked, weight)], 1)
        labels = torch.cat([one_hot, one_hot.new_zeros(*asked.shape[:2], one_hot.shape[-1])], 1)
        graph = neighbour_graph(rows / (F.softplus(self.length(rows)) + SHORTEST), real, self.neighbours)
        return self.objective.hide_unseen(propagated(graph, labels, self.alpha), one_hot.sum(1))
