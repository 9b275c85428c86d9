"""A mixture of initialisations: each task finds which of them it should start from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task
from quickstudy.inner.descent import last
from quickstudy.inner.members import others, starts
from quickstudy.learners.bayesian.several import Several
from quickstudy.nets import Net


class MixtureMAML(Several):
    """A mixture of initialisations (MUSML, Jiang, Kwok, Zhang 2022; Jerfel et al. 2019, arXiv 1812.06080).

    phi_k = theta_k after `inner_steps` gradient steps; r_k ~ exp(-L_support(phi_k) / temperature), or 1 for
    the smallest loss (temperature 0); the prediction is the mixture's with shares r. Trained by the M step,
    sum_k r_k L_query(phi_k), differentiated through the steps and through r. One component is MAML.

    No component dies: in training each learns from every task with a share of at least floor / K. One that wins
    nothing becomes a start for all tasks, and wins those that the others serve worse.

    state: weights (task, K, *shape), responsibility (task, K), for classification seen (task, way).
    judge: by the loss "after" adaptation or "before" it. temperature: in the unit of the loss.
    `prior`: each descent goes on, and the new r starts from the earlier one (temperature 0: judged anew).
    Departures: MUSML's components are subspaces and in training the query picks; here they are points, and the
    support decides as it must at test time. Jerfel et al. also spawn components; here K is given.

    >>> import quickstudy as qs
    >>> mixture = MixtureMAML(qs.nets.MLP((1,), out=1), qs.Regression(), components=3, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> mixture.adapt(support)["responsibility"].shape
    torch.Size([2, 3])
    """

    papers = ("jiang2022musml", "jerfel2019mixtures")
    choose = "As MAML where tasks come from families that no single start serves: finds them without being told."
    cost = "a few gradient steps a component"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        components: int = 4,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        temperature: float = 0.1,
        floor: float = 0.1,
        judge: Literal["after", "before"] = "after",
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        if components < 1 or not temperature >= 0:
            raise UserError(f"{components} components at temperature {temperature}: give 1 or more, and 0 or more.")
        if not 0 <= floor <= 1:
            raise UserError(f"floor is {floor}: it is a share of the training, between 0 and 1.")
        if judge not in ("after", "before"):
            raise UserError(f"judge is {judge!r}: choose 'after' or 'before' adaptation.")
        self.net = net
        self.objective = objective
        self.components = components
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.temperature = temperature
        self.floor = floor
        self.judge = judge
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        self.more = others(net, components)

    def start(self, support: Examples) -> State:
        return starts(self.net, self.more, support.tasks)

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps, each with its responsibilities."""
        way = super().path(support, steps, prior)
        first = next(way)
        for state in chain([first], way):
            yield self._judged(first, state, support, prior)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        way = super().path(support, self.steps, prior)  # judged once, at its end
        first = next(way)
        return self._judged(first, last(chain([first], way)), support, prior)

    def _judged(self, first: State, state: State, support: Examples, prior: State | None) -> State:
        loss = self.losses(first if self.judge == "before" else state, support)
        if self.temperature == 0:
            return {**state, "responsibility": torch.zeros_like(loss).scatter(1, loss.argmin(1, keepdim=True), 1.0)}
        before = 0.0 if prior is None else prior["responsibility"].clamp_min(torch.finfo(loss.dtype).tiny).log()
        return {**state, "responsibility": (before - loss / self.temperature).softmax(1)}

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        state = self.adapt(tasks.support)
        share = (1 - self.floor) * state["responsibility"] + self.floor / self.components
        return (share * self.losses(state, tasks.query)).sum(1)
