"""Prototypical networks: the nearest class mean in a learnt space."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.learner import unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, class_sums, prototypes, squared_distances
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import Net


class ProtoNet(SharedPass):
    """Prototypical network (Snell, Swersky, Zemel 2017, arXiv 1703.05175).

    c_k = mean of f(x) over class k of the support; logit_k(x) = -|f(x) - c_k|^2.

    The state holds the sum and the weight of each class, so more examples can be added exactly
    (`prior`). Paper: train with more classes than you test with (60-way for Omniglot).

    turns: in training, every row of a class takes its turn in the support, with the others as the query:
    the mean of the paper's loss over all those tasks, for the price of one pass of the network. An episode
    uses few of the pairs it holds (Laenen and Bertinetto 2021, arXiv 2012.09831). As in the paper's own
    code, support and query then pass the network together.

    >>> import torch, quickstudy as qs
    >>> protonet = ProtoNet(qs.nets.MLP((4,)), qs.Classification(3))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> protonet.predict(protonet.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("snell2017prototypical",)
    choose = (
        "The first method to try for classification: fast, robust, any number of classes, examples can be added "
        "later, no gradients when it adapts."
    )
    cost = "one pass"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification, turns: bool = False):
        super().__init__()
        self.net = net
        self.objective = objective
        self.turns = turns

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        return class_state(features, self.objective.one_hot(support), prior)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not (self.turns and self.training):
            return super().meta_loss(tasks)
        rows = join_rows(tasks.support, tasks.query)
        features = apply_shared(self.net, rows.x, rows.weight)
        one_hot = self.objective.one_hot(rows._replace(weight=(rows.weight > 0).to(rows.weight.dtype)))
        counts = one_hot.sum(1, keepdim=True)
        shots = self.objective.one_hot(tasks.support).gt(0).sum(1, keepdim=True)
        # the place of every row among those of its class, and that of the first row in the support
        place = ((one_hot.cumsum(1) - 1) * one_hot).sum(-1)
        size, shot = ((one_hot * number).sum(-1).clamp_min(1) for number in (counts, shots))
        fewest = torch.where(shots > 0, shots, counts.amax().long()).amin((1, 2)).clamp_min(1)
        turns = torch.ceil(counts.amax((1, 2)) / fewest)
        losses = []
        for turn in range(int(turns.max())):
            taken = ((place - turn * shot) % size < shot).to(rows.weight.dtype)
            support, query = (rows._replace(weight=rows.weight * part) for part in (taken, 1 - taken))
            sums, weights = class_sums(features, self.objective.one_hot(support))
            logits = -squared_distances(features, prototypes(sums, weights))
            loss = self.objective.loss(self.objective.hide_unseen(logits, weights), query)
            losses.append(torch.where(turn < turns, loss, 0))
        return torch.stack(losses).sum(0) / turns.clamp_min(1)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        logits = -squared_distances(apply_shared(self.net, x, weight), centres)
        return self.objective.hide_unseen(logits, state["counts"])
