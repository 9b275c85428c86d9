"""All that a source holds: its rows, and the class (or the task) and the split that each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Inventory:
    """The rows of a source that draws from data it was given.

    unit: what is held out whole, "class" or "task"; owner: (row,), the number of each row's unit; names: one a unit;
    splits: the numbers of the units of each split. read: the rows of given numbers (n,), as (n, *x_shape); row_name:
    what to call a row, for people. y: (row, y_size), the values to predict, for regression.
    left_out: what could not be read or used, one sentence each.
    """

    unit: Literal["class", "task"]
    owner: Tensor
    names: list[str]
    splits: Mapping[str, Tensor]
    read: Callable[[Tensor], Tensor]
    row_name: Callable[[int], str]
    y: Tensor | None = None
    left_out: tuple[str, ...] = ()
