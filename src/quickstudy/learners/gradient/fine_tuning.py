"""Adaptation by gradient steps on the support: what its methods share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.descent import descent_path, last
from quickstudy.nets import Net


class FineTuning(MetaLearner):
    """Gradient descent on the support loss, starting from `start`, with weights of each task's own.

    The state holds the adapted weights, (task, *shape), and for classification which classes were
    seen. `prior`: descent goes on from there.
    """

    # running averages of the initialisation do not fit weights that move; as published: transductive
    net_norm = "batch"
    net: Net
    objective: Objective
    inner_lr: float
    first_order: bool = False
    memory: str = "store"

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many inner steps `adapt` takes."""

    @abstractmethod
    def start(self, support: Examples) -> State:
        """The weights before the first step, (task, *shape)."""

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """Predictions with the given weights."""
        return apply_per_task(self.net, weights, x, weight)

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps."""
        weights = self.start(support) if prior is None else {k: v for k, v in prior.items() if k != "seen"}
        extra: State = {}
        if isinstance(self.objective, Classification):
            seen = self.objective.seen(support)
            extra = {"seen": seen if prior is None else torch.maximum(seen, prior["seen"])}

        def loss(weights: State, support: Examples) -> Tensor:
            prediction = self.output(weights, support.x, support.weight)
            return self.objective.loss(self._hide(prediction, extra), support)

        options = (steps, self.inner_lr, self.first_order, self.memory)
        for moved in descent_path(loss, weights, support, *options):
            yield {**moved, **extra}

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return last(self.path(support, self.steps, prior))

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        weights = {k: v for k, v in state.items() if k != "seen"}
        return self._hide(self.output(weights, x, weight), state)

    def _hide(self, prediction: Tensor, state: State) -> Tensor:
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(prediction, state["seen"])
        return prediction

    def shared_start(self, support: Examples) -> State:
        """The network's own parameters as every task's start."""
        return task_weights(self.net, support.tasks)
