"""Parts of a meta-batch side by side, each on a thread of its own.

The convolutions of one task are small. Threads that share one of them wait for each other, and all for the Python
between two of them; threads that have a task each wait for nothing. Torch lets go of Python's lock while it computes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.nets.norm import Seen, collect

MOST = 4
"""Parts at a time, at most: each holds what its way back needs, and only one at a time runs Python."""


class Sum(NamedTuple):
    """What parts gave together: their share of the mean loss, its gradient for every parameter, and what running
    norms saw."""

    loss: Tensor
    grads: list[Tensor | None]
    seen: Seen


class SideBySide:
    """Losses and gradients of a learner's parts, some at a time, added up in the order of the parts.

    A learner that draws for itself (dropout, say) is refused, for its draws have an order, and so is one that cannot
    be copied: `of` then gives None, and nothing has happened.
    """

    def __init__(self, learner: MetaLearner, parameters: Sequence[nn.Parameter]):
        self.learner = learner
        self.parameters = parameters
        self.refused = False
        self._pool: ThreadPoolExecutor | None = None

    def of(self, parts: Sequence[Task], lanes: int) -> Sum | None:
        """The mean loss over the tasks of all parts, and its gradient, `lanes` parts at a time; None if refused."""
        if self.refused:
            return None
        try:
            copies = [shared_copy(self.learner) for _ in range(lanes)]
        except Exception:  # whatever an attribute has against being copied, training goes on without
            self.refused = True
            return None
        before, threads = torch.default_generator.get_state(), torch.get_num_threads()
        pool = self._pool = self._pool or ThreadPoolExecutor(MOST, "part")
        line, share = _Line(parts), max(1, threads // lanes)
        jobs = [pool.submit(copy_context().run, self._lane, learner, line, share) for learner in copies]
        try:
            wait(jobs)
        finally:
            line.end()  # whoever ends the wait (Ctrl-C) ends the lanes
            torch.set_num_threads(threads)  # what a lane sets, new threads and the libraries below begin with
        if not torch.equal(before, torch.default_generator.get_state()):
            torch.default_generator.set_state(before)
            self.refused = True
            return None
        for job in jobs:
            job.result()
        return line.sum

    def _lane(self, learner: MetaLearner, line: _Line, threads: int) -> None:
        torch.set_num_threads(threads)
        layers = dict(zip(learner.modules(), self.learner.modules(), strict=True))
        try:
            while (found := line.take()) is not None:
                number, part = found
                with collect() as seen:
                    loss = learner(part) * (part.query.tasks / line.tasks)
                    grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
                line.add(number, Sum(loss.detach(), list(grads), {layers[at]: values for at, values in seen.items()}))
        except BaseException:
            line.end()
            raise


class _Line:
    """Parts that wait for a lane, and the sum of what those gave that are done: in their order, whoever was first."""

    def __init__(self, parts: Sequence[Task]):
        self.tasks = sum(part.query.tasks for part in parts)
        self.sum: Sum | None = None
        self._todo = iter(enumerate(parts))
        self._done: dict[int, Sum] = {}
        self._next = 0
        self._lock = Lock()

    def take(self) -> tuple[int, Task] | None:
        """The next part and its number; None at the end."""
        with self._lock:
            return next(self._todo, None)

    def add(self, number: int, found: Sum) -> None:
        """What a part gave; it waits for those before it."""
        with self._lock:
            self._done[number] = found
            while self._next in self._done:
                part = self._done.pop(self._next)
                self.sum = part if self.sum is None else _add(self.sum, part)
                self._next += 1

    def end(self) -> None:
        """Give out no more parts."""
        with self._lock:
            self._todo = iter(())


def at_once(parts: int, most: int | None = None) -> int:
    """How many of so many parts go side by side on this processor, `most` if that is given."""
    return max(1, min(parts, torch.get_num_threads(), MOST, most or MOST))


def shared_copy(learner: MetaLearner) -> MetaLearner:
    """A learner with the parameters and buffers of this one, in modules of its own: what one thread puts into a
    module for a while (`functional_call`), no other meets."""
    return copy.deepcopy(learner, {id(t): t for t in (*learner.parameters(), *learner.buffers())})


def _add(one: Sum, other: Sum) -> Sum:
    pairs = zip(one.grads, other.grads, strict=True)
    grads = [g if h is None else h if g is None else g + h for g, h in pairs]
    seen = {layer: one.seen.get(layer, []) + other.seen.get(layer, []) for layer in one.seen | other.seen}
    return Sum(one.loss + other.loss, grads, seen)
