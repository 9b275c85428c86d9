"""The tasks of an outer step side by side, each in a thread of its own, where they are worked through one by one.

A convolution over the few images of a task hardly has work for two threads, and between two convolutions one of them
waits. With a task each neither does: 10 to 20 % less time on two cores, and more on more. Threads share the weights;
what belongs to a step of its own (which weights a network is called with, what norms see) is each thread's own.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.nets.norm import collect

Part = tuple[Tensor, Sequence[Tensor | None], Sequence[tuple[nn.Module, Tensor]]]
"""A part's mean loss, the gradient of every parameter, and what running norms saw."""


class SideBySide:
    """Losses and gradients of a learner's parts, as many at once as the processor has threads.

    The numbers do not depend on which part is ready first. A learner that draws random numbers while it learns, or
    counts what it does, needs its parts in their order: the first part of the first step shows it, and
    `of` then gives None.
    """

    def __init__(self, learner: MetaLearner):
        self.learner = learner
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads)
        self.apart: bool | None = None

    def of(self, parts: Sequence[Task]) -> Iterator[Part] | None:
        """What every part gives, in order; None where they have to be worked through in turn."""
        workers = self.at_once(parts)
        return self._run(parts, workers) if workers > 1 else None

    def at_once(self, parts: Sequence[Task]) -> int:
        """How many of the parts are worked through at once."""
        if self.threads == 1 or len(parts) == 1:
            return 1
        if self.apart is None:
            self.apart = self._apart(parts[0])
        return min(self.threads, len(parts)) if self.apart else 1

    def _run(self, parts: Sequence[Task], workers: int) -> Iterator[Part]:
        free = deque(self._twin() for _ in range(workers))
        todo, running = iter(parts), deque[Future[Part]]()

        def submit(part: Task) -> None:
            running.append(self.pool.submit(copy_context().run, self._one, part, free, self.threads // workers))

        try:
            for part in islice(todo, workers):
                submit(part)
            while running:
                done = running.popleft().result()
                for part in islice(todo, 1):
                    submit(part)
                yield done
        finally:
            for future in running:
                if not future.cancel():
                    future.exception()
            torch.set_num_threads(self.threads)  # what threads that are started later begin with

    def _one(self, part: Task, free: deque[MetaLearner], threads: int) -> Part:
        torch.set_num_threads(threads)
        twin = free.popleft()
        try:
            with collect() as seen:
                loss = twin(part)
                grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            names = {layer: name for name, layer in twin.named_modules()}
            own = {layer: self.learner.get_submodule(names[layer]) for layer in seen}
            return loss.detach(), grads, [(own[layer], values) for layer, rows in seen.items() for values in rows]
        finally:
            free.append(twin)

    def _twin(self) -> MetaLearner:
        """A learner of the same weights, tensor for tensor, in modules of its own: calling a network with the weights
        of a task puts them into its modules for a while."""
        shared = {id(t): t for t in (*self.learner.parameters(), *self.learner.buffers())}
        return copy.deepcopy(self.learner, shared)

    def _apart(self, part: Task) -> bool:
        """Whether parts can be worked through in any order, tried on one; nothing is left changed."""
        before = torch.default_generator.get_state()
        try:
            twin = self._twin()
        except Exception:  # whatever it holds that has no copy, training goes on without
            return False
        with collect():
            torch.autograd.grad(twin(part), self.parameters, allow_unused=True)
        drew = not torch.equal(before, torch.default_generator.get_state())
        torch.default_generator.set_state(before)
        return not drew and _plain(twin) == _plain(self.learner)


def _plain(learner: MetaLearner) -> list[dict[str, Any]]:
    """What a learner and its parts hold beside tensors and modules, as far as it can be compared."""
    kinds = int | float | str | bool | None
    return [{k: v for k, v in vars(m).items() if isinstance(v, kinds)} for m in learner.modules()]
