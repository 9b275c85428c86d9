"""TorchOpt: `MetaSGD` with the state taken out and put back, and its implicit module, as in its Omniglot examples."""

from __future__ import annotations

import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call
from torchopt.diff.implicit import ImplicitMetaGradientModule
from workloads import Workload

from peers import Built
from peers.network import criterion, evaluation, network, training


def maml(work: Workload, dtype: torch.dtype) -> Built:
    if work.first_order:
        return first_order(work, dtype)
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    inner = torchopt.MetaSGD(net, lr=work.lr)

    def backward() -> None:
        losses = []
        start = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
        fresh = torchopt.extract_state_dict(inner, by="reference")
        for x, y, query_x, query_y in zip(*batch, strict=True):
            for _ in range(work.steps):
                inner.step(loss(net(x), y))
            losses.append(loss(net(query_x), query_y))
            torchopt.recover_state_dict(net, start)
            torchopt.recover_state_dict(inner, fresh)
        torch.stack(losses).mean().backward()

    return training(net, backward)


def descend(work: Workload, net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """`MetaSGD` always keeps the graph; where none is needed, its functional optimiser is the cheaper way."""
    loss = criterion(work)
    optimizer = torchopt.sgd(lr=work.lr)
    weights = dict(net.named_parameters())
    state = optimizer.init(weights)
    for _ in range(work.steps):
        grads = torch.autograd.grad(loss(functional_call(net, weights, (x,)), y), list(weights.values()))
        named = dict(zip(weights, grads, strict=True))
        updates, state = optimizer.update(named, state, inplace=False)
        weights = torchopt.apply_updates(weights, updates, inplace=False)
    return weights


def first_order(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            weights = descend(work, net, x, y)
            (loss(functional_call(net, weights, (query_x,)), query_y) / work.tasks).backward()

    return training(net, backward)


def evaluate(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)

    def losses() -> list[Tensor]:
        found = []
        for x, y, query_x, query_y in zip(*batch, strict=True):
            weights = descend(work, net, x, y)
            with torch.no_grad():
                found.append(loss(functional_call(net, weights, (query_x,)), query_y))
        return found

    return evaluation(losses)


def anil(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    body, head = net[:-1], net[-1]
    inner = torchopt.MetaSGD(head, lr=work.lr)

    def backward() -> None:
        losses = []
        start = torchopt.extract_state_dict(head, by="reference", detach_buffers=True)
        fresh = torchopt.extract_state_dict(inner, by="reference")
        for x, y, query_x, query_y in zip(*batch, strict=True):
            features = body(x)
            for _ in range(work.steps):
                inner.step(loss(head(features), y))
            losses.append(loss(head(body(query_x)), query_y))
            torchopt.recover_state_dict(head, start)
            torchopt.recover_state_dict(inner, fresh)
        torch.stack(losses).mean().backward()

    return training(net, backward)


def imaml(work: Workload, dtype: torch.dtype) -> Built:
    class Inner(
        ImplicitMetaGradientModule,
        linear_solve=torchopt.linear_solve.solve_cg(maxiter=work.cg_steps, rtol=0.0, atol=0.0),
    ):
        def __init__(self, meta_net: nn.Module):
            super().__init__()
            self.meta_net = meta_net
            self.net = torchopt.module_clone(meta_net, by="deepcopy", detach_buffers=True)
            self.reset_parameters()

        def reset_parameters(self) -> None:
            with torch.no_grad():
                for own, meta in zip(self.parameters(), self.meta_parameters(), strict=True):
                    own.data.copy_(meta.data)
                    own.detach_().requires_grad_()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def objective(self, x: Tensor, y: Tensor) -> Tensor:
            pull = torch.zeros((), dtype=dtype)
            for own, meta in zip(self.parameters(), self.meta_parameters(), strict=True):
                pull = pull + (own - meta).square().sum()
            return loss(self(x), y) + 0.5 * work.strength * pull

        def solve(self, x: Tensor, y: Tensor) -> Inner:
            params = tuple(self.parameters())
            optimizer = torchopt.SGD(params, lr=work.lr)
            with torch.enable_grad():
                for _ in range(work.steps):
                    value = self.objective(x, y)
                    optimizer.zero_grad()
                    value.backward(inputs=params)
                    optimizer.step()
            return self

    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    inner_nets = [Inner(net) for _ in range(work.tasks)]

    def backward() -> None:
        losses = []
        for inner, x, y, query_x, query_y in zip(inner_nets, *batch, strict=True):
            inner.reset_parameters()
            losses.append(loss(inner.solve(x, y)(query_x), query_y))
        torch.stack(losses).mean().backward()

    return training(net, backward)


METHODS = {"maml": maml, "anil": anil, "imaml": imaml, "evaluate": evaluate}
