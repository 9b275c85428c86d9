"""Meta-SGD: MAML that also learns how far, and in which direction, every weight moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class MetaSGD(FineTuning):
    """Meta-SGD (Li, Zhou, Chen, Li 2017, arXiv 1707.09835).

    phi = theta - alpha * grad L_support(theta), entry by entry, with a rate alpha of every entry of every weight
    that is learnt together with theta. Rates may become negative: they decide the direction as well.

    state: the adapted weights (task, *shape), for classification seen (task, way). `prior`: descent goes on from
    there. inner_lr: where all rates start. first_order, eval_steps, memory: as in MAML.
    Departures: rates start equal, where the paper draws each from [0.005, 0.1]; more than the paper's one step
    may be taken, with the same rates in each.

    >>> import quickstudy as qs
    >>> learner = MetaSGD(qs.nets.MLP((1,), out=1), qs.Regression())
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> learner.predict(learner.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 1])
    """

    papers = ("li2017metasgd",)
    choose = "As MAML where one step has to do: each weight has a rate of its own, for twice the parameters."
    cost = "one gradient step"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 1,
        inner_lr: float = 0.05,
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
        self.rates = nn.ParameterList(nn.Parameter(torch.full_like(p, inner_lr)) for p in net.parameters())

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def rate(self) -> Any:
        names = [name for name, _ in self.net.named_parameters()]
        return dict(zip(names, self.rates, strict=True))
