"""Values learnt from a handful of rows, as scikit-learn does it, with how sure to be of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from scipy import stats
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array
from torch import Tensor

from quickstudy.estimator.chosen import Choice
from quickstudy.estimator.few_shot import DataError, FewShot, refused
from quickstudy.questions import trust as trusted


class FewShotRegressor(RegressorMixin, FewShot):
    """A regressor for tasks of few rows: a learner that was trained on many tasks, adapted to this one by `fit`.

    checkpoint: the file of a trained learner (`quickstudy train`), what `quickstudy.load` or `make` returned, or the
    name of one that needs no training. The default, "ridge", is that: ridge regression on the columns as they are, its
    penalty the best of five on left out rows (scikit-learn's RidgeCV), what a trained learner has to beat. Put a
    StandardScaler before it where columns have units of their own.
    options: for a learner that needs no training, the arguments of its constructor: {"penalties": (1.0, 10.0)}.
    trust: what `quickstudy calibrate` wrote of this learner; intervals are then those of conformal prediction.

    task_: the `AdaptedTask`, which can be saved (`task_.save(path)`). n_features_in_: numbers in a row. rows_: the rows
    learnt from, where `partial_fit` needs them.

    >>> import numpy as np
    >>> x = np.linspace(0, 1, 12).reshape(-1, 1)
    >>> regressor = FewShotRegressor().fit(x, 3 * x[:, 0] + 0.1 * np.cos(40 * x[:, 0]))
    >>> regressor.predict([[0.5]]).round(1)
    array([1.5])
    >>> low, high = regressor.predict_interval([[0.5]], coverage=0.9)
    >>> bool(low[0] < 1.5 < high[0])
    True
    """

    kind = "regression"

    def __init__(
        self,
        checkpoint: Choice = "ridge",
        options: Mapping[str, Any] | None = None,
        trust: str | None = None,
    ):
        self.checkpoint = checkpoint
        self.options = options
        self.trust = trust

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn from more rows of the same task.

        A learner that is `incremental` (alpaca, dkt, cnp) goes on from what it knows, and the earlier rows are not kept
        but as it keeps them; of any other ("ridge") the rows are kept in `rows_`, and all are adapted to again. Either
        way the predictions are those of `fit` with all rows. The spread of an incremental learner that gives no
        deviation is that of rows when they came, before they were learnt from.
        """
        return self._learn(X, y, sample_weight, first=not hasattr(self, "task_"))

    def predict(
        self, X: Any, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The value of every row, (n,) or (n, targets) as y was; with `return_std` and its standard deviation.

        A learner that gives no deviation has one for all rows: how far off the values of left out rows are, the root of
        their mean squared error. Raises ValueError where nothing could be left out, or of several targets, whose units
        may differ.
        """
        with refused():
            mean, deviation = self.task_values(X)
            if not return_std:
                return self._shaped(mean)
            return self._shaped(mean), self._shaped(self._deviation(mean, deviation))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The lower and upper ends between which the truth lies with probability `coverage`, shaped as predictions.

        With `trust` that holds over rows of new tasks like those it was made of, whatever the errors are like. Without,
        errors are taken to be Gaussian: mean -+ z deviation, and t with as many degrees of freedom as there were rows
        in place of z where the deviation is that of left out rows.
        """
        if not 0 < coverage < 1:
            raise DataError(f"coverage is {coverage}: give a probability, as 0.9.")
        with refused():
            trust = self._trust()
            if trust is not None:
                low, high = trusted.intervals(self.task_, self._rows(X), trust, coverage)
                return self._shaped(low), self._shaped(high)
            mean, deviation = self.task_values(X)
            wide = self._deviation(mean, deviation)
            within = stats.norm if deviation is not None else stats.t(self.task_.card["rows"])
            wide = wide * float(within.ppf((1 + coverage) / 2))
            return self._shaped(mean - wide), self._shaped(mean + wide)

    def task_values(self, X: Any) -> tuple[Tensor, Tensor | None]:
        """`AdaptedTask.values` of the rows: values and deviations (None where the learner gives none), (n, targets)."""
        x = self._rows(X)
        return self.task_.values(x)

    def _deviation(self, mean: Tensor, deviation: Tensor | None) -> Tensor:
        if deviation is not None:
            return deviation
        spread = self.task_.card.get("spread")
        if spread is None:
            raise DataError("how far off values are cannot be told from one row: give two or more to fit.")
        if mean.shape[1] > 1:
            raise DataError(
                "the learner gives no deviation, and left out rows have one for each target only where there is one: "
                "fit a regressor for each target (scikit-learn's MultiOutputRegressor)."
            )
        return torch.full_like(mean, spread)

    def _shaped(self, values: Tensor) -> np.ndarray:
        return values[:, 0].numpy() if self._one_target else values.numpy()

    def _targets(self, y: Any, first: bool) -> tuple[Tensor, Sequence[str]]:
        kind: Any = np.float64
        y = check_array(y, ensure_2d=False, dtype=kind, input_name="y", ensure_min_samples=0)
        if first:
            self._one_target = y.ndim == 1
        values = torch.from_numpy(y.copy())
        return values.unsqueeze(1) if values.dim() == 1 else values, ()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
