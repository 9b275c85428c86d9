"""Rows of a task that are kept as they are, and who is near whom among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from quickstudy.core.task import State
from quickstudy.inner.closed import full_precision


def kept_rows(
    features: Float[Tensor, "task n d"], one_hot: Float[Tensor, "task n way"], prior: State | None = None
) -> State:
    """{"rows": (task, n, d), "one_hot": (task, n, way)}: the features of a support and their weighted labels.

    Those of an earlier state come before the new ones, as if all had come together.
    """
    if prior is not None:
        features, one_hot = torch.cat([prior["rows"], features], 1), torch.cat([prior["one_hot"], one_hot], 1)
    return {"rows": features, "one_hot": one_hot}


def real_rows(features: Float[Tensor, "task n d"], weight: Tensor | None) -> Bool[Tensor, "task n"]:
    """Which rows are no padding: those of weight above 0, or all if there are no weights."""
    if weight is None:
        return torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    return weight > 0


@full_precision
def cosines(x: Tensor, centres: Tensor) -> Tensor:
    """The cosine of every row of `x` (..., n, d) with every one of `centres` (..., way, d); 0 where one is 0.

    >>> cosines(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    tensor([[1.0000, 0.7071]])
    """
    return F.normalize(x, dim=-1) @ F.normalize(centres, dim=-1).transpose(-1, -2)


def nearest(distances: Float[Tensor, "task n m"], allowed: Tensor, k: int) -> Bool[Tensor, "task n m"]:
    """Which `k` of the allowed columns are nearest to each row; all of them where there are no more.

    Those equally far as the last one are taken with it, so that the order of the columns does not matter.

    >>> nearest(torch.tensor([[[2.0, 1.0, 0.0]]]), torch.tensor([[[True, True, False]]]), 1)
    tensor([[[False,  True, False]]])
    """
    if k < 1:
        return torch.zeros_like(distances, dtype=torch.bool)
    far = distances.detach().masked_fill(~allowed, torch.inf)
    last = far.topk(min(k, far.shape[-1]), largest=False).values[..., -1:]
    return allowed & (far <= last)
