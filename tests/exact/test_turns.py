"""ProtoNet's `turns`: one pass gives the mean of the ordinary loss over the tasks in which each row has its turn."""

from __future__ import annotations

import pytest
import torch

from quickstudy.core import Classification
from quickstudy.core.task import Examples, Task, join_rows, select
from quickstudy.learners import ProtoNet
from quickstudy.nets import MLP
from quickstudy.testing import check_meta_gradient, synthetic_tasks


def learner(turns: bool) -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(MLP((3,), width=6), Classification(3), turns=turns).double().train()


def swapped(tasks: Task, shot: int) -> list[Task]:
    """Every task made of the same rows in which the next `shot` rows of each class are the support."""
    rows = join_rows(tasks.support, tasks.query)
    made = []
    per_class = [(rows.y[0] == c).nonzero().flatten() for c in range(3)]
    for turn in range(len(per_class[0]) // shot):
        first = torch.cat([index[turn * shot : (turn + 1) * shot] for index in per_class])
        rest = torch.cat([torch.cat([index[: turn * shot], index[(turn + 1) * shot :]]) for index in per_class])
        made.append(Task(*(Examples(*(t[:, i] for t in rows)) for i in (first, rest))))  # type: ignore[index]
    return made


@pytest.mark.parametrize("shot", [1, 2])
def test_turns_are_the_mean_over_all_tasks_of_the_same_rows(shot: int) -> None:
    task = select(synthetic_tasks(Classification(3), (3,), 2, shot=shot, query=2 * shot), slice(0, 1))
    one_by_one = torch.stack([learner(False).meta_loss(other) for other in swapped(task, shot)])
    assert len(one_by_one) == 3
    torch.testing.assert_close(learner(True).meta_loss(task), one_by_one.mean(0))


def test_turns_only_matter_in_training_and_their_gradient_is_true() -> None:
    tasks = synthetic_tasks(Classification(3), (3,), 3, shot=2, query=2, ragged=True)
    ours, plain = learner(True), learner(False)
    assert not torch.allclose(ours.meta_loss(tasks), plain.meta_loss(tasks))
    check_meta_gradient(lambda: ours(tasks), ours.parameters())
    torch.testing.assert_close(ours.eval().meta_loss(tasks), plain.eval().meta_loss(tasks))
