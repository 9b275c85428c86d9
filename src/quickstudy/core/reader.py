"""How the files of one new task become rows, in the way the tasks of training were read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from quickstudy.core.errors import UserError


class Rows(NamedTuple):
    """The rows of one task, as a file gave them.

    x: (n, *x_shape) float32; labels: the name of the class of every row; values: (n, y_size) float32, for regression;
    names: what to call every row. labels and values are None where the file does not say them.
    """

    x: Tensor
    labels: list[str] | None
    values: Tensor | None
    names: list[str]


class Reader(ABC):
    """Reads files of one task as a source read those of training. It travels in the learner's checkpoint.

    A constructor only stores its arguments, which are JSON; what was fitted to the training tasks (the weights of
    words, the categories of a column) are tensors by name. A reader is in the catalogue of readers (tasks/reading.py).
    """

    fitted: dict[str, Tensor] | None = None
    """Tensors, as `load_fitted` took them; None for a reader that fits nothing."""
    classes: Sequence[str] = ()
    """The classes where they mean the same in every task, in the order of their numbers in training."""
    given_as: ClassVar[Literal["arrays", "cells", "frame", "texts"]] = "arrays"
    """What `given` takes: cells, numbers (row, column) with NaN where one is missing; a frame, columns by name; texts;
    or nothing, where rows in memory are arrays as the learner takes them."""

    @abstractmethod
    def read(self, path: str) -> Rows:
        """The rows of a file or a folder, at least one.

        Raises UserError if there is nothing to read, or it does not fit what the learner was trained on.
        """

    def given(self, rows: Any) -> Tensor:
        """Rows in memory as `read` makes them of a file: (n, *x_shape), float32. See `given_as` for what it takes.

        Raises UserError for rows that do not fit what the learner was trained on.
        """
        raise UserError("this learner takes rows in memory as arrays of numbers: give those.")

    def given_images(self, files: Sequence[bytes]) -> Tensor:
        """Image files in memory as `read` makes them of files: (n, *x_shape), float32.

        Raises UserError if one is damaged, or the learner takes no images.
        """
        raise UserError("this learner was not trained on images: give rows of the kind that it was trained on.")

    def unlabelled(self, path: str) -> str:
        """What to do where a file that should say labels or values does not, as the end of a sentence."""
        return "give the label or the value of every row"

    def load_fitted(self, tensors: dict[str, Tensor]) -> None:
        """Take what was fitted to the training tasks.

        Raises UserError if these tensors are not a reader's of this kind.
        """
        self.fitted = tensors or None
