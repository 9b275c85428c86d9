"""What a task says of rows, ready for JSON."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask
from quickstudy.answer import Answer
from quickstudy.questions.nearest import nearest
from quickstudy.questions.trust import Trust, intervals, probabilities, sets, unlike
from quickstudy.serve.entry import Entry
from quickstudy.serve.limits import Refused


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


def trusted(answer: Answer, task: AdaptedTask, x: Tensor, trust: Trust, level: float) -> Answer:
    """An answer with calibrated probabilities and sets, or with intervals."""
    note = unlike(task, trust) or None
    if not task.classes:
        low, high = (_finite(end) for end in intervals(task, x, trust, level))
        return replace(answer, low=low, high=high, note=note)
    odds = _finite(probabilities(task, x, trust))
    return replace(answer, probabilities=odds, sets=sets(task, x, trust, level), note=note)


def nearest_rows(task: AdaptedTask, known: Tensor, x: Tensor, most: int) -> list[list[int]]:
    """The numbers of the examples nearest to each row, nearest first."""
    return nearest(task, known, x, most).tolist()


def _finite(found: Tensor) -> list[list[float]]:
    if not bool(torch.isfinite(found).all()):
        raise Refused(422, "the learner's answer is not finite: give rows more like those that it was trained on.")
    return found.tolist()
