"""The multi-class support vector machine: its dual solved for many tasks at once, differentiated at the solution."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quickstudy.inner.closed import full_precision

STEPS = 60
"""More interior point steps than any task was seen to need."""
CLOSE = 1e-11
"""How near to complementary a task must be to be solved, as a share of its mean limit."""


@full_precision
def crammer_singer(
    features: Float[Tensor, "task n d"],
    target: Bool[Tensor, "task n way"],
    limit: Float[Tensor, "task n"],
    seen: Float[Tensor, "task way"],
    start: Float[Tensor, "task d way"],
) -> Float[Tensor, "task d way"]:
    """The support vector machine of Crammer and Singer (2001), without a bias, task by task:

        argmin_W  1/2 |W - start|^2 + sum_i limit_i max_k (1[y_i != k] + x_i . (W_k - W_y_i))

    by its dual, W = start + X' A where A minimises 1/2 |X' A|^2 - sum_ik a_ik (1[y_i = k] - x_i . start_k) such that
    a_ik <= limit_i 1[y_i = k] and sum_k a_ik = 0.

    target: which class a row is of. limit: C times the row's weight; rows of limit 0 do not count. seen: classes that
    are 0 here take no part, and keep their start.

    A primal-dual interior point method in float64, with Mehrotra's predictor and corrector. The Hessian is one block
    X X' + D_k a class, tied by sum_k a_ik = 0, so a step takes `way` inverses of n x n. The solution is a fixed point
    of Newton's method on the optimality conditions: one last step, whose matrix is constant and whose residual is not,
    has the derivative of the solution (implicit differentiation). Where A is not unique, X' A still is.
    Limits up to about 1e7 / mean |x|^2 are solved; far above, the machine may stop short of its solution.

    >>> x, target = torch.tensor([[[1.0], [-1.0]]]), torch.eye(2, dtype=torch.bool).unsqueeze(0)
    >>> crammer_singer(x, target, torch.full((1, 2), 9.0), torch.ones(1, 2), torch.zeros(1, 1, 2))  # a margin of 1
    tensor([[[ 0.5000, -0.5000]]])
    """
    x, limit, start = features.double(), limit.double(), start.double()
    problem, present = _stated(x @ x.transpose(1, 2), target, limit, seen, x @ start)
    with torch.no_grad():
        point = _solved(problem)
        # a bound holds or it does not: near enough to never and always, and no nearer, since what is left is lost
        size = _size(problem)
        holds = point.multiplier > size * point.slack
        stiffness = size * torch.where(holds, 1e8, 1e-8)
        inverse = _inverse(problem, stiffness)
    push = torch.where(holds, stiffness * (problem.upper - point.weights), point.multiplier)
    dual = point.weights + _step(inverse, *_residuals(problem, point), problem.free * push)[0]
    return (start + x.transpose(1, 2) @ (dual.transpose(1, 2) * present.unsqueeze(-1))).to(features.dtype)


class _Problem(NamedTuple):
    """min 1/2 sum_k a_k' gram a_k - linear . a with a <= upper and sum_k a_k = 0, over the classes that are `free`."""

    gram: Tensor  # (task, n, n)
    linear: Tensor  # (task, way, n)
    upper: Tensor  # (task, way, n)
    free: Tensor  # (task, way, 1), 0 or 1


class _Point(NamedTuple):
    """A place between the bounds, or a step from it."""

    weights: Tensor  # (task, way, n)
    multiplier: Tensor  # of a <= upper
    slack: Tensor  # upper - a
    price: Tensor  # of sum_k a_k = 0, (task, n)


def _stated(gram: Tensor, target: Tensor, limit: Tensor, seen: Tensor, before: Tensor) -> tuple[_Problem, Tensor]:
    """The problem, and which rows count. The others stay as rows of their own, that see nobody: a problem with room
    between its bounds, where limits of 0 have none."""
    present = limit > 0
    both = present.unsqueeze(1) & present.unsqueeze(2)
    gram = torch.where(both, gram, torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
    free = torch.where(seen.sum(1, keepdim=True) > 0, seen, 1) > 0
    # padding may be labelled as anything: take it as of the first class
    first = torch.zeros_like(free).scatter(1, free.long().argmax(1, keepdim=True), True)
    hot = torch.where(present.unsqueeze(-1), target, first.unsqueeze(1)).transpose(1, 2).to(gram.dtype)
    linear = hot - torch.where(present.unsqueeze(-1), before, 0).transpose(1, 2)
    upper = hot * torch.where(present, limit, 1).unsqueeze(1)
    return _Problem(gram, linear, upper, free.unsqueeze(-1).to(gram.dtype)), present


def _solved(problem: _Problem) -> _Point:
    gram, _, upper, free = problem
    others = free.sum(1, keepdim=True) - 1
    top = upper.amax(1, keepdim=True)
    # half way: every class of a row has some room, and they sum to 0
    weights = torch.where(upper > 0, top, -top / others.clamp_min(1)) / 2 * free * (others > 0)
    slack = torch.where(free > 0, upper - weights, 1)
    entries = free.sum((1, 2)) * weights.shape[-1]
    point = _Point(weights, free.expand_as(weights), slack, torch.zeros_like(weights[:, 0]))
    for _ in range(STEPS):
        product = point.multiplier * point.slack
        gap = product.sum((1, 2)) / entries
        slope, balance = _residuals(problem, point)
        size = 1 + (point.weights @ gram).abs().amax((1, 2))
        done = (gap < CLOSE * top.mean((1, 2))) & (slope.abs().amax((1, 2)) < 1e-9 * size)
        if bool(done.all()):
            break
        ratio = point.multiplier / point.slack
        # far below the kernel a solve would only gather rounding
        inverse = _inverse(problem, torch.maximum(ratio, 1e-9 * _size(problem)))
        trial = _towards(inverse, slope, balance, ratio, free * point.multiplier)
        rate = _room(point, trial).view(-1, 1, 1)
        after = (point.multiplier + rate * trial.multiplier) * (point.slack + rate * trial.slack)
        centre = gap * ((after * free).sum((1, 2)) / entries / gap.clamp_min(1e-300)).clamp(0, 1) ** 3
        aimed = product + trial.multiplier * trial.slack - centre.view(-1, 1, 1)
        step = _towards(inverse, slope, balance, ratio, free * aimed / point.slack)
        # a task that is solved stays, so that what it gets does not depend on the others
        rate = torch.where(done, 0, 0.995 * _room(point, step)).view(-1, 1, 1)
        point = _Point(
            point.weights + rate * step.weights,
            point.multiplier + rate * step.multiplier,
            point.slack + rate * step.slack,
            point.price + rate.squeeze(-1) * step.price,
        )
    return point


def _size(problem: _Problem) -> Tensor:
    """The mean of the kernel's diagonal, (task, 1, 1): what curvatures and the inverses of weights are measured in."""
    return problem.gram.diagonal(dim1=-2, dim2=-1).mean(1).clamp_min(1e-12).view(-1, 1, 1)


def _residuals(problem: _Problem, point: _Point) -> tuple[Tensor, Tensor]:
    """What is left of the optimality conditions: the slope of the Lagrangian, and the sum over classes."""
    slope = point.weights @ problem.gram - problem.linear + point.multiplier + point.price.unsqueeze(1)
    return slope * problem.free, point.weights.sum(1)


def _inverse(problem: _Problem, ratio: Tensor) -> Tensor:
    """(gram + diag(ratio))^-1 for every class that takes part, (task, way, n, n)."""
    block = problem.gram.unsqueeze(1) + torch.diag_embed(ratio)
    # entries of the diagonal are many orders of magnitude apart: scale them to 1
    unit = block.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    unit = unit.unsqueeze(-1) * unit.unsqueeze(-2)
    return torch.linalg.inv_ex(block * unit)[0] * unit * problem.free.unsqueeze(-1)


def _step(inverse: Tensor, slope: Tensor, balance: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step of the weights and the price. push: what multiplier * slack is too much, by the slack."""
    first = (inverse @ (push - slope).unsqueeze(-1)).squeeze(-1)
    price = torch.linalg.solve(inverse.sum(1), first.sum(1) + balance)
    return first - (inverse @ price[:, None, :, None]).squeeze(-1), price


def _towards(inverse: Tensor, slope: Tensor, balance: Tensor, ratio: Tensor, push: Tensor) -> _Point:
    weights, price = _step(inverse, slope, balance, push)
    return _Point(weights, ratio * weights - push, -weights, price)


def _room(point: _Point, step: _Point) -> Tensor:
    """The largest part of a step, up to 1, that leaves multipliers and slacks positive: (task,)."""
    pairs = ((point.multiplier, step.multiplier), (point.slack, step.slack))
    parts = [torch.where(s < 0, -p / torch.where(s < 0, s, -1), torch.inf).amin((1, 2)) for p, s in pairs]
    return torch.minimum(*parts).clamp_max(1)
