"""Fast weights: without a rate a plain recurrent network, and with one, attention to the past. No training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import Classification, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, map_tensors
from quickstudy.learners import FastWeights
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

CLASSES = Classification(3)


def learner(**options) -> FastWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = FastWeights(MLP((5,), width=6), CLASSES, hidden=7, **options).double().eval()
        nn.init.orthogonal_(made.cell.recurrent.weight)  # at its start of I / 20 little is recurrent
        return made


def classes() -> Task:
    return synthetic_tasks(CLASSES, (5,), shot=3)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def rows_of(made: FastWeights, tasks: Task) -> tuple[Tensor, Tensor]:
    """What the cell reads: the support with its labels, and the query without."""
    labels = F.one_hot(tasks.support.y, 3).double()
    return torch.cat([made.net(tasks.support.x), labels], -1), F.pad(made.net(tasks.query.x), (0, 3))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_without_a_rate_it_is_torchs_recurrent_network(steps: int) -> None:
    made, tasks = learner(rate=0.0, steps=steps, normalise=False), classes()
    plain = nn.RNN(made.cell.input.in_features, 7, nonlinearity="relu", batch_first=True).double()
    with torch.no_grad():
        plain.weight_ih_l0.copy_(made.cell.input.weight)
        plain.bias_ih_l0.copy_(made.cell.input.bias)
        plain.weight_hh_l0.copy_(made.cell.recurrent.weight)
        plain.bias_hh_l0.zero_()
        found = made.predict(made.adapt(tasks.support), tasks.query.x)
        support, query = rows_of(made, tasks)
        _, last = plain(support)
        for i in range(query.shape[1]):
            out, _ = plain(query[:, i : i + 1], last)
            close(found[:, i], made.head(out)[:, 0])
    moved = learner(rate=0.5, steps=max(steps, 1), normalise=False)
    assert (moved.predict(moved.adapt(tasks.support), tasks.query.x) - found).abs().max() > 1e-3


@pytest.mark.parametrize("normalise", [False, True])
def test_fast_weights_are_attention_to_the_past(normalise: bool) -> None:
    # equation 4: A h = rate sum_s decay^(t-s) h(s) (h(s) . h), without a matrix, task by task
    made, tasks = learner(rate=0.3, decay=0.8, steps=2, normalise=normalise), classes()
    with torch.no_grad():
        found = made.predict(made.adapt(tasks.support), tasks.query.x)
        support, query = rows_of(made, tasks)
        norm = (lambda v: F.layer_norm(v, (7,))) if normalise else (lambda v: v)

        def after(row: Tensor, past: list[Tensor]) -> Tensor:
            z = made.cell.input(row) + made.cell.recurrent(past[-1] if past else torch.zeros(7).double())
            h = z.relu()
            for _ in range(2):
                pull = sum((0.3 * 0.8 ** (len(past) - 1 - s) * h_s * (h_s @ h) for s, h_s in enumerate(past)), 0 * h)
                h = norm(z + pull).relu()
            return h

        for t in range(len(support)):
            past: list[Tensor] = []
            for row in support[t]:
                past.append(after(row, past))
            for i, row in enumerate(query[t]):
                close(found[t, i], made.head(after(row, past).view(1, 1, -1))[0, 0])


def test_rows_of_no_weight_are_skipped() -> None:
    made, tasks = learner(), classes()
    weight = tasks.support.weight.clone()
    weight[:, [0, 3, 4, 8]] = 0.0
    with torch.no_grad():
        state = made.adapt(tasks.support._replace(weight=weight))
        kept = made.adapt(map_tensors(tasks.support, lambda t: t[:, [1, 2, 5, 6, 7]]))
    for name, value in kept.items():
        close(state[name], value)


def test_bad_arguments_are_refused() -> None:
    for options in ({"steps": -1}, {"decay": 1.1}, {"hidden": 0}):
        with pytest.raises(UserError):
            FastWeights(MLP((5,), width=6), Regression(), **options)  # type: ignore[arg-type]
