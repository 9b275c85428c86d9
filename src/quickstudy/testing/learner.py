"""Every check that a learner passes, as a list and as one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.core.task import Task
from quickstudy.testing import declarations, laws
from quickstudy.testing.synthetic import synthetic_tasks


class Check(NamedTuple):
    """One promise and the function that raises ContractError where it is not kept."""

    name: str
    run: Callable[[MetaLearner, Task], None]


def learner_checks() -> list[Check]:
    """Every check of a learner, for `pytest.mark.parametrize` or a loop.

    >>> [check.name for check in learner_checks()][:2]
    ['kinds_are_declared', 'prediction_has_shape']
    """
    functions = [
        declarations.check_kinds_are_declared,
        laws.check_prediction_has_shape,
        declarations.check_loss_is_per_task,
        laws.check_adapt_changes_nothing,
        laws.check_predict_changes_nothing,
        laws.check_predict_twice_is_same,
        laws.check_state_is_tensors,
        laws.check_tasks_never_mix,
        laws.check_works_under_no_grad,
        laws.check_padding_never_counts,
        laws.check_unseen_class_is_lowest,
        declarations.check_transductive_is_declared,
        declarations.check_exchangeable_is_declared,
        declarations.check_incremental_is_declared,
        declarations.check_any_way_is_declared,
        declarations.check_label_permutation,
        declarations.check_descends_is_declared,
        declarations.check_meta_gradient_is_declared,
        declarations.check_describe_and_build,
    ]
    return [Check(f.__name__.removeprefix("check_"), f) for f in functions]


def check_learner(
    learner: MetaLearner,
    tasks: Task | None = None,
    source: Source | None = None,
    x_shape: tuple[int, ...] | None = None,
) -> None:
    """Run every check on a float64 copy of the learner; the learner itself is left alone.

    tasks: a batch of two or more small tasks to check with; else they are sampled from `source`, else
    made up for rows of `x_shape` (by default that of `learner.net`).
    Raises ContractError naming the check, what was found, and what to do; UserError where there is
    nothing to check with.
    """
    if tasks is None and source is not None:
        tasks = source.sample("train", 3, source.rng("check_learner"))
    if tasks is None:
        shape = x_shape or getattr(getattr(learner, "net", None), "x_shape", None)
        if shape is None:
            raise UserError(
                f"check_learner does not know what a row of {type(learner).__name__} looks like: "
                "pass x_shape, tasks or source."
            )
        described = tuple(getattr(learner, "description_shape", ()))
        tasks = synthetic_tasks(learner.objective, tuple(shape), description_shape=described)
    if tasks.support.tasks < 2:
        raise UserError("check_learner needs a batch of at least two tasks, to see that they never mix.")
    for check in learner_checks():
        check.run(learner, tasks)
