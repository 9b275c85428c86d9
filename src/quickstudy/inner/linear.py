"""Linear classifiers fitted by scikit-learn, task by task, as tensors."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import LOWEST, Classification
from quickstudy.core.task import Examples, State


def logistic(features: Tensor, y: Tensor, weight: Tensor, way: int, strength: float) -> State:
    """scikit-learn's logistic regression on each task's rows: {"weight": (task, way, d), "bias": (task, way)}.

    strength: its C, the inverse of the L2 penalty. Rows of weight 0 are left out; classes without
    a row get the lowest bias. Not differentiable.
    """
    tasks, _, d = features.shape
    coefficients = torch.zeros(tasks, way, d, dtype=features.dtype)
    bias = torch.full((tasks, way), LOWEST, dtype=features.dtype)
    for t in range(tasks):
        kept = (weight[t] > 0).cpu()
        labels = y[t].cpu()[kept].numpy()
        present = torch.from_numpy(np.unique(labels))
        if len(present) == 1:
            bias[t, present] = 0.0
            continue
        model = LogisticRegression(C=strength, max_iter=1000)
        rows = features[t].detach().cpu()[kept].numpy()
        with warnings.catch_warnings():  # many classes of few rows are what a task is made of
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(rows, labels, sample_weight=weight[t].cpu()[kept].numpy())
        w, b = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(present) == 2:  # one column for the second class against the first
            w, b = torch.cat([-w, w]) / 2, torch.cat([-b, b]) / 2
        coefficients[t, present] = w.to(features.dtype)
        bias[t, present] = b.to(features.dtype)
    return {"weight": coefficients.to(features.device), "bias": bias.to(features.device)}


def linear(state: State, features: Tensor) -> Tensor:
    """features W' + b for every task: (task, n, way)."""
    return torch.baddbmm(state["bias"].unsqueeze(1), features, state["weight"].transpose(1, 2))


def check_strength(strength: float) -> None:
    """Raise UserError for an inverse penalty that a regression cannot take."""
    if not strength > 0:
        raise UserError(f"strength is {strength}: it is the inverse of the penalty (C); give a positive one.")


def class_loss(logits: Tensor, pooled: Examples) -> Tensor:
    """The cross-entropy (task,) of telling all training classes apart, a column each.

    Raises UserError if a row is of a class that has no column.
    """
    try:
        return Classification(logits.shape[-1]).loss(logits, pooled)
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error):
            raise
        raise UserError(
            f"the learner tells {logits.shape[-1]} training classes apart, and a row is of class "
            f"{int(pooled.y.max())} (counted from 0): build it with as many classes as the train split holds."
        ) from None
