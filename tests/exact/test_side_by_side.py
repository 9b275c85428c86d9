"""Parts of a meta-batch side by side: what one after the other gives, and only where that is safe."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, map_tensors
from quickstudy.learners.metric.protonet import ProtoNet
from quickstudy.outer import Found, Outer
from quickstudy.side_by_side import MOST, at_once, shared_copy

SPEC = qs.Spec("classification", (1, 16, 16), way=2)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tasks(count: int) -> Task:
    rng = torch.Generator().manual_seed(count)
    y = torch.arange(2).repeat(count, 2)
    rows = (torch.rand(count, 4, 1, 16, 16, generator=rng, dtype=torch.float64) for _ in range(2))
    return Task(*(qs.examples(x, y) for x in rows))


def learner(name: str, norm: str = "batch", **options: Any) -> MetaLearner:
    torch.manual_seed(0)
    return qs.make(name, SPEC, "conv4", {"norm": norm, "channels": 8}, **options).double().train()


def outer(made: MetaLearner, accumulate: int = 1, **options: Any) -> Outer:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Outer(fabric, fabric.setup_module(made), made, None, accumulate, mixed=False, **options)


def step(made: MetaLearner, given: Task, **options: Any) -> tuple[Found, list[Tensor], Outer]:
    """What the first outer step finds, and the gradient that it leaves."""
    made.zero_grad()
    of = outer(made, **options)
    found = of.gradient(given, False)
    return found, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in made.parameters()], of


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    "made", [learner("maml", inner_steps=2), learner("protonet"), learner("protonet", norm="running"), learner("anil")]
)
def test_side_by_side_is_one_after_the_other(made: MetaLearner, count: int) -> None:
    found, grads, of = step(made, tasks(count))
    expected, true, _ = step(made, tasks(count), side=1)
    assert not of.side_by_side.refused and found.norm > 0
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)
    assert found.norm == pytest.approx(expected.norm, rel=1e-9)
    for a, b in zip(grads, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
    assert [layer for layer, _ in found.statistics] == [layer for layer, _ in expected.statistics]
    for (_, a), (_, b) in zip(found.statistics, expected.statistics, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    again = step(made, tasks(count))[1]
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True)), "not the same twice"
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor() as pool:
        assert pool.submit(torch.get_num_threads).result() == 2, "a new thread begins with what a lane has"


def test_autocast_is_left_to_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner("protonet").float()
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    of = Outer(fabric, fabric.setup_module(made), made, None, 1, mixed=True)
    monkeypatch.setattr(of.side_by_side, "of", lambda *_: pytest.fail("past Fabric"))
    given = map_tensors(tasks(4), lambda t: t.float() if t.is_floating_point() else t)
    assert of.gradient(given, False).finite


class Watched(nn.Module):
    """Rows as they are, taken one task at a time; it notes how many are inside at once."""

    chunk = 1
    uses_batch_statistics = False

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.size, self.x_shape = nn.Linear(256, 4), 4, (1, 16, 16)

    inside, most = 0, 0
    met = threading.Barrier(2, timeout=2)

    def forward(self, x: Tensor) -> Tensor:
        Watched.inside += 1
        Watched.most = max(Watched.most, Watched.inside)
        with suppress(threading.BrokenBarrierError):
            Watched.met.wait()  # until another one comes
        Watched.inside -= 1
        return self.linear(x.flatten(2))


@pytest.mark.parametrize(
    ("options", "most"), [({}, 2), ({"side": 1}, 1), ({"accumulate": 4}, 1), ({"accumulate": 4, "side": 2}, 2)]
)
def test_as_many_at_once_as_allowed(options: dict[str, Any], most: int) -> None:
    Watched.inside, Watched.most, Watched.met = 0, 0, threading.Barrier(2, timeout=0.3)
    made = ProtoNet(Watched().double(), qs.Classification(2)).train()
    step(made, tasks(4), **options)
    assert Watched.most == most


def test_one_thread_or_one_part_is_not_shared_out() -> None:
    assert at_once(5) == 2 and at_once(1) == 1 and at_once(5, 1) == 1
    torch.set_num_threads(64)
    assert at_once(50) == MOST and at_once(50, 10) == MOST and at_once(3) == 3
    torch.set_num_threads(1)
    assert at_once(5) == 1


class Noisy(Watched):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.linear(x.flatten(2))
        return rows + torch.randn_like(rows)


class Stubborn(Watched):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize("net", [Noisy(), Stubborn()])
def test_a_learner_that_draws_or_cannot_be_copied_goes_one_after_the_other(net: nn.Module) -> None:
    Watched.met.abort()
    made = ProtoNet(net.double(), qs.Classification(2)).train()
    torch.manual_seed(3)
    found, grads, of = step(made, tasks(4))
    state = torch.default_generator.get_state()
    assert of.side_by_side.refused
    torch.manual_seed(3)
    expected, true, _ = step(made, tasks(4), side=1)
    assert torch.equal(state, torch.default_generator.get_state())
    assert found.loss == expected.loss
    for a, b in zip(grads, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


class Choosy(Watched):
    """One of its weights is for bright images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.linear(x.flatten(2))
        return rows * self.bright if x.sum() > 1e3 else rows


@pytest.mark.parametrize("bright", [[0], [2], [0, 3], []])
def test_a_weight_that_some_parts_do_not_use(bright: list[int]) -> None:
    Watched.met.abort()
    net, given = Choosy().double(), tasks(4)
    made = ProtoNet(net, qs.Classification(2)).train()
    given.query.x[bright] += 1e3
    _, grads, of = step(made, given)
    _, true, _ = step(made, given, side=1)
    assert not of.side_by_side.refused
    for a, b in zip(grads, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert bool(grads[-1].any() or grads[0].any()) and (net.bright.grad is None) == (not bright)


class Singular(Watched):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:
            torch.linalg.inv(x.new_zeros(2, 2))
        return self.linear(x.flatten(2))


def test_a_part_that_fails_says_so() -> None:
    Watched.met.abort()
    made = ProtoNet(Singular().double(), qs.Classification(2)).train()
    given = tasks(4)
    given.query.x[3] += 1e5
    found, _, of = step(made, given)
    assert not found.finite and not of.side_by_side.refused
    given.query.x[3] -= 1e5
    assert of.gradient(given, False).finite


def test_a_copy_shares_weights_and_buffers_and_no_module() -> None:
    made = learner("maml", norm="running", inner_steps=1)
    other = shared_copy(made)
    for mine, its in zip((*made.parameters(), *made.buffers()), (*other.parameters(), *other.buffers()), strict=True):
        assert mine is its
    assert not set(made.modules()) & set(other.modules())
