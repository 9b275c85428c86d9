"""Adaptation by gradient steps on the support: what its methods share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, Objective
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.descent import Loss, Rule, descent_path, downhill, last
from quickstudy.inner.memory import Plan
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
    inner_steps: int
    eval_steps: int | None = None
    first_order: bool = False
    memory: str = "store"

    @property
    def descends(self) -> bool:  # type: ignore[override]
        return self.steps > 0

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        return not self.constant_slopes and Plan.of(self.memory).exact

    @property
    def steps(self) -> int:
        """How many inner steps `adapt` takes."""
        return self.inner_steps if self.training or self.eval_steps is None else self.eval_steps

    @abstractmethod
    def start(self, support: Examples) -> State:
        """The weights before the first step, (task, *shape)."""

    rule: Rule = staticmethod(downhill)
    """What a step makes of the gradient."""

    def rate(self) -> Any:
        """The inner rate: one, or one a weight by name, or a list of these, one a step (inner/descent.py)."""
        return self.inner_lr

    def still(self, tasks: int) -> State:
        """Weights (task, *shape) that the loss meets, that no step moves and that are no part of the state."""
        return {}

    @property
    def constant_slopes(self) -> bool:
        """Whether inner gradients are constants to the outer one."""
        return self.first_order

    def output(self, weights: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """Predictions with the given weights."""
        return apply_per_task(self.net, weights, x, weight)

    def begin(self, support: Examples, prior: State | None) -> tuple[State, State]:
        """The weights before the first step, and what a state holds beside them: the classes seen."""
        weights = self.start(support) if prior is None else {k: v for k, v in prior.items() if k != "seen"}
        extra = self.seen(support)
        return weights, extra if prior is None else {k: torch.maximum(v, prior[k]) for k, v in extra.items()}

    def seen(self, support: Examples) -> State:
        """Which classes the support shows, where there are any: {"seen": (task, way)}, or nothing."""
        return {"seen": self.objective.seen(support)} if isinstance(self.objective, Classification) else {}

    def inner_loss(self, extra: State) -> Loss:
        """The loss that the steps go down; `extra` is what the state holds beside weights."""

        def loss(weights: State, support: Examples) -> Tensor:
            prediction = self.output(weights, support.x, support.weight)
            return self.objective.loss(self._hide(prediction, extra), support)

        return loss

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps."""
        weights, extra = self.begin(support, prior)
        all_weights = {**weights, **self.still(support.tasks)}
        options = (steps, self.rate(), self.constant_slopes, self.memory, self.rule)
        for moved in descent_path(self.inner_loss(extra), all_weights, support, *options):
            yield {**{k: moved[k] for k in weights}, **extra}

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return last(self.path(support, self.steps, prior))

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        weights = {k: v for k, v in state.items() if k != "seen"}
        weights.update(self.still(len(next(iter(state.values())))))
        return self._hide(self.output(weights, x, weight), state)

    def _hide(self, prediction: Tensor, state: State) -> Tensor:
        if isinstance(self.objective, Classification):
            return self.objective.hide_unseen(prediction, state["seen"])
        return prediction

    def shared_start(self, support: Examples) -> State:
        """The network's own parameters as every task's start."""
        return task_weights(self.net, support.tasks)
