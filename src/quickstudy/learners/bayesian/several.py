"""Descent of several sets of weights a task: what mixtures, particles and draws share."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.descent import Loss, descent_path
from quickstudy.inner.members import combined, fold, repeat, unfold
from quickstudy.learners.gradient.fine_tuning import FineTuning

BESIDE = ("seen", "responsibility")
"""What a state holds that is no weight."""


class Several(FineTuning):
    """Gradient descent of several sets of weights a task, each as MAML's alone; one prediction of them all.

    The state holds the adapted weights, (task, members, *shape), for classification which classes were
    seen, (task, way), and where a method says what each member counts for, responsibility (task, members).
    `start` gives weights (task, members, *shape). `prior`: descent goes on from there, member by member.
    """

    def descent(self, loss: Loss, weights: State, rows: Examples, members: int, steps: int) -> Iterator[State]:
        """The weights after 0, 1, ..., `steps` inner steps; every member is a task of its own here."""
        return descent_path(loss, weights, rows, steps, self.inner_lr, self.first_order, self.memory)

    def path(self, support: Examples, steps: int, prior: State | None = None) -> Iterator[State]:
        """The states after 0, 1, ..., `steps` inner steps."""
        before = None if prior is None else {k: v for k, v in prior.items() if k != "responsibility"}
        weights, extra = self.begin(support, before)
        members = count(weights)
        loss, rows = self.inner_loss(repeat(extra, members)), repeat(support, members)
        for moved in self.descent(loss, fold(weights), rows, members, steps):
            yield {**unfold(moved, members), **extra}

    def answers(self, state: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """What each member predicts: (task, members, n, size)."""
        weights = self.weights(state)
        members = count(weights)
        rows, row_weight = repeat(x, members), None if weight is None else repeat(weight, members)
        shown = repeat({k: v for k, v in state.items() if k == "seen"}, members)
        return unfold(self._hide(self.output(fold(weights), rows, row_weight), shown), members)

    def losses(self, state: State, rows: Examples) -> Tensor:
        """The loss of each member on its task's rows: (task, members)."""
        answers = self.answers(state, rows.x, rows.weight)
        members = answers.shape[1]
        return unfold(self.objective.loss(fold(answers), repeat(rows, members)), members)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        # a class that every member hides is hidden in the mixture
        return combined(self.objective, self.answers(state, x, weight), state.get("responsibility"))

    @staticmethod
    def weights(state: State) -> State:
        """The weights of a state, without what stands beside them."""
        return {k: v for k, v in state.items() if k not in BESIDE}


def count(weights: State) -> int:
    """How many members there are: weights are (task, members, *shape)."""
    return next(iter(weights.values())).shape[1]
