"""Tasks side by side in threads: the numbers of one after the other, and in turn where the order matters."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

import quickstudy as qs
from quickstudy.core.task import Task
from quickstudy.learners import MAML, ProtoNet
from quickstudy.nets import Conv4
from quickstudy.nets.norm import Norm
from quickstudy.outer import Outer
from quickstudy.side_by_side import SideBySide
from quickstudy.testing import synthetic_tasks

IMAGE = (1, 16, 16)
WAY = qs.Classification(2)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tasks(count: int = 5) -> Task:
    torch.manual_seed(3)
    return synthetic_tasks(WAY, IMAGE, tasks=count, ragged=True)


def protonet(norm: Norm = "running") -> ProtoNet:
    torch.manual_seed(0)
    return ProtoNet(Conv4(IMAGE, channels=8, norm=norm), WAY).double()


def maml() -> MAML:
    torch.manual_seed(0)
    return MAML(Conv4(IMAGE, out=2, channels=8, norm="batch"), WAY, inner_steps=2, inner_lr=0.1).double()


def outer(learner: qs.MetaLearner, accumulate: int = 1) -> Outer:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return Outer(fabric, fabric.setup_module(learner), learner.train(), None, accumulate, mixed=False)


def gradients(learner: qs.MetaLearner, in_turn: bool) -> tuple[float, list[Tensor], list[Tensor]]:
    step = outer(learner)
    if in_turn:
        step.side_by_side = None
    found = step.gradient(tasks(), False)
    step.fold_in(found)
    return found.loss, [p.grad.clone() for p in step.parameters if p.grad is not None], list(learner.buffers())


@pytest.mark.parametrize("made", [protonet, maml, lambda: protonet("batch")])
def test_the_gradient_and_the_statistics_are_those_of_one_after_the_other(made) -> None:
    for a, b in zip(gradients(made(), False), gradients(made(), True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_the_same_to_the_bit_every_time() -> None:
    loss, grads, _ = gradients(maml(), False)
    for _ in range(5):
        again, others, _ = gradients(maml(), False)
        assert again == loss and all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))


def test_parts_do_run_in_threads() -> None:
    seen: set[int] = set()
    both = threading.Barrier(2, timeout=60)

    class Watched(ProtoNet):
        def meta_loss(self, tasks: Task) -> Tensor:
            if threading.current_thread() is not threading.main_thread():
                seen.add(threading.get_ident())
                both.wait()
                assert torch.get_num_threads() == 1
            return super().meta_loss(tasks)

    step = outer(Watched(Conv4(IMAGE, channels=8), WAY).double())
    step.gradient(tasks(4), False)
    assert len(seen) == 2 and torch.get_num_threads() == 2


class Drawing(ProtoNet):
    def meta_loss(self, tasks: Task) -> Tensor:
        return super().meta_loss(tasks) * (1 + torch.rand(()))


class Counting(ProtoNet):
    steps = 0

    def meta_loss(self, tasks: Task) -> Tensor:
        self.steps += 1
        return super().meta_loss(tasks)


class Locked(ProtoNet):
    def __init__(self, net: Conv4, objective: qs.Classification):
        super().__init__(net, objective)
        self.lock = threading.Lock()


@pytest.mark.parametrize("kind", [Drawing, Counting, Locked])
def test_in_turn_where_the_order_matters(kind: type[ProtoNet]) -> None:
    learner = kind(Conv4(IMAGE, channels=8), WAY).double()
    parts = [qs.select(tasks(3), slice(t, t + 1)) for t in range(3)]
    torch.manual_seed(5)
    before = torch.default_generator.get_state()
    assert SideBySide(learner).of(parts) is None
    assert torch.equal(before, torch.default_generator.get_state()), "trying it draws nothing"
    assert getattr(learner, "steps", 0) == 0, "and counts nothing"


def test_one_thread_one_part_or_a_wish_for_little_memory_is_in_turn() -> None:
    one = [qs.select(tasks(1), slice(0, 1))]
    assert SideBySide(protonet()).of(one) is None
    assert outer(protonet(), accumulate=5).side_by_side is None
    torch.set_num_threads(1)
    assert SideBySide(protonet()).of(one * 3) is None


def test_a_failure_in_one_part_is_raised_and_the_next_step_works() -> None:
    class Failing(ProtoNet):
        def meta_loss(self, tasks: Task) -> Tensor:
            if bool((tasks.query.x > 1e5).any()):  # type: ignore[operator]
                raise torch.linalg.LinAlgError("singular")
            return super().meta_loss(tasks)

    step = outer(Failing(Conv4(IMAGE, channels=8), WAY).double())
    good = tasks()
    bad = good._replace(query=good.query._replace(x=good.query.x.clone()))  # type: ignore[union-attr]
    bad.query.x[3] = 1e6  # type: ignore[index]
    assert not step.gradient(bad, False).finite
    assert step.gradient(good, False).finite
