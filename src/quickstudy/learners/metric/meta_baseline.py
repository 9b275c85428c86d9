"""Meta-Baseline: the nearest class mean by cosine, with a learnt temperature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import unless_batch_statistics
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_state, prototypes
from quickstudy.inner.neighbours import cosines
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.nets import Net


class MetaBaseline(SharedPass):
    """Meta-Baseline (Chen, Liu, Xu, Darrell, Wang 2021, arXiv 2003.04390).

    c_k = mean of f(x) over class k of the support; logit_k(x) = temperature cos(f(x), c_k), temperature learnt.

    The paper first trains f to tell all training classes apart and then meta-trains it so. The first stage is any
    learner that is trained on pooled rows: give its network to this one,
    `MetaBaseline(quickstudy.load("first").learner.net, objective)`. Without it this is a ProtoNet by cosine.

    The state holds the sum and the weight of each class, so more examples can be added exactly (`prior`).

    >>> import torch, quickstudy as qs
    >>> first = qs.learners.SimpleShot(qs.nets.MLP((4,)), qs.Classification(3), classes=20)  # train this one first
    >>> second = MetaBaseline(first.net, qs.Classification(3))
    >>> support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    >>> second.predict(second.adapt(support), torch.randn(1, 5, 4)).shape
    torch.Size([1, 5, 3])
    """

    papers = ("chen2021metabaseline",)
    choose = (
        "A network that already tells many classes apart, tuned further on tasks: as ProtoNet by cosine, from a better "
        "start."
    )
    cost = "one pass"
    incremental = unless_batch_statistics
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification, temperature: float = 10.0):
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}: give a positive one, by which cosines are multiplied.")
        self.net = net
        self.objective = objective
        self.temperature = temperature
        self.scale = nn.Parameter(torch.tensor(float(temperature)))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        return class_state(features, self.objective.one_hot(support), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        logits = self.scale * cosines(apply_shared(self.net, x, weight), centres)
        return self.objective.hide_unseen(logits, state["counts"])
