"""How the files of one new task become rows, in the way the tasks of training were read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor


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

    @abstractmethod
    def read(self, path: str) -> Rows:
        """The rows of a file or a folder, at least one.

        Raises UserError if there is nothing to read, or it does not fit what the learner was trained on.
        """

    def unlabelled(self, path: str) -> str:
        """What to do where a file that should say labels or values does not, as the end of a sentence."""
        return "give the label or the value of every row"

    def load_fitted(self, tensors: dict[str, Tensor]) -> None:
        """Take what was fitted to the training tasks.

        Raises UserError if these tensors are not a reader's of this kind.
        """
        self.fitted = tensors or None
