"""The influence of a support row is what taking it away changes: by hand, and by deleting the row."""

from __future__ import annotations

import math

import pytest
import torch

import quickstudy as qs
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, Task
from quickstudy.evaluate import evaluating
from quickstudy.influence import influence


def without(rows: Examples, index: int) -> Examples:
    kept = [i for i in range(rows.y.shape[1]) if i != index]
    assert isinstance(rows.x, torch.Tensor)
    return Examples(rows.x[:, kept], rows.y[:, kept], rows.weight[:, kept])


def labelled(rows: int, way: int, seed: int) -> Examples:
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(rows).remainder(way).unsqueeze(0)
    return qs.examples(torch.randn(1, rows, 4, generator=rng) + 2 * y.unsqueeze(-1), y)


@pytest.mark.parametrize("name", ["protonet", "maml", "r2d2", "logistic", "cnaps"])
def test_it_is_what_deleting_the_row_changes(name: str):
    torch.manual_seed(0)
    learner = qs.make(name, qs.Spec("classification", (4,), way=3))
    support, query = labelled(9, 3, 0), labelled(6, 3, 1)
    # a row of padding counts for nothing, wherever it stands
    padded = Examples(
        torch.cat([torch.full((1, 1, 4), 7.0), support.x], 1),  # type: ignore[list-item]
        torch.cat([torch.zeros(1, 1, dtype=torch.long), support.y], 1),
        torch.cat([torch.zeros(1, 1), support.weight], 1),
    )
    with evaluating(learner, 0):
        found = influence(learner, Task(padded, query))
        out = learner.predict(learner.adapt(support), query.x)
        answer = out.argmax(-1)
        for i in range(9):
            less = learner.predict(learner.adapt(without(support, i)), query.x)
            logs = [part.double().log_softmax(-1).gather(-1, answer.unsqueeze(-1))[0, :, 0] for part in (out, less)]
            torch.testing.assert_close(found.moved[i], logs[0] - logs[1], rtol=1e-3, atol=2e-4)
            loss = learner.objective.row_loss(less, query.y) - learner.objective.row_loss(out, query.y)
            torch.testing.assert_close(found.helped[i], loss[0].double(), rtol=1e-3, atol=2e-4)
    assert found.rows.tolist() == list(range(1, 10)) and found.noise < 1e-5


def test_values_move_by_the_closed_form():
    """The mean of the support as prediction: without row i it moves by (y_i - mean) / (n - 1)."""
    learner = qs.make("chance", qs.Spec("regression", (1,)))
    y = torch.tensor([[[1.0], [2.0], [6.0]]])
    rows = qs.examples(torch.zeros(1, 3, 1), y)
    with evaluating(learner, 0):
        found = influence(learner, Task(rows, qs.examples(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 3.0))))
    assert found.moved[:, 0].tolist() == pytest.approx([(v - 3) / 2 for v in (1, 2, 6)])
    assert found.order() == [2, 0, 1]
    # the truth is the mean of all, so every row helps: the error was 0
    assert found.helped[:, 0].tolist() == pytest.approx([1.0, 0.25, 2.25])


def test_the_only_row_of_a_class():
    learner = qs.make("centroid", qs.Spec("classification", (1,), way=3))
    rows = qs.examples(torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([[0, 0, 1]]))
    asked = qs.examples(torch.tensor([[[4.5], [1.5]]]), torch.tensor([[1, 0]]))
    with evaluating(learner, 0):
        found = influence(learner, Task(rows, asked))
    assert found.moved[2, 0] == math.inf and found.helped[2, 0] == math.inf
    assert torch.isfinite(found.moved[:2]).all() and found.order()[0] == 2
    assert found.moved[2, 1] < 0  # without the other class it would be surer of this one


def test_what_is_refused():
    learner = qs.make("centroid", qs.Spec("classification", (4,), way=3))
    two = Examples(*(torch.cat([part, part]) for part in labelled(6, 3, 0)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="give one"):
        influence(learner, Task(two, two))
    with pytest.raises(UserError, match="at least 2 and 1"):
        influence(learner, Task(labelled(1, 1, 0), labelled(3, 3, 0)))
