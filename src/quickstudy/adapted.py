"""One task as it was learnt: labels, probabilities and values of new rows; of one task, or of many in one call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy import checkpoint as files
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, values_of
from quickstudy.core.reader import Reader
from quickstudy.core.source import check_finite
from quickstudy.core.task import State, concatenate
from quickstudy.evaluate import dtype_of, evaluating
from quickstudy.together import alike, bucket, filled, shapes

ROWS = 512
"""Rows predicted at once, where rows do not look at each other."""


@dataclass(frozen=True)
class AdaptedTask:
    """A learner together with what it learnt of one task.

    classes: the names of the classes, in the order of the columns of `probabilities`; empty for
    regression. card: where it came from, as JSON holds it. reader: reads the files to predict, where the source of the
    training tasks had one of its own (see `reader_for`).
    """

    learner: MetaLearner
    state: State
    classes: list[str]
    card: dict[str, Any]
    reader: Reader | None = None

    @classmethod
    def of(cls, trained: Checkpoint, state: State, card: dict[str, Any]) -> AdaptedTask:
        """A task as it was kept: its state and its card, with the learner that it was adapted with."""
        classes = [str(name) for name in card.get("classes", [])]
        learner = trained.learner.for_way(len(classes)) if classes else trained.learner
        return cls(learner, state, classes, card, trained.reader)

    def predict(self, x: Tensor) -> Tensor:
        """The learner's raw predictions (n, size) for rows x (n, *x_shape).

        Raises UserError for rows of another shape, or not finite.
        """
        return predict_all([self], [self.check(x)])[0]

    def check(self, x: Tensor) -> Tensor:
        """Rows x (n, *x_shape) in the type of the learner.

        Raises UserError for rows of another shape, or not finite.
        """
        check_rows(self.learner, self.card.get("checkpoint") or {}, x, "the input", asked=True)
        return x.to(dtype_of(self.learner) or x.dtype)

    def probabilities(self, x: Tensor) -> Tensor:
        """The probability of every class, (n, class), for rows x (n, *x_shape).

        Raises UserError for a regression task.
        """
        return self.as_probabilities(self.predict(x))

    def as_probabilities(self, prediction: Tensor) -> Tensor:
        """What `predict` gave as probabilities; see `probabilities`."""
        if not isinstance(self.learner.objective, Classification):
            raise UserError("a regression task has no classes: ask for `values`.")
        return prediction.softmax(-1)[:, : len(self.classes)]

    def labels(self, x: Tensor) -> list[str]:
        """The most probable class of every row."""
        return [self.classes[i] for i in self.probabilities(x).argmax(-1).tolist()]

    def values(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The predicted values and their standard deviations (None where the learner gives none), both (n, y_size).

        Raises UserError for a classification task.
        """
        return self.as_values(self.predict(x))

    def as_values(self, prediction: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `predict` gave as values and deviations; see `values`."""
        objective = self.learner.objective
        if isinstance(objective, Classification):
            raise UserError("a classification task has no values: ask for `labels` or `probabilities`.")
        mean, deviation = values_of(objective, prediction.unsqueeze(0))
        return mean[0], None if deviation is None else deviation[0]

    def save(self, path: str | Path) -> None:
        """Save the state alone: small, since the learner stays in its own checkpoint.

        Raises UserError if the file cannot be written.
        """
        files.save_adapted(path, self.state, **self.card)


def predict_all(tasks: Sequence[AdaptedTask], rows: Sequence[Tensor]) -> list[Tensor]:
    """What `AdaptedTask.predict` gives for each task's rows (n, *x_shape), which its `check` gave.

    Tasks of one checkpoint, whose states are alike, are asked in one call: equal to rounding, as `adapt_all` says.
    """
    made: dict[int, Tensor] = {}
    for at in alike([_kin(*one, i) for i, one in enumerate(zip(tasks, rows, strict=True))]):
        made |= zip(at, _predicted([tasks[i] for i in at], [rows[i] for i in at]), strict=True)
    return [made[i] for i in range(len(rows))]


def _kin(task: AdaptedTask, x: Tensor, number: int) -> Hashable:
    origin = task.card.get("checkpoint") or {}
    if len(x) > ROWS or not origin.get("digest"):  # enough for a call of its own; or who knows whose weights
        return number
    return origin["digest"], task.learner.objective.size, shapes(task.state), bucket(len(x)), x.shape[1:], x.dtype


def _predicted(tasks: Sequence[AdaptedTask], rows: Sequence[Tensor]) -> list[Tensor]:
    learner, state = tasks[0].learner, concatenate([task.state for task in tasks])
    (x, weight) = filled(rows) if len(rows) > 1 else (rows[0].unsqueeze(0), None)
    parts = [x] if learner.transductive else x.split(ROWS, 1)
    with evaluating(learner, seed=0):
        out = torch.cat([learner.predict(state, part, weight) for part in parts], 1)
    return [one[: len(x)] for one, x in zip(out, rows, strict=True)]


def row_shape(learner: MetaLearner, card: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of a row that a learner takes, by its card or its network; None where any will do."""
    found = (card.get("spec") or {}).get("x_shape") or getattr(getattr(learner, "net", learner), "x_shape", None)
    return tuple(found) if found is not None else None


def check_rows(learner: MetaLearner, card: Mapping[str, Any], x: Tensor, where: str, asked: bool = False) -> None:
    """Raise UserError for rows that are not of the shape that the learner was trained on, or not finite.

    asked: the rows to predict, which for zero-shot learners are no descriptions.
    """
    shape = row_shape(learner, card)
    if not asked and "zero-shot" in learner.kinds:
        shape = (card.get("spec") or {}).get("description_shape") or getattr(learner, "description_shape", shape)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise UserError(
            f"{where} has rows of shape {tuple(x.shape[1:])} and the learner takes {tuple(shape)}: give such rows."
        )
    check_finite(x, where)
