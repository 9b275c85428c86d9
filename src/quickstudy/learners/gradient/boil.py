"""BOIL: MAML in which only the body moves."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.linear import linear
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net

HEAD = "shared head."
"""What the head's weights are called beside those of the body, which may have a head too."""


class BOIL(FineTuning):
    """Body only update in inner loop (Oh, Yoo, Kim, Yun 2021, arXiv 2008.08882).

    theta <- theta - inner_lr * grad_theta L_support(f_theta(x) W' + b), `inner_steps` times: the features f
    change from task to task, and the head (W, b) is the same for all and learnt by the outer loop alone. It is
    MAML with an inner rate of 0 for the last layer.

    state: the adapted weights of the body (task, *shape), for classification seen (task, way); the head is read
    when predicting. `prior`: descent goes on from there. first_order, eval_steps, memory: as in MAML.

    >>> import torch, quickstudy as qs
    >>> boil = BOIL(qs.nets.MLP((1,)), qs.Regression())
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> sorted(boil.adapt(support))
    ['layers.0.bias', 'layers.0.weight', 'layers.1.bias', 'layers.1.weight']
    """

    papers = ("oh2021boil",)
    choose = (
        "As MAML where test tasks are unlike those of training (other domains): it changes what is seen in an input "
        "and keeps how classes are told apart."
    )
    cost = "a few gradient steps"
    net_output = "features"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 1,
        inner_lr: float = 0.5,
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
        self.head = nn.Linear(net.size, objective.size)

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def rate(self) -> Any:
        return {name: self.inner_lr for name, _ in self.net.named_parameters()}

    def still(self, tasks: int) -> State:
        return {HEAD + k: w for k, w in task_weights(self.head, tasks).items()}

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        head = {k: weights[HEAD + k] for k in ("weight", "bias")}
        body = {k: w for k, w in weights.items() if not k.startswith(HEAD)}
        return linear(head, apply_per_task(self.net, body, x, weight))
