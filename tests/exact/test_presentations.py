"""Answers in sequence: in one pass what they are row by row, and counted by presentation. No training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, join_rows, map_tensors
from quickstudy.inner.sequence import in_turn
from quickstudy.learners import CNP, MANN, SNAIL, Centroid, FastWeights, MetaNetworks
from quickstudy.learners.model.in_sequence import InSequence
from quickstudy.nets import MLP
from quickstudy.presentations import by_presentation, shares
from quickstudy.tasks import Arrays, GaussianProcess
from quickstudy.testing import synthetic_tasks

CLASSES = qs.Classification(3)
MADE: dict[str, Callable[[], InSequence]] = {
    "mann": lambda: MANN(MLP((5,), width=6), CLASSES, hidden=7, slots=6, width=4, heads=2, in_sequence=True),
    "mann-no-memory": lambda: MANN(MLP((5,), width=6), CLASSES, hidden=7, slots=0, in_sequence=True),
    "snail": lambda: SNAIL(MLP((5,), width=6), CLASSES, 10, 3, (4, 5), (2, 3), in_sequence=True),
    "fast_weights": lambda: FastWeights(MLP((5,), width=6), CLASSES, hidden=7, in_sequence=True),
    "meta_networks": lambda: MetaNetworks(MLP((5,), width=6), CLASSES, width=3, units=3),
}


def made(name: str) -> InSequence:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MADE[name]().double().eval()


def sequence() -> Examples:
    """Nine rows of three classes, in an order that mixes them."""
    rows = synthetic_tasks(CLASSES, (5,), shot=3).support
    order = torch.randperm(rows.weight.shape[1], generator=torch.Generator().manual_seed(5))
    return map_tensors(rows, lambda t: t[:, order])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_a_row_is_answered_as_a_query_after_those_before_it(name: str, padded: bool) -> None:
    learner, rows = made(name), sequence()
    if padded:
        rows.weight[0, 1] = rows.weight[:, 4] = 0.0
    with torch.no_grad():
        found = learner.sequence_predictions(*rows)
        for t in range(1, rows.weight.shape[1]):
            asked = map_tensors(rows, lambda v, t=t: v[:, t : t + 1])
            state = learner.adapt(map_tensors(rows, lambda v, t=t: v[:, :t]))
            answer = learner.predict(state, asked.x, asked.weight)
            real = (asked.weight > 0).squeeze(1)
            # predict hides what was not shown, answers in sequence do not
            shown = CLASSES.seen(map_tensors(rows, lambda v, t=t: v[:, :t])).bool() & real.unsqueeze(1)
            close(found[:, t][shown], answer[:, 0][shown])


@pytest.mark.parametrize("name", ["mann", "mann-no-memory", "snail", "fast_weights"])
def test_no_label_is_known_before_its_time(name: str) -> None:
    learner, rows = made(name), sequence()
    with torch.no_grad():
        before = learner.sequence_predictions(*rows)
        for t in range(rows.weight.shape[1]):
            other = rows.y.clone()
            other[:, t] = (rows.y[:, t] + 1) % 3
            after = learner.sequence_predictions(rows.x, other)
            assert torch.equal(after[:, : t + 1], before[:, : t + 1])
            assert t + 1 == rows.y.shape[1] or not torch.isclose(after[:, t + 1], before[:, t + 1]).all(-1).any()


@pytest.mark.parametrize("name", ["mann-no-memory", "snail", "fast_weights"])
def test_training_in_sequence_is_the_loss_of_every_row(name: str) -> None:
    learner, tasks = made(name), synthetic_tasks(CLASSES, (5,), shot=3)
    rows = join_rows(*tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = learner.train().meta_loss(tasks)
        torch.manual_seed(0)
        order = torch.rand(rows.weight.shape).argsort(1)
    assert isinstance(rows.x, Tensor)
    for t in range(len(found)):
        x, y = rows.x[t : t + 1, order[t]], rows.y[t : t + 1, order[t]]
        probability = learner.sequence_predictions(x, y).softmax(-1)[0].gather(1, y.T)
        close(found[t], -probability.log().mean())


def test_without_a_memory_it_is_torchs_lstm() -> None:
    learner, rows = made("mann-no-memory"), sequence()
    assert isinstance(learner, MANN)
    plain = torch.nn.LSTM(learner.controller.input_size, 7, batch_first=True).double()
    with torch.no_grad():
        for name, weight in learner.controller.named_parameters():
            plain.get_parameter(f"{name}_l0").copy_(weight)
        labels = CLASSES.indicators(rows.y).double().roll(1, 1)
        labels[:, 0] = 0
        out, _ = plain(torch.cat([learner.net(rows.x), labels], -1))
        close(learner.sequence_predictions(*rows), learner.head(out))


def test_a_learner_that_adds_up_answers_as_one_that_begins_anew() -> None:
    class Anew(Centroid):
        incremental = False

    rows = sequence()
    close(in_turn(Centroid(CLASSES), rows), in_turn(Anew(CLASSES), rows))


def test_shares_are_counted_by_hand() -> None:
    y = torch.tensor([[0, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0]])
    named = torch.tensor([[1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 0]])
    found = shares(qs.Classification(2), Examples(y, y, torch.ones(2, 6)), torch.eye(2)[named])
    assert found.tolist() == [[0.5, 1.0], [0.5, 0.5], [1.0, 0.5]]


def apart(**episode) -> Arrays:
    """Classes so far apart that a nearest centroid is never wrong about one that it was shown."""
    generator = torch.Generator().manual_seed(0)
    x = 100 * torch.randn(12, 1, 4, generator=generator) + torch.rand(12, 6, 4, generator=generator)
    names = [f"class {c}" for c in range(12) for _ in range(6)]
    options = {"way": 3, "shot": 1, "query": 3, "valid_fraction": 1 / 3, "test_fraction": 1 / 3}
    return Arrays.of(x.flatten(0, 1), names, **{**options, **episode})


def test_who_must_be_shown_a_class_once_knows_it_from_its_second_presentation_on() -> None:
    source, before = apart(), torch.random.get_rng_state()
    found = by_presentation(Centroid(qs.Classification(3)), source, tasks=45)
    assert found.tasks == 45 and len(found.right) == 4
    assert found.mean(1) < 0.25  # the first row is a guess, what is new later is taken for what was shown
    assert [found.mean(k) for k in (2, 3, 4)] == [1.0, 1.0, 1.0] and found.interval(2) == 0.0
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_learner_meets_the_same_sequences() -> None:
    source, met = apart(), []

    class Watched(Centroid):
        def predict(self, state, x, weight=None):
            met[-1].append(x)
            return super().predict(state, x, weight)

    for seed in (0, 0, 1):
        met.append([])
        by_presentation(Watched(qs.Classification(3)), source, tasks=2, seed=seed)
    first, again, other = (torch.cat(rows) for rows in met)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_learner_in_sequence_may_name_a_class_that_was_not_shown() -> None:
    class New(FastWeights):
        def sequence_predictions(self, x, y, weight=None):
            return CLASSES.indicators(y).double()  # knows what it cannot know

    learner = New(MLP((4,), width=6), CLASSES, hidden=7)
    assert by_presentation(learner, apart(), tasks=20).mean(1) == 1.0


def test_sequences_are_in_orders_of_their_own() -> None:
    orders = []

    class Watched(FastWeights):
        def sequence_predictions(self, x, y, weight=None):
            orders.append(y)
            return super().sequence_predictions(x, y, weight)

    learner = Watched(MLP((4,), width=6), CLASSES, hidden=7)
    for seed in (0, 1):
        by_presentation(learner, apart(), tasks=40, seed=seed)
    first, second, other, _ = orders
    assert not torch.equal(first, second) and not torch.equal(first, other)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(UserError, match="real values"):
        by_presentation(CNP(qs.GaussianRegression(1), (1,)), GaussianProcess())
    with pytest.raises(UserError, match="more often than others"):
        by_presentation(Centroid(qs.Classification(3)), apart(query="1-3"), tasks=60)
