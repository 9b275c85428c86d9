"""How often a class must be shown: accuracy at the first, second, ... presentation of a class in a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import Source, Split, generator
from quickstudy.core.task import Examples, join_rows
from quickstudy.evaluate import BLOCK, check_tasks, cut, device_of, draw, dtype_of, evaluating, name_of, ready
from quickstudy.inner.sequence import in_turn, presentation, shuffled
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.scores import interval


@dataclass(frozen=True)
class Presentations:
    """How often one learner was right, presentation by presentation.

    right: for the 1st, 2nd, ... presentation of a class, the share of right answers among the classes of each task that
    were shown so often, (presentation, task). Equal source, split and seed make the same sequences for every learner.
    """

    learner: str
    source: str
    split: str
    seed: int
    right: list[list[float]]

    @property
    def tasks(self) -> int:
        """How many sequences there were."""
        return len(self.right[0])

    def mean(self, number: int) -> float:
        """Accuracy at a presentation, counted from 1."""
        return float(np.mean(self.right[number - 1]))

    def interval(self, number: int) -> float:
        """Half the width of its 95 % t-interval, the sequences being the unit."""
        return interval(self.right[number - 1])


def by_presentation(
    learner: MetaLearner,
    source: Source,
    split: Split = "test",
    tasks: int = 600,
    seed: int = 0,
    name: str | None = None,
    watch: Callable[[int], object] | None = None,
) -> Presentations:
    """Show a learner one sequence of rows a task, and ask it for the class of each row before its label is told
    (Santoro et al. 2016, arXiv 1605.06065, section 4.1).

    Support and query of a task, drawn as `evaluate` draws them, are one sequence in random order. A learner that
    answers in sequence (mann, snail, fast_weights) does so; any other adapts to the rows before, and then never names a
    class that it was not shown: it is wrong at nearly every first presentation. `watch` is called with the number of
    sequences done. The learner and the global random state are left as they were.

    Raises UserError for a learner of real values, what `evaluate` refuses, and tasks that show their classes more often
    than others do.
    """
    learner = ready(learner, source)
    objective = learner.objective
    if not isinstance(objective, Classification):
        raise UserError(
            f"{name_of(learner, 'learner')} answers with real values: presentations are those of a class; choose a "
            "learner and tasks of classification."
        )
    check_tasks(split, tasks)
    found: list[Tensor] = []
    for index, block in enumerate(draw(source, split, tasks, seed)):
        with evaluating(learner, generator(seed, split, "presentations", index).initial_seed()):
            rows = shuffled(join_rows(*block))
            for part in cut(block._replace(query=rows), None, device_of(learner), dtype_of(learner)):
                found.append(shares(objective, part.query, _answers(learner, part.query)))
        if watch is not None:
            watch(min(len(found) * BLOCK, tasks))
    if len({len(share) for share in found}) > 1 or any(share.isnan().any() for share in found):
        raise UserError(
            f"some tasks of {name_of(source, 'tasks')} show their classes more often than others: give shot and query "
            "as numbers, and imbalance 0."
        )
    right = torch.cat(found, 1).tolist()
    return Presentations(name or name_of(learner, "learner"), name_of(source, "tasks"), split, seed, right)


def shares(objective: Classification, rows: Examples, prediction: Tensor) -> Tensor:
    """The share of right answers at the 1st, 2nd, ... presentation of a class: (presentation, task).

    rows in the order of the sequence; prediction (task, n, way). NaN where no class of a task was shown that often.

    >>> y = torch.tensor([[0, 1, 1, 0]])
    >>> answers = torch.eye(2)[torch.tensor([[0, 0, 1, 0]])]
    >>> shares(Classification(2), Examples(y, y, torch.ones(1, 4)), answers)
    tensor([[0.5000],
            [1.0000]], dtype=torch.float64)
    """
    number = presentation(objective, rows)
    right = (prediction.argmax(-1) == rows.y).double()
    at = [number == k for k in range(1, int(number.max()) + 1)]
    return torch.stack([(right * here).sum(1) / here.sum(1) for here in at])


def _answers(learner: MetaLearner, rows: Examples) -> Tensor:
    return learner.sequence_predictions(*rows) if isinstance(learner, InSequence) else in_turn(learner, rows)
