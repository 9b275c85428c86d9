"""CAVIA: one network for all tasks, and a small context that is found for each."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import MLP, Conv4, Net, Projection
from quickstudy.nets.film import modulated


class CAVIA(FineTuning):
    """Fast context adaptation via meta-learning (Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, arXiv 1810.03642).

    phi = 0, then phi <- phi - inner_lr * grad_phi L_support(f(x, phi)), `inner_steps` times; the network f is the
    same for all tasks and learnt by the outer loop alone. How phi comes in:

        mlp:    joined to the inputs, W [x, phi] + b, which is a bias b + W_phi phi of each task's own;
        conv4:  FiLM in the third block, (1 + G phi) z + B phi on its normalised channels z: a scale and a shift of
                each task's own. The paper's FiLM layer has biases too, which the norm's scale and shift are here;
        projection: FiLM in the same way on what its last layer reads.

    With a context of size 0 nothing is adapted; by default it has the paper's, 5 for values and 100 for classes. state:
    context (task, context), and nothing of the network; for classification seen (task, way). `prior`: descent goes on
    from its context. first_order, eval_steps, memory: as in MAML.

    Raises UserError for a negative size, or a network that is none of these.

    >>> import quickstudy as qs
    >>> cavia = CAVIA(qs.nets.MLP((1,), out=1), qs.Regression(), context=4)
    >>> support = qs.examples(torch.randn(3, 10, 1), torch.randn(3, 10, 1))
    >>> cavia.adapt(support)["context"].shape
    torch.Size([3, 4])
    """

    papers = ("zintgraf2019cavia",)
    choose = (
        "As MAML where tasks differ in a few numbers (amplitude, phase, a goal): what is kept of a task is one short "
        "vector, which can be looked at, and few examples do not overfit it."
    )
    cost = "a few gradient steps of one vector"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        context: int | None = None,
        inner_steps: int = 2,
        inner_lr: float = 1.0,
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        if context is None:
            context = 100 if isinstance(objective, Classification) else 5
        if context < 0:
            raise UserError(f"context is {context}: give the number of context parameters, 0 or more.")
        self.net = net
        self.objective = objective
        self.context = context
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        units, inputs = self._units()
        bound = 1 / math.sqrt(max(inputs + context, 1))
        self.entry = nn.Parameter(torch.empty(units, context).uniform_(-bound, bound))

    def _units(self) -> tuple[int, int]:
        """How many numbers the context decides, and how many inputs it stands beside."""
        if isinstance(self.net, MLP):
            layer = self.net.layers[0]
            assert isinstance(layer, nn.Linear)
            return layer.out_features, layer.in_features
        if isinstance(self.net, Conv4):
            return 2 * self.net.channels, 0
        if isinstance(self.net, Projection):
            return 2 * math.prod(self.net.x_shape), 0
        name = type(self.net).__name__
        raise UserError(
            f"cavia does not know where a context comes into {name}: give it an mlp, a projection or a conv4."
        )

    def start(self, support: Examples) -> State:
        return {"context": self.entry.new_zeros(support.tasks, self.context)}

    def rate(self) -> Any:
        return {"context": self.inner_lr}

    def still(self, tasks: int) -> State:
        return {"entry": self.entry.expand(tasks, *self.entry.shape), **task_weights(self.net, tasks)}

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        own = {k: w for k, w in weights.items() if k not in ("context", "entry")}
        moved = torch.bmm(weights["entry"], weights["context"].unsqueeze(-1)).squeeze(-1)
        if isinstance(self.net, MLP):
            own["layers.0.bias"] = own["layers.0.bias"] + moved
            return apply_per_task(self.net, own, x, weight)
        gain, shift = 1 + moved[:, : moved.shape[1] // 2], moved[:, moved.shape[1] // 2 :]
        if isinstance(self.net, Conv4):
            own = modulated(own, ["norms.2"], [gain], [shift])
        else:  # of gain * h + shift a linear layer makes what one of other weights makes of h
            own["last.bias"] = own["last.bias"] + torch.bmm(own["last.weight"], shift.unsqueeze(-1)).squeeze(-1)
            own["last.weight"] = own["last.weight"] * gain.unsqueeze(1)
        return apply_per_task(self.net, own, x, weight)
