"""MetaOptNet: a support vector machine on learnt features as the inner learner."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.inner.svm import crammer_singer
from quickstudy.nets import Net


class MetaOptNet(SharedPass):
    """MetaOptNet-SVM (Lee, Maji, Ravichandran, Soatto 2019, arXiv 1904.03758).

    W = argmin 1/2 sum_k |W_k|^2 + strength sum_i w_i max_k (1[y_i != k] + f(x_i) . (W_k - W_y_i)), the multi-class
    support vector machine of Crammer and Singer, without a bias; logit_k = scale f(x) . W_k. Solved in its dual and
    differentiated at the solution, so the outer gradient is exact. Learnt: the features and the scale.

    `prior`: |W_k - W0_k|^2 in place of |W_k|^2, with W0 the earlier W. Departures: the authors' code adds 1 to the
    diagonal of the kernel and takes three solver steps, and here the problem as stated is solved; their scale starts
    at 1, here at 10; label smoothing and data augmentation are left out.
    """

    papers = ("lee2019metaoptnet",)
    choose = (
        "As R2-D2 for classification, where only the examples at the border should count: a support vector machine a "
        "task. Dearer than a ridge regression."
    )
    cost = "one pass and a quadratic program"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification, strength: float = 0.1):
        super().__init__()
        if not strength > 0:
            raise UserError(f"strength is {strength}: a support vector machine needs a positive one (its C).")
        self.net = net
        self.objective = objective
        self.strength = strength
        self.scale = nn.Parameter(torch.tensor(10.0))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        f, seen = apply_shared(self.net, support.x, support.weight), self.objective.seen(support)
        target, limit = self.objective.indicators(support.y), self.strength * support.weight
        if prior is None:
            start = f.new_zeros(len(f), f.shape[-1], self.objective.way)
        else:
            start, seen = prior["weight"], torch.maximum(seen, prior["seen"])
        return {"weight": crammer_singer(f, target, limit, seen, start), "seen": seen}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        logits = self.scale * apply_shared(self.net, x, weight) @ state["weight"]
        return self.objective.hide_unseen(logits, state["seen"])
