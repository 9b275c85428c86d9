"""ABML: a Gaussian over weights, adapted from a learnt prior by descent on the variational bound."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.inner.descent import descent_path
from quickstudy.inner.members import combined, fold, like, named, repeat, unfold
from quickstudy.inner.weight_gaussian import check_gaussian, divergence, drawn, fixed_noise, fresh_noise
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class ABML(FineTuning):
    """Amortized Bayesian meta-learning (Ravi, Beatson 2019, ICLR).

    p(w) = N(m0, s0^2), one mean and deviation a weight, is learnt; a task's q(w) = N(m, s^2) starts there and takes
    `inner_steps` gradient steps, in m and log s, on the bound of its support,

        B(q; rows) = E_q[L_rows(w)] + kl_weight * KL(q || p),    w = m + s z,  z ~ N(0, 1), `draws` of them;

    the outer loss is B(q; support and query together). The prediction is that of the equal mixture of
    `eval_draws` draws from q. With deviations of 0 and kl_weight 0 it takes MAML's steps.

    L is a mean over rows, so kl_weight 1 / n is the bound of n rows. Draws are fresh in training; otherwise
    they are the same for every task and at every call. `prior`: the earlier q is the p that the next starts from.
    state: mean.* and log_deviation.*, (task, *shape), for classification seen (task, way).
    Departures: no hyper-prior over m0 and s0; the rows of a task share their draws (no flipout).

    >>> import torch, quickstudy as qs
    >>> abml = ABML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> abml.predict(abml.adapt(support), torch.randn(2, 7, 1)).shape
    torch.Size([2, 7, 1])
    """

    papers = ("ravi2019abml",)
    choose = "As MAML with a spread of its own for every weight: how sure it is follows from how much the support says."
    cost = "a few gradient steps, several draws each"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        deviation: float = 0.02,
        kl_weight: float = 1e-4,
        draws: int = 4,
        eval_draws: int = 10,
        first_order: bool = False,
        eval_steps: int | None = None,
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
        self.log_deviation = like(net, math.log(deviation))

    def start(self, support: Examples) -> State:
        mean, spread = self.shared_start(support), named(self.net, self.log_deviation, support.tasks)
        return {f"{part}.{k}": w for part, q in (("mean", mean), ("log_deviation", spread)) for k, w in q.items()}

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps."""
        start, extra = self.begin(support, prior)

        def bound(q: State, rows: Examples) -> Tensor:
            return self.bound({**q, **extra}, rows, start)

        for moved in descent_path(bound, start, support, steps, self.inner_lr, self.first_order):
            yield {**moved, **extra}

    def bound(self, state: State, rows: Examples, start: State) -> Tensor:
        """B(q; rows) of each task, (task,), where q is the state and p the start."""
        mean = _part(state, "mean")
        noise = fresh_noise(mean, self.draws) if self.training else fixed_noise(mean, self.draws, "adapt")
        answers = fold(self.answers(state, rows.x, rows.weight, noise))
        loss = unfold(self.objective.loss(answers, repeat(rows, self.draws)), self.draws).mean(1)
        sides = [_part(side, part) for side in (state, start) for part in ("mean", "log_deviation")]
        return loss + self.kl_weight * divergence(*sides) if self.kl_weight else loss

    def answers(self, state: State, x: Inputs, weight: Tensor | None, noise: State) -> Tensor:
        """What the network says with each draw of weights: (task, draws, n, size)."""
        weights = drawn(_part(state, "mean"), _part(state, "log_deviation"), noise)
        draws = next(iter(weights.values())).shape[1]
        row_weight = None if weight is None else repeat(weight, draws)
        prediction = self.output(fold(weights), repeat(x, draws), row_weight)
        return unfold(self._hide(prediction, repeat({k: v for k, v in state.items() if k == "seen"}, draws)), draws)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        noise = fixed_noise(_part(state, "mean"), self.eval_draws, "predict")
        return combined(self.objective, self.answers(state, x, weight, noise), None)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        return self.bound(self.adapt(tasks.support), join_rows(*tasks), self.start(tasks.support))


def _part(state: State, part: str) -> State:
    return {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
