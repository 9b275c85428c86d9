"""HSML: the initialisation is tailored to the cluster of tasks that a task belongs to."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Objective
from quickstudy.core.task import Examples, State, Task
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net
from quickstudy.nets.soft_tree import SoftTree
from quickstudy.nets.task_encoder import TaskEncoder


class HSML(FineTuning):
    """Hierarchically structured meta-learning (Yao, Wei, Huang, Li 2019, arXiv 1905.05301).

    g = the mean code of the support's rows (nets/task_encoder.py), h = where a tree of soft clusters takes g
    (nets/soft_tree.py), o = sigmoid(W [g, h] + b), one gate a weight;

        the task starts at theta * o and takes `inner_steps` gradient steps, as MAML;
        outer loss = L_query + reconstruction * (what the codes lose of the support's rows).

    With one cluster and a gate that is open (o = 1) it is MAML. state: as MAML's, weights (task, *shape).
    levels: clusters from the first level to the last, which has one. size: of g and h. gates: "weight" as
    published, or "unit" for one gate a row of each tensor, which large networks need: W has 2 size columns a gate.
    `prior`: descent goes on from there; the support is then not encoded. eval_steps, first_order, memory: as in MAML.

    Departures: the gate starts nearly open (b = 3), so that training starts as MAML's; the mean of rows where the
    paper sums what is lost; the pooling autoencoder alone (its recurrent one depends on the order of the rows);
    no clusters are added in training (its section 4.4).

    >>> import quickstudy as qs
    >>> hsml = HSML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    >>> support = qs.examples(torch.randn(2, 10, 1), torch.randn(2, 10, 1))
    >>> hsml.clusters(support).shape
    torch.Size([2, 4])
    """

    papers = ("yao2019hsml",)
    choose = "As MAML where tasks come from families that share some: one start, gated by what the support looks like."
    cost = "one pass and a few gradient steps"
    net_output = "objective"

    def __init__(
        self,
        net: Net,
        objective: Objective,
        levels: tuple[int, ...] = (4, 2, 1),
        size: int = 32,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        reconstruction: float = 0.01,
        gates: Literal["weight", "unit"] = "weight",
        first_order: bool = False,
        eval_steps: int | None = None,
        memory: str = "store",
    ):
        super().__init__()
        if gates not in ("weight", "unit"):
            raise UserError(f"gates is {gates!r}: choose 'weight' or 'unit'.")
        if size < 1 or not reconstruction >= 0:
            raise UserError(f"size is {size} and reconstruction {reconstruction}: give 1 or more, and 0 or more.")
        self.net = net
        self.objective = objective
        self.levels = levels
        self.size = size
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.reconstruction = reconstruction
        self.gates = gates
        self.first_order = first_order
        self.eval_steps = eval_steps
        self.memory = memory
        self.encoder = TaskEncoder(net.x_shape, objective, size)
        self.tree = SoftTree(size, levels)
        self.gate = nn.Linear(2 * size, sum(map(math.prod, self._gate_shapes().values())))
        nn.init.constant_(self.gate.bias, 3.0)

    def _gate_shapes(self) -> dict[str, tuple[int, ...]]:
        def shape(p: Tensor) -> tuple[int, ...]:
            return tuple(p.shape) if self.gates == "weight" else (*p.shape[:1], *(1 for _ in p.shape[1:]))

        return {name: shape(p) for name, p in self.net.named_parameters()}

    def start(self, support: Examples) -> State:
        code, _ = self.encoder(support)
        opened = self.gate(torch.cat([code, self.tree(code)], -1)).sigmoid()
        shapes = self._gate_shapes()
        parts = zip(shapes.items(), opened.split([math.prod(s) for s in shapes.values()], 1), strict=True)
        gates = {k: part.reshape(-1, *shape) for (k, shape), part in parts}
        return {k: w * gates[k] for k, w in self.shared_start(support).items()}

    def clusters(self, support: Examples) -> Tensor:
        """How far each task belongs to each cluster of the first level: (task, clusters)."""
        return self.tree.leaves(self.encoder(support)[0])

    def meta_loss(self, tasks: Task) -> Tensor:
        loss = super().meta_loss(tasks)
        return loss + self.reconstruction * self.encoder(tasks.support)[1] if self.training else loss
