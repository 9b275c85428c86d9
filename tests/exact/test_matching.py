"""MatchingNet against its formula, its nearest-neighbour limit, and its full context read row by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task
from quickstudy.learners import MatchingNet
from quickstudy.nets import MLP
from quickstudy.testing import synthetic_tasks

WAY = 3
CLASSES = Classification(WAY)


def learner(scale: float = 2.0, full_context: bool = False, steps: int = 3) -> MatchingNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MatchingNet(MLP((5,), width=8), CLASSES, scale, full_context, steps).double()


def tasks(shot: int = 3) -> Task:
    made = synthetic_tasks(CLASSES, (5,), shot=shot)
    rng = torch.Generator().manual_seed(1)
    weight = 0.2 + torch.rand(made.support.weight.shape, generator=rng, dtype=torch.float64)
    if shot > 1:
        weight[:, 0] = 0.0
    return made._replace(support=made.support._replace(weight=weight))


@torch.no_grad()
def probabilities(matching: MatchingNet, given: Task) -> Tensor:
    return matching.predict(matching.adapt(given.support), given.query.x).softmax(-1)


def by_hand(asked: Tensor, keys: Tensor, given: Task, t: int, scale: float) -> Tensor:
    """sum_i a(x, x_i) y_i of one task, the weight of a row counting as that many rows."""
    alike = F.cosine_similarity(asked.unsqueeze(1), keys.unsqueeze(0), dim=-1)
    share = given.support.weight[t] * (scale * alike).exp()
    return (share / share.sum(1, keepdim=True)) @ F.one_hot(given.support.y[t], WAY).double()


def test_probabilities_are_attention_over_labels() -> None:
    matching, given = learner(), tasks()
    found = probabilities(matching, given)
    with torch.no_grad():
        rows, asked = matching.net(given.support.x), matching.net(given.query.x)
    for t in range(len(rows)):
        torch.testing.assert_close(found[t], by_hand(asked[t], rows[t], given, t, 2.0), rtol=1e-6, atol=1e-9)


def test_one_shot_and_sharp_is_the_nearest_neighbour() -> None:
    matching, given = learner(scale=1e6), tasks(shot=1)
    given = given._replace(support=given.support._replace(weight=torch.ones(3, WAY).double()))
    with torch.no_grad():
        rows, asked = matching.net(given.support.x), matching.net(given.query.x)
    nearest = F.cosine_similarity(asked.unsqueeze(2), rows.unsqueeze(1), dim=-1).argmax(-1)
    wanted = F.one_hot(given.support.y.gather(1, nearest), WAY).double()
    torch.testing.assert_close(probabilities(matching, given), wanted, rtol=0, atol=1e-6)
    assert (probabilities(learner(scale=1.0), given) - wanted).abs().max() > 0.1  # a soft one is another thing


def test_full_context_reads_the_support_row_by_row() -> None:
    matching, given = learner(full_context=True), tasks()
    found, context = probabilities(matching, given), matching.context
    with torch.no_grad():
        rows, asked = matching.net(given.support.x), matching.net(given.query.x)
        for t in range(len(rows)):
            kept = given.support.weight[t].nonzero().flatten().tolist()
            assert 0 < len(kept) < rows.shape[1]  # there is padding to pass over
            g = rows[t].clone()
            for lstm, order in ((context.there, kept), (context.back, kept[::-1])):
                cell = torch.nn.LSTMCell(8, 8).double()
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                cell.load_state_dict({name: getattr(lstm, f"{name}_l0") for name in names})
                state = (torch.zeros(1, 8).double(), torch.zeros(1, 8).double())
                for i in order:
                    state = cell(rows[t][i : i + 1], state)
                    g[i] += state[0][0]
            f = []
            for x in asked[t]:
                h = c = torch.zeros(1, 8).double()
                for _ in range(3):
                    a = (g[kept] @ h[0]).softmax(0)
                    h, c = context.attentive(torch.cat([x, a @ g[kept]]).unsqueeze(0), (h, c))
                    h = h + x
                f.append(h[0])
            torch.testing.assert_close(found[t], by_hand(torch.stack(f), g, given, t, 2.0), rtol=1e-6, atol=1e-9)


def test_the_order_matters_with_full_context_only() -> None:
    assert learner().exchangeable and not learner(full_context=True).exchangeable


@pytest.mark.parametrize("full_context", [False, True])
def test_more_rows_can_be_added(full_context: bool) -> None:
    matching, given = learner(full_context=full_context), tasks()
    parts = [given.support._replace(**{k: v[:, r] for k, v in given.support._asdict().items()})
             for r in (slice(0, 4), slice(4, None))]  # fmt: skip
    with torch.no_grad():
        bit_by_bit = matching.adapt(parts[1], prior=matching.adapt(parts[0]))
        whole = matching.adapt(given.support)
    for name, value in whole.items():
        torch.testing.assert_close(bit_by_bit[name], value)


def test_bad_arguments_are_told() -> None:
    with pytest.raises(UserError, match="scale is 0"):
        learner(scale=0.0)
    with pytest.raises(UserError, match="context_steps is 0"):
        learner(steps=0)
