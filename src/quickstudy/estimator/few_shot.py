"""What the classifier and the regressor share: the learner, the rows, and what was learnt of the task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor

from quickstudy.adaptation import AdaptedTask, adapt
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.source import Spec
from quickstudy.estimator.chosen import Choice, given_as, known, made
from quickstudy.estimator.rows import rows_of
from quickstudy.questions.trust import Trust


class DataError(UserError, ValueError):
    """A `UserError` that is a ValueError as well, which is what code around scikit-learn catches."""


@contextmanager
def refused() -> Iterator[None]:
    """Inside the block a UserError becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    except UserError as error:
        raise DataError(str(error)) from None


class FewShot(BaseEstimator):
    """One task, learnt by `quickstudy.adapt` and asked through the `AdaptedTask` that it returns."""

    kind: ClassVar[Literal["classification", "regression"]]
    checkpoint: Choice
    options: Mapping[str, Any] | None
    trust: str | None
    task_: AdaptedTask

    @abstractmethod
    def _targets(self, y: Any, first: bool) -> tuple[list[str] | Tensor, Sequence[str]]:
        """What `adapt` takes for y, and the names of all classes."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Adapt the learner to the rows X, of which y is known; whatever was learnt before is forgotten.

        X: (n, columns), or (n, *x_shape) for a learner of images; a frame or texts where the learner was trained on
        those. sample_weight: (n,), 0 or more, how much each row counts. It is the learner's matter what that means: a
        learner of sums counts a row twice at 2, others know only of rows (above 0) and no rows (0).

        Raises ValueError for data that does not fit the learner.
        """
        return self._learn(X, y, sample_weight, first=True)

    def _learn(self, X: Any, y: Any, sample_weight: Any, first: bool) -> Self:
        with refused():
            trained = known(self.checkpoint, self.kind) if first else self._origin()
            x = rows_of(self, X, trained, first)
            if y is None:
                raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
            check_consistent_length(x, y)
            target, classes = self._targets(y, first)
            weight = None
            if sample_weight is not None:
                given = np.asarray(sample_weight, np.float64)
                weight = torch.from_numpy(np.array(np.broadcast_to(given, len(x)) if given.ndim == 0 else given))
            if trained is None:
                size = 1 if isinstance(target, list) else target.shape[1]
                spec = Spec(self.kind, tuple(x.shape[1:]), way=len(classes), y_size=size)
                trained = made(self.checkpoint, self.options, spec)
            elif first and self.options:
                raise DataError("options are for learners that need no training, named by checkpoint: leave them out.")
            goes_on = not first and trained.learner.incremental
            if not first and not goes_on:
                x, target, weight = _joined(self.rows_, (x, target, weight))
            before = self.task_ if goes_on else None
            self.task_ = adapt(trained, x, target, "X", weight, classes, before)
            self.rows_ = None if trained.learner.incremental else (x, target, weight)
        return self

    def _origin(self) -> Checkpoint:
        """The learner of the task at hand."""
        return Checkpoint(self.task_.learner, self.task_.card["checkpoint"], self.task_.reader)

    def _rows(self, X: Any) -> Tensor:
        """X as the rows that the fitted learner takes."""
        check_is_fitted(self)
        return rows_of(self, X, self._origin(), first=False)

    def _trust(self) -> Trust | None:
        return Trust.read(self.trust) if self.trust else None

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "task_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        takes = given_as(self.checkpoint)
        tags.input_tags.allow_nan = takes == "cells"
        tags.input_tags.string = takes == "texts"
        tags.input_tags.two_d_array = takes != "texts"
        return tags


def _joined(kept: Any, new: Any) -> Any:
    """The rows that were kept with the new ones behind them: (x, target, weight)."""
    (x, target, weight), (more, also, other) = kept, new
    both = target + also if isinstance(target, list) else torch.cat([target, also.to(target)])
    if weight is not None or other is not None:
        ones = [torch.ones(len(rows), dtype=torch.float64) for rows in (x, more)]
        weight = torch.cat([w if w is not None else one for w, one in zip((weight, other), ones, strict=True)])
    return torch.cat([x, more.to(x)]), both, weight
