"""Small tasks made from nothing but an objective and the shape of a row."""

from __future__ import annotations

import torch

from quickstudy.core.objective import Classification, Objective
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, Task


def synthetic_tasks(
    objective: Objective,
    x_shape: tuple[int, ...],
    tasks: int = 3,
    shot: int = 3,
    query: int = 2,
    ragged: bool = False,
    seed: int = 0,
    description_shape: tuple[int, ...] = (),
) -> Task:
    """Gaussian blobs, one a class, or random sine waves where the targets are real; float64.

    shot, query: rows a class (for regression, `shot` and `query` rows times three).
    ragged: task 1 gets fewer rows than the rest and, from three classes on, one class less.
    description_shape: for zero-shot tasks, whose support is one row of this shape a class, a fixed map of its centre.

    >>> task = synthetic_tasks(Classification(3), (4,))
    >>> task.support.x.shape, task.query.y[0].tolist()
    (torch.Size([3, 9, 4]), [0, 0, 1, 1, 2, 2])
    """
    rng = generator(seed, "synthetic")
    if isinstance(objective, Classification):
        centres = 1.5 * torch.randn(tasks, objective.way, *x_shape, generator=rng, dtype=torch.float64)
        if description_shape:
            support = _described(centres, description_shape, ragged, rng)
        else:
            support = _blobs(centres, shot, ragged, True, rng)
        return Task(support, _blobs(centres, query, ragged, False, rng))
    slope = torch.randn(tasks, _size(x_shape), _targets(objective), generator=rng, dtype=torch.float64)
    phase = 3 * torch.rand(tasks, 1, _targets(objective), generator=rng, dtype=torch.float64)
    return Task(
        _waves(slope, phase, x_shape, 3 * shot, ragged, rng),
        _waves(slope, phase, x_shape, 3 * query, ragged, rng),
    )


def pooled_rows(tasks: Task) -> Task:
    """The rows of all tasks as one task, which is what pooled learners are trained on."""

    def flat(part: Examples) -> Examples:
        return Examples(*(t.flatten(0, 1).unsqueeze(0) for t in (part.x, part.y, part.weight)))  # type: ignore

    return Task(flat(tasks.support), flat(tasks.query))


def _blobs(centres: torch.Tensor, rows: int, ragged: bool, support: bool, rng: torch.Generator) -> Examples:
    tasks, way = centres.shape[:2]
    x = centres.repeat_interleave(rows, 1)
    x = x + torch.randn(x.shape, generator=rng, dtype=torch.float64)
    y = torch.arange(way).repeat_interleave(rows).expand(tasks, -1).clone()
    weight = torch.ones(y.shape, dtype=torch.float64)
    if ragged and tasks > 1:
        if support and rows > 1:
            weight[1, 0] = 0.0
        if way > 2:
            weight[1, y[1] == way - 1] = 0.0
    return Examples(x, y, weight)


def _described(
    centres: torch.Tensor, shape: tuple[int, ...], ragged: bool, rng: torch.Generator
) -> Examples:
    tasks, way = centres.shape[:2]
    into = torch.randn(_size(tuple(centres.shape[2:])), _size(shape), generator=rng, dtype=torch.float64)
    rows = (centres.flatten(2) @ into).tanh().unflatten(-1, shape)
    y = torch.arange(way).expand(tasks, -1).clone()
    weight = torch.ones(y.shape, dtype=torch.float64)
    if ragged and tasks > 1 and way > 2:
        weight[1, way - 1] = 0.0
    return Examples(rows, y, weight)


def _waves(
    slope: torch.Tensor,
    phase: torch.Tensor,
    x_shape: tuple[int, ...],
    rows: int,
    ragged: bool,
    rng: torch.Generator,
) -> Examples:
    x = torch.randn(len(slope), rows, slope.shape[1], generator=rng, dtype=torch.float64)
    y = torch.sin(x @ slope + phase)
    weight = torch.ones(y.shape[:2], dtype=torch.float64)
    if ragged and len(slope) > 1:
        weight[1, -1] = 0.0
    return Examples(x.reshape(len(slope), rows, *x_shape), y, weight)


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _targets(objective: Objective) -> int:
    return int(getattr(objective, "y_size", objective.size))
