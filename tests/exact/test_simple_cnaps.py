"""Simple CNAPS against its formula with numpy's covariances, and against ProtoNet where covariances say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task, join_rows, map_tensors
from quickstudy.learners import ProtoNet, SimpleCNAPS
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY = 3
CLASSES = Classification(WAY)


def learner(beta: float = 1.0) -> SimpleCNAPS:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SimpleCNAPS(MLP((5,), width=8), CLASSES, beta).double()


def tasks(shot: int = 4) -> Task:
    return synthetic_tasks(CLASSES, (5,), shot=shot, ragged=True)


@torch.no_grad()
def predictions(model: MetaLearner, given: Task) -> Tensor:
    return model.predict(model.adapt(given.support), given.query.x)


@pytest.mark.parametrize("shot", [1, 2, 5])
def test_distances_are_mahalanobis_with_the_papers_covariance(shot: int) -> None:
    cnaps, given = learner(beta=0.7), tasks(shot)
    found = predictions(cnaps, given)
    with torch.no_grad():
        rows, asked = cnaps.net(given.support.x).numpy(), cnaps.net(given.query.x).numpy()
    for t in range(len(rows)):
        kept = given.support.weight[t].numpy() > 0
        whole = np.cov(rows[t][kept].T)
        for k in range(WAY):
            mine = rows[t][kept & (given.support.y[t].numpy() == k)]
            if not len(mine):
                assert found[t, :, k].max() < -1e3
                continue
            own = np.cov(mine.T) if len(mine) > 1 else np.zeros((8, 8))
            share = len(mine) / (len(mine) + 1)
            q = share * own + (1 - share) * whole + 0.7 * np.eye(8)
            gap = asked[t] - mine.mean(0)
            wanted = -0.5 * np.einsum("nd,de,ne->n", gap, np.linalg.inv(q), gap)
            torch.testing.assert_close(found[t, :, k], torch.from_numpy(wanted))


def test_where_every_covariance_is_the_identity_it_is_protonet() -> None:
    cnaps, given = learner(), tasks()
    plain = predictions(ProtoNet(cnaps.net, CLASSES), given)
    seen = CLASSES.seen(given.support).bool().unsqueeze(1)
    with torch.no_grad():
        state = cnaps.adapt(given.support)
        state["whitener"] = torch.eye(8, dtype=torch.float64).expand_as(state["whitener"])
        round_ = cnaps.predict(state, given.query.x)
    torch.testing.assert_close(torch.where(seen, 2 * round_, 0), torch.where(seen, plain, 0))
    flat = 2e9 * predictions(learner(beta=1e9), given)
    torch.testing.assert_close(torch.where(seen, flat, 0), torch.where(seen, plain, 0), rtol=1e-7, atol=1e-7)
    assert (2 * predictions(cnaps, given) - plain).masked_fill(~seen, 0).abs().max() > 1e-2


def test_it_learns_bit_by_bit() -> None:
    cnaps, given = learner(), tasks()
    rng = torch.Generator().manual_seed(1)
    weight = given.support.weight * (0.2 + torch.rand(given.support.weight.shape, generator=rng, dtype=torch.float64))
    support, state = given.support._replace(weight=weight), None
    with torch.no_grad():
        for i in range(weight.shape[1]):  # one row at a time
            state = cnaps.adapt(map_tensors(support, lambda f, i=i: f[:, i : i + 1]), prior=state)
        whole = cnaps.adapt(support)
    assert state is not None
    for name, value in whole.items():
        torch.testing.assert_close(state[name], value)


def test_a_covariance_does_not_ask_how_weights_are_scaled() -> None:
    # but the share of the class's own does: twice the rows, each of half the weight, is the same support
    cnaps, given = learner(), tasks()
    half = given.support._replace(weight=given.support.weight / 2)
    with torch.no_grad():
        once, twice = cnaps.adapt(given.support), cnaps.adapt(join_rows(half, half))
    for name in ("sums", "counts", "scatter"):
        torch.testing.assert_close(twice[name], once[name])


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match="beta is 0"):
        learner(beta=0.0)
