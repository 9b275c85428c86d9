"""Relation networks: a learnt judgement of whether a query belongs to a class."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import unless_batch_statistics
from quickstudy.core.objective import Classification, row_mean
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, prototypes
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import MLP, Net
from quickstudy.nets.attention import RELU, scaled


class RelationNet(SharedPass):
    """Relation network (Sung et al. 2018, arXiv 1711.06025).

    c_k = sum of f(x_i) over class k of the support;  r_k(x) = sigmoid(s([c_k, f(x)])), the relation score.
    Training minimises (r_k - 1[y = k])^2, averaged over the classes that the support shows and the query.

    Predictions are s, before the sigmoid: they rank as the scores do, and their softmax is a probability. If r_k is the
    probability that x belongs to k, judged apart from the others, and it belongs to one of them only, then
    P(k) ~ r_k / (1 - r_k) = exp(s_k).

    average: the mean in place of the sum, for tasks whose number of examples varies. The state holds the sum and the
    weight of each class, so more examples can be added exactly (`prior`). Departure: the relation module is an MLP of
    `depth` layers of `width` units on two vectors of features, where the paper's has two convolutions on their maps
    before its MLP: so any network may give the features.
    """

    papers = ("sung2018relation",)
    choose = (
        "Classification where no fixed distance tells classes apart: the comparison is learnt as well. Needs more "
        "training tasks than ProtoNet."
    )
    cost = "one pass"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self, net: Net, objective: Classification, width: int = 64, depth: int = 2, average: bool = False
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.width = width
        self.depth = depth
        self.average = average
        # torch's own start makes all scores alike, and (r - 1[y = k])^2 then stays long at the share of a class: after
        # 100 steps 21.5 % right on validation tasks of Omniglot and 24.2 on glyphs, where it is 30.5 and 37.0 with this
        self.relation = scaled(MLP((2 * net.size,), out=1, width=width, depth=depth), RELU)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        return class_state(features, self.objective.one_hot(support), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        features = apply_shared(self.net, x, weight)
        classes = prototypes(state["sums"], state["counts"]) if self.average else state["sums"]
        n, way = features.shape[1], classes.shape[1]
        pairs = [classes.unsqueeze(1).expand(-1, n, -1, -1), features.unsqueeze(2).expand(-1, -1, way, -1)]
        scores = self.relation(torch.cat(pairs, -1).flatten(1, 2)).unflatten(1, (n, way)).squeeze(-1)
        return self.objective.hide_unseen(scores, state["counts"])

    def meta_loss(self, tasks: Task) -> Tensor:
        state = self.adapt(tasks.support)
        # the score of a class that the support does not show is 0, which is right
        scores = self.predict(state, tasks.query.x, tasks.query.weight).sigmoid()
        wanted = self.objective.indicators(tasks.query.y).to(scores.dtype)
        shown = (state["counts"] > 0).sum(1, keepdim=True).clamp_min(1)
        return row_mean((scores - wanted).square().sum(-1) / shown, tasks.query.weight)
