"""BMAML: particles instead of one initialisation, moved by Stein variational gradient descent."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task, join_rows
from quickstudy.inner.descent import Loss, last
from quickstudy.inner.members import others, starts
from quickstudy.inner.stein import stein_path
from quickstudy.learners.bayesian.several import Several
from quickstudy.nets import Net


class BMAML(Several):
    """Bayesian model-agnostic meta-learning (Yoon, Kim, Dia, Kim, Bengio, Ahn 2018, arXiv 1806.03836).

    M particles w_m start at learnt places and take `inner_steps` Stein variational gradient steps,

        w_m <- w_m + inner_lr / M sum_j [k(w_j, w_m) grad log p(w_j) + temperature * grad_{w_j} k(w_j, w_m)],

    log p(w) = -L_support(w) - precision / 2 |w|^2, with the RBF kernel of the median heuristic (inner/stein.py).
    The prediction is that of the equal mixture. The outer loss is the paper's chaser loss,

        sum_m |w_m - leader_m|^2, the leader being `leader_steps` further steps on support and query together,

    in which the leader is a constant (so it is no derivative of itself: `exact_gradient` is False), or with
    `chaser` False the loss of the mixture on the query. One particle with precision 0 and no chaser is MAML.

    state: every particle's weights (task, M, *shape), for classification seen (task, way). `prior`: the
    particles go on from there. temperature: the loss is a mean over rows, so 1 / n gives the posterior of n rows.
    Departures: whole networks are particles (the paper shares the lower layers of large ones), precision is
    a constant instead of drawn from a Gamma, and the kernel's width has log(M + 1) for log M.

    >>> import quickstudy as qs
    >>> bmaml = BMAML(qs.nets.MLP((1,), out=1), qs.Regression(), particles=3, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> bmaml.predict(bmaml.adapt(support), torch.randn(2, 7, 1)).shape
    torch.Size([2, 7, 1])
    """

    papers = ("yoon2018bmaml",)
    choose = "As MAML where it matters how sure an answer is: several networks a task that keep apart from each other."
    cost = "a few gradient steps a particle"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        particles: int = 5,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        chaser: bool = True,
        leader_steps: int = 1,
        precision: float = 0.0,
        temperature: float = 1.0,
        first_order: bool = False,
        eval_steps: int | None = None,
    ):
        super().__init__()
        if particles < 1:
            raise UserError(f"particles is {particles}: give 1 or more.")
        if chaser and (leader_steps < 1 or inner_steps < 1):
            raise UserError(
                f"inner_steps is {inner_steps} and leader_steps {leader_steps}: chaser and leader take 1 or more each."
            )
        if not precision >= 0 or not temperature >= 0:
            raise UserError(f"precision is {precision} and temperature {temperature}: give 0 or more.")
        self.net = net
        self.objective = objective
        self.particles = particles
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.chaser = chaser
        self.leader_steps = leader_steps
        self.precision = precision
        self.temperature = temperature
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.more = others(net, particles)

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        return not self.first_order and not self.chaser

    def start(self, support: Examples) -> State:
        return starts(self.net, self.more, support.tasks)

    def descent(self, loss: Loss, weights: State, rows: Examples, members: int, steps: int) -> Iterator[State]:
        bayes = (self.precision, self.temperature, self.first_order)
        return stein_path(loss, weights, rows, members, steps, self.inner_lr, *bayes)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not (self.training and self.chaser):
            return super().meta_loss(tasks)
        state = self.adapt(tasks.support)
        with torch.no_grad():
            leader = last(self.path(join_rows(*tasks), self.leader_steps, prior=state))
        # task by task, over particles and weights
        gaps = [(w - leader[k]).square().flatten(1).sum(1) for k, w in self.weights(state).items()]
        return torch.stack(gaps).sum(0)
