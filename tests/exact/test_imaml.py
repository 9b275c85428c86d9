"""iMAML: ridge regression in closed form, the true gradient where solved, memory that no inner step adds to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State, Task, examples, select
from quickstudy.inner.descent import descend
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


# --- a linear model: everything is in closed form ---

STRENGTH = 1.5


def linear_model(**options) -> IMAML:
    net = MLP((SIZE,), out=1, depth=0)
    settings = {"inner_steps": 150, "inner_lr": 0.15, "strength": STRENGTH, "cg_steps": SIZE + 1} | options
    model = IMAML(net, Regression(), **settings).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(noise(1, SIZE, seed=7))  # type: ignore[operator]
        net.layers[0].bias.copy_(noise(1, seed=8))  # type: ignore[operator]
    return model.train()


def linear_tasks() -> Task:
    x, y = noise(2, TASKS, ROWS, SIZE, seed=9), noise(2, TASKS, ROWS, 1, seed=10)
    weight = 0.1 + noise(TASKS, ROWS, seed=11).abs()
    return Task(Examples(x[0], y[0], weight), examples(x[1], y[1]))


def start(model: IMAML) -> Tensor:
    layer = model.net.layers[0]  # type: ignore[index]
    return torch.cat([layer.weight.detach().squeeze(0), layer.bias.detach()])  # type: ignore[union-attr]


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


def test_under_no_grad_states_are_plain() -> None:
    model, tasks = curved(Classification(3), inner_steps=3), ragged(Classification(3))
    with torch.no_grad():
        assert not any(w.requires_grad for w in model.adapt(tasks.support).values())


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
