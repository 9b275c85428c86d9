"""learn2learn: `MAML(net).clone()` and `adapt(loss)`, as in its examples; ANIL is MAML of the head."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor
from workloads import Workload

from peers import Built
from peers.network import criterion, evaluation, network, training
from peers.vision import make_importable

make_importable()
learn2learn = import_module("learn2learn")


def maml(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    wrapped = learn2learn.algorithms.MAML(net, lr=work.lr, first_order=work.first_order)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            learner = wrapped.clone()
            for _ in range(work.steps):
                learner.adapt(loss(learner(x), y))
            (loss(learner(query_x), query_y) / work.tasks).backward()

    return training(net, backward)


def anil(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    body = net[:-1]
    head = learn2learn.algorithms.MAML(net[-1], lr=work.lr)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            learner, features = head.clone(), body(x)
            for _ in range(work.steps):
                learner.adapt(loss(learner(features), y))
            (loss(learner(body(query_x)), query_y) / work.tasks).backward()

    return training(net, backward)


def evaluate(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    wrapped = learn2learn.algorithms.MAML(net, lr=work.lr, first_order=True)

    def losses() -> list[Tensor]:
        found = []
        for x, y, query_x, query_y in zip(*batch, strict=True):
            learner = wrapped.clone()
            for _ in range(work.steps):
                learner.adapt(loss(learner(x), y))
            with torch.no_grad():
                found.append(loss(learner(query_x), query_y))
        return found

    return evaluation(losses)


METHODS = {"maml": maml, "anil": anil, "evaluate": evaluate}
