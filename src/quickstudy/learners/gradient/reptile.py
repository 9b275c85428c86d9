"""Reptile: move the initialisation towards where descent ends."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task, join_rows
from quickstudy.inner.descent import last
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class Reptile(FineTuning):
    """Reptile (Nichol, Achiam, Schulman 2018, arXiv 1803.02999).

    phi = theta after `inner_steps` steps of descent on all rows of a training task; the outer
    gradient is theta - phi (equation in section 2), which is not the derivative of any loss here.

    Departures: full-batch steps instead of Adam on mini-batches of a task; support and query are
    both trained on (the paper's larger number of training shots). eval_steps: as in MAML; the paper
    takes 50 at test time.
    """

    papers = ("nichol2018reptile",)
    choose = "The simplest gradient-based method, without second derivatives; needs more inner steps than MAML."
    cost = "many gradient steps"
    net_output = "objective"
    exact_gradient = False  # type: ignore[assignment]
    first_order = True

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        eval_steps: int | None = 20,
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.eval_steps = eval_steps

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def meta_loss(self, tasks: Task) -> Tensor:
        """The query loss of each task, (task,), carrying the gradient theta - phi."""
        rows = join_rows(tasks.support, tasks.query)
        with torch.no_grad():
            state = last(self.path(rows, self.inner_steps))
            value = self.objective.loss(self.predict(state, tasks.query.x, tasks.query.weight), tasks.query)
        pull = torch.zeros_like(value)
        for name, theta in self.start(tasks.support).items():
            pull = pull + (theta * (theta - state[name]).detach()).flatten(1).sum(1)
        return value + pull - pull.detach()
