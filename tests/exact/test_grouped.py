"""Adapted convolutional networks as grouped convolutions: the same numbers as task by task."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.core.task import State
from quickstudy.inner import apply
from quickstudy.inner.apply import apply_per_task, task_weights
from quickstudy.inner.picked import picked
from quickstudy.nets.norm import Norm

IMAGE = (2, 20, 17)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(net: qs.nets.Conv4, tasks: int) -> State:
    """Other weights for every task, leaves."""
    weights = task_weights(net, tasks)
    return {
        k: (w + 0.1 * noise(*w.shape, seed=i)).detach().requires_grad_() for i, (k, w) in enumerate(weights.items())
    }


@pytest.mark.parametrize("norm", ["batch", "running", "group"])
@pytest.mark.parametrize("pool", ["max", "stride"])
@pytest.mark.parametrize("out", [None, 3])
@pytest.mark.parametrize("tasks", [1, 3, 4])
def test_grouped_is_task_by_task(
    norm: Norm, pool: str, out: int | None, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "GROUPED", 3 * 5 * math.prod(IMAGE))
    torch.manual_seed(0)
    net = qs.nets.Conv4(IMAGE, out, channels=8, norm=norm, pool=pool).double().eval()  # type: ignore[arg-type]
    weights, x = moved(net, tasks), noise(tasks, 5, *IMAGE, seed=99)
    with picked() as told:
        found = apply_per_task(net, weights, x)
    words = f"up to {min(tasks, 3)} tasks in one grouped convolution" if tasks > 1 else "one task after the other"
    assert words in told[0]
    behind = {k: w * 1.0 for k, w in weights.items()}  # with a graph behind them: task by task
    with picked() as told:
        expected = apply_per_task(net, behind, x)
    assert "one task after the other" in told[0]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    pull = noise(*found.shape, seed=7)
    leaves = list(weights.values())
    for a, b in zip(*(torch.autograd.grad((p * pull).sum(), leaves) for p in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_many_rows_are_not_grouped() -> None:
    """The maps of 75 queries of a task fill the cache by themselves."""
    net = qs.nets.Conv4((1, 28, 28), 5, channels=4)
    for rows, words in ((5, "up to 8 tasks"), (75, "one task after the other")):
        with picked() as told, torch.no_grad():
            apply_per_task(net, task_weights(net, 10), torch.zeros(10, rows, 1, 28, 28))
        assert words in told[0]


def test_running_statistics_in_training_are_still_handed_over() -> None:
    """Grouping would lose them: Reptile trains without a graph behind its weights."""
    net = qs.nets.Conv4(IMAGE, 2, channels=8, norm="running").double().train()
    assert not net.can_group
    with qs.nets.norm.collect() as seen, torch.no_grad():
        apply_per_task(net, task_weights(net, 2), noise(2, 5, *IMAGE))
    assert len(seen) == 4
    assert net.eval().can_group


def test_padding_stays_out_of_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    net = qs.nets.Conv4(IMAGE, 2, channels=8, norm="batch").double()
    weights, x = moved(net, 2), noise(2, 5, *IMAGE)
    weight = torch.ones(2, 5, dtype=torch.float64)
    weight[1, 3:] = 0
    found = apply_per_task(net, weights, x, weight)
    alone = apply_per_task(net, {k: w[1:] for k, w in weights.items()}, x[1:, :3])
    torch.testing.assert_close(found[1, :3], alone[0], rtol=1e-11, atol=1e-12)
    monkeypatch.setattr(apply, "_padding_counts", lambda net, weight: False)
    assert not torch.allclose(apply_per_task(net, weights, x, weight)[1, :3], alone[0])
