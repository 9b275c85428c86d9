"""On a GPU: the outer step gives the gradient that it gives on the processor, started one by one or as a CUDA graph."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric

import quickstudy as qs
from quickstudy.core.task import map_tensors
from quickstudy.outer import Found, Outer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def gradient(name: str, device: str, accumulate: int = 1, compile: bool = False) -> tuple[torch.Tensor, Found]:
    """The meta-gradient of four tasks, the second time it is asked for, and what came with it."""
    torch.manual_seed(0)
    source = qs.tasks.Glyphs(way=3, shot=1, query=2)
    learner = qs.make(name, source.spec).double().train()
    fabric = Fabric(accelerator=device, devices=1, precision="64-true")
    outer = Outer(fabric, fabric.setup_module(learner), learner, None, accumulate, False, compile)
    tasks, other = (
        map_tensors(
            source.sample("train", 4, source.rng(n)), lambda t: (t.double() if t.is_floating_point() else t).to(device)
        )
        for n in range(2)
    )
    outer.gradient(other, False)  # what a graph is recorded from
    for p in learner.parameters():
        p.grad = None
    found = outer.gradient(tasks, False)
    assert not compile or (outer.compiled and not outer.compiled.refused)
    return torch.cat([p.grad.flatten().cpu() for p in outer.parameters if p.grad is not None]), found


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["maml", "anil", "protonet", "r2d2"])
def test_the_gradient_of_the_processor(name: str, accumulate: int, compile: bool) -> None:
    right, at_home = gradient(name, "cpu")
    found, there = gradient(name, "cuda", accumulate, compile)
    assert (found - right).norm() < 1e-9 * right.norm() and there.loss == pytest.approx(at_home.loss)
    for (_, a), (_, b) in zip(there.statistics, at_home.statistics, strict=True):
        assert torch.allclose(a.cpu(), b)
