"""Proto-MAML: MAML whose last layer starts as the prototypical classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, apply_shared
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.inner.memory import Plan
from quickstudy.learners.gradient.fine_tuning import FineTuning
from quickstudy.nets import Net


class ProtoMAML(FineTuning):
    """Proto-MAML (Triantafillou et al. 2020, arXiv 1903.03096, section 3).

    The head starts at W_k = 2 c_k, b_k = -|c_k|^2 (with 0 steps it is ProtoNet), and then encoder and
    head take `inner_steps` gradient steps together. The outer gradient goes through the prototypes.

    Takes any way, since no weight belongs to a class. Departure: the paper's first-order
    approximation is an option here, not the rule.
    """

    papers = ("triantafillou2020metadataset",)
    choose = (
        "Classification with a varying number of classes, where prototypes alone do not bend far enough: starts "
        "as ProtoNet and takes gradient steps."
    )
    cost = "one pass and a few gradient steps"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self,
        net: Net,
        objective: Classification,
        inner_steps: int = 5,
        inner_lr: float = 0.01,
        first_order: bool = False,
        memory: str = "store",
    ):
        super().__init__()
        self.net = net
        self.objective = objective
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.memory = memory

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        return not self.first_order and Plan.of(self.memory).exact

    @property
    def steps(self) -> int:
        return self.inner_steps

    def start(self, support: Examples) -> State:
        features = apply_shared(self.net, support.x, support.weight)
        centres = prototypes(*class_sums(features, self.objective.one_hot(support)))
        head = {"head.weight": 2 * centres, "head.bias": -centres.square().sum(-1)}
        return {**self.shared_start(support), **head}

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        body = {k: v for k, v in weights.items() if not k.startswith("head.")}
        features = apply_per_task(self.net, body, x, weight)
        return torch.baddbmm(
            weights["head.bias"].unsqueeze(1), features, weights["head.weight"].transpose(1, 2)
        )
