"""Learners that read the support in one pass, trained, beside the exact posterior under the prior of their tasks."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.learners import Chance
from quickstudy.tasks import GaussianProcess, Prior


class Case(NamedTuple):
    """What is trained on what, and how much of the way from knowing nothing to knowing all it must come, in nats."""

    learner: str
    source: GaussianProcess | Prior
    steps: int
    meta_batch: int
    lr: float
    share: float


CASES = {
    "anp": Case("anp", GaussianProcess(), 1000, 16, 2e-3, 0.3),
    "tnp": Case("tnp", GaussianProcess(), 600, 16, 1e-3, 0.6),
    "conv_cnp": Case("conv_cnp", GaussianProcess(), 1000, 16, 2e-3, 0.65),
    "in_context": Case("in_context", Prior("linear", "1-10", 30, features=2), 800, 32, 1e-3, 0.7),
}


def moments(learner: MetaLearner, tasks: qs.Task) -> tuple[Tensor, Tensor]:
    assert isinstance(learner.objective, qs.GaussianRegression)
    with torch.no_grad():
        prediction = learner.predict(learner.adapt(tasks.support), tasks.query.x)
    return learner.objective.mean_and_deviation(prediction)


def log_likelihood(moments: tuple[Tensor, Tensor], y: Tensor) -> float:
    return float(Normal(*moments).log_prob(y).mean())


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_comes_near_the_exact_posterior(name: str) -> None:
    case = CASES[name]
    source = case.source
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = qs.make(case.learner, source.spec)
    tasks = source.sample("test", 400, source.rng("held out"))
    y = tasks.query.y
    mean, deviation = source.posterior(tasks.support, tasks.query.x)
    exact = (mean, (deviation.square() + source.noise**2).sqrt())  # of a new observation
    before = moments(learner, tasks)
    qs.train(learner, source, case.steps, case.meta_batch, case.lr, warmup=50, valid_every=0, progress=False)
    after = moments(learner, tasks)
    best, chance = log_likelihood(exact, y), log_likelihood(moments(Chance(learner.objective), tasks), y)
    share = (log_likelihood(after, y) - chance) / (best - chance)
    near = correlation(after[0], exact[0])
    coverage = float(((y - after[0]).abs() <= 1.6448536 * after[1]).double().mean())
    print(f"{name}: {share:.0%} of the way from {chance:.3f} to {best:.3f} nats, correlation {near:.3f}")

    assert case.share < share < 1.0
    assert near > max(0.93, correlation(before[0], exact[0]))
    assert coverage == pytest.approx(0.9, abs=0.05)
    # more is known where more was shown, in the deviations as well
    assert correlation(after[1].log(), exact[1].log()) > 0.4
