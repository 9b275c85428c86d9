"""Closed forms: what can be learnt of a task without a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.task import State

P = ParamSpec("P")


def full_precision(form: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep a closed form out of autocast: differences of large sums and solves lose all in bfloat16."""

    @wraps(form)
    def exact(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(a.device.type for a in args if isinstance(a, Tensor))
        half = (torch.bfloat16, torch.float16)
        ready = [a.float() if isinstance(a, Tensor) and a.dtype in half else a for a in args]
        with torch.autocast(device, enabled=False):
            return form(*ready, **kwargs)  # type: ignore[arg-type]

    return exact


@full_precision
def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def class_sums(
    features: Float[Tensor, "task n d"], one_hot: Float[Tensor, "task n way"]
) -> tuple[Float[Tensor, "task way d"], Float[Tensor, "task way"]]:
    """The weighted sum of the features of each class, and the weight that went into it.

    Sums, not means, so that more examples can be added to them later.
    """
    return _product(one_hot.transpose(1, 2), features), one_hot.sum(1)


def class_state(
    features: Float[Tensor, "task n d"], one_hot: Float[Tensor, "task n way"], prior: State | None
) -> State:
    """{"sums": (task, way, d), "counts": (task, way)}: the class sums of these rows, and those of an earlier state."""
    sums, counts = class_sums(features, one_hot)
    if prior is not None:
        sums, counts = prior["sums"] + sums, prior["counts"] + counts
    return {"sums": sums, "counts": counts}


def prototypes(
    sums: Float[Tensor, "task way d"], counts: Float[Tensor, "task way"]
) -> Float[Tensor, "task way d"]:
    """Class means c_k = sum_k / count_k; zero for a class without weight.

    >>> prototypes(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[2.0, 0.0]]))
    tensor([[[1.],
             [0.]]])
    """
    return sums / torch.where(counts > 0, counts, 1).unsqueeze(-1)


@full_precision
def squared_distances(
    x: Float[Tensor, "task n d"], centres: Float[Tensor, "task way d"]
) -> Float[Tensor, "task n way"]:
    """|x - c|^2 = |x|^2 - 2 x.c + |c|^2, as one batched product."""
    return (
        x.square().sum(-1, keepdim=True)
        - 2 * x @ centres.transpose(1, 2)
        + centres.square().sum(-1).unsqueeze(1)
    )


@full_precision
def weighted_ridge(
    features: Float[Tensor, "task n d"],
    targets: Float[Tensor, "task n k"],
    weight: Float[Tensor, "task n"],
    penalty: Tensor | float,
) -> Float[Tensor, "task d k"]:
    """The minimiser of sum_i w_i |x_i W - y_i|^2 + penalty |W|^2 for every task.

    With X and Y scaled by sqrt(w): W = X' (X X' + penalty I)^-1 Y if there are fewer rows than
    features (Woodbury), else (X' X + penalty I)^-1 X' Y. Rows of weight 0 change nothing.
    `penalty` must be positive.
    """
    # the derivative of sqrt at 0 is infinite: rows of no weight are cut off before it
    root = torch.where(weight > 0, torch.where(weight > 0, weight, 1).sqrt(), 0).unsqueeze(-1)
    x, y = features * root, targets * root
    n, d = x.shape[-2:]
    # an exported program meets any number of rows: it has the form that is right for all
    if not torch.compiler.is_exporting() and n < d:
        gram = x @ x.transpose(1, 2) + penalty * torch.eye(n, dtype=x.dtype, device=x.device)
        return x.transpose(1, 2) @ torch.linalg.solve(gram, y)
    gram = x.transpose(1, 2) @ x + penalty * torch.eye(d, dtype=x.dtype, device=x.device)
    return torch.linalg.solve(gram, x.transpose(1, 2) @ y)
