"""Descriptions of classes: their mean, and the bilinear ridge regression between rows and descriptions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.objective import Classification, row_mean
from quickstudy.core.task import Examples, State
from quickstudy.inner.closed import class_state, full_precision


def description_sums(objective: Classification, support: Examples, prior: State | None) -> State:
    """{"sums": (task, way, a), "counts": (task, way)}: the descriptions of each class, flattened and added up.

    Sums, not means, so that more classes, or more descriptions of one, can be added later (`prior`).
    """
    assert isinstance(support.x, Tensor)
    return class_state(support.x.flatten(2), objective.one_hot(support), prior)


def bilinear_loss(
    v: Float[Tensor, "task d a"],
    x: Float[Tensor, "task n d"],
    y: Float[Tensor, "task n way"],
    s: Float[Tensor, "task way a"],
    weight: Float[Tensor, "task n"],
    seen: Float[Tensor, "task way"],
    gamma: float,
    penalty: float,
) -> Float[Tensor, " task"]:
    """mean_ik (x_i' V s_k - y_ik)^2 + gamma mean_k |V s_k|^2 + penalty mean_i |V' x_i|^2 + gamma penalty |V|^2.

    Rows count by `weight`, classes by `seen`; it is 1 / (m z) of the paper's objective (`ESZSL`) with the
    penalties m gamma and z penalty, for m rows and z classes.
    """
    ahead, back = x @ v, v @ s.transpose(1, 2)
    share = seen / seen.sum(1, keepdim=True).clamp_min(1e-12)
    fit = row_mean(((x @ back - y).square() * share.unsqueeze(1)).sum(-1), weight)
    rows, classes = row_mean(ahead.square().sum(-1), weight), row_mean(back.square().sum(1), seen)
    return fit + gamma * classes + penalty * rows + gamma * penalty * v.square().sum((1, 2))


@full_precision
def bilinear_ridge(
    x: Float[Tensor, "task n d"],
    y: Float[Tensor, "task n way"],
    s: Float[Tensor, "task way a"],
    weight: Float[Tensor, "task n"],
    seen: Float[Tensor, "task way"],
    gamma: float,
    penalty: float,
) -> Float[Tensor, "task d a"]:
    """The minimiser of `bilinear_loss`, for every task.

    V = (X' X / m + gamma I)^-1  X' Y S / (m z)  (S' S / z + penalty I)^-1, with a row of X for each example and a
    row of S for each class.
    """
    rows = (weight / weight.sum(1, keepdim=True).clamp_min(1e-12)).unsqueeze(-1)
    classes = (seen / seen.sum(1, keepdim=True).clamp_min(1e-12)).unsqueeze(-1)
    left = (rows * x).transpose(1, 2) @ x + gamma * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    right = (classes * s).transpose(1, 2) @ s + penalty * torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    both = (rows * x).transpose(1, 2) @ y @ (classes * s)
    return torch.linalg.solve(right, torch.linalg.solve(left, both).transpose(1, 2)).transpose(1, 2)
