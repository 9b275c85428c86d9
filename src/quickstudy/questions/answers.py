"""What a learner answers to the queries of many tasks, beside what is true: one row of arrays for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quickstudy.calibration import Reliability, bin_sums, reliability
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, GaussianRegression, values_of
from quickstudy.core.source import Source, Split, generator
from quickstudy.core.task import Examples
from quickstudy.evaluate import BLOCK, check_tasks, cut, device_of, draw, dtype_of, evaluating, ready
from quickstudy.left_out import spread


@dataclass(frozen=True)
class Answers:
    """Predictions for the queries of tasks, float64, and the truth.

    out: (task, n, way) logits, -inf for classes that the support does not show; or (task, n, y_size) values.
    deviation: (task, n, y_size), as the learner says it, or how far it was off on left out rows of the support (NaN for
    a task with one row); None for classification. stated: whether the learner said it.
    y: (task, n) or (task, n, y_size); weight: (task, n), 0 for padding.
    way, shot: the smallest and the largest number of classes (0 for regression), and of support rows a class.
    """

    kind: str
    out: np.ndarray
    deviation: np.ndarray | None
    stated: bool
    y: np.ndarray
    weight: np.ndarray
    way: tuple[int, int]
    shot: tuple[int, int]

    def __len__(self) -> int:
        return len(self.out)

    def part(self, which: slice) -> Answers:
        """The answers to some of the tasks."""
        deviation = None if self.deviation is None else self.deviation[which]
        rest = (self.y[which], self.weight[which], self.way, self.shot)
        return Answers(self.kind, self.out[which], deviation, self.stated, *rest)

    @property
    def rows(self) -> list[int]:
        """How many queries each task has."""
        return (self.weight > 0).sum(1).tolist()

    def by_task(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of rows (task, n) as one array a task, without padding."""
        return [row[real] for row, real in zip(values, self.weight > 0, strict=True)]

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """(task, n, way), the logits divided by a temperature."""
        scaled = (self.out - self.out.max(-1, keepdims=True)) / temperature
        odds = np.exp(scaled)
        return odds / odds.sum(-1, keepdims=True)

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """Whether those probabilities can be believed."""
        rows = Examples(torch.zeros(0), torch.from_numpy(self.y), torch.from_numpy(self.weight))
        return reliability(bin_sums(torch.from_numpy(self.out / temperature), rows))


def answers(
    learner: MetaLearner,
    source: Source,
    split: Split,
    tasks: int,
    seed: int = 0,
    watch: Callable[[int], object] | None = None,
) -> Answers:
    """What a learner answers on the tasks that `evaluate` with this split, number and seed meets.

    `watch` is called with the number of tasks done. Raises UserError as `evaluate` does.
    """
    check_tasks(split, tasks)
    learner = ready(learner, source)
    objective = learner.objective
    stated = isinstance(objective, GaussianRegression)
    place = device_of(learner), dtype_of(learner)
    columns: list[tuple[Tensor, ...]] = []
    ways, shots = set(), set()
    for index, block in enumerate(draw(source, split, tasks, seed)):
        with evaluating(learner, generator(seed, "evaluate", index).initial_seed()):
            (part,) = cut(block, None, *place)
            out = learner.predict(learner.adapt(part.support), part.query.x, part.query.weight)
            if isinstance(objective, Classification):
                counts = objective.indicators(part.support.y) & (part.support.weight > 0).unsqueeze(-1)
                shown = counts.sum(1)
                ways |= set((shown > 0).sum(1).tolist())
                shots |= set(shown[shown > 0].tolist())
                out = out.double().masked_fill((shown == 0).unsqueeze(1), -torch.inf)
                deviation = torch.zeros(len(out))
            else:
                ways.add(0)
                shots |= set((part.support.weight > 0).sum(1).tolist())
                out, deviation = values_of(objective, out)
                if deviation is None:
                    deviation = spread(learner, part.support).view(-1, 1, 1).expand_as(out)
        columns.append((out, deviation, part.query.y, part.query.weight))
        if watch is not None:
            watch(min((index + 1) * BLOCK, tasks))
    out, deviation, y, weight = (torch.cat(column).cpu().numpy() for column in zip(*columns, strict=True))
    known = None if objective.kind == "classification" else deviation.astype(np.float64)
    y = y if objective.kind == "classification" else y.astype(np.float64)
    ends = (min(ways), max(ways)), (min(shots), max(shots))
    return Answers(objective.kind, out.astype(np.float64), known, stated, y, weight.astype(np.float64), *ends)
