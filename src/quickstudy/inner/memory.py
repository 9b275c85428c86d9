"""Memory plans: what is kept of a descent for the way back, and what is computed again.

Second order over k inner steps keeps the graphs of k steps. The plans, by name:

store        keep them all: the fastest, with memory that grows with the steps.
checkpoint   keep what goes into each step, compute the step again on the way back (torch's own checkpoint).
sweep        the same with a step of our own: forward without any graph, backward with one step's graph and
             a Hessian-vector product, v <- v - lr H v. The cheaper of the two.
truncated    exact through the last step alone; earlier ones pass the gradient on as it is (first order).
             "truncated:3" goes through the last three.
implicit     no way back at all: the end is taken for the solution of a proximal problem (inner/implicit.py).

The first three give the true meta-gradient; the others an approximation, whose cosine with the true one
`quickstudy explain-plan` reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint, get_device_states, set_device_states

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.task import Examples, State

EXACT = ("store", "checkpoint", "sweep")
PLANS = (*EXACT, "truncated", "implicit")

Step = Callable[[State, Examples, Any], State]
"""(weights, support, lr) -> the weights after one step, differentiable; a function of its arguments alone."""


class Plan(NamedTuple):
    """A plan by name; `last` is how many steps "truncated" goes through."""

    name: str
    last: int = 1

    @classmethod
    def of(cls, text: str) -> Plan:
        """Raises UserError for an unknown plan.

        >>> Plan.of("truncated:3")
        Plan(name='truncated', last=3)
        """
        name, colon, last = text.partition(":")
        if name not in PLANS:
            raise UserError(f"unknown memory plan {text!r}: {nearest(name, PLANS)}")
        if not colon:
            return cls(name)
        if name != "truncated" or not last.isdecimal() or int(last) < 1:
            raise UserError(f"memory plan {text!r}: only truncated takes a number of steps, as in truncated:3.")
        return cls(name, int(last))

    @property
    def exact(self) -> bool:
        """Whether its meta-gradient is the true one."""
        return self.name in EXACT


def checkpointed(step: Step, weights: State, support: Examples, lr: Tensor | float) -> State:
    """A step whose graph is dropped and built again on the way back."""
    names = list(weights)

    # everything that changes from step to step comes in as an argument: a closure over the loop's
    # variables would be computed again with their last values, silently wrong
    def once(lr: Tensor | float, support: Examples, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(step(dict(zip(names, values, strict=True)), support, lr).values())

    values = checkpoint(once, lr, support, *weights.values(), use_reentrant=False)
    return dict(zip(names, values, strict=True))  # type: ignore[arg-type]


def swept(step: Step, weights: State, support: Examples, lr: Tensor | float) -> State:
    """A step that is computed without a graph, and on the way back once more with one."""
    leaves, shape = tree_flatten((dict(weights), support, lr))
    return dict(zip(weights, _Sweep.apply(step, shape, *leaves), strict=True))  # type: ignore[arg-type]


class _Sweep(torch.autograd.Function):
    """One step; its inputs are all that is kept."""

    @staticmethod
    def forward(ctx: Any, step: Step, shape: Any, *leaves: Any) -> tuple[Tensor, ...]:
        ctx.step, ctx.shape = step, shape
        ctx.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        # whatever is drawn in the step (dropout) must be drawn alike the second time
        ctx.random = torch.get_rng_state(), get_device_states(*leaves)
        device = next(leaf.device.type for leaf in leaves if isinstance(leaf, Tensor))
        ctx.autocast = device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        weights, support, lr = tree_unflatten([_detached(leaf) for leaf in leaves], shape)
        moved = step({k: w.requires_grad_() for k, w in weights.items()}, support, lr)
        return tuple(w.detach() for w in moved.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Any, ...]:
        kept = iter(ctx.saved_tensors)
        leaves = [_detached(next(kept)) if leaf is None else leaf for leaf in ctx.leaves]
        wanted = [leaf for leaf, need in zip(leaves, ctx.needs_input_grad[2:], strict=True) if need]
        for leaf in wanted:
            leaf.requires_grad_()
        weights, support, lr = tree_unflatten(leaves, ctx.shape)
        weights = {k: w.requires_grad_() for k, w in weights.items()}
        device, enabled, dtype = ctx.autocast
        cpu, (devices, states) = ctx.random
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), torch.autocast(device, dtype, enabled):
            torch.set_rng_state(cpu)
            set_device_states(devices, states)
            moved = ctx.step(weights, support, lr)
        found = iter(torch.autograd.grad(list(moved.values()), wanted, v, allow_unused=True))
        return None, None, *(next(found) if need else None for need in ctx.needs_input_grad[2:])


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
