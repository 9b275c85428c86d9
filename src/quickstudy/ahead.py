"""Tasks drawn some steps ahead: in a row they cost a fraction of what each costs between two steps of training.

Between two steps the processor's caches hold the network and not what drawing needs, so that it takes three times as
long: a tenth of a step for the smallest networks. Beside a GPU, the next step's are drawn while it works on this one's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from torch import Tensor

from quickstudy.core.task import Task, map_tensors

MOST = 16
"""Steps that are drawn at once, at most."""
ROOM = 1 << 20
"""Bytes of tasks that may wait; tasks larger than this are drawn one step at a time."""


class Ahead:
    """draw(step) for every step in turn. What is drawn may depend on the step alone, not on when it is drawn.

    A draw that fails before its time is made again when its step comes, and fails then.

    >>> from quickstudy.tasks import Sinusoid
    >>> source = Sinusoid()
    >>> tasks = Ahead(lambda step: source.sample("train", 25, source.rng(0, "train", step)), range(1, 100))
    >>> next(iter(tasks)).support.x.shape
    torch.Size([25, 10, 1])
    """

    def __init__(self, draw: Callable[[int], Task], steps: Sequence[int]):
        self.draw = draw
        self.steps = deque(steps)
        self.waiting: deque[Task] = deque()

    def __iter__(self) -> Iterator[Task]:
        while self.waiting or self.steps:
            if not self.waiting:
                self._draw()
                self._more()
            yield self.waiting.popleft()

    def look(self) -> None:
        """Draw the tasks of the next step now, if none wait."""
        if self.steps and not self.waiting:
            with suppress(Exception):  # whatever it is, it is that step's to say
                self._draw()

    def _more(self) -> None:
        with suppress(Exception):
            for _ in range(1, min(MOST, ROOM // max(_bytes(self.waiting[0]), 1))):
                if self.steps:
                    self._draw()

    def _draw(self) -> None:
        self.waiting.append(self.draw(self.steps[0]))
        self.steps.popleft()


def _bytes(task: Task) -> int:
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    map_tensors(task, note)
    return sum(sizes)
