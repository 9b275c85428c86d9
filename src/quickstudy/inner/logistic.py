"""Logistic regression by Newton steps that the outer gradient can go through."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from quickstudy.inner.closed import weighted_ridge

FLATTEST = 1e-4
"""The least slope of a sigmoid that a step reckons with: where it is flatter, steps are short, their end the same."""


def logistic_newton(
    features: Float[Tensor, "task n d"],
    targets: Float[Tensor, "task n k"],
    weight: Float[Tensor, "task n"],
    penalty: Tensor | float,
    steps: int,
    start: Float[Tensor, "task d k"],
) -> Float[Tensor, "task d k"]:
    """k logistic regressions a task by iteratively reweighted least squares, from `start`: `steps` steps towards

        argmin_W sum_i w_i log(1 + exp(-t_i x_i W)) + penalty / 2 |W - start|^2,   t = 2 targets - 1

    (column by column; Bertinetto et al. 2019, arXiv 1805.08136). With p = sigmoid(x W) and s = p (1 - p),
    a step is the ridge regression of z = x W + (targets - p) / s with row weights w s. Every fixed point is
    the minimum, whatever s, so s may be kept from 0. Differentiable through all steps.

    targets: 0 or 1. Rows of weight 0 change nothing. `penalty` must be positive.

    >>> import torch
    >>> one = torch.ones(1, 1, 1)
    >>> logistic_newton(one, one, one[..., 0], 0.5, 1, 0 * one)  # (x s x + penalty)^-1 x s z = 0.25 * 2 / 0.75
    tensor([[[0.6667]]])
    """
    k = targets.shape[-1]
    # a regression has row weights of its own: each is a task to the ridge
    x = features.unsqueeze(1).expand(-1, k, -1, -1).flatten(0, 1)
    t, first = (part.transpose(1, 2).flatten(0, 1).unsqueeze(-1) for part in (targets, start))
    w, reached = weight.repeat_interleave(k, 0), first
    for _ in range(steps):
        scores = x @ reached
        p = scores.sigmoid()
        slope = (p * (1 - p)).clamp_min(FLATTEST)
        z = scores + (t - p) / slope
        reached = first + weighted_ridge(x, z - x @ first, w * slope.squeeze(-1), penalty)
    return reached.squeeze(-1).unflatten(0, (-1, k)).transpose(1, 2)
