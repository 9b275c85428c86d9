"""Support and query of a task through a shared network in one call, each normalised by itself.

A learner encodes the support in `adapt` and the query in `predict`. In training both are at hand, and a network
that can keep sets of rows apart (`apart`) takes them together: half the calls, and none for a handful of images. The
first that is asked for takes the other along; what comes out is what two calls give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Inputs, Task
from quickstudy.core.tracing import is_tracing
from quickstudy.inner.picked import tell


@dataclass
class _Pair:
    """Rows that pass `net` both, and the features of the query from when the support passed until it is asked for."""

    net: nn.Module
    apart: Callable[[list[Inputs]], list[Tensor]]
    support: Inputs
    query: Inputs
    features: Tensor | None = None


_pair: ContextVar[_Pair | None] = ContextVar("pair", default=None)


class SharedPass(MetaLearner):
    """A learner that passes support and query through its `net`, once each and with the same weights."""

    net: nn.Module

    def forward(self, tasks: Task) -> Tensor:
        with shared_pass(self.net, tasks):
            return super().forward(tasks)


@contextmanager
def shared_pass(net: nn.Module, tasks: Task) -> Iterator[None]:
    """Inside, `apply_shared` takes the query of these tasks through `net` along with their support."""
    # padding has to be left out of the statistics, task by task: that is `apply_shared`'s business
    apart, pair = getattr(net, "apart", None), None
    if apart is not None and not is_tracing() and not any(rows.padded for rows in tasks):
        pair = _Pair(net, apart, tasks.support.x, tasks.query.x)
    token = _pair.set(pair)
    try:
        yield
    finally:
        _pair.reset(token)


def from_shared_pass(net: nn.Module, x: Inputs) -> Tensor | None:
    """net(x) where x is one of the two that pass together; None for any other, which pass by themselves."""
    pair = _pair.get()
    # without a graph they pass by themselves: the other may want one
    if pair is None or pair.net is not net or not torch.is_grad_enabled():
        return None
    if x is pair.support and pair.features is None:
        name = type(net).__name__
        tell(f"{name}: shared weights, support and query of a task in one pass, each normalised by itself")
        support, pair.features = pair.apart([pair.support, pair.query])
        return support
    if x is pair.query:
        query, pair.features = pair.features, None
        return query
    return None
