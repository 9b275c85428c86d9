"""Tasks drawn ahead are the tasks of their steps, whenever they are drawn."""

from __future__ import annotations

import pytest
import torch

from quickstudy.ahead import MOST, ROOM, Ahead
from quickstudy.core.task import Task, examples
from quickstudy.tasks.functions import Sinusoid


def numbered(step: int, rows: int = 1) -> Task:
    """A task that says which step it is of."""
    x = torch.full((1, rows, 1), float(step))
    return Task(examples(x, x), examples(x, x))


def test_every_step_has_its_own_tasks():
    source = Sinusoid()
    steps = range(5, 5 + 2 * MOST + 3)
    found = list(Ahead(lambda step: source.sample("train", 3, source.rng(0, "train", step)), steps))
    assert len(found) == len(steps)
    for step, tasks in zip(steps, found, strict=True):
        alone = source.sample("train", 3, source.rng(0, "train", step))
        assert torch.equal(tasks.query.y, alone.query.y) and torch.equal(tasks.support.x, alone.support.x)


def test_small_tasks_are_drawn_in_a_row_and_large_ones_when_they_are_needed():
    for rows, together in ((1, MOST), (ROOM // (24 * 3), 3), (ROOM, 1)):
        drawn: list[int] = []
        tasks = iter(Ahead(lambda step, n=rows, d=drawn: (d.append(step), numbered(step, n))[1], range(MOST + 5)))
        counts = []
        for _ in range(MOST + 5):
            next(tasks)
            counts.append(len(drawn))
        assert counts[0] == together and counts[together - 1] == together < counts[together]
        assert drawn == list(range(MOST + 5))


def test_a_draw_that_fails_does_so_at_its_own_step():
    tried: list[int] = []

    def draw(step: int) -> Task:
        tried.append(step)
        if step == 3:
            raise ValueError("step 3")
        return numbered(step)

    tasks = iter(Ahead(draw, range(10)))
    assert [int(next(tasks).query.y) for _ in range(3)] == [0, 1, 2] and tried == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="step 3"):
        next(tasks)


def test_looking_ahead_changes_no_step_and_fails_at_none_but_its_own():
    tried: list[int] = []

    def draw(step: int) -> Task:
        tried.append(step)
        if step == 3 and tried.count(3) == 1:
            raise ValueError("not yet")
        return numbered(step, ROOM)

    ahead, found = Ahead(draw, range(5)), []
    for tasks in ahead:
        found.append(int(tasks.query.y[0, 0]))
        for _ in range(2):
            ahead.look()
            assert len(ahead.waiting) <= 1
    assert found == [0, 1, 2, 3, 4] and tried == [0, 1, 2, 3, 3, 4]
