"""What a task says of rows, ready for JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask
from quickstudy.questions.nearest import nearest
from quickstudy.questions.trust import Trust, intervals, probabilities, sets, unlike
from quickstudy.serve.entry import Entry
from quickstudy.serve.limits import Refused


class Answer(NamedTuple):
    """The columns of an answer, an entry for each row; None for what was not asked or does not fit the kind of task."""

    version: int
    classes: list[str] | None = None
    labels: list[str] | None = None
    probabilities: list[list[float]] | None = None
    values: list[list[float]] | None = None
    deviations: list[list[float]] | None = None
    sets: list[list[str]] | None = None
    low: list[list[float]] | None = None
    high: list[list[float]] | None = None
    note: str | None = None
    nearest: list[list[int]] | None = None

    def trusted(self, task: AdaptedTask, x: Tensor, trust: Trust, level: float) -> Answer:
        """This answer with calibrated probabilities and sets, or with intervals."""
        note = unlike(task, trust) or None
        if not task.classes:
            low, high = (_finite(end) for end in intervals(task, x, trust, level))
            return self._replace(low=low, high=high, note=note)
        odds = _finite(probabilities(task, x, trust))
        return self._replace(probabilities=odds, sets=sets(task, x, trust, level), note=note)

    def card(self) -> dict[str, Any]:
        """What is not None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def answered(entry: Entry, prediction: Tensor) -> Answer:
    """An answer of the learner's predictions (n, size)."""
    task = entry.task
    if task.classes:
        odds = task.as_probabilities(prediction)
        labels = [task.classes[i] for i in odds.argmax(-1).tolist()]
        return Answer(entry.version, task.classes, labels, _finite(odds))
    values, deviations = task.as_values(prediction)
    return Answer(
        entry.version, values=_finite(values), deviations=None if deviations is None else _finite(deviations)
    )


def nearest_rows(task: AdaptedTask, known: Tensor, x: Tensor, most: int) -> list[list[int]]:
    """The numbers of the examples nearest to each row, nearest first."""
    return nearest(task, known, x, most).tolist()


def _finite(found: Tensor) -> list[list[float]]:
    if not bool(torch.isfinite(found).all()):
        raise Refused(422, "the learner's answer is not finite: give rows more like those that it was trained on.")
    return found.tolist()
