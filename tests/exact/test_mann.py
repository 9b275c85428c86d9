"""MANN: what is written is read again, the memory's formulas by hand, and no label before its time. No training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, join_rows, map_tensors
from quickstudy.learners import MANN
from quickstudy.nets import MLP
from quickstudy.nets.memory import LRUMemory
from quickstudy.testing import synthetic_tasks

CLASSES = Classification(3)


def mann(**options) -> MANN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP((5,), width=6)
        return MANN(net, CLASSES, hidden=7, slots=6, width=4, heads=2, **options).double().eval()


def classes() -> Task:
    return synthetic_tasks(CLASSES, (5,), shot=3)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def directions(n: int, width: int) -> Tensor:
    """Keys (n, width) that point apart."""
    keys = torch.randn(n, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.linalg.qr(keys.T).Q.T * torch.arange(1, n + 1, dtype=torch.float64).unsqueeze(1)


def test_what_is_written_is_read_again() -> None:
    # gate 0 writes to unused slots; then a key, of whatever length, reads what was written, and nothing else
    memory = LRUMemory(3, slots=5, width=8, heads=1)
    keys, state = directions(4, 8), memory.start(torch.zeros(1, 3, dtype=torch.float64))
    never, always = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    for key in keys:
        read, state = memory.step(key.view(1, 1, -1), never, 1e4, state)
        close(read[0], key)
    close(state["memory"][0, :4], keys)
    for key in keys:
        state["read_weights"] = torch.zeros_like(state["read_weights"])  # and a gate of 1 then writes nowhere
        read, after = memory.step(0.3 * key.view(1, 1, -1), always, 1e4, state)
        close(read[0], key)
        close(after["memory"][0, :4], keys)


def test_a_gate_of_one_adds_to_what_was_read() -> None:
    memory = LRUMemory(3, slots=4, width=3, heads=1)
    first, second = torch.eye(3, dtype=torch.float64)[:2]
    _, state = memory.step(first.view(1, 1, -1), torch.zeros(1, 1, 1), 1e4, memory.start(torch.zeros(1, 3).double()))
    _, state = memory.step(second.view(1, 1, -1), torch.ones(1, 1, 1), 1e4, state)
    close(state["memory"][0, 0], first + second)
    assert not state["memory"][0, 1:].any()


def test_the_least_used_slots_are_overwritten_first() -> None:
    # three slots for five keys: the fourth key takes the place of the first, the fifth that of the second
    memory = LRUMemory(3, slots=3, width=8, heads=1)
    keys, state = directions(5, 8), memory.start(torch.zeros(1, 3).double())
    for key in keys:
        _, state = memory.step(key.view(1, 1, -1), torch.zeros(1, 1, 1), 1e4, state)
    close(state["memory"][0], keys[[3, 4, 2]])


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_a_step_is_the_papers_formulas(sharpness: float) -> None:
    # equations 2 to 8, a slot at a time, in plain loops, over three steps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        memory = LRUMemory(5, slots=6, width=4, heads=2, decay=0.9, sharpness=sharpness).double()
        controls = torch.randn(3, 1, 5, dtype=torch.float64)
    state = memory.start(controls[0])
    m, used = torch.zeros(6, 4).double(), torch.zeros(6).double()
    read_weights = torch.zeros(2, 6).double()
    for h in controls:
        with torch.no_grad():
            read, state = memory(h, state)
            keys = torch.tanh(memory.key(h)).view(2, 4)
            gates = torch.sigmoid(memory.gate(h))[0]
            sharp = [1 + torch.log(1 + s.exp()) for s in memory.sharpness(h)[0]] if memory.sharpness else [1, 1]
        order = sorted(range(6), key=lambda i: (float(used[i]), i))
        writes = torch.zeros(2, 6).double()
        for head in range(2):
            writes[head] = gates[head] * read_weights[head]
            writes[head, order[head]] += 1 - gates[head]
        for slot in order[:2]:
            m[slot] = 0
        for slot in range(6):
            for head in range(2):
                m[slot] = m[slot] + writes[head, slot] * keys[head]
        for head in range(2):
            k = torch.stack([keys[head] @ row / (keys[head].norm() * row.norm()) if row.any() else row[0] for row in m])
            read_weights[head] = (sharp[head] * k).exp() / (sharp[head] * k).exp().sum()
        used = 0.9 * used + read_weights.sum(0) + writes.sum(0)
        close(read[0], torch.cat([read_weights[0] @ m, read_weights[1] @ m]))
        close(state["memory"][0], m)
        close(state["used"][0], used)


def test_sharpness_begins_where_it_was_asked_to() -> None:
    for asked in (1.5, 20.0):
        memory = LRUMemory(3, slots=4, width=3, heads=2, sharpness=asked)
        assert memory.sharpness is not None
        close(1 + torch.nn.functional.softplus(memory.sharpness.bias.double()), torch.full((2,), asked).double())


def test_a_label_is_known_one_step_later() -> None:
    learner, tasks = mann(), classes()
    x, y, _ = tasks.support
    with torch.no_grad():
        before = learner.sequence_predictions(x, y)
        for t in range(y.shape[1] - 1):
            other = y.clone()
            other[:, t] = (y[:, t] + 1) % 3
            after = learner.sequence_predictions(x, other)
            assert torch.equal(after[:, : t + 1], before[:, : t + 1])
            assert not torch.isclose(after[:, t + 1], before[:, t + 1]).all(-1).any()


def test_a_query_is_the_next_row_of_the_sequence() -> None:
    learner, tasks = mann(), classes()
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x)
        for i in range(tasks.query.weight.shape[1]):
            rows = join_rows(tasks.support, map_tensors(tasks.query, lambda t, i=i: t[:, i : i + 1]))
            close(found[:, i], learner.sequence_predictions(*rows)[:, -1])


def test_rows_of_no_weight_are_skipped() -> None:
    learner, tasks = mann(), classes()
    weight = tasks.support.weight.clone()
    weight[:, [0, 3, 4, 8]] = 0.0
    rows = [1, 2, 5, 6, 7]
    with torch.no_grad():
        state = learner.adapt(tasks.support._replace(weight=weight))
        kept = learner.adapt(map_tensors(tasks.support, lambda t: t[:, rows]))
        for name, value in kept.items():
            close(state[name], value)
        whole = learner.sequence_predictions(tasks.support.x, tasks.support.y, weight)
        few = learner.sequence_predictions(tasks.support.x[:, rows], tasks.support.y[:, rows])
        close(whole[:, rows], few)


def test_training_in_sequence_is_the_loss_of_every_row() -> None:
    learner, tasks = mann(in_sequence=True), classes()
    rows = join_rows(*tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = learner.train().meta_loss(tasks)
        torch.manual_seed(0)
        order = torch.rand(rows.weight.shape).argsort(1)
    for t in range(len(found)):
        x, y = rows.x[t : t + 1, order[t]], rows.y[t : t + 1, order[t]]
        probability = learner.sequence_predictions(x, y).softmax(-1)[0].gather(1, y.T)
        close(found[t], -probability.log().mean())
    close(learner.eval().meta_loss(tasks), mann().meta_loss(tasks))  # judged as any other


def test_bad_arguments_are_refused() -> None:
    for options in ({"slots": 1, "heads": 2}, {"decay": 1.5}, {"width": 0}, {"sharpness": 0.5}):
        with pytest.raises(UserError):
            LRUMemory(3, **{"slots": 4, "width": 3, "heads": 1, **options})
