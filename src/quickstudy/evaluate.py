"""How good a learner is: it adapts to seeded tasks that every learner meets, and is measured on each."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from quickstudy.calibration import BINS, bin_sums, reliability
from quickstudy.core.catalogue import catalogue
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS, Source, Split, generator
from quickstudy.core.task import Examples, State, Task, map_tensors, select
from quickstudy.fanout import Crew
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
    processes: int | Crew = 1,
) -> Evaluation:
    """Adapt to each of `tasks` seeded tasks and measure the predictions for its query.

    The tasks depend on source, split, tasks and seed only. `batch` is how many are adapted at once, at
    most 20: less saves memory and changes nothing else. `watch` is called with the number of tasks done.
    The learner is in evaluation mode meanwhile; it and the global random state are left as they were.

    `processes` share the blocks of 20 tasks and torch's threads; each holds the learner and the data (but what is
    mapped from the disk). The scores are the same, to the last bit where each process computes with as many
    threads as one process would. A `Crew` (quickstudy.fanout) keeps its processes for the next evaluation.

    Raises UserError for a learner of another kind, of rows of another shape or for fewer classes, and for
    counts below 1.
    """
    work = Work(ready(learner, source), source, split, tasks, seed, batch)
    check_tasks(split, tasks)
    crew = processes if isinstance(processes, Crew) else Crew(processes)
    found: list[Block] = []
    with nullcontext() if crew is processes else crew:
        for card in crew.each(work.card, work.blocks):
            found.append(Block(**card))
            if watch is not None:
                watch(min(len(found) * BLOCK, tasks))
    objective = work.learner.objective
    sums = torch.tensor([block.bins for block in found], dtype=torch.float64).sum(0)
    return Evaluation(
        learner=name or name_of(learner, "learner"),
        source=name_of(source, "tasks"),
        split=split,
        seed=seed,
        kind=objective.kind,
        way=_only([block.ways for block in found]),
        shot=0 if source.spec.kind == "zero-shot" else _only([block.shots for block in found]),
        signs=dict(objective.measures),
        measures={m: [value for block in found for value in block.values[m]] for m in objective.measures},
        reliability=reliability(sums) if objective.kind == "classification" else None,
        adapt_seconds=float(np.median([spent for block in found for spent in block.seconds])),
        state_bytes=sum(block.state_bytes for block in found) / tasks,
        fingerprint=hashlib.sha256("".join(block.digest for block in found).encode()).hexdigest(),
    )


@dataclass(frozen=True)
class Block:
    """All that is kept of up to 20 tasks, as JSON holds it.

    values: of each measure on every task; bins: the sums of `bin_sums`; seconds: of adaptation a task, one entry
    a batch; ways, shots: the different numbers of classes, and of support rows a class; digest: of the tasks.
    """

    values: dict[str, list[float]]
    bins: list[list[float]]
    seconds: list[float]
    state_bytes: int
    ways: list[int]
    shots: list[int]
    digest: str


@dataclass(frozen=True)
class Work:
    """An evaluation that is to be done: the arguments of `evaluate`, the learner ready for the source."""

    learner: MetaLearner
    source: Source
    split: Split
    tasks: int
    seed: int
    batch: int | None

    @property
    def blocks(self) -> int:
        """How many blocks of up to 20 tasks there are."""
        return math.ceil(self.tasks / BLOCK)

    def card(self, index: int) -> dict[str, Any]:
        """What one block of tasks gave, as a dict. Whatever a learner draws depends on seed and block alone."""
        with evaluating(self.learner, generator(self.seed, "evaluate", index).initial_seed()):
            return asdict(self.score(draw_block(self.source, self.split, self.tasks, self.seed, index)))

    def score(self, block: Task) -> Block:
        """Adapt to each task of a block and measure the predictions for its query."""
        learner, objective, device = self.learner, self.learner.objective, device_of(self.learner)
        values: dict[str, list[float]] = {m: [] for m in objective.measures}
        sums, seconds, size = torch.zeros(3, BINS, dtype=torch.float64), [], 0
        for part in cut(block, self.batch, device, dtype_of(learner)):
            begin = _clock(device)
            state = learner.adapt(part.support)
            seconds.append((_clock(device) - begin) / part.support.tasks)
            size += _bytes(state)
            prediction = learner.predict(state, part.query.x, part.query.weight)
            for measure, value in objective.measure(prediction, part.query).items():
                values[measure] += value.double().tolist()
            if objective.kind == "classification":
                sums += bin_sums(prediction, part.query)
        ways, shots = _counts(block.support, self.source.spec.way)
        return Block(values, sums.tolist(), seconds, size, ways, shots, _digest(block))


def draw(source: Source, split: Split, tasks: int, seed: int) -> Iterator[Task]:
    """The `tasks` tasks that every evaluation with this split and seed meets, at most 20 at a time.

    Raises UserError for an unknown split or fewer than one task.
    """
    check_tasks(split, tasks)
    for index in range(math.ceil(tasks / BLOCK)):
        yield draw_block(source, split, tasks, seed, index)


def fingerprint(source: Source, split: Split, tasks: int, seed: int) -> str:
    """The digest that `evaluate` gives of the tasks it met, from drawing them alone."""
    return hashlib.sha256("".join(_digest(block) for block in draw(source, split, tasks, seed)).encode()).hexdigest()


def draw_block(source: Source, split: Split, tasks: int, seed: int, index: int) -> Task:
    """The tasks number 20 `index` and following of those that `draw` draws, at most 20."""
    rng = source.rng(seed, split, "evaluate", index)
    return source.sample(split, min(BLOCK, tasks - index * BLOCK), rng)


def check_tasks(split: str, tasks: int) -> None:
    """Raise UserError for an unknown split or fewer than one task."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: {nearest(split, SPLITS)}")
    if tasks < 1:
        raise UserError(f"tasks is {tasks}: evaluate on at least 1 task.")


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
    if spec.kind not in learner.kinds or learner.objective.kind != spec.objective().kind:
        does = " and ".join(learner.kinds) if spec.kind not in learner.kinds else learner.objective.kind
        raise UserError(
            f"{name_of(learner, 'learner')} does {does} and {name_of(source, 'tasks')} "
            f"holds {spec.kind} tasks: choose a learner and tasks of one kind."
        )
    if tuple(shape) != tuple(spec.x_shape):
        raise UserError(
            f"{name_of(learner, 'learner')} was built for rows of shape {tuple(shape)} and those of "
            f"{name_of(source, 'tasks')} are {tuple(spec.x_shape)}: choose tasks of that shape, or train another one."
        )
    described = getattr(learner, "description_shape", spec.description_shape)
    if tuple(described) != tuple(spec.description_shape):
        raise UserError(
            f"{name_of(learner, 'learner')} was built for descriptions of shape {tuple(described)} and those of "
            f"{name_of(source, 'tasks')} are {tuple(spec.description_shape)}: choose tasks of that shape, or train "
            "another one."
        )
    return learner if spec.kind == "regression" else learner.for_way(spec.way)


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
    """The catalogue's short name of a learner (the inner one of a wrapper) or source, or the class name without one."""
    try:
        key = catalogue(slot).key(type(thing))
        return name_of(getattr(thing, slot), slot) if key in catalogue(slot).wrappers else key
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


def _digest(tasks: Task) -> str:
    """A digest of tasks: of every label and weight, and of up to 127 values spread over each row of x."""
    digest = hashlib.sha256()
    for part in tasks:
        inputs = list(part.x.values()) if isinstance(part.x, dict) else [part.x]
        for tensor in (part.y, part.weight, *inputs):
            rows = tensor.detach().flatten(2) if tensor.dim() > 2 else tensor.detach().unsqueeze(-1)
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(rows[..., :: max(1, rows.shape[-1] // 64)].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def _counts(support: Examples, way: int) -> tuple[list[int], list[int]]:
    """The different numbers of classes of the tasks (0 for regression), and of support rows of a class."""
    real = (support.weight > 0).long()
    if not way:
        return [0], sorted(set(real.sum(1).tolist()))
    counts = torch.zeros(support.tasks, way, dtype=torch.long, device=real.device)
    counts = counts.scatter_add(1, support.y, real)
    return sorted(set((counts > 0).sum(1).tolist())), counts[counts > 0].unique().tolist()


def _only(found: list[list[int]]) -> int | None:
    """The one number that all blocks found; None where they found several."""
    numbers = {number for one in found for number in one}
    return numbers.pop() if len(numbers) == 1 else None
