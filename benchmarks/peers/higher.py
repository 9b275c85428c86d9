"""higher: `innerloop_ctx` around an ordinary SGD, as in its Omniglot example."""

from __future__ import annotations

import higher
import torch
from torch import Tensor, nn
from workloads import Workload

from peers import Built
from peers.network import criterion, evaluation, network, training


def maml(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    inner = torch.optim.SGD(net.parameters(), lr=work.lr)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            second_order = not work.first_order
            with higher.innerloop_ctx(net, inner, copy_initial_weights=False, track_higher_grads=second_order) as (
                fast,
                optimizer,
            ):
                for _ in range(work.steps):
                    optimizer.step(loss(fast(x), y))
                value = loss(fast(query_x), query_y) / work.tasks
                if second_order:
                    value.backward()
                else:
                    add(net, torch.autograd.grad(value, list(fast.parameters())))

    return training(net, backward)


def add(net: nn.Module, grads: tuple[Tensor, ...]) -> None:
    """First order by hand: higher leaves it to the caller to carry the gradients over to the start."""
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def anil(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    body, head = net[:-1], net[-1]
    inner = torch.optim.SGD(head.parameters(), lr=work.lr)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            features = body(x)
            with higher.innerloop_ctx(head, inner, copy_initial_weights=False) as (fast, optimizer):
                for _ in range(work.steps):
                    optimizer.step(loss(fast(features), y))
                (loss(fast(body(query_x)), query_y) / work.tasks).backward()

    return training(net, backward)


def evaluate(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    inner = torch.optim.SGD(net.parameters(), lr=work.lr)

    def losses() -> list[Tensor]:
        found = []
        for x, y, query_x, query_y in zip(*batch, strict=True):
            with higher.innerloop_ctx(net, inner, track_higher_grads=False) as (fast, optimizer):
                for _ in range(work.steps):
                    optimizer.step(loss(fast(x), y))
                with torch.no_grad():
                    found.append(loss(fast(query_x), query_y))
        return found

    return evaluation(losses)


METHODS = {"maml": maml, "anil": anil, "evaluate": evaluate}
