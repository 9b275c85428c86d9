"""MAML++: MAML made steadier and more able."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task
from quickstudy.core.tracing import is_tracing
from quickstudy.inner.descent import downhill
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net
from quickstudy.nets.norm import ChannelNorm


class MAMLPlusPlus(FineTuning):
    """MAML with four improvements, each of which can be turned off (Antoniou et al. 2019, arXiv 1810.09502).

    multi_step_tasks: the loss is sum_k v_k L_query(phi_k) over the states after k = 1, ..., K steps; at first all
        v_k are 1 / K, and over the first so many tasks of training the weight moves on to the last;
    first_order_tasks: the first so many tasks are trained on in first order, those after them in second;
    learnt_rates: a rate of every weight tensor in every step, learnt, from `inner_lr` on;
    norm_per_step: scales and shifts of norms do not move, and after every step there are others, all learnt.

    With all of these off it is MAML. In training the learner counts the tasks that this process was given, in a
    buffer that is saved with it; outside training nothing counts, and `meta_loss` is that of the last state.
    state: the weights (task, *shape), for classification seen (task, way). `prior`: descent goes on from there, with
    the first step's rates. first_order (throughout), eval_steps, memory: as in MAML; the last step's rates go on.
    Departures: the v_k and the order change from task to task, not from epoch to epoch, the v_k to 0 without a floor;
    a query after k steps is normalised as the support of step k + 1; norms use statistics of the rows at hand, as
    the paper's code does in the end, and keep no running ones; rates in units of 2 inner_lr, or Adam upsets small ones.

    >>> import quickstudy as qs
    >>> learner = MAMLPlusPlus(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=2)
    >>> len(learner.rates), learner.rates[0].shape, learner.shares()
    (6, torch.Size([2]), [0.5, 0.5])
    """

    papers = ("antoniou2019mamlplusplus",)
    choose = "As MAML where its training is unsteady or a little more accuracy is worth a longer one."
    cost = "a few gradient steps"
    net_output = "objective"
    met: Tensor

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        multi_step_tasks: int = 10_000,
        first_order_tasks: int = 0,
        learnt_rates: bool = True,
        norm_per_step: bool = True,
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        if inner_steps < 1 or multi_step_tasks < 0 or first_order_tasks < 0:
            raise UserError("maml_plus_plus needs inner_steps of 1 or more, and numbers of tasks of 0 or more.")
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.multi_step_tasks = multi_step_tasks
        self.first_order_tasks = first_order_tasks
        self.learnt_rates = learnt_rates
        self.norm_per_step = norm_per_step
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        norms = [name for name, module in net.named_modules() if isinstance(module, ChannelNorm) and norm_per_step]
        self.placed = [f"{name}.{part}" for name in norms for part in ("weight", "bias")]
        self.moved = [name for name, _ in net.named_parameters() if name not in self.placed]
        self.rates = nn.ParameterList(torch.full((inner_steps,), 0.5) for _ in self.moved if learnt_rates)
        self.sets = nn.ParameterList(torch.stack([net.get_parameter(n).data] * inner_steps) for n in self.placed)
        self.register_buffer("met", torch.zeros((), dtype=torch.long))

    @property
    def constant_slopes(self) -> bool:
        return self.first_order or (self.training and int(self.met) < self.first_order_tasks)

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def rate(self) -> Any:
        lr = self.inner_lr
        if not len(self.rates) and not self.placed:
            return lr
        # step by step: the rate of what moves, and what stands in the place of the rest afterwards
        each = [(2 * lr * rate).unbind() for rate in self.rates] or [(lr,) * self.inner_steps] * len(self.moved)
        moved = [dict(zip(self.moved, rates, strict=True)) for rates in zip(*each, strict=True)]
        placed = [dict(zip(self.placed, (s[k] for s in self.sets), strict=True)) for k in range(self.inner_steps)]
        return [{**rates, "placed": sets} for rates, sets in zip(moved, placed, strict=True)]

    @staticmethod
    def rule(weights: State, slopes: State, losses: Tensor, rate: Any) -> State:
        placed = rate["placed"].items() if isinstance(rate, dict) else ()
        return {**downhill(weights, slopes, losses, rate), **{n: w.expand_as(weights[n]) for n, w in placed}}

    def shares(self) -> list[float]:
        """What the query loss after 1, 2, ... inner steps counts for in training, now."""
        each = max(0.0, 1 - int(self.met) / self.multi_step_tasks) / self.inner_steps if self.multi_step_tasks else 0.0
        return [each] * (self.inner_steps - 1) + [1 - each * (self.inner_steps - 1)]

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training or not (self.multi_step_tasks or self.first_order_tasks):
            return super().meta_loss(tasks)
        if is_tracing():
            raise UserError("a learner that counts its tasks cannot be compiled: turn its two numbers of tasks to 0.")
        way = zip([0.0, *self.shares()], self.path(tasks.support, self.inner_steps), strict=True)
        query, x, weight = tasks.query, tasks.query.x, tasks.query.weight
        losses = [share * self.objective.loss(self.predict(state, x, weight), query) for share, state in way if share]
        self.met += tasks.query.tasks
        return torch.stack(losses).sum(0)
