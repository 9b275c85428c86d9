"""Intervals over classes hold what intervals over tasks do not, when many tasks share few classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quickstudy.core.errors import UserError
from quickstudy.evaluate import draw
from quickstudy.questions.units import FEWEST, Units, unit_interval, units_of
from quickstudy.scores import interval
from quickstudy.tasks import Arrays, Sinusoid


def planted(rng: np.random.Generator, classes: int, way: int, tasks: int, spread: float) -> tuple[np.ndarray, Units]:
    """Values of tasks whose classes each have an effect of its own; the mean over all classes is 0."""
    effects = spread * rng.standard_normal(classes)
    members = np.zeros((tasks, classes), bool)
    for row in members:
        row[rng.choice(classes, way, replace=False)] = True
    values = members.astype(float) @ effects / way + 0.5 * rng.standard_normal(tasks)
    return values, Units("class", members)


@pytest.mark.parametrize(("classes", "way", "tasks"), [(12, 3, 200), (20, 5, 300), (30, 1, 200), (60, 5, 200)])
def test_the_interval_over_classes_covers_new_classes(classes: int, way: int, tasks: int) -> None:
    rng = np.random.default_rng(0)
    over_classes, over_tasks = [], []
    for _ in range(300):
        values, units = planted(rng, classes, way, tasks, spread=1.0)
        over_classes.append(abs(values.mean()) <= unit_interval(values, units))
        over_tasks.append(abs(values.mean()) <= interval(values.tolist()))
    assert 0.91 <= np.mean(over_classes) <= 0.985  # the standard error of 0.95 is 0.013
    assert np.mean(over_tasks) < 0.85


def test_without_effects_of_classes_it_is_hardly_wider() -> None:
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(100):
        values, units = planted(rng, 20, 5, 300, spread=0.0)
        ratios.append(unit_interval(values, units) / interval(values.tolist()))
    assert min(ratios) >= 1 and np.mean(ratios) < 1.6


def arrays(classes: int = 40, **episode: int) -> Arrays:
    y = [i % classes for i in range(20 * classes)]
    return Arrays.of(torch.randn(len(y), 2), y, **{"way": 3, "query": 4, **episode})


def test_units_are_the_classes_of_the_tasks_that_are_met() -> None:
    source = arrays()
    units = units_of(source, "test", 45, seed=3)
    assert units.name == "class" and units.members is not None and units.members.shape == (45, 8)
    assert (units.members.sum(1) == 3).all() and units.count == 8
    # the classes can be read off the rows: each row is in one class alone
    pool = source.prepare()
    place = {tuple(row): c for c in range(8) for row in pool.x[pool.rows[pool.splits["test"][c]]].tolist()}
    met = [x for block in draw(source, "test", 45, 3) for x in block.query.x.tolist()]  # type: ignore[union-attr]
    for task, rows in enumerate(met):
        assert {place[tuple(row)] for row in rows} == set(np.flatnonzero(units.members[task]).tolist())


def test_where_units_cannot_be_told_the_task_is_one_and_a_note_says_so() -> None:
    assert units_of(Sinusoid(), "test", 20, 0) == Units("task")
    few = units_of(arrays(15, way=3), "test", 20, 0)
    assert few.name == "task" and few.members is None and "come from 3 classes alone" in few.note
    assert units_of(arrays(5 * FEWEST), "test", 60, 0).name == "class"


def test_values_and_units_must_fit() -> None:
    with pytest.raises(UserError, match="give a value for each task"):
        unit_interval([1.0, 2.0], Units("class", np.ones((3, 7), bool)))
    assert unit_interval([1.0], Units("task")) == float("inf")
