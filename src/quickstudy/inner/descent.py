"""Differentiable descent: inner gradient steps that the outer gradient can go through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State
from quickstudy.inner.implicit import implicit
from quickstudy.inner.memory import Plan, checkpointed, swept
from quickstudy.inner.picked import tell

Loss = Callable[[State, Examples], Tensor]
"""(weights, support) -> the loss of each task, (task,). A function of its arguments alone."""
Rule = Callable[[State, State, Tensor, Any], State]
"""(weights, slopes, losses (task,), rate) -> the weights that change. A function of its arguments alone."""
AGAIN = {"checkpoint": checkpointed, "sweep": swept}
"""Plans that compute each step once more on the way back."""
CG_STEPS = 10
"""Conjugate gradient steps of the implicit plan."""


def downhill(weights: State, slopes: State, losses: Tensor, rate: Any) -> State:
    """The plain rule: w - rate * slope, with one rate or one for each weight by name."""
    return {n: weights[n] - (rate[n] if isinstance(rate, dict) else rate) * g for n, g in slopes.items()}


def step(
    loss: Loss, weights: State, support: Examples, lr: Any, keep_graph: bool, rule: Rule = downhill
) -> State:
    """One gradient step for every task: w - lr * d loss / d w, or what another rule makes of the gradient.

    lr: one rate; or a dict of what the rule is given for each weight, a rate of any shape that goes with it
    or a tuple that begins with one. Then the weights that are named in it move, and the others stay.

    Tasks do not share weights, so the gradient of the sum of their losses is each task's own
    gradient: no vmap is needed. With `keep_graph` the result can be differentiated twice.
    """
    names = [n for n in weights if n in lr] if isinstance(lr, dict) else list(weights)
    # fused attention has no second derivative (pytorch #116350)
    plain_attention = sdpa_kernel(SDPBackend.MATH) if keep_graph else nullcontext()
    with torch.enable_grad(), plain_attention:
        weights = {**weights, **{n: _apart(weights[n], isinstance(lr, dict)) for n in names}}
        losses = loss(weights, support)
        values = [weights[n] for n in names]
        grads = torch.autograd.grad(losses.sum(), values, create_graph=keep_graph, allow_unused=True)
    slopes = {n: g for n, g in zip(names, grads, strict=True) if g is not None}
    return {**weights, **rule(weights, slopes, losses if keep_graph else losses.detach(), lr)}


def _apart(w: Tensor, some: bool) -> Tensor:
    """A weight as what a slope is taken by, alone."""
    if not w.requires_grad:  # a context of zeros, a loaded state: it has a slope all the same
        return w.detach().requires_grad_()
    # where only some weights move, those that moved before may depend on this one: not through its view
    return w.view_as(w) if some else w


def descend(
    loss: Loss,
    weights: State,
    support: Examples,
    steps: int,
    lr: Any,
    first_order: bool = False,
    memory: str = "store",
    rule: Rule = downhill,
) -> State:
    """The weights after `steps` inner steps; see `descent_path` for the states on the way."""
    return last(descent_path(loss, weights, support, steps, lr, first_order, memory, rule))


def descent_path(
    loss: Loss,
    weights: State,
    support: Examples,
    steps: int,
    lr: Any,
    first_order: bool = False,
    memory: str = "store",
    rule: Rule = downhill,
) -> Iterator[State]:
    """The weights after 0, 1, ..., `steps` inner steps, each (task, *shape).

    Differentiable if the caller records gradients (second order, or with the inner gradient taken
    as a constant if `first_order`); under no_grad the states are plain tensors. `memory` is the plan
    (inner/memory.py) for the way back; with `first_order` there is none, and it does not matter.

    lr: a rate, or a dict of rates by name (see `step`); or a list of these, one a step, whose last goes on.

    Raises UserError for an unknown plan or a negative number of steps.
    """
    plan = Plan.of(memory)
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    if not torch.is_grad_enabled():
        yield from _plain_path(loss, weights, support, steps, lr, rule)
    elif plan.name == "implicit" and not first_order:
        yield from _implicit_path(loss, weights, support, steps, lr, rule)
    else:
        tell(f"inner steps: {'first order' if first_order else memory}")
        yield weights
        for number in range(steps):
            early = plan.name == "truncated" and steps - number > plan.last
            weights = _moved(loss, weights, support, _at(lr, number), plan, first_order or early, rule)
            yield weights


def _at(lr: Any, number: int) -> Any:
    """The rate of a step, counted from 0."""
    return lr[min(number, len(lr) - 1)] if isinstance(lr, list) else lr


def _moved(loss: Loss, weights: State, support: Examples, lr: Any, plan: Plan, first_order: bool, rule: Rule) -> State:
    def whole(weights: State, support: Examples, lr: Any) -> State:
        return step(loss, weights, support, lr, torch.is_grad_enabled(), rule)

    if first_order:
        return step(loss, weights, support, lr, False, rule)
    if plan.name in AGAIN:
        return AGAIN[plan.name](whole, weights, support, lr)
    return whole(weights, support, lr)


def _plain_path(loss: Loss, weights: State, support: Examples, steps: int, lr: Any, rule: Rule) -> Iterator[State]:
    """The states without a graph behind them."""
    weights = {k: w.detach() for k, w in weights.items()}
    lr = tree_map(lambda rate: rate.detach() if isinstance(rate, Tensor) else rate, lr)
    yield weights
    for number in range(steps):
        # inner gradients are needed all the same: a step makes leaves of its own
        moved = step(loss, weights, support, _at(lr, number), False, rule)
        weights = {k: w.detach() for k, w in moved.items()}
        yield weights


def _implicit_path(loss: Loss, weights: State, support: Examples, steps: int, lr: Any, rule: Rule) -> Iterator[State]:
    """The states, each with the gradient of a solution."""
    tell(f"inner steps: no graph, an implicit gradient by {CG_STEPS} conjugate gradient steps")
    yield weights
    first = _at(lr, 0)
    moving = {n: w for n, w in weights.items() if not isinstance(first, dict) or n in first}

    def whole(moving: State, given: Any) -> Tensor:
        return loss({**moving, **given[1]}, given[0])

    travelled: Tensor | float = 0.0
    for number, reached in enumerate(_plain_path(loss, weights, support, steps, lr, rule)):
        if number:  # as many steps of this size weigh about as much as this pull towards the start
            travelled = travelled + _size(_at(lr, number - 1), moving)
            # what a rule put in place of another is a constant here
            still = {n: w if reached[n].is_set_to(w) else reached[n] for n, w in weights.items() if n not in moving}
            end = implicit(whole, reached, moving, (support, still), 1 / travelled, CG_STEPS)
            yield {**reached, **still, **end}


def _size(rate: Any, weights: State) -> Tensor | float:
    """One rate for many: their mean over all entries of the weights."""
    if not isinstance(rate, dict):
        return rate
    means = []
    for n, w in weights.items():
        first = rate[n][0] if isinstance(rate[n], tuple) else rate[n]
        means.append(torch.as_tensor(first, dtype=w.dtype, device=w.device).mean() * w[0].numel())
    return torch.stack(means).sum() / sum(w[0].numel() for w in weights.values())


def last(path: Iterator[State]) -> State:
    """The last state of a path; those on the way are let go of at once."""
    (state,) = deque(path, maxlen=1)
    return state
