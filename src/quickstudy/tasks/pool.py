"""Labelled rows in classes, and the source that draws few-shot tasks from them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.inventory import Inventory
from quickstudy.core.source import SPLITS, Source, Spec, Split, check_finite, generator
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.augment import jitter, mirror_classes
from quickstudy.tasks.mapped import MappedRows
from quickstudy.tasks.sampling import Classes, Count, Draw, Episode, branch, check_classes, draw


@dataclass(frozen=True)
class Pool:
    """All rows of a source, and which of them belong to which class.

    x: (row, *x_shape), uint8 or floating point, in memory or on the disk; rows: (class, most rows), row
    numbers filled up with any valid one; counts: (class,); names: one a class; splits: the numbers of the
    classes of each split; groups: (class,) or None, for instance the alphabet of a character; texts: what the rows say,
    where they were texts.
    """

    x: Tensor | MappedRows
    rows: Tensor
    counts: Tensor
    names: list[str]
    splits: Mapping[Split, Tensor]
    groups: Tensor | None = None
    texts: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        x: Tensor | MappedRows,
        label: Tensor,
        names: list[str],
        splits: Mapping[Split, Tensor],
        groups: Tensor | None = None,
        where: str = "the data",
    ) -> Pool:
        """A pool of rows `x` with class numbers `label` (row,).

        Raises UserError if there are no rows, or if one in memory holds a NaN or an infinite value.
        """
        if len(x) == 0 or not names:
            raise UserError(f"{where} holds no labelled rows: give at least one row for each class.")
        if isinstance(x, Tensor):
            check_finite(x, where)
        order = label.argsort(stable=True)
        counts = torch.bincount(label, minlength=len(names))
        start = counts.cumsum(0) - counts
        place = torch.arange(int(counts.max()))
        inside = place < counts.unsqueeze(1)
        rows = order[torch.where(inside, start.unsqueeze(1) + place, 0)]
        return cls(x, rows, counts, names, splits, groups)

    def rotated(self) -> Pool:
        """Four times as many classes: every class turned by 0, 90, 180 and 270 degrees.

        The turned images are kept in memory: tasks are then drawn as fast as without rotations.
        Class 4 c + r is class c turned anticlockwise by r quarters.
        """
        assert isinstance(self.x, Tensor)
        if self.x.shape[-1] != self.x.shape[-2]:
            raise UserError(f"rotations need square images, and these are {tuple(self.x.shape[-2:])}.")
        turns = torch.arange(4)
        x = torch.cat([self.x.rot90(int(r), (-2, -1)) for r in turns])
        rows = (self.rows.unsqueeze(1) + len(self.x) * turns.view(1, 4, 1)).flatten(0, 1)
        return replace(
            self,
            x=x,
            rows=rows,
            counts=self.counts.repeat_interleave(4),
            names=[f"{name}/rot{90 * r:03}" for name in self.names for r in range(4)],
            splits={s: (4 * c.unsqueeze(1) + turns).flatten() for s, c in self.splits.items()},
            groups=None if self.groups is None else self.groups.repeat_interleave(4),
        )

    def to(self, device: torch.device) -> Pool:
        """This pool with its tensors on `device`."""
        return replace(
            self,
            x=self.x.to(device),
            rows=self.rows.to(device),
            counts=self.counts.to(device),
            splits={s: c.to(device) for s, c in self.splits.items()},
            groups=None if self.groups is None else self.groups.to(device),
        )

    def gather(self, rows: Tensor) -> Tensor:
        """The rows at `rows` (task, n) as floating point, bytes scaled to [0, 1], no less than single precision."""
        x = self.x.index_select(0, rows.flatten())
        x = x.float().div_(255) if x.dtype == torch.uint8 else x.float() if x.dtype == torch.float16 else x
        return x.view(*rows.shape, *self.x.shape[1:])


def held_out(count: int, valid_fraction: float, test_fraction: float, seed: int | str) -> dict[Split, Tensor]:
    """`count` classes dealt at random into train, valid and test; equal seeds deal alike.

    Raises UserError for fractions that leave nothing to train on.

    >>> {split: len(classes) for split, classes in held_out(10, 0.2, 0.2, seed=0).items()}
    {'train': 6, 'valid': 2, 'test': 2}
    """
    if not (valid_fraction >= 0 and test_fraction >= 0 and valid_fraction + test_fraction < 1):
        raise UserError(
            f"valid_fraction {valid_fraction} and test_fraction {test_fraction} leave no class to train on: "
            "give two numbers of at least 0 whose sum is below 1."
        )
    order = torch.randperm(count, generator=generator(seed, "split"))
    valid, test = math.floor(count * valid_fraction + 0.5), math.floor(count * test_fraction + 0.5)
    return {
        "train": order[valid + test :].sort().values,
        "valid": order[:valid].sort().values,
        "test": order[valid : valid + test].sort().values,
    }


class ClassSource(Source):
    """A source whose tasks are drawn from classes: `way` of them, `shot` support rows of each, `query` to ask.

    A concrete source stores way, shot, query, imbalance and scheme, and says how its pool is loaded.
    The pool is loaded once, on first use, and shared by every copy that `reshaped` and `to` make.
    """

    way: Count
    shot: Count
    query: Count
    imbalance: float
    scheme: str
    _pools: dict[str, Any] | None = None
    encoder: str = ""
    rotations: bool = False
    mirrors: bool = False
    jitter: float = 0.0
    within_alphabet: bool = False
    group_word: ClassVar[str] = "alphabet"
    episode_options: ClassVar[frozenset[str]] = frozenset(
        {"way", "shot", "query", "imbalance", "scheme", "mirrors", "jitter", "within_alphabet"}
    )

    @abstractmethod
    def load(self) -> Pool:
        """The pool of this source on the CPU, without rotations."""

    def prepare(self) -> Pool:
        """The pool on the device of this source; loaded at the first call."""
        cache = self._cache()
        if "loaded" not in cache:
            pool = self.load()
            cache["loaded"] = pool.rotated() if self.rotations else pool
        key = str(self.device)
        if key not in cache:
            cache[key] = cache["loaded"].to(self.device)
        return cache[key]

    def to(self, device: torch.device | str) -> Self:
        self._cache()
        return super().to(device)

    def reshaped(self, **episode: Any) -> Self:
        self._cache()
        other = super().reshaped(**episode)
        if not self.episode_options.issuperset(episode):
            other._pools = None
        return other

    @property
    def spec(self) -> Spec:
        pool = self.prepare()
        way = self._episode().way[1]
        train = len(pool.splits.get("train", ()))
        shape = tuple(pool.x.shape[1:])
        return Spec("classification", shape, way=way, train_classes=train, encoded=bool(self.encoder))

    def names(self, split: Split) -> list[str]:
        """The names of the classes of a split, in the order of their numbers within it."""
        pool = self.prepare()
        return [pool.names[c] for c in pool.splits[split].tolist()]

    def draw(self, split: Split, tasks: int, rng: torch.Generator) -> Draw:
        """What `sample` draws with the same generator: the classes and the row numbers of each task."""
        classes, episode = self._classes(split), self._episode()
        cache, key = self._cache(), f"checked {split} {episode} {self.within_alphabet}"
        if key not in cache:
            check_classes(classes, episode, split, self.names(split), self.group_word)
            cache[key] = True
        return draw(classes, episode, tasks, self._local(rng))

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        """`tasks` tasks of a split, drawn all at once; rows are in the order of their labels.

        Padding rows are zeros of weight 0. Raises UserError if the split is too small for such tasks.
        """
        drawn = self.draw(split, tasks, rng)
        support, query = (self._examples(*part) for part in (drawn[2:5], drawn[5:8]))
        return self._augmented(Task(support, query), rng) if split == "train" else Task(support, query)

    def inventory(self) -> Inventory:
        pool = self.prepare()
        inside = torch.arange(pool.rows.shape[1], device=pool.rows.device) < pool.counts.unsqueeze(1)
        order = pool.rows[inside].cpu()
        owner = torch.arange(len(pool.counts)).repeat_interleave(pool.counts.cpu())
        splits = {split: classes.cpu() for split, classes in pool.splits.items()}
        read = lambda rows: pool.x.index_select(0, order[rows].to(pool.rows.device)).cpu()  # noqa: E731
        return Inventory("class", owner, pool.names, splits, read, lambda row: f"row {int(order[row])}")

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """`rows` rows of a split with replacement, every class equally likely; y is the class number."""
        classes, rng = self._classes(split), self._local(rng)
        if len(classes.counts) == 0:
            raise UserError(f"the {split} split has no classes: give more, or a larger share to {split}.")
        y = torch.randint(len(classes.counts), (1, rows), generator=rng, device=self.device)
        noise = torch.rand(1, rows, generator=rng, device=self.device, dtype=torch.float64)
        place = (noise * classes.counts[y]).long()
        x = self.prepare().gather(classes.rows[y, place])
        return Examples(x, y, torch.ones(1, rows, device=self.device))

    def _augmented(self, task: Task, rng: torch.Generator) -> Task:
        if self.mirrors:
            task = mirror_classes(task, self._episode().way[1], self._local(rng))
        if self.jitter:
            task = Task(*(jitter(rows, self.jitter, self._local(rng)) for rows in task))
        return task

    def _examples(self, rows: Tensor, y: Tensor, weight: Tensor) -> Examples:
        pool = self.prepare()
        x = pool.gather(rows)
        if self._episode().padded:
            x.mul_(weight.view(*weight.shape, *[1] * (x.dim() - 2)))
        return Examples(x, y, weight.to(x.dtype))

    def _cache(self) -> dict[str, Any]:
        if self._pools is None:
            self._pools = {}
        return self._pools

    def _episode(self) -> Episode:
        return Episode.parse(self.way, self.shot, self.query, self.imbalance, self.scheme)

    def _local(self, rng: torch.Generator) -> torch.Generator:
        return rng if rng.device.type == self.device.type else branch(rng, device=self.device)

    def _classes(self, split: Split) -> Classes:
        """The classes of a split, on the device of this source."""
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}: choose train, valid or test.")
        cache, episode = self._cache(), self._episode()
        pool = self.prepare()
        key = f"{split} {episode} {self.within_alphabet} {self.device}"
        if key not in cache:
            chosen = pool.splits[split]
            counts = pool.counts[chosen]
            classes = Classes(pool.rows[chosen, : int(counts.max()) if len(chosen) else 0], counts)
            if self.within_alphabet and pool.groups is not None:
                groups = pool.groups[chosen]
                sizes = torch.bincount(groups)
                wanted = episode.way[0] if episode.scheme == "meta_dataset" else episode.way[1]
                opened = (sizes >= max(wanted, 1)).nonzero().flatten()
                classes = replace(classes, groups=groups, open_groups=opened, group_sizes=sizes[opened])
            cache[key] = classes
        return cache[key]
