"""Convolutional networks for many tasks at once are, to both derivatives, what the tasks are one by one."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from quickstudy.core.task import State
from quickstudy.inner.apply import apply_per_task, apply_shared, task_weights
from quickstudy.inner.picked import picked
from quickstudy.nets.at_once import convolved
from quickstudy.nets.conv4 import Conv4
from quickstudy.nets.norm import collect

TASKS = 3
KINDS = tuple(product(("batch", "running", "group"), ("max", "stride"), (True, False)))


def made(norm: str, pool: str, training: bool, channels: int = 1) -> tuple[Conv4, list[Tensor]]:
    torch.manual_seed(0)
    shape = (channels, 18, 22) if pool == "max" else (channels, 17, 22)
    net = Conv4(shape, out=5, channels=8, norm=norm, pool=pool).double().train(training)  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in net.norms:
            layer.weight.copy_(torch.randn(8))  # type: ignore[union-attr]  # of both signs
            layer.bias.normal_()  # type: ignore[union-attr]
            for buffer in layer.buffers():  # running averages
                buffer.copy_(torch.rand(8) + 0.5)
    return net, [torch.randn(TASKS, n, *shape, dtype=torch.float64) for n in (4, 6)]


def close(found: Tensor, right: Tensor) -> bool:
    return bool((found - right).norm() <= 1e-12 * right.norm().clamp_min(1))


@pytest.mark.parametrize(("norm", "pool", "training"), KINDS)
def test_shared_weights(norm: str, pool: str, training: bool) -> None:
    net, sets = made(norm, pool, training)
    for given in (sets, sets[:1], [x[:1] for x in sets]):
        with collect() as seen:
            right = net.apart(given)
        with collect() as seen_at_once:
            found = net.at_once(dict(net.named_parameters()), given)
        assert all(close(a, b) for a, b in zip(found, right, strict=True))
        losses = [torch.cat(out, 1).square().sum() for out in (found, right)]
        grads = [torch.autograd.grad(loss, list(net.parameters())) for loss in losses]
        assert all(close(a, b) for a, b in zip(*grads, strict=True))
        assert seen.keys() == seen_at_once.keys() and bool(seen) == (norm == "running" and training)
        for layer in seen:
            assert close(torch.stack(seen_at_once[layer]).mean(0), torch.stack(seen[layer]).mean(0))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(("norm", "pool", "training"), KINDS)
def test_weights_of_each_task_to_the_second_derivative(norm: str, pool: str, training: bool, channels: int) -> None:
    net, (support, query) = made(norm, pool, training, channels)
    start = {k: w + 0.1 * torch.randn_like(w) for k, w in task_weights(net, TASKS).items()}
    weights = {k: w.detach().requires_grad_() for k, w in start.items()}

    def one_by_one(weights: State, x: Tensor) -> Tensor:
        tasks = [({k: w[t] for k, w in weights.items()}, (x[t : t + 1],)) for t in range(TASKS)]
        return torch.cat([functional_call(net, *task) for task in tasks])

    def at_once(weights: State, x: Tensor) -> Tensor:
        return net.at_once(weights, [x])[0]

    found = []
    for apply in (at_once, one_by_one):
        with collect() as seen:
            loss = apply(weights, support).square().sum()
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {k: w - 0.01 * g for (k, w), g in zip(weights.items(), slopes, strict=True)}
        grads = torch.autograd.grad(apply(moved, query).square().sum(), list(weights.values()))
        found.append([*slopes, *grads, *(torch.stack(s).mean(0) for s in seen.values())])
    assert all(close(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_three_sides_of_a_grouped_convolution_by_central_differences(stride: int) -> None:
    x = torch.randn(2, 3, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, kernel: convolved(x, kernel, stride), (x, kernel))
    assert gradgradcheck(lambda x, kernel: convolved(x, kernel, stride), (x, kernel))


def test_it_is_what_is_picked_off_the_processor() -> None:
    net = Conv4((1, 16, 16), out=5, channels=4, norm="running").eval().to("meta")
    x = torch.empty(TASKS, 4, 1, 16, 16, device="meta")
    with picked() as told:
        assert apply_per_task(net, task_weights(net, TASKS), x).shape == (TASKS, 4, 5)
        assert apply_shared(net, x).shape == (TASKS, 4, 5)
    assert told == [
        "Conv4: weights of each task, all tasks in one grouped convolution a layer",
        "Conv4: shared weights, the rows of all tasks folded into one batch",
    ]
    assert net.chunk is None and net.to_empty(device="cpu").chunk == 1
