"""What scikit-learn calls X, as the rows that a learner takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from quickstudy.adapted import row_shape
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.evaluate import dtype_of
from quickstudy.tasks.arrays import numbers
from quickstudy.tasks.images import fit_shape


def rows_of(estimator: BaseEstimator, X: Any, trained: Checkpoint | None, first: bool) -> Tensor:
    """X as the learner's rows (n, *x_shape).

    Arrays of numbers, a frame or texts, whatever the learner's reader says; an image may also come as a flat row.
    first: `n_features_in_` and `feature_names_in_` are set, and else compared to.
    Raises ValueError as scikit-learn does, and UserError for what does not fit the learner.
    """
    reader = trained.reader if trained is not None else None
    takes = reader.given_as if reader is not None else "arrays"
    if reader is not None and takes == "texts" and not _is_numeric(X):
        if len(X) == 0:
            raise UserError("X holds no texts: give at least one.")
        return reader.given(X)
    if reader is not None and takes == "frame" and hasattr(X, "columns"):
        return reader.given(validate_data(estimator, X, reset=first, skip_check_array=True))
    shape = row_shape(trained.learner, trained.card) or None if trained is not None else None
    X = _flat(X, shape)
    scale = 255 if getattr(X, "dtype", None) == np.uint8 and shape is not None and len(shape) == 3 else 1
    finite: Any = "allow-nan" if takes == "cells" else True
    # a learner without weights works in the type that it is given: always the same one
    exact = trained is None or dtype_of(trained.learner) is None
    types = np.float64 if exact else [np.float64, np.float32]
    X = validate_data(estimator, X, reset=first, dtype=types, ensure_all_finite=finite)
    X = X / scale if scale > 1 else X
    if reader is not None and takes == "cells":
        return reader.given(X)
    x = torch.from_numpy(X if X.flags.writeable else X.copy())  # torch warns of read-only arrays
    if shape is None:
        return x
    if x.shape[1] != math.prod(shape):
        raise UserError(
            f"X has {x.shape[1]} columns and the learner takes rows of shape {shape}, {math.prod(shape)} numbers each: "
            "give such rows."
        )
    return x.reshape(len(x), *shape)


def _flat(X: Any, shape: tuple[int, ...] | None) -> Any:
    """Rows of several axes as flat ones, images brought to the learner's shape; anything else as it is."""
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    if shape is None or hasattr(X, "columns") or hasattr(X, "sparse"):
        return X
    array = X if isinstance(X, np.ndarray) else np.asarray(X) if isinstance(X, list | tuple) else None
    if array is None or array.ndim < 3 or array.dtype.kind not in "fiub" or len(array) == 0:
        return X
    if len(shape) == 3 and array.shape[1:] != shape:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return array.reshape(len(array), -1)  # which is refused with scikit-learn's words
        return fit_shape(numbers(array, "X"), shape, "X").numpy().reshape(len(array), -1)
    return array.reshape(len(array), -1)


def _is_numeric(X: Any) -> bool:
    dtype = getattr(X, "dtype", None)
    return getattr(dtype, "kind", None) in ("f", "i", "u", "b") or isinstance(X, Tensor)
