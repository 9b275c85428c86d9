"""FEAT without attention is ProtoNet, and with it is its formula worked out class by class."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.learners import FEAT, ProtoNet
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY = 3
CLASSES = Classification(WAY)


def learner(normalise: bool = True, balance: float = 0.3, heads: int = 1) -> FEAT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FEAT(MLP((5,), width=8), CLASSES, 2.0, 4.0, balance, heads, 0.0, normalise).double()


def tasks() -> Task:
    """Rows of different weight, a task with fewer classes."""
    made = synthetic_tasks(CLASSES, (5,), ragged=True)
    rng = torch.Generator().manual_seed(1)
    share = 0.2 + torch.rand(made.support.weight.shape, generator=rng, dtype=torch.float64)
    return made._replace(support=made.support._replace(weight=made.support.weight * share))


@torch.no_grad()
def predictions(model: MetaLearner, given: Task) -> Tensor:
    return model.predict(model.adapt(given.support), given.query.x)


def attended(feat: FEAT, x: Tensor, heads: int) -> Tensor:
    """What the attention makes of one set (n, d), head by head."""
    a, parts = feat.attention.attention, []
    for q, k, v in zip(*((x @ f.weight.T).chunk(heads, 1) for f in (a.query, a.key, a.value)), strict=True):
        parts.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
    moved = x + torch.cat(parts, 1) @ a.merge.weight.T + a.merge.bias
    return F.layer_norm(moved, (x.shape[1],)) if feat.normalise else moved


def test_attention_that_adds_nothing_is_protonet() -> None:
    feat, given = learner(normalise=False), tasks()
    moved = predictions(feat, given)
    with torch.no_grad():
        feat.attention.attention.merge.weight.zero_()
        feat.attention.attention.merge.bias.zero_()
    seen = CLASSES.seen(given.support).bool().unsqueeze(1)
    plain = predictions(ProtoNet(feat.net, CLASSES), given)
    found = predictions(feat, given)
    torch.testing.assert_close(torch.where(seen, 2 * found, 0), torch.where(seen, plain, 0))
    assert (2 * moved - plain).masked_fill(~seen, 0).abs().max() > 1e-2  # as it is made it does add something


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_logits_and_loss_are_the_papers(normalise: bool, heads: int) -> None:
    feat, given = learner(normalise, heads=heads), tasks()
    found, (support, query) = predictions(feat, given), given
    with torch.no_grad():
        losses = feat.train().meta_loss(given)
        plain = feat.eval().meta_loss(given)
        rows, asked = feat.net(support.x), feat.net(query.x)
    with torch.no_grad():
        for t in range(len(rows)):
            shown = [k for k in range(WAY) if (support.weight[t] * (support.y[t] == k)).sum() > 0]
            means = []
            for k in shown:
                w = support.weight[t] * (support.y[t] == k)
                means.append(w @ rows[t] / w.sum())
            centres = attended(feat, torch.stack(means), heads)
            logits = -torch.cdist(asked[t], centres).square() / 2.0
            torch.testing.assert_close(found[t][:, shown], logits)
            # the contrastive term: all rows of a class, support and query, are a set of their own
            x, y = torch.cat([rows[t], asked[t]]), torch.cat([support.y[t], query.y[t]])
            w = torch.cat([support.weight[t], query.weight[t]])
            centres = torch.zeros(WAY, 8).double()
            for k in shown:
                mine = (y == k) & (w > 0)
                centres[k] = w[mine] @ attended(feat, x[mine], heads) / w[mine].sum()
            far = torch.cdist(x, centres[shown]).square() / 4.0
            wanted, counts = torch.tensor([shown.index(int(k)) if int(k) in shown else 0 for k in y]), w > 0
            term = F.cross_entropy(-far[counts], wanted[counts], reduction="none")
            torch.testing.assert_close(losses[t] - plain[t], 0.3 * (term @ w[counts]) / w.sum())


def test_dropout_is_for_training_only() -> None:
    given, feat = tasks(), FEAT(MLP((5,), width=8), CLASSES, dropout=0.5).double()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        a, b = (feat.train().adapt(given.support)["centres"] for _ in range(2))
        c, d = (feat.eval().adapt(given.support)["centres"] for _ in range(2))
    assert torch.equal(c, d) and not torch.equal(a, b)


def test_bad_arguments_are_told() -> None:
    for name, value in (("temperature", 0.0), ("balance", -1.0), ("heads", 3)):
        with pytest.raises(UserError, match=name):
            FEAT(MLP((5,), width=8), CLASSES, **{name: value})  # type: ignore[arg-type]
