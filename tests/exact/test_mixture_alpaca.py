"""A mixture of ALPaCAs: one component is ALPaCA, and the shares are Bayes' rule with dense Gaussians."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from quickstudy.core import GaussianRegression
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, Task, join_rows, map_tensors
from quickstudy.inner.members import combined
from quickstudy.learners import ALPaCA
from quickstudy.learners.bayesian.mixture_alpaca import MixtureALPaCA
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

SIZE = (3,)
OBJECTIVE = GaussianRegression(2, floor=0.01)


def mlp() -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, width=5).double()


def mixture(components: int, **options) -> MixtureALPaCA:
    """One whose priors are nothing special."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        learner = MixtureALPaCA(mlp(), OBJECTIVE, components, noise=0.5, **options).double()
        with torch.no_grad():
            for p in (learner.prior_mean, learner.prior_factor, learner.log_noise, learner.log_share):
                p.add_(0.3 * torch.randn_like(p))
    return learner


def component(learner: MixtureALPaCA, k: int) -> ALPaCA:
    net = mlp()
    others = [p[k - 1] for p in learner.more] if k else list(learner.net.parameters())
    with torch.no_grad():
        for p, value in zip(net.parameters(), others, strict=True):
            p.copy_(value)
        alone = ALPaCA(net, OBJECTIVE).double()
        alone.prior_mean.copy_(learner.prior_mean[k])
        alone.prior_factor.copy_(learner.prior_factor[k])
        alone.log_noise.copy_(learner.log_noise[k, 0])
    return alone


def tasks() -> Task:
    return synthetic_tasks(OBJECTIVE, SIZE, ragged=True)


def dense(alone: ALPaCA, rows: Examples) -> Tensor:
    """log p(y | x) of the rows of each task, by the covariance of all of them, (task,)."""
    found = []
    assert isinstance(rows.x, Tensor)
    for x, y, weight in zip(rows.x, rows.y, rows.weight, strict=True):
        real = weight > 0
        f = alone.features(x[real].unsqueeze(0), None)[0]
        factor = alone.prior_factor.tril(-1) + alone.prior_factor.diagonal().exp().diag()
        own = torch.eye(len(f), dtype=f.dtype) + f @ torch.linalg.inv(factor @ factor.T) @ f.T
        noise = OBJECTIVE.floor + alone.log_noise.exp()
        mean = f @ alone.prior_mean
        parts = [MultivariateNormal(mean[:, j], noise[j] ** 2 * own).log_prob(y[real, j]) for j in range(2)]
        found.append(torch.stack(parts).sum())
    return torch.stack(found)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_one_component_is_alpaca() -> None:
    one, drawn = mixture(1).eval(), tasks()
    alone = component(one, 0).eval()
    with torch.no_grad():
        found = one.predict(one.adapt(drawn.support), drawn.query.x)
        close(found, alone.predict(alone.adapt(drawn.support), drawn.query.x))


def test_shares_are_those_of_the_evidence_and_answers_those_of_each_component() -> None:
    learner, drawn = mixture(3).eval(), tasks()
    alone = [component(learner, k).eval() for k in range(3)]
    with torch.no_grad():
        state = learner.adapt(drawn.support)
        logs = torch.stack([dense(one, drawn.support) for one in alone], 1) + learner.log_share.log_softmax(0)
        close(learner.evidence(state), logs)
        close(state["responsibility"], logs.softmax(1))
        answers = torch.stack([one.predict(one.adapt(drawn.support), drawn.query.x) for one in alone], 1)
        close(learner.predict(state, drawn.query.x), combined(OBJECTIVE, answers, logs.softmax(1)))


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_training_loss_is_the_evidence_of_all_rows(floor: float) -> None:
    learner, drawn = mixture(3, floor=floor).train(), tasks()
    rows = join_rows(*drawn)
    with torch.no_grad():
        logs = torch.stack([dense(component(learner, k), rows) for k in range(3)], 1)
        logs = logs + learner.log_share.log_softmax(0)
        wanted = (1 - floor) * logs.logsumexp(1) + floor * logs.mean(1)
        close(learner.meta_loss(drawn), -wanted / (rows.weight > 0).sum(1))


def test_a_row_of_weight_two_is_two_rows() -> None:
    learner, drawn = mixture(2).eval(), synthetic_tasks(OBJECTIVE, SIZE).support
    twice = drawn._replace(weight=drawn.weight.index_fill(1, torch.tensor([0]), 2.0))
    copied = map_tensors(drawn, lambda t: torch.cat([t, t[:, :1]], 1))
    with torch.no_grad():
        close(learner.adapt(twice)["responsibility"], learner.adapt(copied)["responsibility"])


def test_bad_arguments_are_refused() -> None:
    for options, said in [({"components": 0}, "0 components"), ({"floor": 2.0}, "floor of 2"), ({"noise": 0}, "noise")]:
        with pytest.raises(UserError, match=said):
            MixtureALPaCA(mlp(), OBJECTIVE, **options)
