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
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core.device import on_processor
from quickstudy.core.tracing import is_tracing
from quickstudy.nets.first_block import first_block, in_parts
from quickstudy.nets.norm_pool import affine, norm_pool, per_channel

Norm = Literal["batch", "running", "group"]
Seen = dict[nn.Module, list[Tensor]]
"""What each layer with running statistics saw, part by part."""
_collected: ContextVar[Seen | None] = ContextVar("collected", default=None)


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
        return self.normalised(x, self.weight, self.bias)

    def normalised(self, x: Tensor, weight: Tensor, bias: Tensor, sets: list[int] | None = None) -> Tensor:
        """forward for (n, task * channels, h, w), the channels of many tasks side by side, each scaled as its own.

        sets: how many rows, one after the other, are normalised by themselves; all together if None.
        """
        if sets is not None and self.uses_batch_statistics:
            return torch.cat([self.normalised(rows, weight, bias) for rows in x.split(sets)])
        if self.norm == "group":
            return F.group_norm(x, self.groups * self._tasks(weight), weight, bias, self.epsilon)
        if not self.uses_batch_statistics:
            mean, variance = self._averages(weight)
            return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.epsilon)
        if self._store is None:
            return F.batch_norm(x, None, None, weight, bias, True, 0.0, self.epsilon)
        # with momentum 1 the kernel hands over the statistics it needs anyway: no second pass over x
        seen = torch.zeros(2, len(weight), dtype=weight.dtype, device=x.device)
        out = F.batch_norm(x, seen[0], seen[1], weight, bias, True, 1.0, self.epsilon)
        self._store.append(seen)
        return out

    def pooled(
        self,
        x: Tensor,
        kernel: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int = 1,
        sets: list[int] | None = None,
    ) -> Tensor:
        """max_pool2d(relu(normalised(conv2d(x, kernel))), 2) with padding 1, pooled first where that is the same.

        It is where channels are normalised one by one: the pool keeps what is largest, and so it does after a
        scale that is not negative. A kernel of the other sign stands in for a negative one.
        sets: how many rows, one after the other, are normalised by themselves; all together if None.
        """
        convolve = partial(F.conv2d, x, padding=1, groups=groups)
        if self.norm == "group" or torch.is_autocast_enabled(kernel.device.type):
            return torch.relu_(F.max_pool2d(self.normalised(convolve(kernel), weight, bias, sets), 2))
        sign = None
        # looking is quicker than turning kernels, unless a device has to be waited for
        if is_tracing() or not on_processor(weight) or bool((weight < 0).any()):
            sign = torch.where(weight.detach() < 0, -1.0, 1.0).to(weight.dtype)
            kernel, weight = kernel * sign.view(-1, 1, 1, 1), weight * sign
        if self.uses_batch_statistics:
            if groups == 1 and in_parts(x, kernel) and not is_tracing():
                out, means, variances = first_block(x, kernel, weight, bias, self.epsilon, sets)
            else:
                made, means, variances = norm_pool(convolve(kernel), weight, bias, self.epsilon, sets)
                out = torch.relu_(made)
            if self._store is not None:
                self.see(means if sign is None else means * sign, variances, per_channel(x, sets or [len(x)]))
            return out
        mean, variance = self._averages(weight)
        mean = mean if sign is None else mean * sign
        return torch.relu_(affine(F.max_pool2d(convolve(kernel), 2), mean, variance, weight, bias, self.epsilon))

    def at_once(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        kept: Tensor | None = None,
        sign: Tensor | None = None,
        sets: list[int] | None = None,
    ) -> Tensor:
        """forward for (task, n, channels, h, w), each task by itself; weight and bias (channels,) or (task, channels).

        kept: what is normalised in place of x, by the statistics of x (what a pool took of it). sign: of each
        channel, where x is its negative. sets: how many rows of a task, one after the other, are normalised by
        themselves; all together if None. In single precision at least.
        """
        kept = x if kept is None else kept
        if sets is not None and self.uses_batch_statistics:
            parts = zip(x.split(sets, 1), kept.split(sets, 1), strict=True)
            return torch.cat([self.at_once(rows, weight, bias, few, sign) for rows, few in parts], 1)
        precise = torch.float64 if x.dtype == torch.float64 else torch.float32
        x, kept = x.to(precise), kept.to(precise)
        scale, shift = _across(weight.to(precise)), _across(bias.to(precise))
        if self.norm == "group":
            return F.group_norm(kept.flatten(0, 1), self.groups, eps=self.epsilon).view_as(kept) * scale + shift
        turned = torch.ones_like(self.weight) if sign is None else sign
        if self.uses_batch_statistics:
            variance, mean = torch.var_mean(x, (1, 3, 4), correction=0, keepdim=True)
            size = x.new_full((1, 1), x.numel() // mean.numel())
            self.see((mean.flatten(1) * turned).mean(0, True), variance.flatten(1).mean(0, True), size)
        else:
            mean, variance = _across(self.mean * turned), _across(self.variance)
        return (kept - mean) * ((variance + self.epsilon).rsqrt() * scale) + shift

    def see(self, means: Tensor, variances: Tensor, sizes: Tensor) -> None:
        """Hand the statistics of parts, (part, channels), the variances biased, of so many rows and pixels each,
        (part, 1), to the training loop where it wants them."""
        store = self._store
        if store is not None:
            unbiased = variances.detach() * (sizes / (sizes - 1).clamp_min(1))
            store.extend(torch.stack([means.detach(), unbiased], 1).unbind(0))

    def _tasks(self, weight: Tensor) -> int:
        """Of how many tasks the channels stand side by side that are scaled by `weight`."""
        return len(weight) // len(self.weight)

    def _averages(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The running mean and variance of each channel, for the channels of as many tasks side by side."""
        tasks = self._tasks(weight)
        return self.mean.repeat(tasks), self.variance.repeat(tasks)

    @property
    def _store(self) -> list[Tensor] | None:
        """Where the training loop wants to have what this layer sees."""
        store = _collected.get()
        return None if store is None or self.norm != "running" else store.setdefault(self, [])


def _across(values: Tensor) -> Tensor:
    """(channels,) or (task, channels) beside images (task, n, channels, h, w)."""
    return values.reshape(-1, 1, values.shape[-1], 1, 1)


class RunningMean(nn.Module):
    """The mean of the rows that training saw lately; it is kept in the same way as the running averages of a norm."""

    mean: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))

    def see(self, x: Tensor, weight: Tensor) -> None:
        """In training, hand the mean of the rows (task, n, size), padding left out, to the training loop."""
        store = _collected.get()
        if store is not None and self.training:
            rows = x.detach().to(self.mean.dtype)
            real = (weight > 0).unsqueeze(-1).to(rows.dtype)
            mean = (rows * real).sum((0, 1)) / real.sum().clamp_min(1)
            store.setdefault(self, []).append(mean.unsqueeze(0))


@contextmanager
def collect() -> Iterator[Seen]:
    """Gather the statistics that running norms see inside the block, layer by layer."""
    store: Seen = {}
    token = _collected.set(store)
    try:
        yield store
    finally:
        _collected.reset(token)


def average(store: Seen) -> list[tuple[nn.Module, Tensor]]:
    """The mean of what each layer saw, a row for each of its buffers: means and variances."""
    return [(layer, torch.stack(seen).mean(0)) for layer, seen in store.items()]


@torch.no_grad()
def fold_in(layer: nn.Module, seen: Tensor, momentum: float = 0.1) -> None:
    """Move a layer's running averages towards what one outer step saw."""
    for buffer, values in zip(layer.buffers(), seen, strict=True):
        buffer.lerp_(values.to(buffer.dtype), momentum)
