"""RelationNet against its formula worked out pair by pair, and what its predictions mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.task import Task
from quickstudy.learners import RelationNet
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY = 3
CLASSES = Classification(WAY)


def learner(average: bool = False) -> RelationNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return RelationNet(MLP((5,), width=8), CLASSES, width=6, depth=1, average=average).double()


def tasks() -> Task:
    made = synthetic_tasks(CLASSES, (5,), ragged=True)
    weight = made.support.weight.clone()
    weight[:, 1] = 0.5
    return made._replace(support=made.support._replace(weight=weight))


@torch.no_grad()
def by_hand(relation: RelationNet, given: Task, t: int) -> Tensor:
    """The relation scores of one task, (n, way), through the weights themselves; 0 for classes not shown."""
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in relation.relation.layers)
    rows, asked, weight = relation.net(given.support.x)[t], relation.net(given.query.x)[t], given.support.weight[t]
    scores = torch.zeros(len(asked), WAY, dtype=torch.float64)
    for k in range(WAY):
        of_class = weight * (given.support.y[t] == k)
        if not of_class.sum():
            continue
        c = (of_class.unsqueeze(1) * rows).sum(0) / (of_class.sum() if relation.average else 1)
        for j, f in enumerate(asked):
            scores[j, k] = torch.sigmoid((torch.relu(torch.cat([c, f]) @ w1.T + b1) @ w2.T + b2)[0])
    return scores


@pytest.mark.parametrize("average", [False, True])
def test_scores_and_loss_are_the_papers(average: bool) -> None:
    relation, given = learner(average).train(), tasks()
    with torch.no_grad():
        found = relation.predict(relation.adapt(given.support), given.query.x)
        losses = relation.meta_loss(given)
    ways = []
    for t in range(len(found)):
        wanted = by_hand(relation, given, t)
        torch.testing.assert_close(found[t].sigmoid(), wanted)
        shown = wanted.gt(0).any(0)
        ways.append(int(shown.sum()))
        y = torch.eye(WAY, dtype=torch.float64)[given.query.y[t]]
        asked = given.query.weight[t] > 0
        torch.testing.assert_close(losses[t], (wanted - y)[asked][:, shown].square().mean())
    assert ways == [3, 2, 3]  # one task shows fewer


def test_the_softmax_of_predictions_is_the_chance_that_just_one_class_is_right() -> None:
    relation, given = learner(), tasks()
    with torch.no_grad():
        found = relation.predict(relation.adapt(given.support), given.query.x).softmax(-1)
    r = by_hand(relation, given, 0)
    only = torch.stack([r[:, k] * (1 - r[:, [j for j in range(WAY) if j != k]]).prod(1) for k in range(WAY)], 1)
    torch.testing.assert_close(found[0], only / only.sum(1, keepdim=True))


def test_renaming_classes_renames_scores() -> None:
    relation, given = learner(), tasks()
    names = torch.tensor([2, 0, 1])
    renamed = given.support._replace(y=names[given.support.y])
    with torch.no_grad():
        plain = relation.predict(relation.adapt(given.support), given.query.x)
        other = relation.predict(relation.adapt(renamed), given.query.x)
    torch.testing.assert_close(other[..., names], plain)
    assert (plain[0, :, 0] - plain[0, :, 1]).abs().max() > 1e-4


def test_scores_are_apart_before_training() -> None:
    """Each layer of the judgement keeps the size of what goes through; torch's own start would leave a tenth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = RelationNet(MLP((5,), width=64), CLASSES).relation
        assert isinstance(judge, MLP)
        pairs = torch.randn(1, 500, 128)
    assert 0.4 < float(judge(pairs).detach().std()) < 2
