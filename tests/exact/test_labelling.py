"""What each strategy picks, by hand; looking ahead, against every label tried one by one."""

from __future__ import annotations

import pytest
import torch

import quickstudy as qs
from quickstudy.questions.labelling import STRATEGIES, Asked, label_next
from quickstudy.questions.row_features import behind_network


def asked(pool: list[float], known: tuple[float, ...] = (0.0, 10.0)) -> Asked:
    learner = qs.make("centroid", qs.Spec("classification", (1,), way=len(known)))
    support = qs.examples(torch.tensor(known).view(1, -1, 1), torch.arange(len(known)).unsqueeze(0))
    return Asked(learner, learner.adapt(support), torch.tensor(pool).unsqueeze(1), support, len(known))


def test_margin_and_entropy_take_what_lies_between() -> None:
    one = asked([0.1, 4.9, 9.0, 6.0])
    assert label_next(one, "margin", 2) == label_next(one, "entropy", 2) == [1, 3]


def test_k_centre_goes_far_from_all_that_is_known() -> None:
    assert label_next(asked([1.0, 30.0, 29.0, 5.0]), "k-centre", 3) == [1, 3, 0]  # then 5 from 0 and 10; then 1
    alone = asked([1.0, 2.0, 30.0])
    assert label_next(Asked(alone.learner, alone.state, alone.pool, None, 2), "k-centre", 2) == [1, 2]


def test_diverse_does_not_take_twice_what_is_nearly_the_same() -> None:
    picked = label_next(asked([0.49, 0.5, 0.51, 0.8], known=(0.0, 1.0)), "diverse", 2)
    assert picked[0] in (0, 1, 2) and picked[1] == 3


def test_random_takes_each_row_once_and_by_seed() -> None:
    one = asked([float(i) for i in range(9)])
    assert sorted(label_next(one, "random", 9)) == list(range(9))
    assert label_next(one, "random", 9, seed=1) != label_next(one, "random", 9, seed=2)


@torch.no_grad()
@pytest.mark.parametrize("kept", [True, False])
def test_lookahead_is_the_expected_error_label_by_label(kept: bool) -> None:
    torch.manual_seed(0)
    learner = qs.make("protonet", qs.Spec("classification", (4,), way=3)).eval()
    support = qs.examples(torch.randn(1, 6, 4), torch.tensor([[0, 0, 1, 1, 2, 2]]))
    pool = torch.randn(12, 4)
    one = Asked(learner, learner.adapt(support), pool, support if kept else None, 3)
    odds = one.probabilities()
    expected = []
    for i in range(len(pool)):
        total = 0.0
        for label in range(3):
            x, y = torch.cat([support.x[0], pool[i : i + 1]]), torch.cat([support.y[0], torch.tensor([label])])
            state = learner.adapt(qs.examples(x.unsqueeze(0), y.unsqueeze(0)))
            sure = learner.predict(state, pool.unsqueeze(0))[0].softmax(-1).amax(-1)
            total += float(odds[i, label]) * float(1 - sure.mean())
        expected.append(total)
    assert label_next(one, "lookahead", 3) == torch.tensor(expected).argsort()[:3].tolist()


def test_behind_its_network_a_learner_says_the_same() -> None:
    learner = qs.make("protonet", qs.Spec("classification", (4,), way=2)).eval()
    behind = behind_network(learner)
    assert behind is not None and behind.net is not learner.net
    x, y = torch.randn(1, 4, 4), torch.tensor([[0, 0, 1, 1]])
    state = behind.adapt(qs.examples(learner.net(x), y))
    assert torch.allclose(behind.predict(state, learner.net(x)), learner.predict(learner.adapt(qs.examples(x, y)), x))


def test_values_are_asked_for_where_they_are_least_sure() -> None:
    source = qs.tasks.Sinusoid(shot=4)
    support = source.sample("test", 1, source.rng(0)).support
    learner = qs.make("cnp", source.spec)
    one = Asked(learner, learner.adapt(support), torch.linspace(-5, 5, 7).unsqueeze(1), support)
    deviation = learner.objective.mean_and_deviation(one.predictions().unsqueeze(0))[1].flatten()
    assert label_next(one, "entropy", 1) == [int(deviation.argmax())]
    with pytest.raises(qs.UserError, match="about classes"):
        label_next(one, "margin")
    plain = qs.make("chance", source.spec)
    with pytest.raises(qs.UserError, match="how sure"):
        label_next(Asked(plain, plain.adapt(support), one.pool, support), "entropy")


def test_what_is_refused() -> None:
    with pytest.raises(qs.UserError, match="did you mean 'margin'"):
        label_next(asked([1.0]), "margn")
    with pytest.raises(qs.UserError, match="at least one"):
        label_next(asked([1.0]), count=0)
    assert set(STRATEGIES) == {"random", "entropy", "margin", "k-centre", "diverse", "lookahead"}
