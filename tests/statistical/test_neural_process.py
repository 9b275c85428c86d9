"""A conditional neural process, trained, beside the best that anyone could answer: the exact GP posterior."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.learners import Chance
from quickstudy.tasks import GaussianProcess

STEPS, HELD_OUT = 2500, 400


class Measured(NamedTuple):
    """What is measured of Gaussian predictions for the held-out tasks."""

    log_likelihood: float
    coverage: float
    mean: Tensor


def measured(mean: Tensor, deviation: Tensor, y: Tensor) -> Measured:
    inside = (y - mean).abs() <= 1.6448536 * deviation
    return Measured(float(Normal(mean, deviation).log_prob(y).mean()), float(inside.double().mean()), mean)


def by_learner(learner: MetaLearner, tasks: qs.Task) -> Measured:
    assert isinstance(learner.objective, qs.GaussianRegression)
    with torch.no_grad():
        prediction = learner.predict(learner.adapt(tasks.support), tasks.query.x)
    return measured(*learner.objective.mean_and_deviation(prediction), tasks.query.y)


def by_posterior(source: GaussianProcess, tasks: qs.Task) -> Measured:
    """What is known exactly: a new observation has the variance of the function and of the noise."""
    mean, deviation = source.posterior(tasks.support, tasks.query.x)
    return measured(mean, (deviation.square() + source.noise**2).sqrt(), tasks.query.y)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.slow
def test_cnp_comes_near_the_exact_posterior() -> None:
    source = GaussianProcess()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = qs.make("cnp", source.spec)
    tasks = source.sample("test", HELD_OUT, source.rng("held out"))
    exact, chance = by_posterior(source, tasks), by_learner(Chance(learner.objective), tasks)
    before = by_learner(learner, tasks)
    run = qs.train(learner, source, STEPS, meta_batch=16, lr=2e-3, valid_every=0, progress=False)
    after = by_learner(learner, tasks)
    for name, found in {"exact": exact, "chance": chance, "untrained": before, "trained": after}.items():
        near = correlation(found.mean, exact.mean)
        print(f"{name}: {found.log_likelihood:.3f} nats, coverage {found.coverage:.3f}, correlation {near:.3f}")
    print(f"trained in {run.seconds:.0f} s")

    # the exact posterior is calibrated, or there is nothing to compare with
    assert exact.coverage == pytest.approx(0.9, abs=0.015)
    assert chance.log_likelihood + 0.4 < after.log_likelihood < exact.log_likelihood
    assert correlation(after.mean, exact.mean) > max(0.8, correlation(before.mean, exact.mean))
    assert after.coverage == pytest.approx(0.9, abs=0.05)
