"""Classes learnt from a handful of rows, as scikit-learn does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d

from quickstudy.core.errors import nearest
from quickstudy.estimator.chosen import Choice
from quickstudy.estimator.few_shot import DataError, FewShot, refused
from quickstudy.questions import trust as trusted


class FewShotClassifier(ClassifierMixin, FewShot):
    """A classifier for tasks of few rows: a learner that was trained on many tasks, adapted to this one by `fit`.

    checkpoint: the file of a trained learner (`quickstudy train`), what `quickstudy.load` or `make` returned, the name
    of weights that come with the package ("tabular", for tables of any width, with or without missing cells), or of a
    learner that needs no training ("logistic", "centroid").
    options: for a learner that needs no training, the arguments of its constructor: {"strength": 10.0}.
    trust: what `quickstudy calibrate` wrote of this learner; probabilities are then the calibrated ones.

    classes_: the labels, sorted. task_: the `AdaptedTask`, which can be saved (`task_.save(path)`). n_features_in_:
    numbers in a row, a picture's pixels say. rows_: the rows learnt from, where `partial_fit` needs them.

    Labels are what y holds; `predict_proba` gives 0 to a class that `partial_fit` knows and no row showed yet.

    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> X, y = X[::6], y[::6]
    >>> bool(cross_val_score(FewShotClassifier(), X, y, cv=3).mean() > 0.85)
    True
    """

    kind = "classification"

    def __init__(
        self,
        checkpoint: Choice = "tabular",
        options: Mapping[str, Any] | None = None,
        trust: str | None = None,
    ):
        self.checkpoint = checkpoint
        self.options = options
        self.trust = trust

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn from more rows of the same task.

        A learner that is `incremental` (protonet, tabular, centroid) goes on from what it knows, and the earlier rows
        are not kept but as it keeps them; of any other the rows are kept in `rows_`, and all are adapted to again.
        Either way the predictions are those of `fit` with all rows.

        classes: all classes there will be, at the first call; later ones bring no new class.
        """
        first = not hasattr(self, "task_")
        if first and classes is None:
            raise DataError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            asked = np.unique(np.asarray(classes))
            if not first and not np.array_equal(asked, self.classes_):
                raise DataError(f"classes is {asked.tolist()}, which is not what it was: {self.classes_.tolist()}.")
            self.classes_ = asked
        return self._learn(X, y, sample_weight, first)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        self.__dict__.pop("classes_", None)
        return super().fit(X, y, sample_weight)

    fit.__doc__ = FewShot.fit.__doc__

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row, (n,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of every class, (n, class), columns as `classes_`."""
        with refused():
            x, trust = self._rows(X), self._trust()
            found = self.task_.probabilities(x) if trust is None else trusted.probabilities(self.task_, x, trust)
        return found.numpy()

    def predict_set(self, X: Any, coverage: float = 0.9) -> list[np.ndarray]:
        """For every row the classes among which the true one is with probability `coverage`, the most probable first.

        It holds over rows of new tasks like those that `trust` was made of. Raises ValueError without `trust`.
        """
        with refused():
            x, trust = self._rows(X), self._trust()
            if trust is None:
                raise DataError("sets need a calibration: make one with `quickstudy calibrate` and give it as trust.")
            place = {name: i for i, name in enumerate(self.task_.classes)}
            return [
                self.classes_[[place[name] for name in one]] for one in trusted.sets(self.task_, x, trust, coverage)
            ]

    def _targets(self, y: Any, first: bool) -> tuple[list[str], Sequence[str]]:
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        if not hasattr(self, "classes_"):
            self.classes_ = np.unique(y)
        names = [str(label) for label in self.classes_.tolist()]
        place = {label: i for i, label in enumerate(self.classes_.tolist())}
        new = next((label for label in y.tolist() if label not in place), None)
        if new is not None:
            raise DataError(f"y holds the class {new!r}, which is none of classes_: {nearest(str(new), names)}")
        return [names[place[label]] for label in y.tolist()], names
