"""ANIL: learnt features, and a head that takes a few gradient steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_shared, task_weights
from quickstudy.inner.heads import CLOSED, head_path
from quickstudy.inner.linear import linear
from quickstudy.inner.shared_pass import SharedPass
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class ANIL(SharedPass, FineTuning):
    """Almost no inner loop (Raghu, Raghu, Bengio, Vinyals 2020, arXiv 1909.09157).

    (W, b) <- (W, b) - inner_lr * grad L_support(f(x) W' + b), `inner_steps` times, from a learnt start;
    the features f are shared by all tasks and learnt by the outer loop alone. It is MAML with an inner
    rate of 0 for all but the last layer. The gradient is in closed form (inner/heads.py).

    Departures: the head starts at 0, since classes are numbered afresh in every task. `make` gives it a
    network with running statistics, not those of the batch: its features do not move, so averages over
    training fit them, and a prediction does not depend on the other queries. Support and query pass the
    network one after the other: where rows are normalised together, the support must not see the query.

    state: weight (task, size, d), bias (task, size), for classification seen (task, way).
    first_order, eval_steps: as in MAML; in first order the support's features get no gradient.

    >>> import quickstudy as qs
    >>> anil = ANIL(qs.nets.MLP((1,)), qs.Regression(), inner_steps=3)
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> anil.adapt(support)["weight"].shape
    torch.Size([4, 1, 40])
    """

    papers = ("raghu2020anil",)
    choose = (
        "As MAML where the features can be shared and only the last layer has to change: much faster, and nearly "
        "as good on tasks alike."
    )
    cost = "a few gradient steps of one layer"
    net_output = "features"
    net_norm = "running"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        first_order: bool = False,
        eval_steps: int | None = None,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.head = nn.Linear(net.size, objective.size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def descends(self) -> bool:  # type: ignore[override]
        return self.steps > 0 and type(self.objective) not in CLOSED

    def start(self, support: Examples) -> State:
        return task_weights(self.head, support.tasks)

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        return linear(weights, apply_shared(self.net, x, weight))

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps; the features are computed once."""
        start, extra = self.begin(support, prior)
        # the support's features are met in the inner gradient alone, which first order takes as a constant
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.first_order):
            rows = support._replace(x=apply_shared(self.net, support.x, support.weight))
        options = (steps, self.inner_lr, extra.get("seen"), self.first_order)
        for head in head_path(self.objective, start, rows, *options):
            yield {**head, **extra}
