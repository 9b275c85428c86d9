"""LR-D2 against scikit-learn's logistic regression, and its Newton steps by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task, map_tensors
from quickstudy.inner.logistic import logistic_newton
from quickstudy.learners import LRD2
from quickstudy.nets import MLP
from quickstudy.testing import check_meta_gradient, synthetic_tasks


def learner(way: int, penalty: float = 0.5, steps: int = 40, width: int = 8) -> LRD2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LRD2(MLP((5,), width=width), Classification(way), penalty, steps).double()


def tasks(way: int, shot: int = 4) -> Task:
    """Rows of different weight, some of none."""
    made = synthetic_tasks(Classification(way), (5,), shot=shot)
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(made.support.weight.shape, generator=rng, dtype=torch.float64)
    weight[:, 0] = 0.0
    return made._replace(support=made.support._replace(weight=weight))


def scikit(f: Tensor, right: Tensor, weight: Tensor, penalty: float) -> Tensor:
    """The coefficients, (d,), of the classes `right` and not; the constant is a feature, and penalised like others."""
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-12, max_iter=10000, solver="newton-cholesky")
    model.fit(f.numpy(), right.numpy(), sample_weight=weight.numpy())
    return torch.from_numpy(model.coef_[0])


@pytest.mark.parametrize("width", [3, 20])  # fewer features than rows, and more
def test_two_classes_are_scikit_learns_logistic_regression(width: int) -> None:
    given, two = tasks(2), learner(2, width=width)
    with torch.no_grad():
        found = two.predict(two.adapt(given.support), given.query.x).softmax(-1)
        f, asked = (two.features(part.x, part.weight) for part in given)
    for t in range(len(found)):
        w = scikit(f[t], given.support.y[t] == 1, given.support.weight[t], 0.5)
        torch.testing.assert_close(found[t, :, 1], (asked[t] @ w).sigmoid(), rtol=1e-7, atol=1e-9)


def test_more_classes_are_one_regression_each() -> None:
    given, three = tasks(3), learner(3)
    with torch.no_grad():
        found = three.predict(three.adapt(given.support), given.query.x)
        f, asked = (three.features(part.x, part.weight) for part in given)
    for t in range(len(found)):
        for k in range(3):
            w = scikit(f[t], given.support.y[t] == k, given.support.weight[t], 0.5)
            torch.testing.assert_close(found[t, :, k], asked[t] @ w, rtol=1e-7, atol=1e-9)


def test_a_step_is_newtons() -> None:
    rng = torch.Generator().manual_seed(0)
    x, w0 = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((1, 7, 3), (1, 3, 1)))
    y, weight = (torch.rand((1, 7), generator=rng, dtype=torch.float64) for _ in range(2))
    y = y.round()

    def loss(w: Tensor) -> Tensor:
        margin = (2 * y[0] - 1) * (x[0] @ w)
        return (weight[0] * torch.nn.functional.softplus(-margin)).sum() + 0.35 * (w - w0[0, :, 0]).square().sum()

    w = w0[0, :, 0]
    for steps in (1, 2, 3):
        curvature, slope = (f(loss, w) for f in (torch.autograd.functional.hessian, torch.autograd.functional.jacobian))
        w = w - torch.linalg.solve(curvature, slope)  # type: ignore[arg-type]
        found = logistic_newton(x, y.unsqueeze(-1), weight, 0.7, steps, w0)
        torch.testing.assert_close(found[0, :, 0], w)


def test_rows_far_from_the_border_do_no_harm() -> None:
    x = torch.tensor([[[300.0], [-200.0]]])  # the sigmoid is 0 or 1 in float32, its slope 0
    found = logistic_newton(x, torch.tensor([[[1.0], [0.0]]]), torch.ones(1, 2), 1e-3, 200, torch.zeros(1, 1, 1))
    w = found.double()
    pull = (x.double() * (torch.tensor([[[1.0], [0.0]]]) - (x * w).sigmoid())).sum()
    assert torch.isfinite(found).all() and abs(float(pull - 1e-3 * w)) < 1e-3


def test_a_prior_is_where_the_penalty_pulls() -> None:
    given, three = tasks(3), learner(3)
    first, second = (map_tensors(given.support, lambda f, r=r: f[:, r]) for r in (slice(0, 6), slice(6, None)))
    with torch.no_grad():
        before = three.adapt(first)
        after = three.adapt(second, prior=before)
        f = three.features(second.x, second.weight)
    assert after["seen"].eq(1).all() and three.adapt(second)["seen"].sum() < after["seen"].sum()
    # where the loss's slope and the pull towards the earlier weights balance
    y = three.objective.indicators(second.y).double()
    slope = f.transpose(1, 2) @ (second.weight.unsqueeze(-1) * (y - (f @ after["weight"]).sigmoid()))
    torch.testing.assert_close(slope, 0.5 * (after["weight"] - before["weight"]), rtol=1e-6, atol=1e-9)


def test_the_meta_gradient_goes_through_the_steps() -> None:
    given, three = tasks(3), learner(3, steps=3).train()
    check_meta_gradient(lambda: three(given), three.parameters(), [n for n, _ in three.named_parameters()])


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match="penalty is 0"):
        learner(2, penalty=0.0)
    with pytest.raises(UserError, match="steps is 0"):
        learner(2, steps=0)
