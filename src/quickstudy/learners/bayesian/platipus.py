"""PLATIPUS: probabilistic MAML, whose initialisation is drawn for every task."""

from __future__ import annotations

import math

from torch import Tensor, nn

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task, join_rows
from quickstudy.inner.descent import last
from quickstudy.inner.members import like, named
from quickstudy.inner.stein import slopes
from quickstudy.inner.weight_gaussian import check_gaussian, divergence, drawn, fixed_noise, fresh_noise
from quickstudy.learners.bayesian.several import Several
from quickstudy.nets import Net


class PLATIPUS(Several):
    """Probabilistic model-agnostic meta-learning (Finn, Xu, Levine 2018, arXiv 1806.02817).

    The initialisation theta of a task is drawn, then adapted by `inner_steps` gradient steps on the support:

        p(theta | support)        = N(mu - gamma_p * grad L_support(mu), sigma^2)            at test time
        q(theta | support, query) = N(mu - gamma_q * grad L_(support and query)(mu), v)      in training

    with one entry of mu, sigma, v, gamma_p and gamma_q a weight, all learnt. Outer loss, `draws` from q:
    E_q[L_query(phi(theta))] + kl_weight * KL(q || p). The prediction is that of the equal mixture of `eval_draws`
    draws from p. With variances, gammas and kl_weight 0 it is MAML; L is a mean over rows, so kl_weight 1 / n
    is the bound of n rows.

    Draws are fresh in training; otherwise they are the same for every task and at every call.
    state: the adapted weights of each draw, (task, eval_draws, *shape), for classification seen (task, way).
    `prior`: descent goes on, draw by draw. eval_steps, first_order, memory: as in MAML.

    >>> import torch, quickstudy as qs
    >>> platipus = PLATIPUS(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> platipus.predict(platipus.adapt(support), torch.randn(2, 7, 1)).shape
    torch.Size([2, 7, 1])
    """

    papers = ("finn2018platipus",)
    choose = "As MAML where the support leaves several answers open: each draw of the start commits to one of them."
    cost = "a few gradient steps a draw"
    net_output = "objective"
    descends = True  # type: ignore[assignment]  # with no inner steps too: p is one step away

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        deviation: float = 0.02,
        kl_weight: float = 1e-4,
        draws: int = 1,
        eval_draws: int = 10,
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        check_gaussian(deviation, kl_weight, draws, eval_draws)
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.deviation = deviation
        self.kl_weight = kl_weight
        self.draws = draws
        self.eval_draws = eval_draws
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        self.p_log_deviation, self.q_log_deviation = (like(net, math.log(deviation)) for _ in "pq")
        self.p_rate, self.q_rate = (like(net, inner_lr) for _ in "pq")

    def gaussian(
        self, seen: State, rows: Examples, rate: nn.ParameterList, log_deviation: nn.ParameterList
    ) -> tuple[State, State]:
        """Mean and log deviation of the start, (task, *shape) each: mu after one step on `rows`, and the spread."""
        mean, gamma = self.shared_start(rows), named(self.net, rate, rows.tasks)
        found = slopes(self.inner_loss(seen), mean, rows, keep_graph=not self.first_order)
        return {k: m - gamma[k] * found[k] for k, m in mean.items()}, named(self.net, log_deviation, rows.tasks)

    def start(self, support: Examples) -> State:
        mean, spread = self.gaussian(self.seen(support), support, self.p_rate, self.p_log_deviation)
        return drawn(mean, spread, fixed_noise(mean, self.eval_draws, "start"))

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        seen = self.seen(tasks.support)
        p = self.gaussian(seen, tasks.support, self.p_rate, self.p_log_deviation)
        q = self.gaussian(seen, join_rows(*tasks), self.q_rate, self.q_log_deviation)
        start = {**drawn(*q, fresh_noise(q[0], self.draws)), **seen}
        adapted = last(self.path(tasks.support, self.steps, prior=start))
        loss = self.losses(adapted, tasks.query).mean(1)
        return loss + self.kl_weight * divergence(*q, *p) if self.kl_weight else loss
