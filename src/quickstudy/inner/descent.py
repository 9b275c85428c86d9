"""Differentiable descent: inner gradient steps that the outer gradient can go through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State
from quickstudy.inner.implicit import implicit
from quickstudy.inner.memory import Plan, checkpointed, swept
from quickstudy.inner.picked import tell

Loss = Callable[[State, Examples], Tensor]
"""(weights, support) -> the loss of each task, (task,). A function of its arguments alone."""
AGAIN = {"checkpoint": checkpointed, "sweep": swept}
"""Plans that compute each step once more on the way back."""
CG_STEPS = 10
"""Conjugate gradient steps of the implicit plan."""


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
    memory: str = "store",
) -> State:
    """The weights after `steps` inner steps; see `descent_path` for the states on the way."""
    return last(descent_path(loss, weights, support, steps, lr, first_order, memory))


def descent_path(
    loss: Loss,
    weights: State,
    support: Examples,
    steps: int,
    lr: Tensor | float,
    first_order: bool = False,
    memory: str = "store",
) -> Iterator[State]:
    """The weights after 0, 1, ..., `steps` inner steps, each (task, *shape).

    Differentiable if the caller records gradients (second order, or with the inner gradient taken
    as a constant if `first_order`); under no_grad the states are plain tensors. `memory` is the plan
    (inner/memory.py) for the way back; with `first_order` there is none, and it does not matter.

    Raises UserError for an unknown plan or a negative number of steps.
    """
    plan = Plan.of(memory)
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    if not torch.is_grad_enabled():
        yield from _plain_path(loss, weights, support, steps, lr)
    elif plan.name == "implicit" and not first_order:
        tell(f"inner steps: no graph, an implicit gradient by {CG_STEPS} conjugate gradient steps")
        yield weights
        for number, reached in enumerate(_plain_path(loss, weights, support, steps, lr)):
            if number:  # as many steps of this size weigh about as much as this pull towards the start
                yield implicit(loss, reached, weights, support, 1 / (number * lr), CG_STEPS)
    else:
        tell(f"inner steps: {'first order' if first_order else memory}")
        yield weights
        for left in range(steps, 0, -1):
            early = plan.name == "truncated" and left > plan.last
            weights = _moved(loss, weights, support, lr, plan, first_order or early)
            yield weights


def _moved(
    loss: Loss, weights: State, support: Examples, lr: Tensor | float, plan: Plan, first_order: bool
) -> State:
    def whole(weights: State, support: Examples, lr: Tensor | float) -> State:
        return step(loss, weights, support, lr, keep_graph=torch.is_grad_enabled())

    if first_order:
        return step(loss, weights, support, lr, keep_graph=False)
    if plan.name in AGAIN:
        return AGAIN[plan.name](whole, weights, support, lr)
    return whole(weights, support, lr)


def _plain_path(loss: Loss, weights: State, support: Examples, steps: int, lr: Tensor | float) -> Iterator[State]:
    """The states without a graph behind them."""
    weights = {k: w.detach() for k, w in weights.items()}
    lr = lr.detach() if isinstance(lr, Tensor) else lr
    yield weights
    for _ in range(steps):
        # inner gradients are needed all the same: make leaves of our own
        leaves = {k: w.detach().requires_grad_() for k, w in weights.items()}
        weights = {k: w.detach() for k, w in step(loss, leaves, support, lr, keep_graph=False).items()}
        yield weights


def last(path: Iterator[State]) -> State:
    """The last state of a path; those on the way are let go of at once."""
    (state,) = deque(path, maxlen=1)
    return state
