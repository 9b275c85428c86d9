"""How good a learner is: it adapts to seeded tasks that every learner meets, and is measured on each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from quickstudy.calibration import BINS, bin_sums, reliability
from quickstudy.core.catalogue import catalogue
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS, Source, Split
from quickstudy.core.task import Examples, State, Task, map_tensors, select
from quickstudy.scores import Comparison, Evaluation, compare

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]

BLOCK = 20
"""Tasks drawn at once. It is fixed, so that neither learner nor memory decides which tasks are drawn."""


def evaluate(
    learner: MetaLearner,
    source: Source,
    split: Split = "test",
    tasks: int = 600,
    seed: int = 0,
    batch: int | None = None,
    name: str | None = None,
    watch: Callable[[int], object] | None = None,
) -> Evaluation:
    """Adapt to each of `tasks` seeded tasks and measure the predictions for its query.

    The tasks depend on source, split, tasks and seed only. `batch` is how many are adapted at once, at
    most 20: less saves memory and changes nothing else. `watch` is called with the number of tasks done.
    The learner is in evaluation mode meanwhile; it and the global random state are left as they were.

    Raises UserError for a learner of another kind, of rows of another shape or for fewer classes, and for
    counts below 1.
    """
    learner = ready(learner, source)
    objective, device = learner.objective, device_of(learner)
    values: dict[str, list[float]] = {m: [] for m in objective.measures}
    sums, seconds, size = torch.zeros(3, BINS, dtype=torch.float64), [], 0
    facts, digest = _Facts(source.spec.way), hashlib.sha256()
    with evaluating(learner, seed):
        for block in draw(source, split, tasks, seed):
            _digest(block, digest)
            facts.see(block.support)
            for part in cut(block, batch, device, dtype_of(learner)):
                begin = _clock(device)
                state = learner.adapt(part.support)
                seconds.append((_clock(device) - begin) / part.support.tasks)
                size += _bytes(state)
                prediction = learner.predict(state, part.query.x, part.query.weight)
                for measure, value in objective.measure(prediction, part.query).items():
                    values[measure] += value.double().tolist()
                if objective.kind == "classification":
                    sums += bin_sums(prediction, part.query)
                if watch is not None:
                    watch(len(values[next(iter(values))]))
    return Evaluation(
        learner=name or name_of(learner, "learner"),
        source=name_of(source, "tasks"),
        split=split,
        seed=seed,
        kind=objective.kind,
        way=facts.way,
        shot=facts.shot,
        signs=dict(objective.measures),
        measures=values,
        reliability=reliability(sums) if objective.kind == "classification" else None,
        adapt_seconds=float(np.median(seconds)),
        state_bytes=size / tasks,
        fingerprint=digest.hexdigest(),
    )


def draw(source: Source, split: Split, tasks: int, seed: int) -> Iterator[Task]:
    """The `tasks` tasks that every evaluation with this split and seed meets, at most 20 at a time.

    Raises UserError for an unknown split or fewer than one task.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: {nearest(split, SPLITS)}")
    if tasks < 1:
        raise UserError(f"tasks is {tasks}: evaluate on at least 1 task.")
    for index, start in enumerate(range(0, tasks, BLOCK)):
        rng = source.rng(seed, split, "evaluate", index)
        yield source.sample(split, min(BLOCK, tasks - start), rng)


def cut(
    block: Task, batch: int | None, device: torch.device, dtype: torch.dtype | None = None
) -> Iterator[Task]:
    """The tasks of a block, `batch` at a time, on the device, their real numbers of `dtype` if given.

    Raises UserError for a batch below 1.
    """
    if batch is not None and batch < 1:
        raise UserError(f"batch is {batch}: adapt at least 1 task at once.")
    size = batch or block.support.tasks
    for start in range(0, block.support.tasks, size):
        part = select(block, slice(start, start + size))
        yield map_tensors(part, lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype))


def ready(learner: MetaLearner, source: Source) -> MetaLearner:
    """The learner for the number of classes of a source.

    Raises UserError if the two are of different kinds or shapes, or the learner was built for fewer classes.
    """
    spec = source.spec
    shape = getattr(getattr(learner, "net", learner), "x_shape", spec.x_shape)
    if learner.objective.kind != spec.kind:
        raise UserError(
            f"{name_of(learner, 'learner')} does {learner.objective.kind} and {name_of(source, 'tasks')} "
            f"holds {spec.kind} tasks: choose a learner and tasks of one kind."
        )
    if tuple(shape) != tuple(spec.x_shape):
        raise UserError(
            f"{name_of(learner, 'learner')} was built for rows of shape {tuple(shape)} and those of "
            f"{name_of(source, 'tasks')} are {tuple(spec.x_shape)}: choose tasks of that shape, or train another one."
        )
    return learner.for_way(spec.way) if spec.kind == "classification" else learner


@contextmanager
def evaluating(learner: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, no gradients and seeded randomness; everything is put back after.

    Not inference mode: methods that adapt by gradients must be able to switch them on.
    """
    flags = [(module, module.training) for module in learner.modules()]
    cuda = list(range(torch.cuda.device_count())) if device_of(learner).type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            learner.eval()
            yield
    finally:
        for module, training in flags:
            module.training = training


def name_of(thing: object, slot: str) -> str:
    """The catalogue's short name of a learner or source, or the class name if it has none."""
    try:
        return catalogue(slot).key(type(thing))
    except (KeyError, UserError):
        return type(thing).__name__


def device_of(learner: nn.Module) -> torch.device:
    """Where a learner lives; the CPU if it has no parameters or buffers."""
    for tensor in (*learner.parameters(), *learner.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(learner: nn.Module) -> torch.dtype | None:
    """The type of a learner's weights; None if it has none."""
    return next((p.dtype for p in learner.parameters() if p.is_floating_point()), None)


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _bytes(state: State) -> int:
    return sum(t.numel() * t.element_size() for t in state.values())


def _digest(tasks: Task, digest: Any) -> None:
    """Feed tasks to a digest: every label and weight, and up to 127 values spread over each row of x."""
    for part in tasks:
        inputs = list(part.x.values()) if isinstance(part.x, dict) else [part.x]
        for tensor in (part.y, part.weight, *inputs):
            rows = tensor.detach().flatten(2) if tensor.dim() > 2 else tensor.detach().unsqueeze(-1)
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(rows[..., :: max(1, rows.shape[-1] // 64)].double().cpu().numpy().tobytes())


class _Facts:
    """Counts classes, and support rows of each class, over the tasks seen."""

    def __init__(self, way: int):
        self.classes = way
        self.ways: set[int] = set()
        self.shots: set[int] = set()

    def see(self, support: Examples) -> None:
        real = (support.weight > 0).long()
        if self.classes:
            counts = torch.zeros(support.tasks, self.classes, dtype=torch.long, device=real.device)
            counts = counts.scatter_add(1, support.y, real)
            self.ways |= set((counts > 0).sum(1).tolist())
            self.shots |= set(counts[counts > 0].unique().tolist())
        else:
            self.ways.add(0)
            self.shots |= set(real.sum(1).tolist())

    @property
    def way(self) -> int | None:
        return next(iter(self.ways)) if len(self.ways) == 1 else None

    @property
    def shot(self) -> int | None:
        return next(iter(self.shots)) if len(self.shots) == 1 else None
