"""Prototypical networks: the nearest class mean in a learnt space."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_sums, prototypes, squared_distances
from quickstudy.nets import Net


class ProtoNet(MetaLearner):
    """Prototypical network (Snell, Swersky, Zemel 2017, arXiv 1703.05175).

    c_k = mean of f(x) over class k of the support; logit_k(x) = -|f(x) - c_k|^2.

    The state holds the sum and the weight of each class, so more examples can be added exactly
    (`prior`). Paper: train with more classes than you test with (60-way for Omniglot).

    >>> import torch, quickstudy as qs
    >>> protonet = ProtoNet(qs.nets.MLP((4,)), qs.Classification(3))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> protonet.predict(protonet.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification):
        super().__init__()
        self.net = net
        self.objective = objective

    @property
    def incremental(self) -> bool:  # type: ignore[override]
        # with statistics of the rows at hand, features depend on which rows came together
        return not self.transductive

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        sums, counts = class_sums(features, self.objective.one_hot(support))
        if prior is not None:
            sums, counts = prior["sums"] + sums, prior["counts"] + counts
        return {"sums": sums, "counts": counts}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        logits = -squared_distances(apply_shared(self.net, x, weight), centres)
        return self.objective.hide_unseen(logits, state["counts"])
