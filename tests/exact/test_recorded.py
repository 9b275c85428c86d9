"""What surrounds a CUDA graph, without a GPU: what is recorded, and what a graph is given and gives back."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.compiled import Compiled
from quickstudy.core.task import map_tensors
from quickstudy.nets import Conv4
from quickstudy.recorded import WARMING, recorded


def test_a_graph_is_recorded_once_and_sees_the_tasks_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, ...]] = []
    place = torch.zeros(3)

    def program(*given: Tensor) -> list[Tensor]:
        calls.append(given)
        weight, x, y = given
        return [place.copy_(weight * x + y)]

    # a graph does again what was done while it was recorded, with the tensors of then
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: program(*calls[-1])))
    for name, stand_in in (("Stream", stream), ("current_stream", stream)):
        monkeypatch.setattr(torch.cuda, name, lambda stand_in=stand_in: stand_in)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    weight, first = torch.ones(3), [torch.ones(3), torch.zeros(3)]
    again = recorded(program, [weight], first)
    assert len(calls) == WARMING + 1
    weight.fill_(2.0)  # where it was
    (found,) = again(torch.zeros(3), torch.full((3,), 5.0), torch.ones(3))
    assert torch.equal(found, torch.full((3,), 11.0)) and torch.equal(first[0], torch.ones(3))


def test_what_is_recorded_is_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.compiled.on_processor", lambda x: False)
    monkeypatch.setattr("quickstudy.compiled.recorded", lambda program, weights, leaves: program)
    source = qs.tasks.Glyphs(way=3, shot=1, query=2)
    learner = qs.make("protonet", source.spec).double().train()
    drawn = source.sample("train", 1, source.rng(0))
    tasks = map_tensors(drawn, lambda t: t.double() if t.is_floating_point() else t)
    loss = learner(tasks)
    right = torch.autograd.grad(loss, list(learner.parameters()))
    passed = Compiled(learner, nullcontext).of(tasks)
    assert passed is not None and torch.allclose(passed.loss, loss.detach())
    assert all(torch.allclose(a, b) for a, b in zip(passed.grads, right, strict=True))
    assert all(g.stride() == p.stride() for g, p in zip(passed.grads, learner.parameters(), strict=True))
    assert torch.allclose(passed.norm, torch.cat([g.flatten() for g in right]).norm())
    assert isinstance(learner.net, Conv4)
    assert [layer for layer, _ in passed.statistics] == list(learner.net.norms)
