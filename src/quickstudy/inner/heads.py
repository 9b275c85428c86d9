"""Descent of a linear head on given features, its inner gradient in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import Classification, Objective, Regression
from quickstudy.core.task import Examples, State
from quickstudy.inner.closed import full_precision
from quickstudy.inner.descent import Loss, descent_path
from quickstudy.inner.linear import linear
from quickstudy.inner.picked import tell

CLOSED = (Classification, Regression)
"""Objectives whose gradient is written down here. Not their subclasses: those may have another loss."""


def head_path(
    objective: Objective,
    head: State,
    rows: Examples,
    steps: int,
    lr: Tensor | float,
    seen: Tensor | None = None,
    first_order: bool = False,
) -> Iterator[State]:
    """The head {"weight": (task, size, d), "bias": (task, size)} after 0, 1, ..., `steps` inner steps.

    With features X, predictions P = X W' + b and row weights w, one step is

        R = w / sum(w) (softmax(P) - onehot(y))     classification
        R = w / sum(w) 2 / k (P - y)                regression of k targets
        W <- W - lr R' X,  b <- b - lr sum R

    which is exactly the gradient step on `objective.loss`, in plain operations: autograd goes through them
    to the head's start, the features, the row weights and the rate, and there is no inner graph. With
    `first_order` R' X and sum R are constants. Other objectives take their inner gradients from autograd.

    rows: `x` holds the features (task, n, d). seen: (task, way), the classes that the softmax runs over.
    Raises UserError for a negative number of steps.

    >>> rows = Examples(torch.ones(1, 1, 2), torch.tensor([[0]]), torch.ones(1, 1))
    >>> start = {"weight": torch.zeros(1, 2, 2), "bias": torch.zeros(1, 2)}
    >>> list(head_path(Classification(2), start, rows, 1, 1.0))[1]["bias"]
    tensor([[ 0.5000, -0.5000]])
    """
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    if type(objective) not in CLOSED:
        yield from descent_path(_loss(objective, seen), head, rows, steps, lr, first_order)
        return
    tell("inner steps: the gradient of a linear head in closed form")
    yield head if torch.is_grad_enabled() else {k: w.detach() for k, w in head.items()}
    x = rows.x
    assert isinstance(x, Tensor)
    # the bias is the weight of a constant feature: one product instead of two
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    both = torch.cat([head["weight"], head["bias"].unsqueeze(-1)], -1)
    share = rows.weight / rows.weight.sum(1, keepdim=True).clamp_min(1e-12)
    share = share.unsqueeze(-1).to(both.dtype)
    if isinstance(objective, Classification):
        # not F.one_hot, which looks at the values and so cannot be compiled
        target = (rows.y.unsqueeze(-1) == torch.arange(objective.way, device=x.device)).to(both.dtype)
    else:
        target, share = rows.y, share * (2 / objective.size)
    hidden = None
    if seen is not None:
        # a class that is hidden has no slope; a task without any rows has none to hide
        hidden = ((seen == 0) & (seen > 0).any(1, keepdim=True)).unsqueeze(1)
        target = target.masked_fill(hidden, 0)
    for _ in range(steps):
        both = _moved(both, x, target, share, lr, isinstance(objective, Classification), hidden, first_order)
        yield {"weight": both[..., :-1], "bias": both[..., -1]}


@full_precision
def _moved(
    both: Float[Tensor, "task size d1"],
    x: Float[Tensor, "task n d1"],
    target: Float[Tensor, "task n size"],
    share: Float[Tensor, "task n 1"],
    lr: Tensor | float,
    softmax: bool,
    hidden: Tensor | None,
    first_order: bool,
) -> Float[Tensor, "task size d1"]:
    prediction = x @ both.transpose(1, 2)
    if softmax:
        prediction = (prediction if hidden is None else prediction.masked_fill(hidden, -torch.inf)).softmax(-1)
    residual = (prediction - target) * share
    if first_order:
        residual, x = residual.detach(), x.detach()
    if isinstance(lr, Tensor):
        residual, lr = lr * residual, 1.0
    return torch.baddbmm(both, residual.transpose(1, 2), x, alpha=-lr)


def _loss(objective: Objective, seen: Tensor | None) -> Loss:
    def loss(head: State, rows: Examples) -> Tensor:
        assert isinstance(rows.x, Tensor)
        prediction = linear(head, rows.x)
        if seen is not None and isinstance(objective, Classification):
            prediction = objective.hide_unseen(prediction, seen)
        return objective.loss(prediction, rows)

    return loss
