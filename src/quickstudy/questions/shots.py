"""The score against the number of examples, on the same tasks with the same questions at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split, generator
from quickstudy.core.task import Examples, Task
from quickstudy.evaluate import Work, check_tasks, draw_block, evaluating, name_of, ready
from quickstudy.questions.forecast import FEWEST, Forecast, forecast
from quickstudy.questions.units import Units, unit_interval, units_of


@dataclass(frozen=True)
class ShotScores:
    """What a learner scored with each number of examples, on every one of the same tasks.

    shots: ascending; of each class, or of each task where `each` says so. measure, sign: accuracy, +1, or mse, -1.
    values: (task, shot). units: what the intervals count. notes: what was left out, and why.
    """

    learner: str
    source: str
    split: str
    seed: int
    each: str
    measure: str
    sign: int
    shots: list[int]
    values: np.ndarray
    units: Units
    notes: list[str] = field(default_factory=list)

    @property
    def errors(self) -> np.ndarray:
        """1 - accuracy, or the squared error, (task, shot)."""
        return 1 - self.values if self.sign > 0 else self.values

    def means(self) -> list[float]:
        """The mean over tasks with each number of examples."""
        return self.values.mean(0).tolist()

    def intervals(self) -> list[float]:
        """Half the width of its 95 % interval over the units."""
        return [unit_interval(column, self.units) for column in self.values.T]

    def covariance(self) -> np.ndarray:
        """Of the means over tasks, (shot, shot): tasks are the same at each, so the scores go together. Where units
        are not tasks, it is scaled so that its diagonal is theirs."""
        own = np.atleast_2d(np.cov(self.values.T)) / len(self.values)
        alone = [unit_interval(column, Units("task")) for column in self.values.T]
        wider = np.array([w / a if a > 0 else 1.0 for w, a in zip(self.intervals(), alone, strict=True)])
        return own * np.outer(wider, wider)

    def forecast(self, seed: int = 0) -> Forecast:
        """The curve behind the scores, in errors.

        Raises UserError where it cannot be fitted.
        """
        return forecast(self.shots, self.errors.mean(0), self.covariance(), seed)

    def score(self, error: float) -> float:
        """The measure where the error is this one."""
        return 1 - error if self.sign > 0 else error


def shot_scores(
    learner: MetaLearner,
    source: Source,
    shots: Sequence[int] = (1, 2, 5, 10),
    tasks: int = 300,
    seed: int = 0,
    split: Split = "test",
    name: str | None = None,
    watch: Callable[[int], object] | None = None,
) -> ShotScores:
    """Score a learner with the first 1, 2, 5, ... examples of each class of the same tasks (or of each task, where the
    source counts the rows of a task).

    The tasks are those of `evaluate` with the largest shot that the source can give; larger ones are noted and left
    out. `watch` is called with the number of tasks done.
    Raises UserError if fewer than three numbers of examples are left, or for zero-shot tasks.
    """
    check_tasks(split, tasks)
    wanted = sorted(set(shots))
    if source.spec.kind == "zero-shot":
        raise UserError("zero-shot tasks show no examples: there is no score against their number.")
    if not hasattr(source, "shot"):
        raise UserError(f"{name_of(source, 'tasks')} does not let the number of examples be chosen: give other tasks.")
    if wanted and wanted[0] < 1:
        raise UserError(f"shots are {wanted}: give whole numbers from 1.")
    ready(learner, source)  # what is wrong with other things than the number of examples is said first
    notes: list[str] = []
    while True:
        if len(wanted) < FEWEST:
            why = notes[-1] if notes else f"shots are {wanted}."
            raise UserError(f"a curve needs {FEWEST} numbers of examples or more ({why.rstrip('.')}): give others.")
        largest = source.reshaped(shot=wanted[-1])
        try:
            work = Work(ready(learner, largest), largest, split, tasks, seed, None)
            first = draw_block(largest, split, 1, seed, 0)
            break
        except UserError as error:
            notes.append(f"{wanted.pop()} examples left out: {error}")
    by_class = bool(source.spec.way) and int((first.support.weight > 0).sum()) > wanted[-1]
    measure, sign = ("accuracy", 1) if source.spec.way else ("mse", -1)
    found: list[list[list[float]]] = []
    for index in range(work.blocks):
        block = draw_block(largest, split, tasks, seed, index)
        row = []
        for shot in wanted:
            with evaluating(work.learner, generator(seed, "evaluate", index).initial_seed()):
                row.append(work.score(fewer(block, shot, source.spec.way if by_class else 0)).values[measure])
        found.append(row)
        if watch:
            watch(sum(len(part[0]) for part in found))
    values = np.concatenate([np.array(row).T for row in found])
    each = "class" if by_class else "task"
    labels = name or name_of(learner, "learner"), name_of(source, "tasks"), split, seed, each, measure, sign
    return ShotScores(*labels, wanted, values, units_of(largest, split, tasks, seed), notes)


def fewer(tasks: Task, shot: int, way: int) -> Task:
    """The same tasks with the first `shot` support rows of each of `way` classes, or of each task if `way` is 0.

    Rows that all tasks lose are cut out; a row that only some lose becomes padding.
    """
    support = tasks.support
    real = support.weight > 0
    if way:
        inside = F.one_hot(support.y, way) * real.unsqueeze(-1)
        place = (inside.cumsum(1) * inside).sum(-1)
    else:
        place = real.cumsum(1)
    kept = real & (place <= shot)
    columns = kept.any(0).nonzero().flatten()

    def cut(values: torch.Tensor) -> torch.Tensor:
        values, inside = values[:, columns], kept[:, columns]
        return values * inside.view(*inside.shape, *[1] * (values.dim() - 2)).to(values.dtype)

    x = {k: cut(v) for k, v in support.x.items()} if isinstance(support.x, dict) else cut(support.x)
    return Task(Examples(x, cut(support.y), cut(support.weight)), tasks.query)
