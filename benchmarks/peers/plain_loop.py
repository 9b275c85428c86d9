"""A plain torch loop over the tasks, with torch.func.functional_call; in float64 it is the reference of all others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call
from workloads import Workload

from peers import Built
from peers.network import criterion, evaluation, network, training

Weights = dict[str, Tensor]


def descend(loss: Callable[[Weights], Tensor], weights: Weights, steps: int, lr: float, second_order: bool) -> Weights:
    for _ in range(steps):
        grads = torch.autograd.grad(loss(weights), list(weights.values()), create_graph=second_order)
        weights = {k: w - lr * g for (k, w), g in zip(weights.items(), grads, strict=True)}
    return weights


def maml(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):

            def support_loss(weights: Weights, x: Tensor = x, y: Tensor = y) -> Tensor:
                return loss(functional_call(net, weights, (x,)), y)

            start = dict(net.named_parameters())
            adapted = descend(support_loss, start, work.steps, work.lr, not work.first_order)
            (loss(functional_call(net, adapted, (query_x,)), query_y) / work.tasks).backward()

    return training(net, backward)


def evaluate(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)

    def losses() -> list[Tensor]:
        found = []
        for x, y, query_x, query_y in zip(*batch, strict=True):

            def support_loss(weights: Weights, x: Tensor = x, y: Tensor = y) -> Tensor:
                return loss(functional_call(net, weights, (x,)), y)

            adapted = descend(support_loss, dict(net.named_parameters()), work.steps, work.lr, False)
            with torch.no_grad():
                found.append(loss(functional_call(net, adapted, (query_x,)), query_y))
        return found

    return evaluation(losses)


def anil(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    body, head = net[:-1], net[-1]

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            features = body(x)

            def support_loss(weights: Weights, features: Tensor = features, y: Tensor = y) -> Tensor:
                return loss(functional_call(head, weights, (features,)), y)

            adapted = descend(support_loss, dict(head.named_parameters()), work.steps, work.lr, True)
            (loss(functional_call(head, adapted, (body(query_x),)), query_y) / work.tasks).backward()

    return training(net, backward)


def protonet(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            features = net(x)
            centres = torch.stack([features[y == k].mean(0) for k in range(work.way)])
            distances = (net(query_x).unsqueeze(1) - centres).square().sum(-1)
            (loss(-distances, query_y) / work.tasks).backward()

    return training(net, backward)


def imaml(work: Workload, dtype: torch.dtype) -> Built:
    """The gradient at the start is the solution v of (I + H / strength) v = g, H of the support loss where it ends."""
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    parameters = list(net.parameters())

    def backward() -> None:
        start = {k: w.detach() for k, w in net.named_parameters()}
        totals = [torch.zeros_like(p) for p in parameters]
        for x, y, query_x, query_y in zip(*batch, strict=True):
            reached = {k: w.clone().requires_grad_() for k, w in start.items()}

            def plain_loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
                return loss(functional_call(net, weights, (x,)), y)

            for _ in range(work.steps):
                pull = sum(((w - start[k]).square().sum() for k, w in reached.items()), torch.zeros((), dtype=dtype))
                objective = plain_loss(reached, x, y) + 0.5 * work.strength * pull
                grads = torch.autograd.grad(objective, list(reached.values()))
                moved = zip(reached.items(), grads, strict=True)
                reached = {k: (w - work.lr * g).detach().requires_grad_() for (k, w), g in moved}
            values = list(reached.values())
            outer = torch.autograd.grad(plain_loss(reached, query_x, query_y) / work.tasks, values)
            inner = torch.autograd.grad(plain_loss(reached, x, y), values, create_graph=True)
            found = conjugate_gradient(partial(pulled, inner, values, work.strength), list(outer), work.cg_steps)
            totals = [total + v for total, v in zip(totals, found, strict=True)]
        for parameter, total in zip(parameters, totals, strict=True):
            parameter.grad = total

    return training(net, backward)


def pulled(inner: tuple[Tensor, ...], values: list[Tensor], strength: float, v: list[Tensor]) -> list[Tensor]:
    """(I + H / strength) v."""
    products = torch.autograd.grad(inner, values, v, retain_graph=True)
    return [a + b / strength for a, b in zip(v, products, strict=True)]


def conjugate_gradient(matrix: Callable[[list[Tensor]], list[Tensor]], right: list[Tensor], steps: int) -> list[Tensor]:
    """An approximate solution of matrix(x) = right, starting from 0."""
    x = [torch.zeros_like(r) for r in right]
    residual, direction = list(right), list(right)
    size = dot(residual, residual)
    for _ in range(steps):
        image = matrix(direction)
        length = size / dot(direction, image)
        x = [a + length * d for a, d in zip(x, direction, strict=True)]
        residual = [r - length * i for r, i in zip(residual, image, strict=True)]
        before, size = size, dot(residual, residual)
        direction = [r + size / before * d for r, d in zip(residual, direction, strict=True)]
    return x


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


METHODS = {"maml": maml, "anil": anil, "protonet": protonet, "imaml": imaml, "evaluate": evaluate}
