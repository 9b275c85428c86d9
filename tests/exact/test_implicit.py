"""Implicit gradients: conjugate gradients on many tasks at once, and the derivative of a solution."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State, examples
from quickstudy.inner.descent import last
from quickstudy.inner.implicit import conjugate_gradient, implicit, proximal_path
from quickstudy.testing import check_meta_gradient

TASKS, ROWS, SIZE = 3, 7, 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor, off: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=off, atol=off)


# --- conjugate gradients ---


def matrices(count: int = 4, d: int = 5) -> Tensor:
    root = noise(count, d, d, seed=1)
    return root @ root.transpose(1, 2) + torch.linspace(0.1, 3, count).view(-1, 1, 1) * torch.eye(d)


def solve(a: Tensor, v: Tensor, steps: int) -> Tensor:
    return conjugate_gradient(lambda p: (a @ p.unsqueeze(-1)).squeeze(-1), v, steps)


def test_conjugate_gradients_are_exact_after_d_steps() -> None:
    a, v = matrices(), noise(4, 5, seed=2)
    exact = torch.linalg.solve(a, v)
    close(solve(a, v, 5), exact, 1e-9)
    assert ((solve(a, v, 4) - exact).norm(dim=1) > 1e-6 * exact.norm(dim=1)).all()
    close(solve(a, v, 12), exact, 1e-9)  # going on after the end does no harm


def test_tasks_are_solved_as_if_alone() -> None:
    a, v = matrices(), noise(4, 5, seed=2)
    for t in range(4):
        close(solve(a, v, 3)[t : t + 1], solve(a[t : t + 1], v[t : t + 1], 3), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_residual_of_zero_is_safe(dtype: torch.dtype) -> None:
    # the squares of the last two cannot be told from 0 in float32, the curvature of the last one can
    a = torch.stack([torch.eye(3) * size for size in (1.0, 2.0, 1.0, 1e8)]).to(dtype)
    v = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1e-30, 0.0, 1e-38], [1e-23, 0.0, 0.0]]).to(dtype)
    expected = torch.linalg.solve(a.double(), v.double()).to(dtype)
    torch.testing.assert_close(solve(a, v, 10), expected, rtol=1e-6, atol=1e-29)


def test_a_task_that_is_not_positive_definite_stops() -> None:
    a = torch.stack([torch.diag(torch.tensor(d)) for d in ([-1.0, -2.0], [1.0, -0.5], [1.0, 4.0])]).double()
    v = torch.tensor([[1.0, 1.0], [1.0, 0.5], [1.0, 2.0]], dtype=torch.float64)
    found = solve(a, v, 6)
    assert torch.equal(found[0], v[0])  # at once: the gradient is taken as it is
    # one step: alpha = v'v / v'Av = 1.25 / 0.875, and then p'Ap < 0
    close(found[1], 1.25 / 0.875 * v[1], 1e-12)
    close(found[2], torch.tensor([1.0, 0.5], dtype=torch.float64), 1e-12)


def stopped(a: Tensor, v: Tensor, steps: int) -> tuple[Tensor, int]:
    """The same for one matrix to the letter, and how many steps were taken."""
    x, r, p = torch.zeros_like(v), v, v
    for i in range(steps):
        if (p @ a @ p) <= 0:
            return (x, i) if i else (v, 0)
        rate = (r @ r) / (p @ a @ p)
        x, before, r = x + rate * p, r, r - rate * a @ p
        p = r + (r @ r) / (before @ before) * p
    return x, steps


def test_a_task_that_has_stopped_never_starts_again() -> None:
    root, v = noise(60, 6, 6, seed=3), noise(60, 6, seed=4)
    a = root + root.transpose(1, 2) + 2 * torch.eye(6)
    expected, steps = zip(*(stopped(*pair, 5) for pair in zip(a, v, strict=True)), strict=True)
    assert set(steps) >= {0, 1, 2, 3, 5}
    close(solve(a, v, 5), torch.stack(expected), 1e-8)


# --- the derivative of a solution ---


def loss(weights: State, rows: Examples) -> Tensor:
    """Two layers with weights of each task's own; the row weights count."""
    assert isinstance(rows.x, Tensor)
    out = torch.tanh(rows.x @ weights["first"] + weights["shift"].unsqueeze(1)) @ weights["second"]
    return ((out - rows.y).square().squeeze(-1) * rows.weight).sum(1) / rows.weight.sum(1)


def problem() -> tuple[State, State, Examples, Examples]:
    """A start, an end that has nothing to do with it, a support and queries."""
    shapes = {"first": (TASKS, SIZE, 5), "shift": (TASKS, 5), "second": (TASKS, 5, 1)}
    theta = {k: noise(*shape, seed=20 + i).requires_grad_() for i, (k, shape) in enumerate(shapes.items())}
    phi = {k: noise(*shape, seed=40 + i) for i, (k, shape) in enumerate(shapes.items())}
    x, y = noise(2, TASKS, ROWS, SIZE, seed=9), noise(2, TASKS, ROWS, 1, seed=10)
    weight = 0.1 + noise(TASKS, ROWS, seed=11).abs()
    return theta, phi, Examples(x[0], y[0], weight), examples(x[1], y[1])


def test_at_any_point_it_is_the_dense_solve_with_the_hessian_there() -> None:
    theta, phi, support, query = problem()
    strength, names, sizes = 30.0, list(phi), [w[0].numel() for w in phi.values()]

    def of_task(t: int, flat: Tensor, rows: Examples) -> Tensor:
        pieces = zip(names, flat.split(sizes), strict=True)
        weights = {k: piece.view(1, *phi[k].shape[1:]) for k, piece in pieces}
        return loss(weights, Examples(*(f[t : t + 1] for f in rows))).sum()  # type: ignore[index]

    reached = implicit(loss, phi, theta, support, strength, sum(sizes))
    assert all(torch.equal(reached[k], phi[k]) and reached[k].requires_grad for k in phi)
    found = torch.autograd.grad(loss(reached, query).sum(), list(theta.values()))
    for t in range(TASKS):
        at = torch.cat([phi[k][t].flatten() for k in names])
        hessian = torch.autograd.functional.hessian(lambda w, t=t: of_task(t, w, support), at)
        slope = torch.autograd.functional.jacobian(lambda w, t=t: of_task(t, w, query), at)
        assert torch.linalg.eigvalsh(hessian).min() > -strength
        expected = torch.linalg.solve(torch.eye(len(at)) + hessian / strength, slope)  # type: ignore[operator]
        close(torch.cat([g[t].flatten() for g in found]), expected, 1e-9)


def test_the_support_and_the_strength_get_their_gradient() -> None:
    """Influence, and a strength that is learnt: the derivative of the solution with respect to both."""
    theta, _, support, query = problem()
    leaves = [support.x, support.y, support.weight]
    strength = torch.tensor(20.0, dtype=torch.float64)
    for leaf in (*leaves, strength):
        leaf.requires_grad_()  # type: ignore[union-attr]

    def value() -> Tensor:
        phi = last(proximal_path(loss, theta, support, strength, 80, 0.03))
        return loss(implicit(loss, phi, theta, support, strength, 30), query).sum()

    check_meta_gradient(value, [strength, *leaves, *theta.values()])  # type: ignore[list-item]


def test_a_linear_loss_passes_the_gradient_on() -> None:
    theta = {"w": noise(2, 3, seed=1).requires_grad_()}
    rows = examples(noise(2, 3, seed=2), noise(2, 3, seed=3))

    def straight(weights: State, rows: Examples) -> Tensor:
        return (weights["w"] * rows.x).sum(1)  # type: ignore[operator]

    phi = implicit(straight, {"w": noise(2, 3, seed=4)}, theta, rows, 2.0, 4)["w"]
    assert torch.equal(torch.autograd.grad(phi.square().sum(), theta["w"])[0], 2 * phi.detach())


def test_weights_that_the_loss_never_meets_pass_the_gradient_on() -> None:
    theta, phi, support, query = problem()
    idle = noise(TASKS, 2, seed=60).requires_grad_()
    reached = implicit(loss, {**phi, "idle": idle.detach()}, {**theta, "idle": idle}, support, 30.0, 40)
    outer = (3 * reached["idle"]).sum() + loss(reached, query).sum()
    close(torch.autograd.grad(outer, idle)[0], torch.full_like(idle, 3.0))
    assert torch.equal(last(proximal_path(loss, {**theta, "idle": idle}, support, 30.0, 3, 0.01))["idle"], idle)


def test_the_proximal_path_is_descent_on_the_proximal_problem() -> None:
    theta, _, support, _ = problem()
    path = list(proximal_path(loss, theta, support, 2.0, 3, 0.1))
    assert len(path) == 4 and all(torch.equal(path[0][k], theta[k]) for k in theta)
    for before, after in pairwise(path):
        at = {k: w.clone().requires_grad_() for k, w in before.items()}
        pull = sum((at[k] - theta[k].detach()).square().sum() for k in at)
        grads = torch.autograd.grad(loss(at, support).sum() + 2.0 / 2 * pull, list(at.values()))
        for (k, w), g in zip(at.items(), grads, strict=True):
            close(after[k], w.detach() - 0.1 * g, 1e-13)
            assert not after[k].requires_grad
    with pytest.raises(UserError, match="number of inner steps is -1"):
        list(proximal_path(loss, theta, support, 2.0, -1, 0.1))


def test_under_no_grad_nothing_is_computed() -> None:
    theta, phi, support, _ = problem()

    def never(weights: State, rows: Examples) -> Tensor:
        raise AssertionError("nothing is to be computed")

    with torch.no_grad():
        reached = implicit(never, phi, theta, support, 2.0, 4)
    assert all(torch.equal(reached[k], phi[k]) and not reached[k].requires_grad for k in phi)
