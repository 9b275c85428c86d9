"""ALPaCA and DKT against closed forms: numpy, scikit-learn and the exact posterior of the tasks. Nothing is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, Kernel
from sklearn.linear_model import BayesianRidge
from torch import Tensor, nn

from quickstudy.core import Classification, GaussianRegression, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, Task, examples, map_tensors
from quickstudy.inner.kernels import KERNELS
from quickstudy.inner.posterior import gaussian_prediction, inverse_softplus
from quickstudy.learners import DKT, ALPaCA
from quickstudy.nets import MLP, Net, RowNet
from quickstudy.tasks import GaussianProcess
from quickstudy.testing import synthetic_tasks

SIZE, WAY = (3,), 3


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, width=5).double()


def waves(targets: int = 2) -> Task:
    """Sine waves whose rows count unequally, one of them not at all."""
    tasks = synthetic_tasks(GaussianRegression(targets), SIZE)
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(tasks.support.weight.shape, generator=rng, dtype=torch.float64)
    weight[:, 1] = 0.0
    return tasks._replace(support=tasks.support._replace(weight=weight))


def part(rows: Examples, index: slice) -> Examples:
    return map_tensors(rows, lambda t: t[:, index])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


# --- predictions of a Gaussian ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_and_a_deviation_come_back_exactly(dtype: torch.dtype) -> None:
    objective = GaussianRegression(1, floor=0.01)
    deviation = 0.01 + torch.logspace(-6, 3, 40, dtype=dtype).view(1, -1, 1)
    mean = torch.linspace(-5, 5, 40, dtype=dtype).view(1, -1, 1)
    found = objective.mean_and_deviation(gaussian_prediction(objective, mean, deviation))
    assert torch.equal(found[0], mean)
    # past 20 torch's softplus(x) is x itself: 2e-9 from what it should be
    torch.testing.assert_close(found[1], deviation, rtol=1e-9 if dtype is torch.float64 else 1e-6, atol=0.0)
    under = gaussian_prediction(objective, mean, torch.full_like(mean, 0.003))
    assert torch.isfinite(under).all() and torch.equal(
        objective.mean_and_deviation(under)[1], torch.full_like(mean, 0.01)
    )


def test_inverse_softplus_is_the_inverse() -> None:
    x = torch.linspace(-30, 15, 50, dtype=torch.float64)
    torch.testing.assert_close(inverse_softplus(torch.nn.functional.softplus(x)), x, rtol=1e-9, atol=1e-9)


# --- ALPaCA ---


def alpaca(targets: int = 2, intercept: bool = True) -> ALPaCA:
    """With a prior that is not symmetric in anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        learner = ALPaCA(net(), GaussianRegression(targets, floor=0.01), intercept=intercept).double()
        for p in (learner.prior_mean, learner.prior_factor, learner.log_noise):
            p.data.add_(0.4 * torch.randn(p.shape, dtype=torch.float64))
    return learner.eval()


def answers(learner: ALPaCA | DKT, tasks: Task) -> tuple[Tensor, Tensor]:
    assert isinstance(learner.objective, GaussianRegression)
    with torch.no_grad():
        prediction = learner.predict(learner.adapt(tasks.support), tasks.query.x)
        return learner.objective.mean_and_deviation(prediction)


def test_alpaca_is_the_closed_form() -> None:
    tasks, learner = waves(), alpaca()
    mean, deviation = answers(learner, tasks)
    with torch.no_grad():
        f, asked = (learner.features(rows.x, None).numpy() for rows in tasks)
        k0, noise = learner.prior_mean.numpy(), 0.01 + learner.log_noise.exp().numpy()
        lower = np.tril(learner.prior_factor.numpy(), -1)
        lower += np.diag(np.exp(np.diagonal(learner.prior_factor.numpy())))
    p0 = lower @ lower.T
    for t in range(tasks.support.tasks):
        w, y = np.diag(tasks.support.weight[t].numpy()), tasks.support.y[t].numpy()
        inverse = np.linalg.inv(p0 + f[t].T @ w @ f[t])
        k = inverse @ (p0 @ k0 + f[t].T @ w @ y)
        close(mean[t], torch.from_numpy(asked[t] @ k))
        spread = 1 + np.einsum("md,de,me->m", asked[t], inverse, asked[t])
        close(deviation[t], torch.from_numpy(np.sqrt(spread)[:, None] * noise))


def test_alpaca_without_rows_is_its_prior() -> None:
    tasks, learner = waves(), alpaca()
    nothing = tasks.support._replace(weight=torch.zeros_like(tasks.support.weight))
    mean, _ = answers(learner, tasks._replace(support=nothing))
    with torch.no_grad():
        close(mean, learner.features(tasks.query.x, None) @ learner.prior_mean)


def test_alpaca_is_scikit_learns_bayesian_ridge() -> None:
    # a prior without a direction, and the noise and precision that BayesianRidge settles on
    tasks = synthetic_tasks(GaussianRegression(1), SIZE, shot=8)
    learner = ALPaCA(net(), GaussianRegression(1, floor=0.0), intercept=False).double().eval()
    with torch.no_grad():
        f, asked = (learner.features(rows.x, None).numpy() for rows in tasks)
    for t in range(tasks.support.tasks):
        model = BayesianRidge(fit_intercept=False, compute_score=False).fit(f[t], tasks.support.y[t, :, 0].numpy())
        with torch.no_grad():  # alpha_ is the precision of the noise, lambda_ that of the weights
            learner.log_noise.fill_(-0.5 * np.log(model.alpha_))
            learner.prior_factor.copy_(0.5 * np.log(model.lambda_ / model.alpha_) * torch.eye(5))
        theirs = model.predict(asked[t], return_std=True)
        for a, b in zip(answers(learner, tasks), theirs, strict=True):
            torch.testing.assert_close(a[t, :, 0], torch.from_numpy(b), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["alpaca", "dkt"])
def test_bit_by_bit_is_at_once(name: str) -> None:
    learner = alpaca() if name == "alpaca" else DKT(net(), GaussianRegression(2)).double().eval()
    tasks, state = waves(), None
    with torch.no_grad():
        for i in range(tasks.support.weight.shape[1]):
            state = learner.adapt(part(tasks.support, slice(i, i + 1)), prior=state)
        assert state is not None
        close(learner.predict(state, tasks.query.x), learner.predict(learner.adapt(tasks.support), tasks.query.x))
        half = learner.adapt(part(tasks.support, slice(0, 4)))
        assert (learner.predict(half, tasks.query.x) - learner.predict(state, tasks.query.x)).abs().max() > 1e-3


def test_statistics_of_single_precision_rows_are_summed_in_double() -> None:
    # a thousand rows far from the origin, of two features that are nearly one: float32 would lose the difference
    learner = ALPaCA(RowNet(nn.Identity(), 1), GaussianRegression(1, floor=0.0), precision=1e-4, noise=1e-3)
    x = 1000 + torch.randn(1, 1000, 1, generator=torch.Generator().manual_seed(0))
    mean, deviation = answers(learner, Task(examples(x, 2 * x - 5), examples(x[:, :9], x[:, :9])))
    torch.testing.assert_close(mean, 2 * x[:, :9] - 5, rtol=1e-5, atol=0.0)
    assert (deviation < 1.5e-3).all()


# --- DKT ---

THEIRS: dict[str, Kernel] = {
    "rbf": 1.7 * RBF(0.8),
    "linear": 1.7 * DotProduct(1e-9),
}


def dkt(kernel: str = "rbf", objective: GaussianRegression | Classification | None = None) -> DKT:
    objective = objective or GaussianRegression(2, floor=0.01)
    learner = DKT(net(), objective, kernel).double().eval()
    with torch.no_grad():
        learner.mean.fill_(0.4)
        # a deviation of 0.3 in all
        learner.log_noise.fill_(np.log(0.3 - getattr(objective, "floor", 0.0)))
        learner.covariance.log_variance.fill_(np.log(1.7))
        if hasattr(learner.covariance, "log_length"):
            learner.covariance.log_length.fill_(np.log(0.8))  # type: ignore[operator]
    return learner


def theirs(kernel: str, f: np.ndarray, y: np.ndarray, weight: np.ndarray) -> GaussianProcessRegressor:
    real = weight > 0
    model = GaussianProcessRegressor(THEIRS[kernel], alpha=0.3**2 / weight[real], optimizer=None)
    return model.fit(f[real], y[real] - 0.4)


@pytest.mark.parametrize("kernel", THEIRS)
def test_dkt_is_scikit_learns_gaussian_process(kernel: str) -> None:
    tasks, learner = waves(), dkt(kernel)
    mean, deviation = answers(learner, tasks)
    with torch.no_grad():
        f, asked = (learner.net(rows.x).numpy() for rows in tasks)
    for t in range(tasks.support.tasks):
        model = theirs(kernel, f[t], tasks.support.y[t].numpy(), tasks.support.weight[t].numpy())
        m, s = model.predict(asked[t], return_std=True)
        close(mean[t], torch.from_numpy(m + 0.4))
        close(deviation[t], (torch.from_numpy(s).square() + 0.3**2).sqrt())


@pytest.mark.parametrize("kernel", THEIRS)
def test_dkt_is_trained_by_the_marginal_likelihood(kernel: str) -> None:
    tasks, learner = waves(), dkt(kernel).train()
    found = learner.meta_loss(tasks)
    with torch.no_grad():
        f = torch.cat([learner.net(rows.x) for rows in tasks], 1).numpy()
    y = torch.cat([rows.y for rows in tasks], 1).numpy()
    weight = torch.cat([rows.weight for rows in tasks], 1).numpy()
    for t in range(tasks.support.tasks):
        total = sum(
            theirs(kernel, f[t], y[t, :, j], weight[t]).log_marginal_likelihood_value_ for j in range(y.shape[-1])
        )
        assert found[t].item() == pytest.approx(-total / (2 * (weight[t] > 0).sum()), rel=1e-9)


def test_dkt_takes_classes_one_against_the_rest() -> None:
    tasks, learner = synthetic_tasks(Classification(WAY), SIZE), dkt("rbf", Classification(WAY))
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x)
        f, asked = (learner.net(rows.x).numpy() for rows in tasks)
    losses = learner.train().meta_loss(tasks)
    both = np.concatenate([f, asked], 1)
    for t in range(tasks.support.tasks):
        total = 0.0
        for c in range(WAY):
            y = np.where(tasks.support.y[t].numpy() == c, 1.0, -1.0)
            mean = theirs("rbf", f[t], y, np.ones(len(y))).predict(asked[t]) + 0.4
            close(found[t, :, c], torch.from_numpy(np.log(1 / (1 + np.exp(-mean)))))
            y = np.concatenate([y, np.where(tasks.query.y[t].numpy() == c, 1.0, -1.0)])
            total += theirs("rbf", both[t], y, np.ones(len(y))).log_marginal_likelihood_value_
        assert losses[t].item() == pytest.approx(-total / (WAY * both.shape[1]), rel=1e-9)


def test_a_class_that_is_not_shown_is_no_column_of_the_likelihood() -> None:
    tasks = synthetic_tasks(Classification(WAY), SIZE)
    shown = Task(*(rows._replace(weight=rows.weight * (rows.y < 2)) for rows in tasks))
    fewer = Task(*(map_tensors(rows, lambda t, k=rows.y[0] < 2: t[:, k]) for rows in tasks))
    three, two = dkt("rbf", Classification(WAY)).train(), dkt("rbf", Classification(2)).train()
    close(three.meta_loss(shown), two.meta_loss(fewer))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_a_covariance(kernel: str) -> None:
    torch.manual_seed(0)
    covariance = KERNELS[kernel](4).double()
    with torch.no_grad():
        for p in covariance.parameters():
            p.add_(0.3 * torch.randn(p.shape, dtype=torch.float64))
        x = torch.randn(2, 9, 4, dtype=torch.float64)
        gram = covariance(x, x)
    close(gram, gram.transpose(1, 2))
    close(gram.diagonal(dim1=1, dim2=2), covariance.own(x))
    assert torch.linalg.eigvalsh(gram).min() > -1e-12


def test_the_spectral_mixture_is_its_formula() -> None:
    torch.manual_seed(0)
    covariance = KERNELS["spectral"](2).double()
    a, b = torch.randn(1, 3, 2, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64)
    with torch.no_grad():
        covariance.log_variance.fill_(0.3)
        covariance.log_share.copy_(torch.tensor([0.1, 0.5, -0.2, 0.0]))  # type: ignore[operator]
        found = covariance(a, b)[0]
        share = covariance.log_share.softmax(0)  # type: ignore[operator]
        for i, j in np.ndindex(3, 4):
            t = a[0, i] - b[0, j]
            one = [
                p * torch.exp(-2 * np.pi**2 * (t.square() * w.exp().square()).sum()) * torch.cos(2 * np.pi * (t @ m))
                for p, m, w in zip(share, covariance.frequency, covariance.log_width, strict=True)  # type: ignore
            ]
            close(found[i, j], np.exp(0.3) * sum(one))


def test_dkt_with_the_true_kernel_is_the_exact_posterior() -> None:
    source = GaussianProcess(noise=0.1)
    tasks = source.sample("test", 20, source.rng("dkt"))
    learner = DKT(RowNet(nn.Identity(), 1), GaussianRegression(1, floor=0.0), noise=0.1).eval()
    with torch.no_grad():
        learner.covariance.log_length.fill_(np.log(source.length_scale))  # type: ignore[operator]
    mean, deviation = answers(learner, tasks)
    m, s = source.posterior(tasks.support, tasks.query.x)
    torch.testing.assert_close(mean, m, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, (s.square() + 0.1**2).sqrt(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ALPaCA, DKT])
def test_closed_forms_keep_out_of_autocast(kind: type[ALPaCA | DKT]) -> None:
    source = GaussianProcess(noise=0.1)
    tasks = source.sample("test", 4, source.rng("autocast"))
    learner = kind(RowNet(nn.Identity(), 1), GaussianRegression(1)).eval()
    plain = answers(learner, tasks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = answers(learner, tasks)
    for a, b in zip(cast, plain, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


# --- what is refused ---


def test_what_cannot_be_is_refused_in_a_sentence() -> None:
    for learner in (ALPaCA, DKT):
        with pytest.raises(UserError, match="GaussianRegression"):
            learner(net(), Regression(1))  # type: ignore[arg-type]
        with pytest.raises(UserError, match=r"noise is 0\.0"):
            learner(net(), GaussianRegression(1), noise=0.0)
    with pytest.raises(UserError, match="precision is -1"):
        ALPaCA(net(), GaussianRegression(1), precision=-1)
    with pytest.raises(UserError, match="unknown kernel 'rbv'"):
        DKT(net(), GaussianRegression(1), kernel="rbv")
