"""SNAIL: causal, one pass for all queries, and the paper's blocks written as convolutions. No training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Classification, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, map_tensors
from quickstudy.learners import SNAIL
from quickstudy.nets import MLP
from quickstudy.nets.causal import CausalAttention, CausalConvolution
from quickstudy.testing import synthetic_tasks

CLASSES = Classification(3)


def snail() -> SNAIL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP((5,), width=6)
        return SNAIL(net, CLASSES, length=10, filters=3, keys=(4, 5), values=(2, 3)).double().eval()


def classes() -> Task:
    return synthetic_tasks(CLASSES, (5,), shot=3)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def rows_of(learner: SNAIL, tasks: Task) -> Tensor:
    with torch.no_grad():
        labels = F.one_hot(tasks.support.y, 3).double()
        return torch.cat([learner.net(tasks.support.x), labels], -1)


def test_a_later_row_never_changes_an_earlier_answer() -> None:
    learner, tasks = snail(), classes()
    state = learner.adapt(tasks.support)
    n = tasks.support.weight.shape[1]
    for cut in range(1, n):
        later = tasks.support.x.clone()
        later[:, cut:] += 1.0
        moved = learner.adapt(tasks.support._replace(x=later))["columns"]
        assert torch.equal(moved[:, :cut], state["columns"][:, :cut])
        assert not torch.isclose(moved[:, cut:], state["columns"][:, cut:]).all(-1).any()  # and all later ones see it


def test_an_answer_reaches_back_to_the_first_row() -> None:
    # attention reaches all rows; here without it, by convolutions alone
    learner, tasks = snail(), classes()
    with torch.no_grad():
        for block in learner.stack.blocks:
            if isinstance(block, CausalAttention):
                block.value.weight.zero_()
    first = tasks.support.x.clone()
    first[:, 0] += 1.0
    state, moved = (learner.adapt(tasks.support._replace(x=x)) for x in (tasks.support.x, first))
    a, b = (learner.predict(s, tasks.query.x) for s in (state, moved))
    assert (a - b).abs().amin() > 1e-12


def test_asking_is_reading_one_row_more() -> None:
    learner, tasks = snail(), classes()
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x)
        before = rows_of(learner, tasks)
        for i in range(tasks.query.weight.shape[1]):
            asked = F.pad(learner.net(tasks.query.x[:, i : i + 1]), (0, 3))
            rows = torch.cat([before, asked], 1)
            columns = learner.stack.read(rows, torch.ones(rows.shape[:2], dtype=torch.bool))
            close(found[:, i], learner.head(columns[:, -1]))


def test_the_blocks_are_the_papers() -> None:
    # WaveNet's gated convolution by conv1d, and softmax attention under a triangular mask, row by row
    learner, tasks = snail(), classes()
    h = rows_of(learner, tasks)
    n = h.shape[1]
    with torch.no_grad():
        found = learner.stack.read(h, torch.ones(h.shape[:2], dtype=torch.bool))
        backs = []
        for block in learner.stack.blocks:
            if isinstance(block, CausalConvolution):
                backs.append(block.back)
                kernel = block.both.weight.unflatten(1, (2, -1)).transpose(1, 2)  # (2 filters, inputs, 2)
                padded = F.pad(h.transpose(1, 2), (block.back, 0))
                a, b = F.conv1d(padded, kernel, block.both.bias, dilation=block.back).transpose(1, 2).chunk(2, -1)
                more = torch.tanh(a) * torch.sigmoid(b)
            else:
                assert isinstance(block, CausalAttention)
                q, k, v = block.query(h), block.key(h), block.value(h)
                reads = []
                for t in range(n):
                    scores = (k[:, : t + 1] @ q[:, t].unsqueeze(-1)).squeeze(-1) / k.shape[-1] ** 0.5
                    reads.append((scores.softmax(-1).unsqueeze(-1) * v[:, : t + 1]).sum(1))
                more = torch.stack(reads, 1)
            h = torch.cat([h, more], -1)
    close(found, h)
    assert backs == [1, 2, 4, 8]  # a field of 16 rows, for a length of 10


def test_rows_of_no_weight_are_as_if_not_there() -> None:
    learner, tasks = snail(), classes()
    weight = tasks.support.weight.clone()
    weight[:, [0, 3, 4, 8]] = 0.0
    kept = map_tensors(tasks.support, lambda t: t[:, [1, 2, 5, 6, 7]])
    with torch.no_grad():
        a = learner.predict(learner.adapt(tasks.support._replace(weight=weight)), tasks.query.x)
        close(a, learner.predict(learner.adapt(kept), tasks.query.x))


def test_training_sees_the_support_in_random_order() -> None:
    learner, tasks = snail().train(), classes()
    losses = []
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.append(learner.meta_loss(tasks))
    assert torch.equal(losses[0], losses[1]) and not torch.isclose(losses[0], losses[2]).any()


def test_bad_arguments_are_refused() -> None:
    net = MLP((5,), width=6)
    for options in ({"length": 1}, {"keys": (4,), "values": (4, 4)}, {"filters": 0}):
        with pytest.raises(UserError):
            SNAIL(net, Regression(), **options)  # type: ignore[arg-type]
