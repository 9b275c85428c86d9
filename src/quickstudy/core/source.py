"""Where tasks come from: what a source promises, whatever its data."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.inventory import Inventory
from quickstudy.core.objective import Classification, Objective, Regression
from quickstudy.core.reader import Reader
from quickstudy.core.task import Examples, Task

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Scaling(NamedTuple):
    """What the training tasks say of the scale of x and y: `learners.make` puts `Scaled` with it around a learner.

    x_mean, x_deviation: of every entry of x, in the order of x.flatten(); empty to leave x as it is. y_mean,
    y_deviation: of every target; empty for classes. rows: for how many rows of a task they count, beside its own; inf
    for one scale in all tasks. relative: entries of x (times, say) of which only the distance to the support matters.
    """

    x_mean: tuple[float, ...] = ()
    x_deviation: tuple[float, ...] = ()
    y_mean: tuple[float, ...] = ()
    y_deviation: tuple[float, ...] = ()
    rows: float = 10.0
    relative: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spec:
    """The static facts of a source's tasks.

    kind: "zero-shot" for classification in which the support holds no example of a class but one row that describes
        it, of `description_shape`; the query's rows are of `x_shape`.
    way: the largest number of classes in a task (0 for regression).
    train_classes: how many classes the train split holds (0 for regression).
    encoded: whether the rows are what a frozen encoder made of texts or images, good features already.
    scaling: for values in units of their own, in which each task has a scale of its own.
    net, net_options: the network that such rows are made for, by its name; "" where any will do.
    """

    kind: Literal["classification", "regression", "zero-shot"]
    x_shape: tuple[int, ...]
    way: int = 0
    y_size: int = 1
    train_classes: int = 0
    description_shape: tuple[int, ...] = ()
    scaling: Scaling | None = None
    encoded: bool = False
    net: str = ""
    net_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def support_shape(self) -> tuple[int, ...]:
        """The shape of a row of the support: of a description for zero-shot tasks, else of an example."""
        return self.description_shape if self.kind == "zero-shot" else self.x_shape

    def objective(self) -> Objective:
        """The plain objective for such tasks: cross-entropy, or squared error."""
        return Regression(self.y_size) if self.kind == "regression" else Classification(self.way)


def generator(*words: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator that depends on all the words and nothing else.

    The tasks of outer step t are drawn from `generator(seed, "train", t)`: resuming is exact, and
    the tasks do not depend on the number of processes that share them.

    >>> a, b = generator(0, "train", 7), generator(0, "train", 7)
    >>> bool(torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b)))
    True
    """
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Source(ABC):
    """A distribution of tasks with a train, a valid and a test split over classes or tasks.

    A constructor only stores its arguments; data is read on first use (`prepare`).
    """

    device: torch.device = torch.device("cpu")

    @property
    @abstractmethod
    def spec(self) -> Spec: ...

    @abstractmethod
    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        """`tasks` tasks of a split, drawn all at once; x is floating point."""

    @abstractmethod
    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """`rows` rows of all tasks of a split thrown together, as (1, rows, ...).

        For classification y is the index of the class within the whole split.
        """

    def to(self, device: torch.device | str) -> Self:
        """This source with its data on `device`, where it is then sampled."""
        other = copy.copy(self)
        other.device = torch.device(device)
        return other

    def reshaped(self, **episode: Any) -> Self:
        """The same data with another way, shot or query.

        Raises UserError for an option that this source does not have.
        """
        other = copy.copy(self)
        for name, value in episode.items():
            if not hasattr(other, name):
                raise UserError(f"{type(self).__name__} has no option {name!r}: see `quickstudy list tasks`.")
            setattr(other, name, value)
        return other

    def reader(self) -> Reader | None:
        """What reads the files of a new task as this source read those of training; None for images and arrays."""
        return None

    def read_by(self, reader: Reader | None) -> Self:
        """This source read as the learner's reader reads, where what is fitted to training tasks travels with it."""
        return self

    def inventory(self) -> Inventory | None:
        """All rows this source holds; None where tasks are made on the spot."""
        return None

    def rng(self, *words: int | str) -> torch.Generator:
        """The generator of those words, on the device of the data."""
        return generator(*words, device=self.device)


@dataclass
class NamedSplit:
    """Names of the classes (or tasks) of each split, for people; learners never see them."""

    train: list[str] = field(default_factory=list)
    valid: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)


def check_finite(x: Tensor, where: str) -> None:
    """Raise UserError naming the first row of `x` with a NaN or an infinity."""
    if x.is_floating_point():
        bad = (~torch.isfinite(x)).reshape(len(x), -1).any(1).nonzero()
        if len(bad):
            raise UserError(
                f"{where}: row {int(bad[0])} holds a NaN or an infinite value ({len(bad)} such rows): "
                "remove or fill those rows first."
            )
