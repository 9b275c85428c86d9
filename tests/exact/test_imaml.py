"""iMAML: conjugate gradients, the implicit gradient in closed form, and memory that no inner step adds to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State, Task, examples, select
from quickstudy.inner.descent import descend, last
from quickstudy.inner.implicit import conjugate_gradient, implicit, proximal_path
from quickstudy.learners import IMAML
from quickstudy.nets import MLP, Conv4
from quickstudy.nets.norm import Norm
from quickstudy.peak import peak_bytes
from quickstudy.testing import check_meta_gradient, synthetic_tasks
from quickstudy.testing.gradient import gradient_is_exact

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


# --- a linear model: everything is in closed form ---

STRENGTH = 1.5


def linear_model(**options) -> IMAML:
    net = MLP((SIZE,), out=1, depth=0)
    settings = {"inner_steps": 150, "inner_lr": 0.15, "strength": STRENGTH, "cg_steps": SIZE + 1} | options
    model = IMAML(net, Regression(), **settings).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(noise(1, SIZE, seed=7))
        net.layers[0].bias.copy_(noise(1, seed=8))
    return model.train()


def linear_tasks() -> Task:
    x, y = noise(2, TASKS, ROWS, SIZE, seed=9), noise(2, TASKS, ROWS, 1, seed=10)
    weight = 0.1 + noise(TASKS, ROWS, seed=11).abs()
    return Task(Examples(x[0], y[0], weight), examples(x[1], y[1]))


def start(model: IMAML) -> Tensor:
    layer = model.net.layers[0]  # type: ignore[index]
    return torch.cat([layer.weight.detach().squeeze(0), layer.bias.detach()])


def ridge(support: Examples, t: int, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(H + strength I, argmin of the inner problem) where L = sum_i w_i (x_i phi - y_i)^2 / sum w."""
    x = torch.cat([support.x[t], torch.ones(ROWS, 1)], 1)  # type: ignore[index]
    share = support.weight[t] / support.weight[t].sum()
    matrix = 2 * x.T @ (share.unsqueeze(1) * x) + STRENGTH * torch.eye(SIZE + 1)
    return matrix, torch.linalg.solve(matrix, 2 * x.T @ (share * support.y[t, :, 0]) + STRENGTH * theta)


def test_the_gradient_through_ridge_regression_in_closed_form() -> None:
    model, tasks = linear_model(), linear_tasks()
    expected = []
    for t in range(TASKS):
        matrix, phi = ridge(tasks.support, t, start(model))
        asked = torch.cat([tasks.query.x[t], torch.ones(ROWS, 1)], 1)  # type: ignore[index]
        slope = 2 / ROWS * asked.T @ (asked @ phi - tasks.query.y[t, :, 0])
        expected.append(STRENGTH * torch.linalg.solve(matrix, slope))
        state = model.adapt(tasks.support)
        close(torch.cat([state["layers.0.weight"][t, 0], state["layers.0.bias"][t]]).detach(), phi)
    weight, bias = torch.autograd.grad(model(tasks), list(model.parameters()))
    close(torch.cat([weight[0], bias]), torch.stack(expected).mean(0))


def test_the_unrolled_gradient_is_the_same_once_the_problem_is_solved() -> None:
    model, tasks = linear_model(), linear_tasks()
    theta = model.start(tasks.support)

    def proximal(weights: State, support: Examples) -> Tensor:
        value = model.objective.loss(model.output(weights, support.x, support.weight), support)
        return value + sum(STRENGTH / 2 * (weights[k] - theta[k]).square().flatten(1).sum(1) for k in theta)

    def unrolled(steps: int) -> list[Tensor]:
        state = descend(proximal, theta, tasks.support, steps, 0.15)
        value = model.objective.loss(model.predict(state, tasks.query.x), tasks.query).mean()
        return list(torch.autograd.grad(value, list(model.parameters()), retain_graph=True))

    found = torch.autograd.grad(model(tasks), list(model.parameters()))
    for a, b in zip(found, unrolled(150), strict=True):
        close(a, b)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(found, unrolled(3), strict=True))


def test_a_prior_pulls_where_the_start_did() -> None:
    model, tasks = linear_model(), linear_tasks()
    first, second = tasks.support, tasks.support._replace(y=tasks.support.y + 1)
    state = model.adapt(second, prior=model.adapt(first))
    for t in range(TASKS):
        before = ridge(first, t, start(model))[1]
        _, phi = ridge(second, t, before)
        close(torch.cat([state["layers.0.weight"][t, 0], state["layers.0.bias"][t]]).detach(), phi)

    def twice() -> Tensor:
        state = model.adapt(second, prior=model.adapt(first))
        return model.objective.loss(model.predict(state, tasks.query.x), tasks.query).mean()

    check_meta_gradient(twice, model.parameters())


# --- a curved model ---


class Smooth(MLP):
    """An MLP without kinks: descent may end on a kink of ReLU, where there is no derivative."""

    def per_task(self, weights: State, x: Tensor) -> Tensor:
        h = x.flatten(2)
        for i in range(len(self.layers)):
            w, b = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
            h = torch.baddbmm(b.unsqueeze(1), h, w.transpose(1, 2))
            h = torch.tanh(h) if i < self.depth else h
        return h


def curved(objective: Objective, **options) -> IMAML:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Smooth((SIZE,), out=objective.size, width=5, depth=1)
    settings = {"inner_steps": 40, "inner_lr": 0.1, "strength": 5.0, "cg_steps": 25} | options
    return IMAML(net, objective, **settings).double().train()


def ragged(objective: Objective) -> Task:
    tasks = synthetic_tasks(objective, (SIZE,), ragged=True)
    weight = tasks.support.weight * (0.2 + noise(*tasks.support.weight.shape, seed=3).abs())
    return tasks._replace(support=tasks.support._replace(weight=weight))


@pytest.mark.parametrize("objective", [Classification(3), Regression(2)], ids=["classes", "waves"])
def test_the_gradient_is_the_derivative_where_the_inner_problem_is_solved(objective: Objective) -> None:
    tasks = ragged(objective)
    names = [n for n, _ in curved(objective).named_parameters()]
    model = curved(objective)
    check_meta_gradient(lambda: model(tasks), model.parameters(), names)
    for early in (curved(objective, inner_steps=2), curved(objective, cg_steps=1)):
        assert not gradient_is_exact(lambda model=early: model(tasks), early.parameters())
    assert not IMAML.exact_gradient


def test_without_steps_the_start_is_differentiated_as_it_is() -> None:
    model, tasks = curved(Classification(3), inner_steps=0), ragged(Classification(3))
    check_meta_gradient(lambda: model(tasks), model.parameters())


def problem() -> tuple[IMAML, Task, State, State]:
    """A curved problem, with a start and an end that has nothing to do with it; leaves."""
    model = curved(Regression(2))
    tasks = ragged(Regression(2))
    shapes = {k: (TASKS, *p.shape) for k, p in model.net.named_parameters()}
    theta = {k: noise(*shape, seed=20 + i).requires_grad_() for i, (k, shape) in enumerate(shapes.items())}
    phi = {k: noise(*shape, seed=40 + i) for i, (k, shape) in enumerate(shapes.items())}
    return model, tasks, theta, phi


def test_at_any_point_it_is_the_dense_solve_with_the_hessian_there() -> None:
    model, tasks, theta, phi = problem()
    strength = 30.0

    def loss(weights: State, rows: Examples) -> Tensor:
        return model.objective.loss(model.output(weights, rows.x, rows.weight), rows)

    names, sizes = list(phi), [w[0].numel() for w in phi.values()]

    def of_task(t: int, flat: Tensor, rows: Examples) -> Tensor:
        pieces = zip(names, flat.split(sizes), strict=True)
        weights = {k: piece.view(1, *phi[k].shape[1:]) for k, piece in pieces}
        return loss(weights, Examples(*(f[t : t + 1] for f in rows))).sum()  # type: ignore[index]

    reached = implicit(loss, phi, theta, tasks.support, strength, sum(sizes))
    assert all(torch.equal(reached[k], phi[k]) and reached[k].requires_grad for k in phi)
    found = torch.autograd.grad(loss(reached, tasks.query).sum(), list(theta.values()))
    for t in range(TASKS):
        at = torch.cat([phi[k][t].flatten() for k in names])
        hessian = torch.autograd.functional.hessian(lambda w, t=t: of_task(t, w, tasks.support), at)
        slope = torch.autograd.functional.jacobian(lambda w, t=t: of_task(t, w, tasks.query), at)
        assert torch.linalg.eigvalsh(hessian).min() > -strength
        expected = torch.linalg.solve(torch.eye(len(at)) + hessian / strength, slope)
        close(torch.cat([g[t].flatten() for g in found]), expected, 1e-9)


def test_the_support_and_the_strength_get_their_gradient() -> None:
    """Influence, and a strength that is learnt: the derivative of the solution with respect to both."""
    model, tasks, theta, _ = problem()
    weight = tasks.support.weight.clone().requires_grad_()
    strength = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)

    def loss(weights: State, rows: Examples) -> Tensor:
        return model.objective.loss(model.output(weights, rows.x, rows.weight), rows)

    def value() -> Tensor:
        support = tasks.support._replace(weight=weight)
        phi = last(proximal_path(loss, theta, support, strength, 80, 0.03))
        return loss(implicit(loss, phi, theta, support, strength, 45), tasks.query).sum()

    check_meta_gradient(value, [weight, strength, *theta.values()])


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_convolutions_solve_every_task_by_itself(norm: Norm) -> None:
    objective = Classification(2)
    tasks = synthetic_tasks(objective, (1, 16, 16), tasks=3, shot=2)
    torch.manual_seed(0)
    model = IMAML(Conv4((1, 16, 16), out=2, channels=8, norm=norm), objective, 3, strength=5.0, cg_steps=3).double()

    def gradient(tasks: Task) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(model(tasks), list(model.parameters()))])

    alone = [gradient(select(tasks, slice(t, t + 1))) for t in range(3)]
    close(gradient(tasks), torch.stack(alone).mean(0))


def test_a_linear_loss_passes_the_gradient_on() -> None:
    theta = {"w": noise(2, 3, seed=1).requires_grad_()}
    rows = examples(noise(2, 3, seed=2), noise(2, 3, seed=3))

    def loss(weights: State, rows: Examples) -> Tensor:
        return (weights["w"] * rows.x).sum(1)

    phi = implicit(loss, {"w": noise(2, 3, seed=4)}, theta, rows, 2.0, 4)["w"]
    assert torch.equal(torch.autograd.grad(phi.square().sum(), theta["w"])[0], 2 * phi.detach())


def test_weights_that_the_loss_never_meets_pass_the_gradient_on() -> None:
    model, tasks, theta, phi = problem()
    idle = noise(TASKS, 2, seed=60).requires_grad_()

    def loss(weights: State, rows: Examples) -> Tensor:
        met = {k: w for k, w in weights.items() if k != "idle"}
        return model.objective.loss(model.output(met, rows.x, rows.weight), rows)

    reached = implicit(loss, {**phi, "idle": idle.detach()}, {**theta, "idle": idle}, tasks.support, 30.0, 40)
    outer = (3 * reached["idle"]).sum() + loss(reached, tasks.query).sum()
    close(torch.autograd.grad(outer, idle)[0], torch.full_like(idle, 3.0))


# --- what it costs ---


class Counting(Smooth):
    calls = 0

    def per_task(self, weights: State, x: Tensor) -> Tensor:
        type(self).calls += 1
        return super().per_task(weights, x)


def test_one_graph_serves_all_conjugate_gradient_steps() -> None:
    tasks = ragged(Regression(2))
    model = curved(Regression(2), inner_steps=6, cg_steps=20)
    model.net.__class__ = Counting
    Counting.calls = 0
    with torch.no_grad():
        model.predict(model.adapt(tasks.support), tasks.query.x)
    assert Counting.calls == 6 + 1
    Counting.calls = 0
    model(tasks).backward()
    assert Counting.calls == 6 + 1 + 1  # inner steps, the queries, and the graph at the end


def test_memory_is_flat_in_the_inner_steps() -> None:
    tasks = synthetic_tasks(Regression(2), (SIZE,), shot=100, query=100)

    def held(steps: int) -> int:
        model = curved(Regression(2), inner_steps=steps)
        return peak_bytes(lambda: model(tasks).backward())

    assert held(60) <= 1.02 * held(3)


def test_under_no_grad_nothing_is_kept() -> None:
    model, tasks, theta, phi = problem()

    def never(weights: State, rows: Examples) -> Tensor:
        raise AssertionError("nothing is to be computed")

    with torch.no_grad():
        reached = implicit(never, phi, theta, tasks.support, 2.0, 4)
        state = model.adapt(tasks.support)
    assert all(torch.equal(reached[k], phi[k]) for k in phi)
    assert not any(w.requires_grad for w in (*reached.values(), *state.values()))


def test_the_path_holds_every_state_on_the_way() -> None:
    model, tasks = curved(Classification(3), inner_steps=3), ragged(Classification(3))
    path = list(model.path(tasks.support, 3))
    with torch.no_grad():
        plain = list(model.path(tasks.support, 3))
        end = model.adapt(tasks.support)
    assert len(path) == len(plain) == 4
    for key in end:
        close(plain[3][key], end[key], 1e-14)
        for a, b in zip(path, plain, strict=True):
            close(a[key].detach(), b[key], 1e-14)
    assert torch.equal(plain[0]["layers.0.weight"][1], model.net.layers[0].weight)  # type: ignore[index]


def test_steps_outside_training_and_refusals() -> None:
    net, rows = MLP((SIZE,), out=2), synthetic_tasks(Regression(2), (SIZE,)).support
    learner = IMAML(net, Regression(2), inner_steps=1, eval_steps=4)
    assert (learner.train().steps, learner.eval().steps) == (1, 4)
    with pytest.raises(UserError, match="strength is 0"):
        IMAML(net, Regression(2), strength=0)
    with pytest.raises(UserError, match="cg_steps is 0"):
        IMAML(net, Regression(2), cg_steps=0)
    with pytest.raises(UserError, match="number of inner steps is -1"):
        IMAML(net.double(), Regression(2), inner_steps=-1).adapt(rows)
