"""The scikit-learn face: fit adapts a learner to one task, predict asks it."""

from __future__ import annotations

from quickstudy.estimator.classifier import FewShotClassifier
from quickstudy.estimator.few_shot import DataError
from quickstudy.estimator.regressor import FewShotRegressor

__all__ = ["DataError", "FewShotClassifier", "FewShotRegressor"]
