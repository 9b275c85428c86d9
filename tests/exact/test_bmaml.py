"""BMAML: one particle is MAML, and several move as Stein's method says, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification, GaussianRegression, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, join_rows
from quickstudy.inner.stein import stein_direction
from quickstudy.learners import BMAML, MAML
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

CLASSES, SIZE = Classification(3), (5,)


def mlp(objective: Objective, depth: int = 2) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=objective.size, width=8, depth=depth).double()


def bmaml(objective: Objective, particles: int, depth: int = 2, **options) -> BMAML:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return BMAML(mlp(objective, depth), objective, particles, inner_lr=0.1, **options).double()


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        found = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)
    return found.log_softmax(-1) if learner.objective.kind == "classification" else found


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def phi(particles: np.ndarray, scores: np.ndarray, temperature: float) -> np.ndarray:
    """Stein's direction for one task, particle by particle, from the formula."""
    m = len(particles)
    distances = [((particles[i] - particles[j]) ** 2).sum() for i in range(m) for j in range(i)]
    h = np.median(distances) / np.log(m + 1)
    out = np.zeros_like(particles)
    for i in range(m):
        for j in range(m):
            k = np.exp(-((particles[j] - particles[i]) ** 2).sum() / h)
            slope = -2 / h * (particles[j] - particles[i]) * k  # of k by its first argument, particle j
            out[i] += (k * scores[j] + temperature * slope) / m
    return out


@pytest.mark.parametrize("objective", [CLASSES, Regression(), GaussianRegression()], ids=["classes", "waves", "gauss"])
def test_one_particle_is_maml(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    ours = bmaml(objective, 1, inner_steps=3, chaser=False, temperature=0.7)
    theirs = MAML(mlp(objective), objective, inner_steps=3, inner_lr=0.1)
    close(predictions(ours, tasks), predictions(theirs, tasks))
    losses = [learner.train().meta_loss(tasks) for learner in (ours, theirs)]
    close(*losses)
    slopes = [
        torch.autograd.grad(loss.sum(), list(learner.net.parameters()))
        for loss, learner in zip(losses, (ours, theirs), strict=True)
    ]
    for a, b in zip(*slopes, strict=True):
        close(a, b)
    decayed = bmaml(objective, 1, inner_steps=3, chaser=False, precision=0.5)
    assert (predictions(decayed, tasks) - predictions(theirs, tasks)).abs().max() > 1e-3


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_direction_is_that_of_the_formula(m: int) -> None:
    rng = np.random.default_rng(0)
    particles, scores = rng.normal(size=(2, 2, m, 6))
    found = stein_direction(torch.from_numpy(particles), torch.from_numpy(scores), 0.3).numpy()
    for t in range(2):
        np.testing.assert_allclose(found[t], phi(particles[t], scores[t], 0.3), rtol=1e-9)
    # what drives particles apart moves no mean
    alone = stein_direction(torch.from_numpy(particles), torch.zeros(2, m, 6, dtype=torch.float64))
    close(alone.mean(1), torch.zeros(2, 6, dtype=torch.float64))
    assert alone.abs().max() > 0.01


def test_particles_of_a_linear_model_step_as_worked_out_by_hand() -> None:
    tasks = synthetic_tasks(Regression(), SIZE, ragged=True)
    learner = bmaml(Regression(), 3, depth=0, inner_steps=2, precision=0.4, temperature=0.2).eval()
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        first = learner.start(tasks.support)
        answers = learner.predict(state, tasks.query.x)
    for t in range(3):
        kept = tasks.support.weight[t].numpy() > 0
        x = np.concatenate([tasks.support.x[t].numpy(), np.ones((len(kept), 1))], 1)[kept]
        y = tasks.support.y[t].numpy()[kept]
        w = np.concatenate([first["layers.0.weight"][t, :, 0].numpy(), first["layers.0.bias"][t].numpy()], 1)
        for _ in range(2):
            slope = np.stack([2 * x.T @ (x @ v[:, None] - y) / len(x) for v in w])[..., 0]
            w = w + 0.1 * phi(w, -slope - 0.4 * w, 0.2)
        np.testing.assert_allclose(state["layers.0.weight"][t, :, 0].numpy(), w[:, :-1], rtol=1e-9)
        np.testing.assert_allclose(state["layers.0.bias"][t, :, 0].numpy(), w[:, -1], rtol=1e-9)
        asked = np.concatenate([tasks.query.x[t].numpy(), np.ones((tasks.query.x.shape[1], 1))], 1)
        np.testing.assert_allclose(answers[t, :, 0].numpy(), (asked @ w.T).mean(1), rtol=1e-9)


@pytest.mark.parametrize("objective", [CLASSES, Regression()], ids=["classes", "waves"])
def test_the_chaser_is_pulled_to_a_leader_that_stands_still(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    learner = bmaml(objective, 3, inner_steps=2, leader_steps=4).train()
    loss = learner.meta_loss(tasks)
    ours = torch.autograd.grad(loss.sum(), list(learner.parameters()))
    chaser = learner.adapt(tasks.support)
    further = bmaml(objective, 3, inner_steps=4, chaser=False)
    with torch.no_grad():
        leader = further.adapt(join_rows(tasks.support, tasks.query), prior=chaser)
    gaps = torch.cat([(w - leader[k]).flatten(1) for k, w in chaser.items() if k != "seen"], 1)
    close(loss, gaps.square().sum(1))
    pull = 2 * gaps.detach() * gaps  # its derivative is 2 (chaser - leader) times that of the chaser
    for a, b in zip(ours, torch.autograd.grad(pull.sum(), list(learner.parameters())), strict=True):
        close(a, b)


def test_particles_on_one_spot_stay_together() -> None:
    spot = torch.ones(1, 3, 4, dtype=torch.float64)
    close(stein_direction(spot, 2 * spot), 2 * spot)


def test_bad_arguments_are_refused() -> None:
    for options, said in [
        ({"particles": 0}, "particles is 0"),
        ({"leader_steps": 0}, "leader_steps 0"),
        ({"precision": -1.0}, "precision is -1.0"),
        ({"temperature": -1.0}, "temperature -1.0"),
    ]:
        with pytest.raises(UserError, match=said):
            BMAML(mlp(CLASSES), CLASSES, **options)
