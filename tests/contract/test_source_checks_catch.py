"""Every check catches a source that is wrong in just that respect, and passes the right one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from quickstudy import core
from quickstudy.core.catalogue import Catalogue
from quickstudy.core.source import Source, Spec, Split
from quickstudy.core.task import Examples, Task, examples
from quickstudy.testing import (
    ContractError,
    check_source,
    source_checks,
)

SOURCE_CHECKS = {check.name: check.run for check in source_checks()}


class RightSource(Source):
    """Rows about a centre of each class, the centre and the rows all drawn from the generator given."""

    def __init__(self, way: int = 3, shot: int = 2):
        self.way = way
        self.shot = shot

    classes = {"train": range(8), "valid": range(8, 12), "test": range(12, 16)}

    @property
    def spec(self) -> Spec:
        return Spec("classification", (2,), way=self.way, train_classes=8)

    def names(self, split: Split) -> list[str]:
        return [f"class {c}" for c in self.classes[split]]

    def rows(self, classes: Tensor, rng: torch.Generator) -> Tensor:
        centre = torch.stack([classes.cos(), classes.sin()], -1)
        return centre + torch.randn(centre.shape, generator=rng)

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        held = torch.tensor(self.classes[split])
        chosen = torch.stack([held[torch.randperm(len(held), generator=rng)[: self.way]] for _ in range(tasks)])
        y = torch.arange(self.way).repeat_interleave(self.shot).expand(tasks, -1)
        support, query = (examples(self.rows(chosen.gather(1, y).float(), rng), y) for _ in range(2))
        return Task(support, query)

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        held = torch.tensor(self.classes[split])
        y = torch.randint(len(held), (1, rows), generator=rng)
        return examples(self.rows(held[y].float(), rng), y)


class GlobalNoise(RightSource):
    def rows(self, classes, rng):
        return super().rows(classes, rng) + torch.rand(())


class Remembers(RightSource):
    drawn = 0

    def sample(self, split, tasks, rng):
        self.drawn += 1
        task = super().sample(split, tasks, rng)
        return task._replace(query=task.query._replace(x=task.query.x + self.drawn))


class IgnoresGenerator(RightSource):
    def sample(self, split, tasks, rng):
        return super().sample(split, tasks, self.rng(split))


class SameTaskTwice(RightSource):
    def sample(self, split, tasks, rng):
        task = super().sample(split, tasks, rng)
        return Task(*(Examples(*(t[:1].expand_as(t) for t in part)) for part in task))


class WrongSpec(RightSource):
    @property
    def spec(self):
        return Spec("classification", (3,), way=self.way, train_classes=8)


class PooledWithoutTaskAxis(RightSource):
    def sample_pooled(self, split, rows, rng):
        return Examples(*(t.squeeze(0) for t in super().sample_pooled(split, rows, rng)))


class TooHighLabels(RightSource):
    @property
    def spec(self):
        return Spec("classification", (2,), way=2, train_classes=8)


class NegativeWeights(RightSource):
    def sample(self, split, tasks, rng):
        task = super().sample(split, tasks, rng)
        return task._replace(support=task.support._replace(weight=-task.support.weight))


class NaNRows(RightSource):
    def rows(self, classes, rng):
        return super().rows(classes, rng) / 0 * 0


class ByteRows(RightSource):
    def rows(self, classes, rng):
        return super().rows(classes, rng).byte()


class AsksUnshown(RightSource):
    def sample(self, split, tasks, rng):
        task = super().sample(split, tasks, rng)
        return task._replace(support=task.support._replace(y=task.support.y.clamp_max(self.way - 2)))


class AsksWhatWasShown(RightSource):
    def sample(self, split, tasks, rng):
        task = super().sample(split, tasks, rng)
        return task._replace(query=Examples(*(t.flip(1) for t in task.support)))


class SharesClass(RightSource):
    classes = {"train": range(8), "valid": range(7, 12), "test": range(12, 16)}


class ChangesShot(RightSource):
    def __init__(self, way: int = 3, shot: int = 2):
        super().__init__(way, shot + 1)


WRONG_SOURCES = [
    ("sampling_is_reproducible", GlobalNoise),
    ("sampling_is_reproducible", Remembers),
    ("generators_give_different_tasks", IgnoresGenerator),
    ("generators_give_different_tasks", SameTaskTwice),
    ("shapes_agree_with_spec", WrongSpec),
    ("shapes_agree_with_spec", PooledWithoutTaskAxis),
    ("values_are_valid", TooHighLabels),
    ("values_are_valid", NegativeWeights),
    ("values_are_valid", NaNRows),
    ("values_are_valid", ByteRows),
    ("query_classes_are_in_support", AsksUnshown),
    ("support_and_query_are_disjoint", AsksWhatWasShown),
    ("splits_share_no_class", SharesClass),
    ("describe_and_build", ChangesShot),
]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue in which the classes above can be found, for the length of a test."""
    monkeypatch.setattr(core.catalogue, "_EVERY", dict(core.catalogue._EVERY))
    Catalogue("tasks", {c.__name__: c for c in (RightSource, *(c for _, c in WRONG_SOURCES))})
    yield


def test_right_source_passes_everything() -> None:
    check_source(RightSource())


@pytest.mark.parametrize(("check", "wrong"), WRONG_SOURCES, ids=lambda p: getattr(p, "__name__", p))
def test_wrong_source_is_caught(check: str, wrong: type[Source]) -> None:
    with pytest.raises(ContractError, match=rf"^{check}.*; .*\.$"):
        SOURCE_CHECKS[check](wrong())


def test_every_source_check_has_a_wrong_source() -> None:
    assert {name for name, _ in WRONG_SOURCES} == set(SOURCE_CHECKS)
