"""easyfsl: `process_support_set`, then scores of the query images, task by task, as in its own notebook."""

from __future__ import annotations

from importlib import import_module

import torch
from workloads import Workload

from peers import Built
from peers.network import criterion, network, training
from peers.vision import make_importable

make_importable()
PrototypicalNetworks = import_module("easyfsl.methods").PrototypicalNetworks


def protonet(work: Workload, dtype: torch.dtype) -> Built:
    net, batch, loss = network(work, dtype), work.batch(dtype), criterion(work)
    classifier = PrototypicalNetworks(net)

    def backward() -> None:
        for x, y, query_x, query_y in zip(*batch, strict=True):
            classifier.process_support_set(x, y)
            # its scores are minus the distance; the paper's, and everyone else's here, minus its square
            (loss(-classifier(query_x).square(), query_y) / work.tasks).backward()

    return training(net, backward)


METHODS = {"protonet": protonet}
