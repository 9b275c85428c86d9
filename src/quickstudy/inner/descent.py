"""Differentiable descent: inner gradient steps that the outer gradient can go through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State

Loss = Callable[[State, Examples], Tensor]
"""(weights, support) -> the loss of each task, (task,). A function of its arguments alone."""
Memory = Literal["store", "checkpoint"]


def step(loss: Loss, weights: State, support: Examples, lr: Tensor | float, keep_graph: bool) -> State:
    """One gradient step for every task: w - lr * d loss / d w.

    Tasks do not share weights, so the gradient of the sum of their losses is each task's own
    gradient: no vmap is needed. With `keep_graph` the result can be differentiated twice.
    """
    names, values = list(weights), list(weights.values())
    # fused attention has no second derivative (pytorch #116350)
    plain_attention = sdpa_kernel(SDPBackend.MATH) if keep_graph else nullcontext()
    with torch.enable_grad(), plain_attention:
        grads = torch.autograd.grad(loss(weights, support).sum(), values, create_graph=keep_graph, allow_unused=True)
    return {n: w if g is None else w - lr * g for n, w, g in zip(names, values, grads, strict=True)}


def descend(
    loss: Loss,
    weights: State,
    support: Examples,
    steps: int,
    lr: Tensor | float,
    first_order: bool = False,
    memory: Memory = "store",
) -> State:
    """The weights after `steps` inner steps; see `descent_path` for the states on the way.

    memory: "store" keeps every step's graph; "checkpoint" keeps the weights only and computes each
    step again on the way back: exact, with the memory of one step.
    """
    return last(descent_path(loss, weights, support, steps, lr, first_order, memory))


def descent_path(
    loss: Loss,
    weights: State,
    support: Examples,
    steps: int,
    lr: Tensor | float,
    first_order: bool = False,
    memory: Memory = "store",
) -> Iterator[State]:
    """The weights after 0, 1, ..., `steps` inner steps, each (task, *shape).

    Differentiable if the caller records gradients (second order, or with the inner gradient taken
    as a constant if `first_order`); under no_grad the states are plain tensors.
    """
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    differentiable = torch.is_grad_enabled()
    if not differentiable:
        # inner gradients are needed all the same: make leaves of our own, with no graph behind them
        weights = {k: w.detach().requires_grad_() for k, w in weights.items()}
    yield {k: w.detach() for k, w in weights.items()} if not differentiable else weights
    for _ in range(steps):
        if not differentiable:
            moved = step(loss, weights, support, lr, keep_graph=False)
            weights = {k: w.detach().requires_grad_() for k, w in moved.items()}
            yield {k: w.detach() for k, w in weights.items()}
            continue
        if memory == "checkpoint" and not first_order:
            weights = _checkpointed(loss, weights, support, lr)
        else:
            weights = step(loss, weights, support, lr, keep_graph=not first_order)
        yield weights


def last(path: Iterator[State]) -> State:
    """The last state of a path; those on the way are let go of at once."""
    (state,) = deque(path, maxlen=1)
    return state


def _checkpointed(loss: Loss, weights: State, support: Examples, lr: Tensor | float) -> State:
    names = list(weights)

    # everything that changes from step to step comes in as an argument: a closure over the loop's
    # variables would be computed again with their last values, silently wrong
    def once(lr: Tensor | float, x: Tensor, y: Tensor, weight: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        moved = step(loss, dict(zip(names, values, strict=True)), Examples(x, y, weight), lr, keep_graph=True)
        return tuple(moved.values())

    values = checkpoint(once, lr, *support, *weights.values(), use_reentrant=False)
    return dict(zip(names, values, strict=True))  # type: ignore[arg-type]
