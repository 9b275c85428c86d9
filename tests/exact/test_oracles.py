"""What each method must equal: formulas, other methods in a limit, scikit-learn. No training is involved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Task, join_rows, map_tensors, select
from quickstudy.learners import MAML, R2D2, ProtoMAML, ProtoNet, Reptile, Scratch
from quickstudy.nets import MLP, Conv4
from quickstudy.testing import check_meta_gradient, synthetic_tasks

WAY, SIZE = 3, (5,)
CLASSES = Classification(WAY)


def mlp(out: int | None = None) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=out, width=8).double()


def conv4(out: int | None = None) -> Conv4:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Conv4((1, 16, 16), out=out, channels=4).double()


def classes(shot: int = 3) -> Task:
    return synthetic_tasks(CLASSES, SIZE, shot=shot)


def waves() -> Task:
    return synthetic_tasks(Regression(), SIZE)


def weighted(tasks: Task) -> Task:
    """The same rows, where some count less than others and some not at all."""
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(tasks.support.weight.shape, generator=rng, dtype=torch.float64)
    weight[:, 0] = 0.0
    return tasks._replace(support=tasks.support._replace(weight=weight))


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- meta-gradients equal central differences ---

EXACT: dict[str, Callable[[], tuple[MetaLearner, Task]]] = {
    "maml-1": lambda: (MAML(mlp(WAY), CLASSES, inner_steps=1, inner_lr=0.3), classes()),
    "maml-5": lambda: (MAML(mlp(WAY), CLASSES, inner_steps=5, inner_lr=0.3), classes()),
    "maml-5-checkpoint": lambda: (MAML(mlp(WAY), CLASSES, 5, 0.3, memory="checkpoint"), classes()),
    "maml-5-sweep": lambda: (MAML(mlp(WAY), CLASSES, 5, 0.3, memory="sweep"), classes()),
    "maml-5-weighted": lambda: (MAML(mlp(WAY), CLASSES, inner_steps=5, inner_lr=0.3), weighted(classes())),
    "maml-5-regression": lambda: (MAML(mlp(1), Regression(), inner_steps=5, inner_lr=0.1), waves()),
    "maml-conv": lambda: (
        MAML(conv4(2), Classification(2), inner_steps=2, inner_lr=0.1),
        synthetic_tasks(Classification(2), (1, 16, 16), tasks=2, shot=2),
    ),
    "r2d2": lambda: (R2D2(mlp(), CLASSES, penalty=0.5), classes()),
    "r2d2-fewer-rows": lambda: (R2D2(mlp(), CLASSES, penalty=0.5), classes(shot=1)),
    "r2d2-weighted": lambda: (R2D2(mlp(), CLASSES, penalty=0.5), weighted(classes())),
    "r2d2-regression": lambda: (R2D2(mlp(), Regression(), penalty=0.5), waves()),
    "proto_maml-1": lambda: (ProtoMAML(mlp(), CLASSES, inner_steps=1, inner_lr=0.05), classes()),
    "proto_maml-5": lambda: (ProtoMAML(mlp(), CLASSES, inner_steps=5, inner_lr=0.05), classes()),
    "protonet": lambda: (ProtoNet(mlp(), CLASSES), weighted(classes())),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_meta_gradient_is_the_derivative(case: str) -> None:
    learner, tasks = EXACT[case]()
    learner = learner.double().train()
    check_meta_gradient(lambda: learner(tasks), learner.parameters(), [n for n, _ in learner.named_parameters()])


def test_first_order_learners_say_that_their_gradient_is_not_exact() -> None:
    for learner in (MAML, ProtoMAML):
        net = mlp(WAY) if learner is MAML else mlp()
        assert learner(net, CLASSES).exact_gradient
        assert not learner(net, CLASSES, first_order=True).exact_gradient
    assert not Reptile.exact_gradient


# --- gradient-based ---


@pytest.mark.parametrize("objective", [CLASSES, Regression()], ids=["classes", "waves"])
def test_reptile_pulls_from_theta_to_phi(objective: Objective) -> None:
    tasks = classes() if isinstance(objective, Classification) else waves()
    learner = Reptile(mlp(objective.size), objective, inner_steps=4, inner_lr=0.2).train()
    value = learner(tasks)
    ours = torch.autograd.grad(value, list(learner.parameters()))
    # phi by a plain loop on all rows of a task; the outer gradient is the mean over tasks of theta - phi
    gaps: list[list[Tensor]] = []
    for t in range(tasks.support.tasks):
        rows = select(join_rows(tasks.support, tasks.query), slice(t, t + 1))
        copy = mlp(objective.size)
        for _ in range(4):
            loss = objective.loss(copy(rows.x), rows).sum()
            grads = torch.autograd.grad(loss, list(copy.parameters()))
            with torch.no_grad():
                for p, g in zip(copy.parameters(), grads, strict=True):
                    p.sub_(0.2 * g)
        gaps.append([a.detach() - b.detach() for a, b in zip(learner.parameters(), copy.parameters(), strict=True)])
    for i, g in enumerate(ours):
        torch.testing.assert_close(g, torch.stack([gap[i] for gap in gaps]).mean(0), rtol=1e-9, atol=1e-12)
    assert torch.isfinite(value) and value > 0


def test_reptile_takes_its_evaluation_steps_only_outside_training() -> None:
    learner = Reptile(mlp(WAY), CLASSES, inner_steps=2, eval_steps=7)
    assert (learner.train().steps, learner.eval().steps) == (2, 7)


def test_scratch_and_maml_without_training_are_one() -> None:
    tasks = classes()
    close(
        predictions(Scratch(mlp(WAY), CLASSES, inner_steps=6, inner_lr=0.2), tasks),
        predictions(MAML(mlp(WAY), CLASSES, inner_steps=6, inner_lr=0.2), tasks),
    )


# --- metric-based ---


def test_protonet_is_a_linear_classifier() -> None:
    # -|f - c|^2 = 2 c.f - |c|^2 - |f|^2, and the last term is the same for every class
    tasks, net = classes(), mlp()
    found = predictions(ProtoNet(net, CLASSES), tasks)
    with torch.no_grad():
        f, asked = net(tasks.support.x), net(tasks.query.x)
    for t in range(tasks.support.tasks):
        c = torch.stack([f[t][tasks.support.y[t] == k].mean(0) for k in range(WAY)])
        line = asked[t] @ (2 * c).T - c.square().sum(-1)
        close(found[t] - found[t].mean(-1, keepdim=True), line - line.mean(-1, keepdim=True))


def test_protonet_learns_bit_by_bit() -> None:
    tasks, learner = weighted(classes()), ProtoNet(mlp(), CLASSES)

    def part(rows: slice) -> Examples:
        return map_tensors(tasks.support, lambda f: f[:, rows])

    state = None
    for i in range(tasks.support.weight.shape[1]):  # one row at a time
        state = learner.adapt(part(slice(i, i + 1)), prior=state)
    whole = learner.adapt(tasks.support)
    assert state is not None
    close(state["sums"], whole["sums"])
    close(state["counts"], whole["counts"])
    assert not torch.equal(learner.adapt(part(slice(0, 4)))["sums"], whole["sums"])


def test_protonet_in_turns_is_the_mean_over_all_turns() -> None:
    # 3 + 2 rows a class: rows 0 to 2 are the support, then rows 3, 4 and, beginning again, 0
    tasks, net = classes(), mlp()
    rows = join_rows(tasks.support, tasks.query)
    order = rows.y.argsort(dim=1, stable=True)[0].unflatten(0, (WAY, 5))  # the rows of each class, as they come
    plain, losses = ProtoNet(net, CLASSES), []
    for turn in ([0, 1, 2], [3, 4, 0]):
        asked = [i for i in range(5) if i not in turn]
        support, query = (map_tensors(rows, lambda f, c=c: f[:, order[:, c].flatten()]) for c in (turn, asked))
        losses.append(plain.meta_loss(Task(support, query)))
    learner = ProtoNet(net, CLASSES, turns=True)
    close(learner.train().meta_loss(tasks), torch.stack(losses).mean(0))
    close(learner.eval().meta_loss(tasks), plain.meta_loss(tasks))


def test_r2d2_regression_is_scikit_learns_ridge() -> None:
    tasks, net = weighted(waves()), mlp()
    learner = R2D2(net, Regression(), penalty=0.5).double()
    found = predictions(learner, tasks)
    with torch.no_grad():  # the constant is a feature like the others, and penalised like them
        f, asked = (learner.features(part.x, part.weight) for part in tasks)
        assert torch.equal(f[..., :-1], net(tasks.support.x)) and f[..., -1].eq(1).all()
    for t in range(tasks.support.tasks):
        model = Ridge(alpha=0.5, fit_intercept=False)
        model.fit(f[t], tasks.support.y[t], sample_weight=tasks.support.weight[t])
        close(found[t, :, 0], torch.from_numpy(model.predict(asked[t])).flatten())


def test_r2d2_classification_is_scikit_learns_ridge_scaled_and_shifted() -> None:
    tasks, net = classes(), mlp()
    learner = R2D2(net, CLASSES, penalty=0.5, intercept=False).double()
    with torch.no_grad():
        learner.scale.fill_(3.0)
        learner.shift.fill_(-0.7)
        f, asked = net(tasks.support.x), net(tasks.query.x)
    found = predictions(learner, tasks)
    for t in range(tasks.support.tasks):
        model = Ridge(alpha=0.5, fit_intercept=False).fit(f[t], np.eye(WAY)[tasks.support.y[t]])
        close(found[t], 3.0 * torch.from_numpy(model.predict(asked[t])) - 0.7)


def test_r2d2_with_a_prior_is_ridge_towards_the_prior() -> None:
    # argmin |X W - Y|^2 + penalty |W - W0|^2 = (X'X + penalty I)^-1 (X'Y + penalty W0)
    tasks = waves()
    learner = R2D2(mlp(), Regression(), penalty=0.5).double()
    first, second = (map_tensors(tasks.support, lambda f, r=r: f[:, r]) for r in (slice(0, 4), slice(4, None)))
    with torch.no_grad():
        before = learner.adapt(first)
        found = learner.adapt(second, prior=before)["weight"]
        x = learner.features(second.x, second.weight)
    gram = x.transpose(1, 2) @ x + 0.5 * torch.eye(x.shape[-1], dtype=torch.float64)
    wanted = torch.linalg.solve(gram, x.transpose(1, 2) @ second.y + 0.5 * before["weight"])
    close(found, wanted)
    assert (found - learner.adapt(second)["weight"]).abs().max() > 1e-3  # the prior says something


def test_r2d2_remembers_the_classes_of_its_prior() -> None:
    tasks = classes()
    learner = R2D2(mlp(), CLASSES).double()
    parts = [map_tensors(tasks.support, lambda f, r=r: f[:, r]) for r in (slice(0, 3), slice(3, None))]
    assert learner.adapt(parts[0])["seen"].tolist() == [[1, 0, 0]] * 3
    assert learner.adapt(parts[1])["seen"].tolist() == [[0, 1, 1]] * 3
    assert learner.adapt(parts[1], prior=learner.adapt(parts[0]))["seen"].tolist() == [[1, 1, 1]] * 3


# --- hybrid ---


def test_proto_maml_without_steps_is_protonet() -> None:
    tasks, net = weighted(classes()), mlp()
    ours, theirs = (
        predictions(learner, tasks) for learner in (ProtoMAML(net, CLASSES, inner_steps=0), ProtoNet(net, CLASSES))
    )
    close(ours.log_softmax(-1), theirs.log_softmax(-1))
    moved = predictions(ProtoMAML(net, CLASSES, inner_steps=1), tasks)
    assert (moved.log_softmax(-1) - theirs.log_softmax(-1)).abs().max() > 1e-3
