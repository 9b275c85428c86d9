"""HSML: with one cluster and an open gate it is MAML; its parts are those of the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Examples, Task
from quickstudy.learners import HSML, MAML
from quickstudy.nets import MLP
from quickstudy.nets.soft_tree import SoftTree
from quickstudy.testing import synthetic_tasks

CLASSES, SIZE = Classification(3), (5,)
OBJECTIVES = pytest.mark.parametrize("objective", [CLASSES, Regression()], ids=["classes", "waves"])


def mlp(objective: Objective) -> MLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(SIZE, out=objective.size, width=8).double()


def hsml(objective: Objective, **options) -> HSML:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return HSML(mlp(objective), objective, size=6, inner_steps=2, inner_lr=0.1, **options).double()


def predictions(learner: MetaLearner, tasks: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    w, b = (p.detach().numpy() for p in layer.parameters())
    return x @ w.T + b


@OBJECTIVES
@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_one_cluster_with_an_open_gate_is_maml(objective: Objective, gates: str) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    ours = hsml(objective, levels=(1,), gates=gates, reconstruction=0.0).train()
    theirs = MAML(mlp(objective), objective, inner_steps=2, inner_lr=0.1).train()
    assert (predictions(ours, tasks) - predictions(theirs, tasks)).abs().max() > 1e-3  # not open yet
    with torch.no_grad():
        ours.gate.weight.zero_()
        ours.gate.bias.fill_(100.0)
    close(predictions(ours, tasks), predictions(theirs, tasks))
    losses = [learner.meta_loss(tasks) for learner in (ours, theirs)]
    close(*losses)
    slopes = [
        torch.autograd.grad(loss.sum(), list(learner.net.parameters()))
        for loss, learner in zip(losses, (ours, theirs), strict=True)
    ]
    for a, b in zip(*slopes, strict=True):
        close(a, b)


def test_the_tree_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    tree = SoftTree(4, (3, 2, 1), sharpness=1.5).double()
    h = torch.randn(5, 4, dtype=torch.float64)
    found = tree(h).detach().numpy()
    for t in range(5):
        below = [h[t].numpy()]
        for centres, step in zip(tree.centres, tree.maps, strict=True):
            c = centres.detach().numpy()
            above = [np.zeros(4) for _ in c]
            for node in below:
                odds = np.exp([-(((node - ck) / 1.5) ** 2).sum() / 2 for ck in c])
                moved = np.tanh(linear(step, node)).reshape(len(c), 4)
                for k in range(len(c)):
                    above[k] += odds[k] / odds.sum() * moved[k]
            below = above
        np.testing.assert_allclose(found[t], below[0], rtol=1e-9)
    np.testing.assert_allclose(tree.leaves(h).sum(1).detach().numpy(), 1.0)


@OBJECTIVES
def test_the_start_and_the_loss_are_those_of_the_formula(objective: Objective) -> None:
    tasks = synthetic_tasks(objective, SIZE, ragged=True)
    learner = hsml(objective, reconstruction=0.7).train()
    starts = learner.start(tasks.support)
    support, encoder = tasks.support, learner.encoder
    lost = []
    for t in range(3):
        kept = support.weight[t] > 0
        x, y = support.x[t][kept], support.y[t][kept]  # type: ignore[index]
        target = torch.eye(3, dtype=torch.float64)[y] if isinstance(objective, Classification) else y
        rows = encoder.rows(torch.cat([x, target], 1).unsqueeze(0))
        codes = encoder.encoder(rows)
        lost.append((encoder.decoder(codes) - rows).square().sum(-1).mean())
        g = codes.mean(1)
        both = torch.cat([g, learner.tree(g)], 1).detach().numpy()
        gate = 1 / (1 + np.exp(-linear(learner.gate, both)[0]))
        theta = np.concatenate([p.detach().numpy().ravel() for p in learner.net.parameters()])
        found = np.concatenate([w[t].detach().numpy().ravel() for w in starts.values()])
        np.testing.assert_allclose(found, theta * gate, rtol=1e-9)
    plain = learner.objective.loss(learner.predict(learner.adapt(support), tasks.query.x), tasks.query)
    close(learner.meta_loss(tasks), plain + 0.7 * torch.stack(lost))
    close(learner.eval().meta_loss(tasks), plain)


def test_bad_arguments_and_rows_are_refused() -> None:
    for options, said in [
        ({"gates": "none"}, "gates is 'none'"),
        ({"levels": (4, 2)}, "end in 1"),
        ({"size": 0}, "size is 0"),
        ({"reconstruction": -1.0}, "reconstruction -1.0"),
    ]:
        with pytest.raises(UserError, match=said):
            HSML(mlp(CLASSES), CLASSES, **options)
    words = Examples({"tokens": torch.zeros(1, 2, 3)}, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2))
    with pytest.raises(UserError, match="one tensor"):
        hsml(CLASSES).adapt(words)
