"""Tasks drawn some steps ahead: in a row they cost a fraction of what each costs between two steps of training.

Between two steps the processor's caches hold the network and not what drawing needs, so that it takes three times as
long: a tenth of a step for the smallest networks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from quickstudy.core.task import Task, map_tensors

MOST = 16
"""Steps that are drawn at once, at most."""
ROOM = 1 << 20
"""Bytes of tasks that may wait; tasks larger than this are drawn one step at a time."""


def ahead(draw: Callable[[int], Task], steps: Sequence[int]) -> Iterator[Task]:
    """draw(step) for every step in turn. What is drawn may depend on the step alone, not on when it is drawn.

    A draw that fails before its time is made again when its step comes, and fails then.

    >>> from quickstudy.tasks import Sinusoid
    >>> source = Sinusoid()
    >>> tasks = ahead(lambda step: source.sample("train", 25, source.rng(0, "train", step)), range(1, 100))
    >>> next(tasks).support.x.shape
    torch.Size([25, 10, 1])
    """
    waiting: deque[Task] = deque()
    for i, step in enumerate(steps):
        if not waiting:
            waiting.append(draw(step))
            for later in steps[i + 1 : i + min(MOST, ROOM // max(_bytes(waiting[0]), 1))]:
                try:
                    waiting.append(draw(later))
                except Exception:  # whatever it is, it is that step's to say
                    break
        yield waiting.popleft()


def _bytes(task: Task) -> int:
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    map_tensors(task, note)
    return sum(sizes)
