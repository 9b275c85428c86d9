"""Baseline++: a classifier by cosines, trained on all classes and fitted anew on each task."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.inner.descent import descent_path, last
from quickstudy.inner.neighbours import cosines
from quickstudy.learners.metric.pretrained import Pretrained
from quickstudy.nets import Net


class BaselinePlusPlus(Pretrained):
    """Baseline++ (Chen, Liu, Kira, Wang, Huang 2019, arXiv 1904.04232).

    logit_k(x) = scale cos(f(x), W_k). In training the W_k are of all training classes; on a task the features are
    frozen, and a W of the task's own takes `inner_steps` gradient steps on the loss of the support.

    Departures: W starts at the mean of the unit-length features of each class, where the paper's is random (so with 0
    steps this is the nearest mean by cosine, and nothing is left to chance); every step is on the whole
    support, where theirs are on batches of 4; no weight decay, since only the direction of W matters. `scale` is the
    constant of the authors' code, where it differs by data set.

    `prior`: descent goes on from there, with the new classes at their means. classes: how many classes the train split
    holds; 0 for as many as a task has.
    """

    papers = ("chen2019closer",)
    choose = (
        "The plain baseline with fine-tuning: an ordinary network trained on all classes, and a new last layer a task. "
        "Where tasks come from other data than training did, it is often the one to beat."
    )
    cost = "one pass and 100 gradient steps of a last layer"
    incremental = False  # type: ignore[assignment]

    def __init__(
        self,
        net: Net,
        objective: Classification,
        classes: int = 0,
        inner_steps: int = 100,
        inner_lr: float = 0.01,
        scale: float = 10.0,
    ):
        super().__init__()
        if inner_steps < 0 or not (inner_lr > 0 and scale > 0):
            raise UserError(
                f"inner_steps is {inner_steps}, inner_lr {inner_lr} and scale {scale}: give 0 steps or more, and a "
                "positive rate and scale."
            )
        self.build(net, objective, classes)
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.scale = scale

    @property
    def descends(self) -> bool:  # type: ignore[override]
        return self.inner_steps > 0

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` steps."""
        with torch.no_grad():
            features = self.features(support.x, support.weight)
            sums, counts = class_sums(features, self.objective.one_hot(support))
            weight, seen = F.normalize(prototypes(sums, counts), dim=-1), self.objective.seen(support)
            if prior is not None:
                weight = torch.where(prior["seen"].unsqueeze(-1) > 0, prior["weight"], weight)
                seen = torch.maximum(seen, prior["seen"])

        def loss(weights: State, rows: Examples) -> Tensor:
            return self.objective.loss(self._compared(rows.x, weights["weight"], seen), rows)

        # nothing lies behind frozen features: no graph is kept from step to step
        rows = support._replace(x=features)
        for moved in descent_path(loss, {"weight": weight}, rows, steps, self.inner_lr, first_order=True):
            yield {"weight": moved["weight"].detach(), "seen": seen}

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return last(self.path(support, self.inner_steps, prior))

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self._compared(self.features(x, weight), state["weight"], state["seen"])

    def training_logits(self, features: Tensor) -> Tensor:
        return self.scale * cosines(features, self.head.weight)

    def _compared(self, features: Inputs, centres: Tensor, seen: Tensor) -> Tensor:
        assert isinstance(features, Tensor)
        return self.objective.hide_unseen(self.scale * cosines(features, centres), seen)
