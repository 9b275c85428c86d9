"""MetaOptNet against scikit-learn's machine of Crammer and Singer, and its derivative against central differences."""

from __future__ import annotations

import warnings

import pytest
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, map_tensors
from quickstudy.inner.svm import crammer_singer
from quickstudy.learners import MetaOptNet
from quickstudy.nets import MLP
from quickstudy.testing import check_meta_gradient, synthetic_tasks

WAY = 3
CLASSES = Classification(WAY)


def learner(strength: float, width: int = 8) -> MetaOptNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MetaOptNet(MLP((5,), width=width), CLASSES, strength).double()


def tasks(shot: int = 4) -> Task:
    """Rows of different weight, some of none; blobs that overlap, so that some rows are on the wrong side."""
    made = synthetic_tasks(CLASSES, (5,), shot=shot)
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(made.support.weight.shape, generator=rng, dtype=torch.float64)
    if shot > 1:
        weight[:, 0] = 0.0
    return made._replace(support=made.support._replace(weight=weight))


def scikit(f: Tensor, y: Tensor, weight: Tensor, strength: float) -> Tensor:
    model = LinearSVC(C=strength, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    kept = weight > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(f[kept].numpy(), y[kept].numpy(), sample_weight=weight[kept].numpy())
    return torch.from_numpy(model.coef_).T


@pytest.mark.parametrize("strength", [0.01, 0.1, 10.0])
@pytest.mark.parametrize(("shot", "width"), [(1, 20), (4, 20), (4, 3)])
def test_it_is_scikit_learns_machine(strength: float, shot: int, width: int) -> None:
    svm, given = learner(strength, width), tasks(shot)
    with torch.no_grad():
        found = svm.predict(svm.adapt(given.support), given.query.x)
        f, asked = svm.net(given.support.x), svm.net(given.query.x)
    for t in range(len(f)):
        wanted = scikit(f[t], given.support.y[t], given.support.weight[t], strength)
        torch.testing.assert_close(found[t], 10 * asked[t] @ wanted, rtol=1e-6, atol=1e-6)


def test_two_classes_are_the_plain_machine() -> None:
    # with W_1 = -W_0 the margin is 2 W_1 x: hinge(1 - t v x) with v = 2 W_1, and |W|^2 / 2 = |v|^2 / 4
    given = synthetic_tasks(Classification(2), (5,), shot=6)
    y, ones = given.support.y, torch.ones(3, 2).double()
    limit = torch.full(y.shape, 0.3).double()
    with torch.no_grad():
        w = crammer_singer(given.support.x, CLASSES.indicators(y)[..., :2], limit, ones, torch.zeros(3, 5, 2).double())
    for t in range(len(w)):
        model = LinearSVC(C=0.6, loss="hinge", fit_intercept=False, tol=1e-10, max_iter=1_000_000)
        model.fit(given.support.x[t].numpy(), y[t].numpy())
        torch.testing.assert_close(w[t, :, 1] - w[t, :, 0], torch.from_numpy(model.coef_[0]), rtol=1e-5, atol=1e-6)


def test_a_class_that_is_not_shown_takes_no_part() -> None:
    given = tasks()
    fewer = given.support._replace(weight=given.support.weight * (given.support.y > 0))
    svm = learner(0.5)
    with torch.no_grad():
        state, f = svm.adapt(fewer), svm.net(fewer.x)
    for t in range(len(f)):
        kept = fewer.y[t] > 0
        w = crammer_singer(
            f[t : t + 1, kept], (fewer.y[t : t + 1, kept].unsqueeze(-1) == torch.tensor([1, 2])),
            0.5 * fewer.weight[t : t + 1, kept], torch.ones(1, 2), torch.zeros(1, 8, 2),
        )  # fmt: skip
        torch.testing.assert_close(state["weight"][t, :, 1:], w[0])
    assert state["weight"][..., 0].eq(0).all()


def test_tasks_of_one_class_or_of_none_are_answered() -> None:
    given, svm = tasks(), learner(0.5)
    for classes in (1, 0):
        few = given.support._replace(weight=given.support.weight * (given.support.y < classes))
        with torch.no_grad():
            assert svm.adapt(few)["weight"].abs().max() < 1e-6


def objective(w: Tensor, f: Tensor, y: Tensor, limit: Tensor, start: Tensor) -> Tensor:
    scores = f @ w
    right = scores.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    slack = (scores + (~CLASSES.indicators(y)).double()).amax(-1) - right
    return 0.5 * (w - start).square().sum((1, 2)) + (limit * slack).sum(1)


def test_a_prior_is_where_the_machine_starts() -> None:
    given, svm = tasks(), learner(0.5)
    first, second = (map_tensors(given.support, lambda f, r=r: f[:, r]) for r in (slice(0, 6), slice(6, None)))
    with torch.no_grad():
        before = svm.adapt(first)
        after = svm.adapt(second, prior=before)["weight"]
        f, rng = svm.net(second.x), torch.Generator().manual_seed(0)
        args = (f, second.y, 0.5 * second.weight, before["weight"])
        least = objective(after, *args)
        assert (after - before["weight"]).abs().max() > 1e-3
        for size in (1e-1, 1e-3, 1e-5):  # it is the least of a convex function: no way leads down from it
            for _ in range(50):
                way = torch.randn(after.shape, generator=rng, dtype=torch.float64)
                assert (objective(after + size * way, *args) >= least - 1e-12).all()


@pytest.mark.parametrize("strength", [0.05, 1.0])
@pytest.mark.parametrize("width", [3, 20])
def test_the_derivative_is_that_of_the_solution(strength: float, width: int) -> None:
    # with three features the dual has many solutions, and rows at their limits; with twenty it has one
    support = tasks().support
    rng = torch.Generator().manual_seed(2)
    f, start, v = (torch.randn(s, generator=rng, dtype=torch.float64) for s in ((3, 12, width), *[(3, width, WAY)] * 2))
    # no limit of 0: what would one below 0 be?
    leaves = f, 0.1 * start, strength * support.weight.clamp_min(0.2)
    seen, target = torch.ones(3, WAY).double(), CLASSES.indicators(support.y)
    for leaf in leaves:
        leaf.requires_grad_()

    def loss() -> Tensor:
        return (v * crammer_singer(leaves[0], target, leaves[2], seen, leaves[1])).sum()

    check_meta_gradient(loss, leaves, ["features", "start", "limit"])


def test_the_meta_gradient_is_exact() -> None:
    given, svm = tasks(), learner(0.2).train()
    check_meta_gradient(lambda: svm(given), svm.parameters(), [n for n, _ in svm.named_parameters()])


def test_a_task_alone_is_solved_as_among_others() -> None:
    given, svm = tasks(), learner(0.5)
    sizes = torch.tensor([1.0, 1e5, 0.1]).double().view(3, 1, 1)  # the second takes long
    scaled = given.support._replace(x=given.support.x * sizes)
    with torch.no_grad():
        whole = svm.adapt(scaled)["weight"]
        alone = [svm.adapt(map_tensors(scaled, lambda f, t=t: f[t : t + 1]))["weight"] for t in range(3)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-12, atol=1e-12)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match="strength is -1"):
        learner(-1.0)
