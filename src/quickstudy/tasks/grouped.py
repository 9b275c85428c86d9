"""Tables of rows that belong to tasks, and the source that draws from them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.inventory import Inventory
from quickstudy.core.source import SPLITS, Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.drawing import Drawer, Drawn, Span
from quickstudy.tasks.pool import held_out
from quickstudy.tasks.sampling import Count, branch, count_range


@dataclass(frozen=True)
class Grouped:
    """All rows of a source, those of one task one after the other.

    x: (row, *x_shape); y: (row, y_size) real values or (row,) class numbers; start, count: (task,), where the rows of
    each task are; names: one a task; spans: what each split may ask; pooled_y: (row,) the class within all of a split,
    where it is not y; times: (row,) float64, rising within a task.
    """

    x: Tensor
    y: Tensor
    start: Tensor
    count: Tensor
    names: list[str]
    spans: Mapping[Split, Span]
    spec: Spec
    pooled_y: Tensor | None = None
    times: np.ndarray | None = None

    def to(self, device: torch.device) -> Grouped:
        """These rows on `device`."""
        pooled = None if self.pooled_y is None else self.pooled_y.to(device)
        return replace(self, x=self.x.to(device), y=self.y.to(device), pooled_y=pooled)


def spans(start: Tensor, count: Tensor, splits: Mapping[Split, Tensor]) -> dict[Split, Span]:
    """Whole tasks: every row of those of a split may be asked."""
    return {split: Span(t, start[t], start[t] + count[t]) for split, t in splits.items()}


def deal(
    names: Sequence[str],
    valid_fraction: float,
    test_fraction: float,
    valid: Sequence[str],
    test: Sequence[str],
    seed: int,
) -> dict[Split, Tensor]:
    """Whole tasks dealt into splits: those named in `valid` and `test` there, the others at random by the fractions.

    A split that is named gets no others. Raises UserError for a name that is not there, or is in both.

    >>> {split: tasks.tolist() for split, tasks in deal(["a", "b", "c"], 0, 0.2, ["a"], ["c"], 0).items()}
    {'train': [1], 'valid': [0], 'test': [2]}
    """
    number = {name: i for i, name in enumerate(names)}
    for name in (*valid, *test):
        if name not in number:
            raise UserError(f"there is no task {name!r} to hold out: {nearest(name, names)}")
        if name in valid and name in test:
            raise UserError(f"the task {name!r} is named for valid and for test: name it once.")
    rest = torch.tensor([i for name, i in number.items() if name not in (*valid, *test)], dtype=torch.long)
    dealt = held_out(len(rest), 0.0 if valid else valid_fraction, 0.0 if test else test_fraction, seed)
    splits: dict[Split, Tensor] = {split: rest[at] for split, at in dealt.items()}
    given: dict[Split, Sequence[str]] = {"valid": valid, "test": test}
    for split, named in given.items():
        if named:
            splits[split] = torch.tensor(sorted(number[name] for name in named))
    if not len(splits["train"]):
        raise UserError(f"all {len(names)} tasks are held out and none is left to train on: hold out fewer.")
    return splits


def by_task(task: Sequence[str], times: np.ndarray | None = None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the tasks (numbers in their order, else by alphabet), the order of the rows by task (and time), and
    how many rows each task has."""
    found = np.array(task)
    names, label = np.unique(found, return_inverse=True)
    if all(name.lstrip("-").isdigit() for name in names.tolist()):
        rank = np.argsort(np.array([int(name) for name in names]), kind="stable")
        place = np.empty_like(rank)
        place[rank] = np.arange(len(rank))
        names, label = names[rank], place[label]
    order = np.lexsort((label,) if times is None else (times, label))
    return names.tolist(), order, np.bincount(label, minlength=len(names))


class GroupedSource(Source):
    """A source whose tasks are parts of tables. A concrete one says how its rows are loaded, and how they are drawn."""

    path: str
    shot: Count
    query: Count
    _held: dict[str, Any] | None = None
    episode_options: ClassVar[frozenset[str]] = frozenset({"shot", "query"})

    @abstractmethod
    def load(self) -> Grouped:
        """The rows, on the CPU."""

    @abstractmethod
    def drawer(self, rows: Grouped, span: Span, shot: tuple[int, int], query: tuple[int, int]) -> Drawer:
        """What draws from the tasks of a span."""

    def prepare(self) -> Grouped:
        """The rows on the device of this source; loaded at the first call."""
        held = self._cache()
        if "loaded" not in held:
            held["loaded"] = self.load()
        key = str(self.device)
        if key not in held:
            held[key] = held["loaded"].to(self.device)
        return held[key]

    def to(self, device: torch.device | str) -> Self:
        self._cache()
        return super().to(device)

    def reshaped(self, **episode: Any) -> Self:
        self._cache()
        other = super().reshaped(**episode)
        if not self.episode_options.issuperset(episode):
            other._held = None
        return other

    @property
    def spec(self) -> Spec:
        return self.prepare().spec

    def task_names(self, split: Split) -> list[str]:
        """The names of the tasks of a split, those with too few rows among them."""
        rows = self.prepare()
        return [rows.names[t] for t in self._span(split).tasks.tolist()]

    def owners(self, split: Split, tasks: int, rng: torch.Generator) -> list[str]:
        """The name of each task that `sample` draws with the same generator: one may come more than once."""
        names = self.prepare().names
        return [names[t] for t in self.draw(split, tasks, rng).owner.tolist()]

    def draw(self, split: Split, tasks: int, rng: torch.Generator) -> Drawn:
        """The rows of the tasks that `sample` draws with the same generator."""
        return self._drawer(split).draw(tasks, self._stream(split, rng))

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        """`tasks` tasks of a split, every task of it equally likely; padding is zeros of weight 0.

        Raises UserError if no task of the split has rows enough.
        """
        drawn = self.draw(split, tasks, rng)
        return Task(
            self._examples(drawn.support, drawn.support_weight), self._examples(drawn.query, drawn.query_weight)
        )

    def inventory(self) -> Inventory:
        rows = self.prepare()
        owner = torch.arange(len(rows.count)).repeat_interleave(rows.count.cpu())
        splits = {split: span.tasks for split, span in self._cache()["loaded"].spans.items()}
        place = lambda row: f"row {row - int(rows.start[owner[row]]) + 1}"  # noqa: E731
        values = rows.y.cpu() if rows.spec.kind == "regression" else None
        read = lambda at: rows.x[at.to(rows.x.device)].cpu()  # noqa: E731
        return Inventory("task", owner, rows.names, splits, read, place, values)

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """`rows` rows of a split with replacement, every task equally likely."""
        span, held, rng = self._span(split), self.prepare(), self._stream(split, rng)
        filled = (span.last > span.first).nonzero().flatten()
        if not len(filled):
            raise UserError(self._nothing(split))
        noise = torch.rand(2, 1, rows, generator=rng, device=rng.device, dtype=torch.float64)
        t = filled.to(rng.device)[(noise[0] * len(filled)).long()]
        first, last = span.first.to(rng.device)[t], span.last.to(rng.device)[t]
        at = first + (noise[1] * (last - first)).long()
        y = held.y if held.pooled_y is None else held.pooled_y
        return Examples(held.x[at], y[at], torch.ones(1, rows, device=rng.device))

    def _examples(self, rows: Tensor, weight: Tensor) -> Examples:
        held = self.prepare()
        x, y, real = held.x[rows], held.y[rows], weight > 0
        x = x * real.view(*real.shape, *[1] * (x.dim() - 2))
        return Examples(x, y * real.unsqueeze(-1) if y.dim() == 3 else y, weight)

    def _drawer(self, split: Split) -> Drawer:
        held, rows = self._cache(), self.prepare()
        shot, query = count_range(self.shot, "shot"), count_range(self.query, "query")
        key = f"{split} {shot} {query} {self.device} {[getattr(self, name) for name in sorted(self.episode_options)]}"
        if key not in held:
            span = self._span(split)
            found = self.drawer(held["loaded"], span, shot, query)
            if not len(found.tasks):
                raise UserError(self._nothing(split, found.needs, shot[1] + query[1]))
            gone = sorted(set(span.tasks.tolist()) - set(found.tasks.tolist()))
            if gone:
                warnings.warn(
                    f"{len(gone)} of {len(span.tasks)} {split} tasks of {self.path} are left out, for they have not "
                    f"the {shot[1] + query[1]} {found.needs} of shot + query (the first is {rows.names[gone[0]]!r})",
                    stacklevel=2,
                )
            held[key] = found.to(self.device)
        return held[key]

    def _nothing(self, split: Split, needs: str = "", wanted: int = 0) -> str:
        if not len(self._span(split).tasks):
            return f"the {split} split of {self.path} has no tasks: give more tasks, or a larger share to {split}."
        return (
            f"no {split} task of {self.path} has the {wanted} {needs} that shot + query ask for: give longer tasks, or "
            "lower shot or query."
        )

    def _span(self, split: Split) -> Span:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        self.prepare()
        return self._cache()["loaded"].spans[split]

    def _cache(self) -> dict[str, Any]:
        if self._held is None:
            self._held = {}
        return self._held

    def _stream(self, split: Split, rng: torch.Generator) -> torch.Generator:
        """A random stream of its own for each split, on the device of this source."""
        return branch(rng, split, device=self.device)
