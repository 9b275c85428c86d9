"""How classes are spread around their means: scatters that can be added to, and covariances shrunk towards the task's.

A state holds {"sums": (task, way, d), "counts": (task, way), "squares": (task, way), "scatter": (task, way, d, d)}:
for each class the sum of w f, of w, of w^2, and of w (f - c) (f - c)'.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.task import State
from quickstudy.inner.closed import full_precision, prototypes


@full_precision
def class_scatter(
    features: Float[Tensor, "task n d"], one_hot: Float[Tensor, "task n way"], centres: Float[Tensor, "task way d"]
) -> Float[Tensor, "task way d d"]:
    """sum_i w_ik (f_i - c_k) (f_i - c_k)' for every class."""
    gaps = features - one_hot.ne(0).to(features.dtype) @ centres
    # class by class, (task, way, n, d): what is of another class has weight 0
    weighted = gaps.unsqueeze(1) * one_hot.transpose(1, 2).unsqueeze(-1)
    return weighted.transpose(2, 3) @ gaps.unsqueeze(1)


def joined_scatter(a: State, b: State) -> Float[Tensor, "task way d d"]:
    """The scatter of the rows of both: their own, and n_a n_b / (n_a + n_b) times that of the gap between the means."""
    gap = prototypes(a["sums"], a["counts"]) - prototypes(b["sums"], b["counts"])
    both = a["counts"] * b["counts"] / (a["counts"] + b["counts"]).clamp_min(1e-12)
    return a["scatter"] + b["scatter"] + _outer(gap) * both[..., None, None]


@full_precision
def _covariance(scatter: Tensor, count: Tensor, squares: Tensor) -> Tensor:
    """scatter / (n - sum w^2 / n), n - 1 for weights of 1; 0 where there is one row or none."""
    freedom = count - squares / torch.where(count > 0, count, 1)
    some = freedom > 1e-6 * count
    divided = scatter / torch.where(some, freedom, 1)[..., None, None]
    return torch.where(some[..., None, None], divided, 0)


def shrunk_covariance(state: State, beta: float) -> Float[Tensor, "task way d d"]:
    """Q_k = lambda_k S_k + (1 - lambda_k) S + beta I, lambda_k = n_k / (n_k + 1)."""
    counts, n = state["counts"], state["counts"].sum(1, keepdim=True)
    mean = prototypes(state["sums"].sum(1, keepdim=True), n)
    between = _outer(prototypes(state["sums"], counts) - mean) * counts[..., None, None]
    total = (state["scatter"] + between).sum(1, keepdim=True)
    of_class = _covariance(state["scatter"], counts, state["squares"])
    of_task = _covariance(total, n, state["squares"].sum(1, keepdim=True))
    share = (counts / (counts + 1))[..., None, None]
    eye = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
    return share * of_class + (1 - share) * of_task + beta * eye


@full_precision
def whitener(covariance: Float[Tensor, "task way d d"]) -> Float[Tensor, "task way d d"]:
    """L^-1 with covariance = L L': what it makes of a gap has the length that Mahalanobis gives the gap."""
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), eye.expand_as(covariance), upper=False)


def _outer(v: Tensor) -> Tensor:
    return v.unsqueeze(-1) * v.unsqueeze(-2)
