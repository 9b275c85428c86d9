"""Inner gradient steps against what can be written down: closed forms, plain loops, other memory plans."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from quickstudy.core import Classification, Regression
from quickstudy.core.task import Examples, State, Task, examples
from quickstudy.inner import memory as plans
from quickstudy.inner.descent import descend, descent_path
from quickstudy.learners import MAML, Reptile, Scratch
from quickstudy.nets import MLP
from quickstudy.testing import check_meta_gradient

LR, TASKS, ROWS, SIZE = 0.15, 3, 6, 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem() -> tuple[State, Examples, Examples]:
    """Two layers of weights for each task, leaves, with rows to descend on and rows to be judged on."""
    weights = {"first": noise(TASKS, SIZE, 5, seed=1), "second": noise(TASKS, 5, 1, seed=2)}
    support = examples(noise(TASKS, ROWS, SIZE, seed=3), noise(TASKS, ROWS, 1, seed=4))
    query = examples(noise(TASKS, ROWS, SIZE, seed=5), noise(TASKS, ROWS, 1, seed=6))
    return {k: w.requires_grad_() for k, w in weights.items()}, support, query


def loss(weights: State, rows: Examples) -> Tensor:
    assert isinstance(rows.x, Tensor)
    out = torch.tanh(rows.x @ weights["first"]) @ weights["second"]
    return ((out - rows.y).square().squeeze(-1) * rows.weight).mean(1)


def plain_loop(weights: State, support: Examples, steps: int, second_order: bool) -> State:
    """Each task by itself, to the letter of the paper."""
    done: list[State] = []
    for t in range(TASKS):
        own = {k: w[t] for k, w in weights.items()}
        x, y = support.x[t], support.y[t]  # type: ignore[index]
        for _ in range(steps):
            value = (torch.tanh(x @ own["first"]) @ own["second"] - y).square().mean()
            grads = torch.autograd.grad(value, list(own.values()), create_graph=second_order)
            own = {k: w - LR * g for (k, w), g in zip(own.items(), grads, strict=True)}
        done.append(own)
    return {k: torch.stack([d[k] for d in done]) for k in weights}


def outer(weights: State, adapted: State, query: Examples) -> list[Tensor]:
    """The outer gradient, for every tensor of weights."""
    return list(torch.autograd.grad(loss(adapted, query).sum(), list(weights.values())))


def gradients(steps: int, first_order: bool = False, memory: str = "store") -> list[Tensor]:
    weights, support, query = problem()
    return outer(weights, descend(loss, weights, support, steps, LR, first_order, memory), query)


# --- linear regression, where everything is in closed form ---


def linear_maml(first_order: bool = False) -> MAML:
    net = MLP((SIZE,), out=1, depth=0).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(noise(1, SIZE, seed=7))
        net.layers[0].bias.copy_(noise(1, seed=8))
    return MAML(net, Regression(), inner_steps=1, inner_lr=LR, first_order=first_order)


def linear_task(tasks: int = 1) -> Task:
    x, y = noise(2, tasks, ROWS, SIZE, seed=9), noise(2, tasks, ROWS, 1, seed=10)
    return Task(examples(x[0], y[0]), examples(x[1], y[1]))


def by_hand(maml: MAML, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """w = (weights, bias) after one step, d query loss / d w there, and d step / d w, by the formulas.

    L = |X w - y|^2 / n, so grad L = 2 X'(X w - y) / n and the derivative of w - lr grad L is
    I - lr 2 X'X / n, the same for every w.
    """
    layer = maml.net.layers[0]  # type: ignore[index]
    w = torch.cat([layer.weight.detach().squeeze(0), layer.bias.detach()])
    ones = torch.ones(ROWS, 1, dtype=torch.float64)
    xs, xq = (torch.cat([part.x[0], ones], 1) for part in task)  # type: ignore[index]
    ys, yq = (part.y[0, :, 0] for part in task)
    after = w - LR * 2 / ROWS * xs.T @ (xs @ w - ys)
    slope = 2 / ROWS * xq.T @ (xq @ after - yq)
    return after, slope, torch.eye(SIZE + 1, dtype=torch.float64) - LR * 2 / ROWS * xs.T @ xs


def test_one_step_of_maml_on_linear_regression_by_hand() -> None:
    maml, task = linear_maml(), linear_task()
    after, slope, jacobian = by_hand(maml, task)
    state = maml.adapt(task.support)
    found = torch.cat([state["layers.0.weight"][0, 0], state["layers.0.bias"][0]])
    torch.testing.assert_close(found, after, rtol=1e-13, atol=1e-13)
    weight, bias = torch.autograd.grad(maml(task), list(maml.parameters()))
    torch.testing.assert_close(torch.cat([weight[0], bias]), jacobian @ slope, rtol=1e-12, atol=1e-12)


def test_first_order_maml_on_linear_regression_leaves_the_jacobian_out() -> None:
    maml, task = linear_maml(first_order=True), linear_task()
    _, slope, jacobian = by_hand(maml, task)
    weight, bias = torch.autograd.grad(maml(task), list(maml.parameters()))
    torch.testing.assert_close(torch.cat([weight[0], bias]), slope, rtol=1e-12, atol=1e-12)
    assert (jacobian @ slope - slope).norm() > 0.1 * slope.norm()  # the two formulas can be told apart


def test_the_outer_loss_is_the_mean_over_tasks() -> None:
    maml, tasks = linear_maml(), linear_task(tasks=3)
    whole = torch.autograd.grad(maml(tasks), list(maml.parameters()))
    parts = [Task(*(Examples(*(f[t : t + 1] for f in part)) for part in tasks)) for t in range(3)]  # type: ignore
    for i, g in enumerate(whole):
        alone = [torch.autograd.grad(maml(part), list(maml.parameters()))[i] for part in parts]
        torch.testing.assert_close(g, torch.stack(alone).mean(0), rtol=1e-12, atol=1e-13)


# --- descend against plain loops ---


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("second_order", [True, False])
def test_descend_equals_a_plain_loop(steps: int, second_order: bool) -> None:
    weights, support, query = problem()
    ours = descend(loss, weights, support, steps, LR, first_order=not second_order)
    plain = plain_loop(weights, support, steps, second_order)
    for name in weights:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-13, atol=1e-13)
    for a, b in zip(outer(weights, ours, query), outer(weights, plain, query), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_the_second_order_gradient_is_the_derivative() -> None:
    weights, support, query = problem()
    check_meta_gradient(
        lambda: loss(descend(loss, weights, support, 3, LR), query).sum(), weights.values(), list(weights)
    )


def test_first_order_is_the_gradient_where_descent_ends() -> None:
    # d phi / d theta taken as the identity: the gradient of the query loss at phi, phi a constant
    weights, support, query = problem()
    ends = {k: w.detach().requires_grad_() for k, w in descend(loss, weights, support, 4, LR).items()}
    for a, b in zip(gradients(4, first_order=True), outer(ends, ends, query), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_first_order_differs_from_second_order() -> None:
    for first, second in zip(gradients(2, first_order=True), gradients(2), strict=True):
        assert (first - second).norm() > 0.05 * second.norm()


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_checkpointing_changes_no_gradient(steps: int) -> None:
    for a, b in zip(gradients(steps, memory="checkpoint"), gradients(steps), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-15)


def test_checkpointing_is_asked_for_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(args)
        return torch.utils.checkpoint.checkpoint(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(plans, "checkpoint", counted)
    gradients(3)
    assert not calls
    gradients(3, memory="checkpoint")
    assert len(calls) == 3


def test_the_rate_may_be_learnt() -> None:
    weights, support, query = problem()
    rate = torch.tensor(LR, dtype=torch.float64, requires_grad=True)

    def value(memory: str) -> Tensor:
        return loss(descend(loss, weights, support, 3, rate, memory=memory), query).sum()

    check_meta_gradient(lambda: value("store"), [rate])
    check_meta_gradient(lambda: value("checkpoint"), [rate])
    check_meta_gradient(lambda: value("sweep"), [rate])


@pytest.mark.parametrize("memory", ["store", "checkpoint", "sweep"])
@pytest.mark.parametrize("first_order", [True, False])
def test_descent_works_under_no_grad(memory: str, first_order: bool) -> None:
    weights, support, _ = problem()
    recorded = descend(loss, weights, support, 3, LR)
    with torch.no_grad():
        views = {k: w.expand_as(w) for k, w in weights.items()}  # ask for no gradient, as learners' do here
        plain = descend(loss, views, support, 3, LR, first_order, memory)
    for name, w in plain.items():
        assert not w.requires_grad
        torch.testing.assert_close(w, recorded[name].detach(), rtol=1e-14, atol=1e-15)
    assert all(w.is_leaf and w.grad is None for w in weights.values())


def test_no_steps_leave_the_start() -> None:
    weights, support, query = problem()
    same = descend(loss, weights, support, 0, LR)
    assert all(torch.equal(same[k], w) for k, w in weights.items())
    for a, b in zip(outer(weights, same, query), outer(weights, weights, query), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert all(torch.equal(w, weights[k]) for k, w in descend(loss, weights, support, 0, LR).items())


def test_states_on_the_way_are_let_go() -> None:
    # 100 steps of 20 copies of a Conv4 would be a gigabyte
    objective, support = Classification(2), examples(noise(2, 4, SIZE), torch.tensor([[0, 0, 1, 1]] * 2))
    seen: list[StorageWeakRef] = []
    alive: list[int] = []

    class Watched(MLP):
        def per_task(self, weights: State, x: Tensor) -> Tensor:
            seen.append(StorageWeakRef(weights["layers.0.weight"].untyped_storage()))
            alive.append(sum(not s.expired() for s in seen))
            return super().per_task(weights, x)

    for learner in (Scratch, Reptile):
        made = learner(Watched((SIZE,), out=2).double(), objective, inner_steps=20)
        seen.clear()
        with torch.no_grad():
            made.train().adapt(support)
        made(Task(support, support))
    assert len(alive) > 60 and max(alive) <= 3


def test_the_path_holds_every_state_on_the_way() -> None:
    weights, support, _ = problem()
    path = list(descent_path(loss, weights, support, 3, LR))
    assert len(path) == 4
    for steps, state in enumerate(path):
        for name, w in descend(loss, weights, support, steps, LR).items():
            torch.testing.assert_close(state[name], w, rtol=1e-14, atol=1e-15)


def test_weights_that_the_loss_never_meets_stay() -> None:
    weights, support, _ = problem()
    idle = noise(TASKS, 2, seed=11).requires_grad_()
    assert torch.equal(descend(loss, {**weights, "idle": idle}, support, 2, LR)["idle"], idle)
