"""Normalisation of convolutional features, with the choice of statistics made explicit.

batch:   the mean and variance of the rows at hand, task by task, in training and after
         (transductive: a prediction depends on the other rows that are asked with it);
running: those in training; afterwards the running averages of training;
group:   of each row alone, over groups of channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "running", "group"]
_collected: ContextVar[dict[ChannelNorm, list[Tensor]] | None] = ContextVar("collected", default=None)


class ChannelNorm(nn.Module):
    """Normalise (n, channels, h, w), the rows of one task, per channel; then scale and shift.

    Running averages are never written by a forward pass (adapting changes nothing): the training
    loop gathers what it saw inside `collect` and folds it in after the outer step.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, norm: Norm, groups: int = 8, epsilon: float = 1e-5):
        super().__init__()
        self.norm = norm
        self.groups = groups
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        if norm == "running":
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether the rows at hand decide the statistics, so that they look at each other."""
        return self.norm == "batch" or (self.norm == "running" and self.training)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm == "group":
            return F.group_norm(x, self.groups, self.weight, self.bias, self.epsilon)
        if not self.uses_batch_statistics:
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.epsilon)
        store = _collected.get()
        if store is None or self.norm != "running":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.epsilon)
        # with momentum 1 the kernel hands over the statistics it needs anyway: no second pass over x
        seen = torch.zeros(2, len(self.weight), dtype=self.weight.dtype, device=x.device)
        out = F.batch_norm(x, seen[0], seen[1], self.weight, self.bias, True, 1.0, self.epsilon)
        store.setdefault(self, []).append(seen)
        return out

    def grouped(self, x: Tensor, weight: Tensor, bias: Tensor, tasks: int) -> Tensor:
        """forward for (n, task * channels, h, w), the channels of many tasks side by side, each scaled as its own.

        No statistics are handed to the training loop.
        """
        if self.norm == "group":
            return F.group_norm(x, self.groups * tasks, weight, bias, self.epsilon)
        if self.uses_batch_statistics:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.epsilon)
        mean, variance = self.mean.repeat(tasks), self.variance.repeat(tasks)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.epsilon)


@contextmanager
def collect() -> Iterator[dict[ChannelNorm, list[Tensor]]]:
    """Gather the statistics that running norms see inside the block, layer by layer."""
    store: dict[ChannelNorm, list[Tensor]] = {}
    token = _collected.set(store)
    try:
        yield store
    finally:
        _collected.reset(token)


def average(store: dict[ChannelNorm, list[Tensor]]) -> list[tuple[ChannelNorm, Tensor]]:
    """The mean of what each layer saw, (2, channels): means and variances."""
    return [(layer, torch.stack(seen).mean(0)) for layer, seen in store.items()]


@torch.no_grad()
def fold_in(layer: ChannelNorm, seen: Tensor, momentum: float = 0.1) -> None:
    """Move a layer's running averages towards what one outer step saw."""
    layer.mean.lerp_(seen[0].to(layer.mean.dtype), momentum)
    layer.variance.lerp_(seen[1].to(layer.variance.dtype), momentum)
