"""ANIL: the head's gradient in closed form, MAML with all other rates at 0, and the true meta-gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.core import Classification, GaussianRegression, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.source import Spec
from quickstudy.core.task import Examples, State, Task
from quickstudy.inner.heads import head_path
from quickstudy.inner.linear import linear
from quickstudy.learners import ANIL, make
from quickstudy.nets import MLP, Conv4, Net, RowNet
from quickstudy.testing import check_meta_gradient, synthetic_tasks

WAY, SIZE, LR = 3, (5,), 0.3
CLASSES = Classification(WAY)
OBJECTIVES: dict[str, Objective] = {
    "classes": CLASSES,
    "waves": Regression(),
    "many targets": Regression(3),
    "gaussian": GaussianRegression(2),
}
CLOSED = ["classes", "waves", "many targets"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def anil(objective: Objective, net: Net | None = None, **options) -> ANIL:
    """A learner whose head is not at 0, where half of all gradients would vanish."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ANIL(net or MLP(SIZE, width=8), objective, inner_lr=LR, **options).double()
        nn.init.normal_(made.head.weight, std=0.5)
        nn.init.normal_(made.head.bias, std=0.5)
    return made.train()


def weighted(objective: Objective, x_shape: tuple[int, ...] = SIZE, ragged: bool = True) -> Task:
    """Rows that count differently, some not at all; with classes, task 1 lacks one."""
    tasks = synthetic_tasks(objective, x_shape, ragged=ragged)
    weight = tasks.support.weight * (0.2 + noise(*tasks.support.weight.shape, seed=1).abs())
    return tasks._replace(support=tasks.support._replace(weight=weight))


def seen(objective: Objective, support: Examples) -> Tensor | None:
    return objective.seen(support) if isinstance(objective, Classification) else None


def loss_of(objective: Objective, head: State, rows: Examples, shown: Tensor | None) -> Tensor:
    """The inner loss, written as the objective has it."""
    prediction = linear(head, rows.x)  # type: ignore[arg-type]
    if isinstance(objective, Classification) and shown is not None:
        prediction = objective.hide_unseen(prediction, shown)
    return objective.loss(prediction, rows)


# --- the closed form ---


@pytest.mark.parametrize("name", CLOSED)
def test_the_heads_gradient_is_autograds(name: str) -> None:
    objective = OBJECTIVES[name]
    rows = weighted(objective).support
    shown = seen(objective, rows)
    head = {"weight": noise(3, objective.size, 5, seed=2), "bias": noise(3, objective.size, seed=3)}
    leaves = {k: w.clone().requires_grad_() for k, w in head.items()}
    expected = torch.autograd.grad(loss_of(objective, leaves, rows, shown).sum(), list(leaves.values()))
    _, moved = head_path(objective, head, rows, 1, 1.0, shown)
    for key, gradient in zip(head, expected, strict=True):
        torch.testing.assert_close(head[key] - moved[key], gradient, rtol=1e-12, atol=1e-13)
    if shown is not None:  # the class that task 1 lacks stays where it is
        assert torch.equal(moved["weight"][1, -1], head["weight"][1, -1])


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("first_order", [False, True])
def test_everything_behind_the_path_gets_autograds_gradient(name: str, first_order: bool) -> None:
    """The head's start, features, row weights and rate: through five steps, in both ways of computing them."""
    objective = OBJECTIVES[name]
    task = weighted(objective)
    shown = seen(objective, task.support)
    rate = torch.tensor(LR, dtype=torch.float64, requires_grad=True)
    head = {"weight": noise(3, objective.size, 5, seed=2), "bias": noise(3, objective.size, seed=3)}
    leaves = [*head.values(), task.support.x, task.support.weight]
    for leaf in leaves:
        leaf.requires_grad_()

    def plain() -> State:
        state = head
        for _ in range(5):
            value = loss_of(objective, state, task.support, shown).sum()
            grads = torch.autograd.grad(value, list(state.values()), create_graph=not first_order)
            state = {k: w - rate * g for (k, w), g in zip(state.items(), grads, strict=True)}
        return state

    *_, ours = head_path(objective, head, task.support, 5, rate, shown, first_order)
    found, expected = (
        torch.autograd.grad(
            objective.loss(linear(state, task.query.x), task.query).sum(), [*leaves, rate], allow_unused=True
        )
        for state in (ours, plain())
    )
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
        else:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    # in first order the inner gradient is a constant: features and row weights are not reached
    assert [g is None for g in found] == [False, False, first_order, first_order, False]


@pytest.mark.parametrize("name", CLOSED)
def test_a_task_without_rows_leaves_the_head_where_it_is(name: str) -> None:
    objective = OBJECTIVES[name]
    rows = weighted(objective).support
    rows = rows._replace(weight=torch.cat([torch.zeros_like(rows.weight[:1]), rows.weight[1:]]))
    start = {"weight": noise(3, objective.size, 5, seed=2), "bias": noise(3, objective.size, seed=3)}
    rows.x.requires_grad_()  # type: ignore[union-attr]
    *_, moved = head_path(objective, start, rows, 3, LR, seen(objective, rows))
    assert torch.equal(moved["weight"][0], start["weight"][0]) and torch.equal(moved["bias"][0], start["bias"][0])
    assert torch.isfinite(torch.autograd.grad(moved["weight"].square().sum(), rows.x)[0]).all()


def test_a_head_in_autocast_is_not_rounded() -> None:
    objective, rows = CLASSES, weighted(CLASSES).support
    rows = rows._replace(x=rows.x.float(), weight=rows.weight.float())  # type: ignore[union-attr]
    head = {"weight": noise(3, WAY, 5, seed=2).float(), "bias": noise(3, WAY, seed=3).float()}
    *_, plain = head_path(objective, head, rows, 5, LR)
    with torch.autocast("cpu", torch.bfloat16):
        *_, mixed = head_path(objective, head, rows, 5, LR)
    assert torch.equal(plain["weight"], mixed["weight"]) and mixed["weight"].dtype == torch.float32


class Softened(Classification):
    """Cross-entropy at another temperature: a subclass whose closed form is not the parent's."""

    def row_loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        return super().row_loss(0.5 * prediction, y)


def test_a_loss_of_ones_own_is_left_to_autograd() -> None:
    rows = weighted(CLASSES).support
    head = {"weight": noise(3, WAY, 5, seed=2), "bias": noise(3, WAY, seed=3)}
    own, shown = Softened(WAY), CLASSES.seen(rows)
    leaves = {k: w.clone().requires_grad_() for k, w in head.items()}
    expected = torch.autograd.grad(loss_of(own, leaves, rows, shown).sum(), list(leaves.values()))
    _, moved = head_path(own, leaves, rows, 1, 1.0, shown)
    torch.testing.assert_close(head["weight"] - moved["weight"], expected[0], rtol=1e-12, atol=1e-13)


# --- the learner ---


def body_at_rest(learner: ANIL, tasks: Task, steps: int, first_order: bool) -> list[Tensor]:
    """The meta-gradient of MAML on body and head together with an inner rate of 0 for the body, task by task."""
    names, parameters = zip(*learner.named_parameters(), strict=True)
    objective, total = learner.objective, []

    def loss(weights: dict[str, Tensor], rows: Examples, shown: Tensor | None) -> Tensor:
        body = {k.removeprefix("net."): w for k, w in weights.items() if k.startswith("net.")}
        features = torch.func.functional_call(learner.net, body, (rows.x,))
        head = {k.removeprefix("head."): w.unsqueeze(0) for k, w in weights.items() if k.startswith("head.")}
        return loss_of(objective, head, rows._replace(x=features), shown).sum()

    for t in range(tasks.support.tasks):
        support, query = (Examples(*(f[t : t + 1] for f in part)) for part in tasks)  # type: ignore[index]
        shown = seen(objective, support)
        weights = dict(zip(names, parameters, strict=True))
        for _ in range(steps):
            grads = torch.autograd.grad(
                loss(weights, support, shown), list(weights.values()), create_graph=not first_order
            )
            rates = [LR if k.startswith("head.") else 0.0 for k in names]
            weights = {k: w - r * g for (k, w), r, g in zip(weights.items(), rates, grads, strict=True)}
        total.append(loss(weights, query, shown))
    return list(torch.autograd.grad(torch.stack(total).mean(), parameters))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 5])
def test_anil_is_maml_with_a_body_at_rest(name: str, first_order: bool, steps: int) -> None:
    objective = OBJECTIVES[name]
    learner, tasks = anil(objective, inner_steps=steps, first_order=first_order), weighted(objective)
    found = torch.autograd.grad(learner(tasks), list(learner.parameters()))
    for a, b in zip(found, body_at_rest(learner, tasks, steps, first_order), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
        assert bool(b.ne(0).any())


EXACT: dict[str, Callable[[], tuple[ANIL, Task]]] = {
    "1-step": lambda: (anil(CLASSES, inner_steps=1), synthetic_tasks(CLASSES, SIZE)),
    "5-steps": lambda: (anil(CLASSES, inner_steps=5), synthetic_tasks(CLASSES, SIZE)),
    "weighted": lambda: (anil(CLASSES, inner_steps=5), weighted(CLASSES)),
    "regression": lambda: (anil(Regression(2), inner_steps=5), weighted(Regression(2))),
    "gaussian": lambda: (anil(GaussianRegression(2), inner_steps=5), weighted(GaussianRegression(2))),
    "conv": lambda: (
        anil(Classification(2), Conv4((1, 16, 16), channels=4, norm="running"), inner_steps=5),
        synthetic_tasks(Classification(2), (1, 16, 16), tasks=2, shot=2),
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_meta_gradient_is_the_derivative(case: str) -> None:
    learner, tasks = EXACT[case]()
    check_meta_gradient(lambda: learner(tasks), learner.parameters(), [n for n, _ in learner.named_parameters()])


def test_the_support_passes_the_network_once() -> None:
    calls: list[Tensor] = []

    class Counted(MLP):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x)
            return super().forward(x)

    tasks = synthetic_tasks(CLASSES, SIZE)
    learner = anil(CLASSES, Counted(SIZE, width=8), inner_steps=5)
    learner(tasks)
    assert [call.shape for call in calls] == [tasks.support.x.shape, tasks.query.x.shape]  # type: ignore[union-attr]


def test_first_order_keeps_no_graph_of_the_supports_features() -> None:
    tasks = synthetic_tasks(CLASSES, SIZE)
    found: list[bool] = []

    class Watched(MLP):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            found.append(out.requires_grad)
            return out

    for first_order in (False, True):
        anil(CLASSES, Watched(SIZE, width=8), first_order=first_order)(tasks)
    assert found == [True, True, False, True]


def test_the_path_and_a_prior_go_the_same_way() -> None:
    tasks, learner = weighted(CLASSES), anil(CLASSES, inner_steps=2)
    path = list(learner.path(tasks.support, 5))
    assert len(path) == 6 and torch.equal(path[0]["weight"][1], learner.head.weight)
    twice = learner.adapt(tasks.support, prior=learner.adapt(tasks.support))
    for key, value in path[4].items():
        torch.testing.assert_close(twice[key], value, rtol=1e-12, atol=1e-13)
    gone = tasks.support._replace(weight=tasks.support.weight * (tasks.support.y > 0))
    first = tasks.support._replace(weight=tasks.support.weight * (tasks.support.y == 0))
    assert learner.adapt(gone)["seen"][0].tolist() == [0, 1, 1]
    assert learner.adapt(gone, prior=learner.adapt(first))["seen"][0].tolist() == [1, 1, 1]


def test_the_head_starts_at_zero_and_no_class_is_preferred() -> None:
    learner = ANIL(MLP(SIZE, width=8), CLASSES, inner_steps=3).double()
    tasks = synthetic_tasks(CLASSES, SIZE)
    renamed = torch.tensor([2, 0, 1])
    with torch.no_grad():
        plain = learner.predict(learner.adapt(tasks.support), tasks.query.x)
        other = learner.predict(learner.adapt(tasks.support._replace(y=renamed[tasks.support.y])), tasks.query.x)
    torch.testing.assert_close(other[..., renamed], plain, rtol=1e-12, atol=1e-13)


def test_steps_outside_training_and_refusals() -> None:
    learner = anil(CLASSES, inner_steps=1, eval_steps=4)
    assert (learner.steps, learner.eval().steps) == (1, 4)
    assert learner.exact_gradient and not anil(CLASSES, first_order=True).exact_gradient
    with pytest.raises(UserError, match="number of inner steps is -1"):
        anil(CLASSES, inner_steps=-1).adapt(synthetic_tasks(CLASSES, SIZE).support)


def test_its_features_do_not_move_so_running_statistics_fit() -> None:
    learner = make("anil", Spec("classification", (1, 16, 16), way=3))
    assert not learner.eval().transductive
    assert learner.train().transductive


def test_a_net_of_ones_own_is_a_body() -> None:
    tasks = weighted(CLASSES)
    learner = anil(CLASSES, RowNet(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), size=4))
    check_meta_gradient(lambda: learner(tasks), learner.parameters())
