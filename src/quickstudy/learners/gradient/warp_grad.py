"""WarpGrad: gradient descent in a space that warp layers, learnt and never adapted, bend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.descent import descent_path, last
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net
from quickstudy.nets.warped import Warped, warp_layers


class WarpGrad(FineTuning):
    """Warped gradient descent (Flennerhag, Rusu, Pascanu, Visin, Yin, Hadsell 2020, arXiv 1909.00025).

    theta_k+1 = theta_k - inner_lr * grad_theta L_support(theta_k; omega): warp layers omega stand between the layers
    of the network, so that gradients come through their Jacobians. Each is learnt by the outer loop:

        omega by  mean over k of L_query(theta_k - inner_lr * grad L_support(theta_k; omega); omega), theta_k constants;
        theta_0 by  L_query(theta_K; omega), omega a constant, as in MAML (the paper's Warp-MAML).

    So nothing but theta_0 is differentiated through more than one step. first_order: theta_0 as in first-order MAML,
    omega with the step's end as a constant (the paper's approximate objective). Warp layers are the identity at first,
    where it is MAML. In training, `meta_loss` has the value of the second line; with one step its gradient is that
    value's derivative (`exact_gradient`).

    state: the adapted weights (task, *shape) without the warp layers, for classification seen (task, way). `prior`:
    descent goes on from there. eval_steps, memory: as in MAML.
    Departures: warp layers are linear (a map of the units of an mlp or a projection, a 3x3 convolution in a conv4),
    where the paper's may be any network; every theta_k on the way is used once, none is kept for later.

    Raises UserError for a network that is none of these three.
    """

    papers = ("flennerhag2020warpgrad",)
    choose = (
        "As MAML with many inner steps: how gradients are bent is learnt step by step and not through all of them; "
        "with first_order nothing grows with their number."
    )
    cost = "a few gradient steps"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
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
        self.warps = warp_layers(net)

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        return super().exact_gradient and self.inner_steps <= 1

    def start(self, support: Examples) -> State:
        return {f"net.{name}": w for name, w in self.shared_start(support).items()}

    def rate(self) -> Any:
        return {f"net.{name}": self.inner_lr for name, _ in self.net.named_parameters()}

    def still(self, tasks: int) -> State:
        return {f"warps.{name}": w for name, w in task_weights(self.warps, tasks).items()}

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        return apply_per_task(Warped(self.net, self.warps), weights, x, weight)

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training or not self.inner_steps:
            return super().meta_loss(tasks)
        support, query = tasks
        with torch.no_grad():
            way = list(self.path(support, self.inner_steps - 1))
        ends = (last(self.path(support, 1, prior=state)) for state in way)
        bent = [self.objective.loss(self.predict(end, query.x, query.weight), query) for end in ends]
        by_warps = torch.stack(bent).mean(0)

        weights, extra = self.begin(support, None)
        warps = {name: w.detach() for name, w in self.still(support.tasks).items()}
        options = (self.inner_steps, self.rate(), self.first_order, self.memory)
        end = last(descent_path(self.inner_loss(extra), {**weights, **warps}, support, *options))
        value = self.objective.loss(self._hide(self.output(end, query.x, query.weight), extra), query)
        return value + by_warps - by_warps.detach()
