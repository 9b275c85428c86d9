"""Implicit gradients: through the solution of an inner problem, whatever the way there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_unflatten

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State

if TYPE_CHECKING:  # descent.py has a plan that comes here
    from quickstudy.inner.descent import Loss


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], v: Float[Tensor, "task d"], steps: int
) -> Float[Tensor, "task d"]:
    """`steps` conjugate gradient steps towards A^-1 v, task by task, from 0; exact after d steps.

    product: p -> A p for every task, A symmetric. A task stops where its residual is 0, or where
    p' A p <= 0 shows that its A is not positive definite; if that is so at the first step, it keeps v.

    >>> diagonal = torch.tensor([[1.0, 4.0]])
    >>> conjugate_gradient(lambda p: diagonal * p, torch.tensor([[1.0, 2.0]]), 2)
    tensor([[1.0000, 0.5000]])
    """
    x, r, p = torch.zeros_like(v), v.clone(), v
    size = r.square().sum(1, keepdim=True)
    going = torch.ones_like(size, dtype=torch.bool)
    tiny = torch.finfo(v.dtype).tiny
    for i in range(steps):
        ap = product(p)
        curvature = (p * ap).sum(1, keepdim=True)
        going = going & (curvature > 0)
        rate = torch.where(going, size / curvature, float(i == 0))
        x.addcmul_(rate, p)
        r.addcmul_(rate, ap, value=-1)
        before, size = size, r.square().sum(1, keepdim=True)
        p = torch.addcmul(r, size / before.clamp_min(tiny), p)
    return x


def proximal_path(
    loss: Loss, theta: State, support: Examples, strength: Tensor | float, steps: int, lr: Tensor | float
) -> Iterator[State]:
    """Gradient descent from theta on G(phi) = loss(phi) + strength / 2 |phi - theta|^2, task by task.

    The states after 0, 1, ..., `steps` steps, each (task, *shape), without a graph behind them.
    Raises UserError for a negative number of steps.
    """
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    names, phi = list(theta), [w.detach() for w in theta.values()]
    lr, pull, start = float(_plain(lr)), float(_plain(lr * strength)), phi
    yield dict(zip(names, phi, strict=True))
    for _ in range(steps):
        leaves = [w.detach().requires_grad_() for w in phi]
        with torch.enable_grad():
            value = loss(dict(zip(names, leaves, strict=True)), support).sum()
        slopes = torch.autograd.grad(value, leaves, materialize_grads=True)
        # phi + lr * strength * (start - phi) - lr * slope
        moves = zip(phi, start, slopes, strict=True)
        phi = [torch.lerp(w, w0, pull).sub_(slope, alpha=lr) for w, w0, slope in moves]
        yield dict(zip(names, phi, strict=True))


def implicit(
    loss: Callable[[State, Any], Tensor],
    phi: State,
    theta: State,
    support: Any,
    strength: Tensor | float,
    cg_steps: int,
) -> State:
    """phi as the solution of min loss(phi) + strength / 2 |phi - theta|^2, differentiable as such.

    At the solution grad loss(phi) + strength (phi - theta) = 0 holds whatever theta is. So for an outer
    gradient v at phi, and H the Hessian of `loss` there, with u = (I + H / strength)^-1 v:

        theta gets u,  support gets -grad of (u . grad loss) / strength,  strength gets -u . (phi - theta) / strength

    (Rajeswaran et al. 2019, arXiv 1909.04630, lemma 1). u comes from `cg_steps` conjugate gradient steps for
    all tasks at once, on one graph of grad loss at phi; no memory depends on how phi was found. Under
    no_grad nothing is computed. If phi is no solution, the gradient is an approximation.

    phi, theta: (task, *shape); what phi was computed from is not looked at. support: whatever the loss is given beside
    weights, tensors in any nesting. strength: positive, one number.

    >>> ridge = lambda w, rows: (rows.x @ w["w"] - rows.y).square().sum((1, 2)) / 2
    >>> rows = Examples(torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]]), torch.ones(1, 1))
    >>> theta = torch.zeros(1, 1, 1, requires_grad=True)
    >>> phi = implicit(ridge, {"w": torch.ones(1, 1, 1)}, {"w": theta}, rows, 1.0, 1)["w"]
    >>> torch.autograd.grad(phi.sum(), theta)  # phi = (2 + theta) / (1 + 1)
    (tensor([[[0.5000]]]),)
    """
    if not torch.is_grad_enabled():
        return {k: w.detach() for k, w in phi.items()}
    leaves, tree = tree_flatten((support, strength))
    problem = _Problem(loss, phi, list(theta), tree, cg_steps)
    reached = _Implicit.apply(problem, *theta.values(), *leaves)
    return dict(zip(theta, reached, strict=True))  # type: ignore[arg-type]


class _Problem(NamedTuple):
    loss: Callable[[State, Any], Tensor]
    phi: State
    names: list[str]
    tree: Any
    cg_steps: int


class _Implicit(torch.autograd.Function):
    """The tensors of phi as functions of those of theta, the support and the strength."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, *inputs: Any) -> tuple[Tensor, ...]:
        reached = tuple(problem.phi[name].detach() for name in problem.names)
        ctx.problem = problem._replace(phi={})
        ctx.inputs = [None if isinstance(leaf, Tensor) else leaf for leaf in inputs]
        ctx.save_for_backward(*reached, *(leaf for leaf in inputs if isinstance(leaf, Tensor)))
        return reached

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Any, ...]:
        loss, _, names, tree, cg_steps = ctx.problem
        count, needs = len(names), ctx.needs_input_grad[1:]
        kept = iter(w.detach() for w in ctx.saved_tensors)
        point = [next(kept).requires_grad_() for _ in names]
        inputs = [next(kept) if leaf is None else leaf for leaf in ctx.inputs]
        theta, leaves = inputs[:count], inputs[count:]
        wanted = [leaf.requires_grad_() for leaf, need in zip(leaves, needs[count:], strict=True) if need]
        support, strength = tree_unflatten(leaves, tree)
        plain = _plain(strength)

        # solves lose all in half precision; fused attention has no second derivative (pytorch #116350)
        with torch.autocast(v[0].device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            with torch.enable_grad():
                value = loss(dict(zip(names, point, strict=True)), support).sum()
            slopes = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
            # a slope that depends on nothing has no second derivative
            curved = [i for i, slope in enumerate(slopes) if slope.requires_grad]

            def product(p: Tensor) -> Tensor:
                parts, bent = _apart(p, point), [slopes[i] for i in curved]
                along = [parts[i] for i in curved]
                hp = torch.autograd.grad(bent, point, along, retain_graph=True, materialize_grads=True)
                return p + _together(hp) / plain

            u = v if not curved else _apart(conjugate_gradient(product, _together(v), cg_steps), point)
            found: dict[int, Tensor | None] = {}
            if wanted:
                with torch.enable_grad():
                    terms = zip(u, slopes, point, theta, strict=True)
                    pulls = [(a * (g + strength * (w.detach() - start))).sum() for a, g, w, start in terms]
                    grads = torch.autograd.grad(-torch.stack(pulls).sum() / plain, wanted, allow_unused=True)
                found = dict(zip(map(id, wanted), grads, strict=True))
        return None, *u, *(found.get(id(leaf)) for leaf in leaves)


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """(task, *shape) each -> (task, d): a dot product takes one call."""
    return torch.cat([w.flatten(1) if w.dim() > 1 else w.unsqueeze(1) for w in tensors], 1)


def _apart(matrix: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = matrix.split([w[0].numel() for w in like], 1)
    return [part.view(w.shape) for part, w in zip(parts, like, strict=True)]


def _plain(value: Tensor | float) -> Tensor | float:
    return value.detach() if isinstance(value, Tensor) else value
