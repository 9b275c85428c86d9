"""A support and a query from the rows of one task: any rows, rows of every class, or what came before and after.

Each of these is laid out once for a split, and then draws whole batches of tasks by a handful of tensor operations.
Rows are numbers in the table of all rows, where those of one task follow each other, in the order of time if they have
one. Tasks are equally likely, however many rows they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from quickstudy.tasks.sampling import whole

Range = tuple[int, int]


class Drawn(NamedTuple):
    """Which tasks, and which rows of each: owner (task,); the rows and their weights (task, n)."""

    owner: Tensor
    support: Tensor
    support_weight: Tensor
    query: Tensor
    query_weight: Tensor


class Span(NamedTuple):
    """The tasks of a split, and of each the rows first .. last - 1 that may be asked; all (task,)."""

    tasks: Tensor
    first: Tensor
    last: Tensor

    def each(self) -> Iterator[tuple[int, int, int]]:
        yield from zip(*(t.tolist() for t in self), strict=True)


@dataclass(frozen=True)
class Drawer:
    """Draws tasks of one split; `tasks` (open,) are those that have rows enough."""

    tasks: Tensor
    shot: Range
    query: Range
    needs: ClassVar[str] = "rows"
    """What a task must have as many of as shot + query."""

    def to(self, device: torch.device) -> Self:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: t.to(device) for k, t in tensors.items() if isinstance(t, Tensor)})

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        """`count` tasks, with replacement."""
        raise NotImplementedError

    def pick(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randint(len(self.tasks), (count,), generator=rng, device=rng.device)

    def lengths(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """How many rows to learn from and to ask, both (task, 1)."""
        return whole(*self.shot, (count, 1), rng), whole(*self.query, (count, 1), rng)


def first_of(width: int, lengths: Tensor) -> Tensor:
    """Weights (task, width): 1 for the first `lengths` (task, 1) rows, 0 for the padding behind them."""
    return (torch.arange(width, device=lengths.device) < lengths).float()


def shuffled(sizes: Tensor, most: int, width: int, rng: torch.Generator) -> Tensor:
    """`width` different places below `sizes` (...), in random order: (..., width)."""
    noise = torch.rand(*sizes.shape, most, generator=rng, device=rng.device)
    noise.masked_fill_(torch.arange(most, device=rng.device) >= sizes.unsqueeze(-1), -1.0)
    return noise.topk(width, -1).indices


@dataclass(frozen=True)
class AnyRows(Drawer):
    """Rows at random without replacement, for real values."""

    first: Tensor
    size: Tensor

    @classmethod
    def of(cls, span: Span, shot: Range, query: Range) -> AnyRows:
        size = span.last - span.first
        enough = size >= shot[1] + query[1]
        return cls(span.tasks[enough], shot, query, span.first[enough], size[enough])

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        t, asked = self.pick(count, rng), self.query[1]
        place = shuffled(self.size[t], int(self.size.max()), asked + self.shot[1], rng)
        rows = self.first[t].unsqueeze(1) + place
        shots, queries = self.lengths(count, rng)
        support, query = rows[:, asked:], rows[:, :asked]
        return Drawn(
            self.tasks[t], support, first_of(support.shape[1], shots), query, first_of(query.shape[1], queries)
        )


@dataclass(frozen=True)
class EachClass(Drawer):
    """`shot` and `query` rows of every class; a class with too few of them is left out of its task.

    order: (row,) rows of a task by class; begin, size: (open, class), where in it each class is.
    """

    order: Tensor
    begin: Tensor
    size: Tensor
    needs = "rows in each of two classes"

    @classmethod
    def of(cls, span: Span, y: Tensor, way: int, shot: Range, query: Range) -> EachClass:
        labels, order = y.numpy(), np.arange(len(y))
        tasks, begins, sizes = [], [], []
        for task, first, last in span.each():
            order[first:last] = first + labels[first:last].argsort(kind="stable")
            size = np.bincount(labels[first:last], minlength=way)
            if (size >= shot[1] + query[1]).sum() >= 2:
                tasks.append(task)
                begins.append(first + size.cumsum() - size)
                sizes.append(size)
        table = [torch.from_numpy(np.array(part, dtype=np.int64).reshape(len(tasks), way)) for part in (begins, sizes)]
        return cls(torch.tensor(tasks, dtype=torch.long), shot, query, torch.from_numpy(order), *table)

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        t, asked, shown = self.pick(count, rng), self.query[1], self.shot[1]
        size = self.size[t]
        in_use = (size >= asked + shown).unsqueeze(-1)
        place = shuffled(size, int(self.size.max()), asked + shown, rng)
        rows = self.order[torch.where(in_use, self.begin[t].unsqueeze(-1) + place, 0)]
        shots, queries = self.lengths(count, rng)
        weights = (first_of(shown, shots).unsqueeze(1) * in_use, first_of(asked, queries).unsqueeze(1) * in_use)
        support, query = rows[..., asked:].flatten(1), rows[..., :asked].flatten(1)
        return Drawn(self.tasks[t], support, weights[0].flatten(1), query, weights[1].flatten(1))


@dataclass(frozen=True)
class AnyLabelled(Drawer):
    """Rows of all classes as they come; queries of a class that the support does not show get weight 0.

    One row of the support and one of the query are of the same class, so that there is something to ask.
    y: (row,) class numbers; paired: (row,) whether another row of the task is of the same class.
    """

    first: Tensor
    size: Tensor
    y: Tensor
    paired: Tensor
    needs = "rows (of two classes, one of them twice)"

    @classmethod
    def of(cls, span: Span, y: Tensor, shot: Range, query: Range) -> AnyLabelled:
        paired, enough = torch.zeros(len(y), dtype=torch.bool), []
        for _, first, last in span.each():
            size = torch.bincount(y[first:last])
            paired[first:last] = size[y[first:last]] >= 2
            fits = last - first >= shot[1] + query[1] and (size > 0).sum() >= 2
            enough.append(bool(fits and paired[first:last].any()))
        kept = torch.tensor(enough, dtype=torch.bool)
        size = (span.last - span.first)[kept]
        return cls(span.tasks[kept], shot, query, span.first[kept], size, y, paired)

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        t, asked, most = self.pick(count, rng), self.query[1], int(self.size.max())
        place = torch.arange(most, device=rng.device)
        inside = place < self.size[t].unsqueeze(1)
        rows = torch.where(inside, self.first[t].unsqueeze(1) + place, self.first[t].unsqueeze(1))
        label = self.y[rows]
        noise = torch.rand(3, count, most, generator=rng, device=rng.device)
        one = torch.where(inside & self.paired[rows], noise[0], -1).argmax(1, keepdim=True)
        same = inside & (label == label.gather(1, one)) & (place != one)
        other = torch.where(same, noise[1], -1).argmax(1, keepdim=True)
        order = torch.where(inside, noise[2], -1).scatter(1, one, 3.0).scatter(1, other, 2.0)
        rows = rows.gather(1, order.topk(asked + self.shot[1], 1).indices)
        query = torch.cat([rows[:, :1], rows[:, 2 : asked + 1]], 1)
        support = torch.cat([rows[:, 1:2], rows[:, asked + 1 :]], 1)
        shots, queries = self.lengths(count, rng)
        weight = first_of(support.shape[1], shots)
        shown = known(self.y[support], weight, self.y[query])
        return Drawn(self.tasks[t], support, weight, query, first_of(query.shape[1], queries) * shown)


def known(y: Tensor, weight: Tensor, asked: Tensor) -> Tensor:
    """Whether the class of each row `asked` (task, m) is among those `y` (task, n) that have weight."""
    return ((asked.unsqueeze(2) == y.unsqueeze(1)) & (weight > 0).unsqueeze(1)).any(2)


@dataclass(frozen=True)
class Cuts(Drawer):
    """Tasks in the order of time, cut where one time ends and the next begins.

    begin, number: (open,), where in `at` the cuts of a task are; at: (cut,) the first row after each; low: (cut,) the
    first row that its support may hold; high: (open,) the end of a task's rows.
    mix: what lies around a cut is dealt at random; far: the query is any rows after the cut, not the next ones.
    """

    begin: Tensor
    number: Tensor
    at: Tensor
    low: Tensor
    high: Tensor
    mix: bool = False
    far: bool = False
    y: Tensor | None = None
    needs = "rows one after the other in time"

    @classmethod
    def of(
        cls,
        span: Span,
        cuts: Callable[[int, int, int], tuple[np.ndarray, np.ndarray]],
        shot: Range,
        query: Range,
        mix: bool = False,
        far: bool = False,
        y: Tensor | None = None,
    ) -> Cuts:
        """cuts: of a task, with its first and last row to ask, the `at` and the `low` of every cut."""
        tasks, numbers, ats, lows, highs = [], [], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
        for task, first, last in span.each():
            at, low = cuts(task, first, last)
            if len(at):
                tasks.append(task)
                numbers.append(len(at))
                highs.append(last)
                ats.append(at)
                lows.append(low)
        number = torch.tensor(numbers, dtype=torch.long)
        at, low = (torch.from_numpy(np.concatenate(part).astype(np.int64)) for part in (ats, lows))
        ends = torch.tensor(highs, dtype=torch.long)
        begin = number.cumsum(0) - number
        return cls(torch.tensor(tasks, dtype=torch.long), shot, query, begin, number, at, low, ends, mix, far, y)

    def draw(self, count: int, rng: torch.Generator) -> Drawn:
        t, asked = self.pick(count, rng), self.query[1]
        noise = torch.rand(count, generator=rng, device=rng.device, dtype=torch.float64)
        cut = self.begin[t] + (noise * self.number[t]).long()
        at, low = self.at[cut].unsqueeze(1), self.low[cut].unsqueeze(1)
        shots, queries = self.lengths(count, rng)
        # the widest support that a task of this split may have, so that all batches have one shape
        width = min(self.shot[1], int((self.at - self.low).max()))
        shots = shots.minimum(at - low)
        support = at - shots + torch.arange(width, device=rng.device)
        query = at + torch.arange(asked, device=rng.device)
        if self.mix:
            both = at - width + torch.arange(width + asked, device=rng.device)
            order = torch.rand(both.shape, generator=rng, device=rng.device).argsort(1)
            support, query = both.gather(1, order).split_with_sizes((width, asked), 1)
        elif self.far:
            room = self.high[t] - at.squeeze(1)
            query = at + shuffled(room, int(room.max()), asked, rng).sort(1).values
        weight, query_weight = first_of(width, shots), first_of(asked, queries)
        support = torch.where(weight > 0, support, at - 1)
        if self.y is not None:
            query_weight = query_weight * known(self.y[support], weight, self.y[query])
        return Drawn(self.tasks[t], support, weight, query, query_weight)
