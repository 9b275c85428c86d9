"""ALPaCA and DKT after a short training: their intervals hold as much of what comes as they say."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from torch import nn

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.learners import DKT
from quickstudy.nets import RowNet
from quickstudy.tasks import GaussianProcess, Sinusoid

HELD_OUT = 600


def covered(learner: MetaLearner, tasks: Task, share: float) -> float:
    """How much of the query lies inside the central intervals that should hold `share` of it."""
    assert isinstance(learner.objective, qs.GaussianRegression)
    with torch.no_grad():
        prediction = learner.eval().predict(learner.adapt(tasks.support), tasks.query.x)
        mean, deviation = learner.objective.mean_and_deviation(prediction)
    reach = NormalDist().inv_cdf((1 + share) / 2)
    return float(((tasks.query.y - mean).abs() <= reach * deviation).double().mean())


def scores(learner: MetaLearner, tasks: Task) -> dict[str, float]:
    with torch.no_grad():
        found = learner.objective.measure(
            learner.eval().predict(learner.adapt(tasks.support), tasks.query.x), tasks.query
        )
    return {name: float(value.mean()) for name, value in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alpaca", "dkt"])
def test_intervals_hold_what_they_say(name: str) -> None:
    source = Sinusoid(noise=0.3)
    tasks = source.sample("test", HELD_OUT, source.rng("held out"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = qs.make(name, source.spec)
    before = scores(learner, tasks)
    run = qs.train(learner, source, 600, meta_batch=16, lr=1e-2, valid_every=0, progress=False)
    after, half, most = scores(learner, tasks), covered(learner, tasks, 0.5), covered(learner, tasks, 0.9)
    print(f"{name}: {before} -> {after}, 50%: {half:.3f}, 90%: {most:.3f}, {run.seconds:.0f} s")
    assert half == pytest.approx(0.5, abs=0.06)
    assert most == pytest.approx(0.9, abs=0.04)
    assert after["log_likelihood"] > before["log_likelihood"] + 0.5 and after["mse"] < before["mse"] / 2


@pytest.mark.slow
def test_dkt_finds_the_kernel_that_the_tasks_were_drawn_with() -> None:
    # from wrong scales and the marginal likelihood alone: the length scale, the variance and the noise of the source
    source = GaussianProcess(shot="5-15", query=25, noise=0.1)
    learner = DKT(RowNet(nn.Identity(), 1), qs.GaussianRegression(floor=0.0), noise=0.5)
    run = qs.train(learner, source, 200, meta_batch=8, lr=4e-2, valid_every=0, progress=False)
    found = {name: float(p.detach().exp()) for name, p in learner.covariance.named_parameters()}
    print(f"{found}, noise {learner.deviation().item():.4f}, {run.seconds:.0f} s")
    assert found["log_length"] == pytest.approx(source.length_scale, rel=0.1)
    assert found["log_variance"] == pytest.approx(source.variance, rel=0.25)
    assert learner.deviation().item() == pytest.approx(source.noise, rel=0.1)
    tasks = source.sample("test", 200, source.rng("held out"))
    assert covered(learner, tasks, 0.5) == pytest.approx(0.5, abs=0.02)
    assert covered(learner, tasks, 0.9) == pytest.approx(0.9, abs=0.02)
