"""Zero-shot tasks from classes that bear a description: what every source of such classes shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import Spec, Split, generator
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.pool import ClassSource, Pool
from quickstudy.tasks.sampling import Classes, Draw, Episode, check_classes, count_range, draw

ASKED = ("all", "seen", "unseen")


@dataclass(frozen=True)
class DescribedPool(Pool):
    """A pool with descriptions, (class, *description_shape), floating point."""

    descriptions: Tensor | None = None

    def to(self, device: torch.device) -> DescribedPool:
        moved = super().to(device)
        assert isinstance(moved, DescribedPool) and self.descriptions is not None
        return replace(moved, descriptions=self.descriptions.to(device))


class DescribedSource(ClassSource):
    """A source of zero-shot tasks: the support is one description for each class, the query rows of the classes.

    A concrete source stores way and query, and its `load` gives a `DescribedPool`.

    seen: how many classes of a valid or test task are training classes (generalised zero-shot): they stand among the
    others under labels in random order. asked: whether the query asks for "all" classes of such a task, or only for
    rows of "seen" or of "unseen" ones; the tasks are the same. kept_back: with `seen`, the share of the rows of each
    training class that is asked for in valid and test tasks, and never in training.
    """

    zero_shot: bool = True
    seen: int = 0
    asked: str = "all"
    kept_back: float = 0.2
    split_seed: int
    episode_options: ClassVar[frozenset[str]] = ClassSource.episode_options | {"seen", "asked", "kept_back"}

    @property
    def spec(self) -> Spec:
        if not self.zero_shot:
            return super().spec
        shape = tuple(self._described().shape[1:])
        return replace(super().spec, kind="zero-shot", description_shape=shape)

    def descriptions(self, split: Split) -> Tensor:
        """The description of every class of a split, (class, *description_shape), in the order of `names`."""
        return self._described()[self.prepare().splits[split]]

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        """`tasks` tasks of a split, drawn all at once; support and query are in the order of their labels.

        Padding rows are zeros of weight 0. Raises UserError if the split is too small for such tasks.
        """
        if not self.zero_shot:
            return super().sample(split, tasks, rng)
        drawn = self.draw(split, tasks, rng)
        splits = self.prepare().splits
        described = self._described()[torch.cat([splits[split], splits["train"]])][drawn.support_rows]
        weight = drawn.support_weight.to(described.dtype)
        described = described * weight.view(*weight.shape, *[1] * (described.dim() - 2))
        return Task(Examples(described, drawn.support_y, weight), self._examples(*drawn[5:8]))

    def draw(self, split: Split, tasks: int, rng: torch.Generator) -> Draw:
        """What `sample` draws with the same generator.

        In zero-shot tasks `support_rows` are the classes, by their number within the split; training classes among
        those of another split (`seen`) have the numbers after them.
        """
        if not self.zero_shot:
            return super().draw(split, tasks, rng)
        if self.seen and split != "train":
            return self._among_seen(split, tasks, rng)
        drawn = super().draw(split, tasks, rng)
        label = torch.arange(drawn.classes.shape[1], device=self.device).expand_as(drawn.classes)
        used = (label < drawn.way.unsqueeze(1)).float()
        return drawn._replace(support_rows=drawn.classes, support_y=label, support_weight=used)

    def _among_seen(self, split: Split, tasks: int, rng: torch.Generator) -> Draw:
        rng, episode, k = self._local(rng), self._episode(), self.seen
        low, high = episode.way
        own, other = self._classes(split), self._training_rows()[1]
        ways = replace(episode, way=(low - k, high - k)), replace(episode, way=(k, k))
        parts: dict[Split, tuple[Classes, Episode]] = {split: (own, ways[0]), "train": (other, ways[1])}
        key = f"checked {split} {episode} {k} {self.kept_back}"
        if key not in self._cache():
            for name, (classes, wanted) in parts.items():
                check_classes(classes, wanted, "kept-back train" if name == "train" else name, self.names(name))
            self._cache()[key] = True
        a, b = (draw(classes, wanted, tasks, rng) for classes, wanted in parts.values())
        asked = [float(self.asked in ("all", which)) for which in ("unseen", "seen")]
        rows, y, weight = (
            torch.cat([a.query_rows, b.query_rows], 1),
            torch.cat([a.query_y, b.query_y + high - k], 1),
            torch.cat([a.query_weight * asked[0], b.query_weight * asked[1]], 1),
        )
        used = torch.cat([torch.arange(high - k, device=rng.device) < a.way.unsqueeze(1), b.classes >= 0], 1)
        # a label must not tell which classes are seen ones
        label = torch.rand(tasks, high, generator=rng, device=rng.device).argsort(1)
        y = label.gather(1, y)
        order, slot = y.argsort(dim=1, stable=True), label.argsort(1)
        classes = torch.cat([a.classes, b.classes + len(own.counts)], 1).gather(1, slot)
        support = (classes, torch.arange(high, device=rng.device).expand_as(classes), used.gather(1, slot).float())
        return Draw(classes, a.way + k, *support, *(part.gather(1, order) for part in (rows, y, weight)))

    def _classes(self, split: Split) -> Classes:
        kept = self.zero_shot and self.seen and split == "train"
        return self._training_rows()[0] if kept else super()._classes(split)

    def _training_rows(self) -> tuple[Classes, Classes]:
        """The training classes with the rows to train on, and with those kept back."""
        key = f"kept back {self.kept_back} {self._episode()} {self.device}"
        if key not in self._cache():
            classes = super()._classes("train")
            place = torch.arange(classes.rows.shape[1], device=self.device)
            noise = torch.rand(classes.rows.shape, generator=generator(self.split_seed, "kept back")).to(self.device)
            noise = noise.masked_fill(place >= classes.counts.unsqueeze(1), 2.0)
            rows = classes.rows.gather(1, noise.argsort(1))
            back = (classes.counts * self.kept_back).ceil().long()
            behind = (place + (classes.counts - back).unsqueeze(1)).clamp_max(len(place) - 1)
            self._cache()[key] = Classes(rows, classes.counts - back), Classes(rows.gather(1, behind), back)
        return self._cache()[key]

    def _episode(self) -> Episode:
        if not self.zero_shot:
            return super()._episode()
        low, high = count_range(self.way, "way")
        if low < 2:
            raise UserError(f"way is {self.way}: give at least 2 classes to tell apart, or a range such as 2-5.")
        if not 0 <= self.seen < low:
            raise UserError(f"seen is {self.seen} and way is {self.way}: give fewer seen classes than way, or 0.")
        if self.asked not in ASKED:
            raise UserError(f"unknown asked {self.asked!r}: {nearest(self.asked, ASKED)}")
        if self.asked != "all" and not self.seen:
            raise UserError(f"asked is {self.asked!r} and no class of a task is a seen one: give seen from 1.")
        if not 0 < self.kept_back < 1:
            raise UserError(f"kept_back is {self.kept_back}: give a share of the rows between 0 and 1.")
        return Episode((low, high), (0, 0), count_range(self.query, "query"), 0.0, "fixed")

    def _examples(self, rows: Tensor, y: Tensor, weight: Tensor) -> Examples:
        found = super()._examples(rows, y, weight)
        if self.zero_shot and self.asked != "all" and isinstance(found.x, Tensor):
            gone = (found.weight == 0).view(*weight.shape, *[1] * (found.x.dim() - 2))
            return found._replace(x=found.x.masked_fill(gone, 0.0))
        return found

    def _described(self) -> Tensor:
        pool = self.prepare()
        assert isinstance(pool, DescribedPool) and pool.descriptions is not None
        return pool.descriptions

