"""Drawing few-shot tasks from classes: which classes, which rows, which labels.

A whole meta-batch is drawn at once by a handful of tensor operations on the device of the data. Sets
without replacement are the largest k of uniform noise, so their order is uniformly random too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import generator

Count: TypeAlias = int | str | tuple[int, int]
"""How many: a number, or a range such as "2-5" or (2, 5), both ends included."""
Scheme = Literal["fixed", "meta_dataset"]

META_DATASET_QUERY = 10
META_DATASET_SUPPORT = 500
META_DATASET_SHOT = 100


def count_range(value: Count, name: str) -> tuple[int, int]:
    """The smallest and the largest value of an option.

    Raises UserError if it is neither a whole number of at least 1 nor a range of such.

    >>> count_range("2-5", "shot"), count_range(3, "shot")
    ((2, 5), (3, 3))
    """
    try:
        if isinstance(value, str):
            ends = [int(end) for end in value.split("-")]
        elif isinstance(value, int):
            ends = [value]
        else:
            ends = [int(end) for end in value]
        low, high = ends[0], ends[-1]
        if len(ends) > 2 or not 1 <= low <= high:
            raise ValueError
    except (ValueError, TypeError, IndexError):
        raise UserError(
            f"{name} is {value!r}: give a whole number of at least 1, or a range such as 2-5."
        ) from None
    return low, high


def branch(rng: torch.Generator, *words: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that depends on the next number of `rng` and on the words."""
    number = torch.randint(2**62, (), generator=rng, device=rng.device)
    return generator(int(number), *words, device=device)


def whole(low: int | Tensor, high: int | Tensor, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Whole numbers, uniform from low to high, both included; the ends may be tensors."""
    if isinstance(low, int) and isinstance(high, int):
        return torch.randint(low, high + 1, shape, generator=rng, device=rng.device)
    noise = torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)
    return (low + (noise * (high - low + 1)).floor()).long()


@dataclass(frozen=True)
class Episode:
    """What a task looks like: the options of a class source, parsed and checked."""

    way: tuple[int, int]
    shot: tuple[int, int]
    query: tuple[int, int]
    imbalance: float = 0.0
    scheme: Scheme = "fixed"

    @classmethod
    def parse(
        cls, way: Count, shot: Count, query: Count, imbalance: float = 0.0, scheme: str = "fixed"
    ) -> Episode:
        """The options as a user writes them.

        Raises UserError for a value that makes no sense.
        """
        if scheme not in ("fixed", "meta_dataset"):
            raise UserError(f"unknown scheme {scheme!r}: {nearest(scheme, ['fixed', 'meta_dataset'])}")
        if not 0 <= imbalance < math.inf:
            raise UserError(f"imbalance is {imbalance}: give 0 (every class the same shot) or more.")
        if count_range(way, "way")[0] < 2:
            raise UserError(f"way is {way}: give at least 2 classes to tell apart, or a range such as 2-5.")
        ranges = count_range(way, "way"), count_range(shot, "shot"), count_range(query, "query")
        return cls(*ranges, imbalance, "fixed" if scheme == "fixed" else "meta_dataset")

    @property
    def rows_needed(self) -> int:
        """The rows that every class must have."""
        return 2 if self.scheme == "meta_dataset" else self.shot[1] + self.query[1]

    @property
    def padded(self) -> bool:
        """Whether some rows of a task may be padding."""
        ranges = (self.way, self.shot, self.query)
        return self.scheme == "meta_dataset" or self.imbalance > 0 or any(a != b for a, b in ranges)


@dataclass(frozen=True)
class Classes:
    """The classes of one split, ready to be drawn from.

    rows: (class, most rows), the row numbers of each class, filled up with any valid number.
    counts: (class,), how many of them are the class's own.
    groups: (class,) or None; if given, all classes of one task come from one group of `open_groups`,
    each equally likely; `group_sizes` says how many classes each of those has.
    """

    rows: Tensor
    counts: Tensor
    groups: Tensor | None = None
    open_groups: Tensor | None = None
    group_sizes: Tensor | None = None


class Draw(NamedTuple):
    """Which classes and rows make up a batch of tasks. Label j of a task is class `classes[task, j]`.

    classes: (task, way), numbers within the split; way: (task,), how many of them are in use.
    *_rows, *_y, *_weight: (task, n); rows are in the order of the labels, padding has weight 0.
    """

    classes: Tensor
    way: Tensor
    support_rows: Tensor
    support_y: Tensor
    support_weight: Tensor
    query_rows: Tensor
    query_y: Tensor
    query_weight: Tensor


def draw(classes: Classes, episode: Episode, tasks: int, rng: torch.Generator) -> Draw:
    """Draw a batch of tasks: classes without replacement, then rows of each without replacement.

    fixed: way, shot and query are drawn uniformly from their ranges, once per task; with imbalance b > 0
    class c has shot_c = max(1, round(shot * exp(-b u_c))), u_c ~ U[0, 1].
    meta_dataset: the sampler of Meta-Dataset (arXiv 1903.03096, section 3.2); see `meta_dataset_shots`.
    The width is that of the largest task the options allow, so all batches have one shape.
    """
    chosen, way = _draw_classes(classes, episode, tasks, rng)
    slots, most = chosen.shape[1], classes.rows.shape[1]
    counts = classes.counts[chosen]
    in_use = torch.arange(slots, device=rng.device) < way.unsqueeze(1)

    if episode.scheme == "meta_dataset":
        shots, queries = meta_dataset_shots(counts, in_use, rng)
        shot_width, query_width = min(META_DATASET_SHOT, most - 1), min(META_DATASET_QUERY, max(most // 2, 1))
    else:
        shots = whole(*episode.shot, (tasks, 1), rng).expand(tasks, slots)
        queries = whole(*episode.query, (tasks, 1), rng).expand(tasks, slots)
        if episode.imbalance > 0:
            u = torch.rand(tasks, slots, generator=rng, device=rng.device)
            shots = (shots * (-episode.imbalance * u).exp()).round().long().clamp_min(1)
        shot_width, query_width = episode.shot[1], episode.query[1]

    noise = torch.rand(tasks, slots, most, generator=rng, device=rng.device)
    noise.masked_fill_(torch.arange(most, device=rng.device) >= counts.unsqueeze(-1), -1.0)
    # The query takes the first places and the support the next ones, so they never share a row.
    width = min(int(query_width + shot_width), most)
    place = noise.topk(width, -1).indices
    rows = classes.rows[chosen.unsqueeze(-1), place]
    label = torch.arange(slots, device=rng.device).view(1, -1, 1)
    query = _part(rows, label, torch.zeros_like(queries), queries, in_use, query_width)
    if episode.scheme == "meta_dataset":
        # There the number of queries varies with the task, and the support starts where they end.
        support = _part(rows, label, queries, shots, in_use, width)
        limit = min(META_DATASET_SUPPORT, slots * shot_width)
        support = _packed(support, max(limit, slots))
    else:
        support = _part(rows[..., query_width:], label, torch.zeros_like(shots), shots, in_use, shot_width)
    return Draw(chosen, way, *support, *query)


def _draw_classes(
    classes: Classes, episode: Episode, tasks: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Classes (task, most ways) and the number in use (task,)."""
    available = len(classes.counts)
    low, high = episode.way
    slots = high
    noise = torch.rand(tasks, available, generator=rng, device=rng.device)
    most: int | Tensor = high
    if classes.groups is not None and classes.open_groups is not None and classes.group_sizes is not None:
        pick = whole(0, len(classes.open_groups) - 1, (tasks,), rng)
        inside = classes.groups == classes.open_groups[pick].unsqueeze(1)
        noise.masked_fill_(~inside, -1.0)
        most = classes.group_sizes[pick].clamp_max(high)
    elif available < high:
        most = available
    way = whole(low, most, (tasks,), rng)
    chosen = noise.topk(min(slots, available), -1).indices
    if available < slots:  # only in the meta_dataset scheme: the last labels stay unused
        chosen = torch.cat([chosen, chosen[:, :1].expand(-1, slots - available)], 1)
    return chosen, way


def meta_dataset_shots(counts: Tensor, in_use: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Support and query rows of each class, both (task, way), as Meta-Dataset draws them.

    q = min(10, floor(min_c n_c / 2)), the same for every class of a task;
    |S| = min(500, sum_c ceil(beta min(100, n_c - q))), beta ~ U(0, 1];
    R_c proportional to exp(alpha_c) n_c, alpha_c ~ U[log 1/2, log 2);
    shot_c = min(floor(R_c (|S| - way)) + 1, n_c - q)   (arXiv 1903.03096, section 3.2).
    Departure: a class never has more than 100 support rows, which bounds the width of a task.
    """
    tasks, slots = counts.shape
    smallest = counts.masked_fill(~in_use, torch.iinfo(torch.long).max).amin(1, keepdim=True)
    query = (smallest // 2).clamp_max(META_DATASET_QUERY)
    beta = 1.0 - torch.rand(tasks, 1, generator=rng, device=rng.device, dtype=torch.float64)
    room = (counts - query).clamp_min(0)
    size = ((beta * room.clamp_max(META_DATASET_SHOT)).ceil() * in_use).sum(1, keepdim=True)
    size = size.clamp_max(META_DATASET_SUPPORT)
    alpha = torch.rand(tasks, slots, generator=rng, device=rng.device, dtype=torch.float64)
    share = ((2 * alpha - 1) * math.log(2)).exp() * counts * in_use
    share = share / share.sum(1, keepdim=True)
    extra = (share * (size - in_use.sum(1, keepdim=True)).clamp_min(0)).floor()
    shots = (extra.long() + 1).minimum(room).clamp_max(META_DATASET_SHOT)
    return shots, query.expand(tasks, slots)


def _part(
    rows: Tensor, label: Tensor, start: Tensor, length: Tensor, in_use: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The places start .. start + length of each class as rows, labels and weights, all (task, n)."""
    place = torch.arange(width, device=rows.device)
    inside = (place >= start.unsqueeze(-1)) & (place < (start + length).unsqueeze(-1)) & in_use.unsqueeze(-1)
    rows = rows[..., :width]
    return rows.flatten(1), label.expand_as(rows).flatten(1), inside.flatten(1).float()


def _packed(part: tuple[Tensor, Tensor, Tensor], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows with the padding moved behind them and cut off at `width`."""
    rows, y, weight = part
    order = weight.argsort(dim=1, descending=True, stable=True)[:, :width]
    return rows.gather(1, order), y.gather(1, order), weight.gather(1, order)


def check_classes(
    classes: Classes, episode: Episode, split: str, names: list[str], group: str = "alphabet"
) -> None:
    """Raise UserError if a split has too few classes, or a class too few rows, for its tasks."""
    available = len(classes.counts)
    low, high = episode.way
    wanted = low if episode.scheme == "meta_dataset" else high
    if available < wanted:
        plural = "class" if available == 1 else "classes"
        raise UserError(
            f"the {split} split has {available} {plural} and way is {wanted}: "
            f"give more classes, a larger share of them to {split}, or a smaller way."
        )
    if classes.open_groups is not None and len(classes.open_groups) == 0:
        raise UserError(
            f"no {group} of the {split} split has the {wanted} classes that way asks for: "
            f"give a smaller way, or draw across {group}s."
        )
    short = (classes.counts < episode.rows_needed).nonzero().flatten().tolist()
    if short:
        name, rows = names[short[0]], int(classes.counts[short[0]])
        parts = "shot + query" if episode.shot[1] else "query"
        need = (
            "the meta_dataset scheme needs at least 2"
            if episode.scheme == "meta_dataset"
            else f"{parts} is {episode.rows_needed}"
        )
        others = f" (so do {len(short) - 1} others)" if len(short) > 1 else ""
        raise UserError(
            f"class {name!r} of the {split} split has {rows} row{'' if rows == 1 else 's'} and {need}{others}: "
            f"give it more rows, leave it out, or lower {parts.replace('+', 'or')}."
        )
