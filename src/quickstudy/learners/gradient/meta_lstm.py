"""Meta-LSTM: the descent itself is learnt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task
from quickstudy.inner.gated import MEMORY, GatedRule, gated
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class MetaLSTM(FineTuning):
    """Optimization as a model for few-shot learning (Ravi and Larochelle 2017, ICLR).

    theta_t = f_t * theta_t-1 - i_t * grad L_support(theta_t-1), entry by entry, `inner_steps` times: the weights are
    the cell of an LSTM whose gates f and i come from the gradient, the loss, the weight and the gates before
    (inner/gated.py); one small LSTM for all entries. The start theta_0 (its first cell) and the LSTM are learnt.
    With fixed gates, f = 1 and i = a, it is gradient descent with the rate a.

    state: the adapted weights (task, *shape), for classification seen (task, way); what the LSTM remembers is let go
    of. `prior`: from the earlier weights, with an LSTM that remembers nothing. eval_steps: as in MAML.
    first_order: inner gradients and losses are constants to the outer gradient, as in the paper; False for the true
    derivative. hidden: units of the first layer, for which each entry of each weight keeps 2 * hidden numbers.
    inner_lr: where i starts, between 0 and 1.
    Departures: each step sees the whole support; statistics of norms are those of the rows at hand, where the paper
    gathers them over an episode.

    >>> import torch, quickstudy as qs
    >>> learner = MetaLSTM(qs.nets.MLP((1,), out=1), qs.Regression())
    >>> support = qs.examples(torch.randn(4, 10, 1), torch.randn(4, 10, 1))
    >>> learner.predict(learner.adapt(support), torch.randn(4, 7, 1)).shape
    torch.Size([4, 7, 1])
    """

    papers = ("ravi2017metalstm",)
    choose = "To study learnt optimisers: how a weight moves depends on the steps before. Slow for large networks."
    cost = "a few gradient steps and an LSTM over all weights"
    net_output = "objective"
    rule = staticmethod(gated)

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.01,
        hidden: int = 20,
        first_order: bool = True,
        eval_steps: int | None = None,
    ):
        super().__init__()
        if not 0 < inner_lr < 1 or hidden < 1:
            raise UserError(f"inner_lr {inner_lr}, hidden {hidden}: give a rate between 0 and 1, and 1 unit or more.")
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.hidden = hidden
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.optimiser = GatedRule(hidden, inner_lr)

    def start(self, support: Examples) -> State:
        return self.shared_start(support)

    def rate(self) -> Any:
        own = dict(self.optimiser.named_parameters())
        return {name: own for name, _ in self.net.named_parameters()}

    def still(self, tasks: int) -> State:
        return self.optimiser.memory(tasks, sum(p.numel() for p in self.net.parameters()))

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        return apply_per_task(self.net, {k: w for k, w in weights.items() if k not in MEMORY}, x, weight)
