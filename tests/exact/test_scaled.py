"""Tasks in units of their own: what the units are never matters, and the scale is that of the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import quickstudy as qs
from quickstudy.core.errors import UserError
from quickstudy.core.objective import GaussianRegression, Regression
from quickstudy.core.source import Scaling, Spec
from quickstudy.core.task import Examples, Task
from quickstudy.evaluate import name_of
from quickstudy.learners import CNP, MAML, Chance, Pooled, ProtoNet, make
from quickstudy.learners.scaled import Scaled
from quickstudy.nets import MLP


def rows(seed: int, n: int, tasks: int = 3, weight: bool = True) -> Examples:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, n, 2, generator=rng, dtype=torch.float64)
    y = torch.randn(tasks, n, 1, generator=rng, dtype=torch.float64)
    w = torch.rand(tasks, n, generator=rng, dtype=torch.float64) if weight else torch.ones(tasks, n).double()
    return Examples(x, y, w)


def cnp() -> CNP:
    torch.manual_seed(0)
    return CNP(GaussianRegression(1, 0.01), (2,), 8, 1).double()


def maml() -> MAML:
    torch.manual_seed(0)
    return MAML(MLP((2,), out=1), Regression(1), inner_steps=2).double()


GIVEN = ((0.4, -1.0), (1.5, 3.0), (0.2,), (2.0,))


def moved(part: Examples, slope: torch.Tensor, shift: torch.Tensor, y_slope: float, y_shift: float) -> Examples:
    return Examples(part.x * slope + shift, part.y * y_slope + y_shift, part.weight)


@pytest.mark.parametrize("inner", [cnp, maml])
def test_units_do_not_matter_where_the_support_alone_decides(inner) -> None:
    learner, support, query = Scaled(inner(), *GIVEN, rows=0.0), rows(0, 7), rows(1, 5)
    slope, shift = torch.tensor([3.0, 0.02]).double(), torch.tensor([-40.0, 7.0]).double()
    units = (slope, shift, 25.0, -300.0)
    plain = learner.predict(learner.adapt(support), query.x)
    other = learner.predict(learner.adapt(moved(support, *units)), moved(query, *units).x)
    if inner is maml:
        assert_close(other, 25.0 * plain - 300.0)
        return
    means = learner.objective.mean_and_deviation(plain), learner.objective.mean_and_deviation(other)
    assert_close(means[1][0], 25.0 * means[0][0] - 300.0)
    assert_close(means[1][1], 25.0 * means[0][1])
    # and a density in other units is one over the factor
    one, two = learner.objective.loss(plain, query), learner.objective.loss(other, moved(query, *units))
    assert_close(two - one, torch.full_like(one, math.log(25.0)))
    assert_close(learner.meta_loss(Task(support, query)),
                 learner.meta_loss(Task(moved(support, *units), moved(query, *units))))  # fmt: skip


def test_data_of_the_standard_scale_is_left_alone() -> None:
    support, query, inner = rows(0, 7), rows(1, 5), cnp()
    fixed = Scaled(inner, (0.0, 0.0), (1.0, 1.0), (0.0,), (1.0,), rows=math.inf)
    inside, outside = inner.predict(inner.adapt(support), query.x), fixed.predict(fixed.adapt(support), query.x)
    both = inner.objective.mean_and_deviation(inside), fixed.objective.mean_and_deviation(outside)
    assert_close(both[0], both[1])
    assert_close(inner.objective.loss(inside, query), fixed.objective.loss(outside, query))
    assert_close(inner.meta_loss(Task(support, query)), fixed.meta_loss(Task(support, query)))


def test_the_scale_is_that_of_the_support_and_of_pseudo_rows() -> None:
    """Pseudo-rows of the given mean and deviation, written out as rows: half of them above, half below."""
    support, count = rows(0, 6), 4
    x_mean, x_deviation, y_mean, y_deviation = (torch.tensor(v).double() for v in GIVEN)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).double().view(1, count, 1)
    more_x, more_y = x_mean + sign * x_deviation, y_mean + sign * y_deviation
    scale = Scaled(cnp(), *GIVEN, rows=count).scale(support)
    weight = torch.cat([support.weight, torch.ones(3, count).double()], 1)
    for mean, deviation, own, more in (
        (scale.x_mean, scale.x_deviation, support.x, more_x),
        (scale.y_mean, scale.y_deviation, support.y, more_y),
    ):
        for t in range(3):
            everything = torch.cat([own[t], more[0]]).numpy()  # type: ignore[index]
            by_hand = np.average(everything, axis=0, weights=weight[t].numpy())
            spread = np.average((everything - by_hand) ** 2, axis=0, weights=weight[t].numpy()) ** 0.5
            assert_close(mean[t, 0], torch.from_numpy(by_hand))
            assert_close(deviation[t, 0], torch.from_numpy(spread))


def test_many_pseudo_rows_are_fixed_constants() -> None:
    support = rows(0, 6)
    fixed = Scaled(cnp(), *GIVEN, rows=math.inf).scale(support)
    many = Scaled(cnp(), *GIVEN, rows=1e12).scale(support)
    for name, given in zip(fixed._fields, GIVEN, strict=True):
        want = torch.tensor(given, dtype=torch.float64).expand(3, 1, len(given))
        assert torch.equal(getattr(fixed, name), want)
        assert_close(getattr(many, name), want)


def test_padding_has_no_say() -> None:
    support, learner = rows(0, 6), Scaled(cnp(), *GIVEN)
    weight = support.weight.clone()
    weight[:, 4:] = 0
    cut = Examples(support.x[:, :4], support.y[:, :4], weight[:, :4])  # type: ignore[index]
    for a, b in zip(learner.scale(support._replace(weight=weight)), learner.scale(cut), strict=True):
        assert_close(a, b)


def test_a_column_that_does_not_vary_keeps_the_given_deviation() -> None:
    support = rows(0, 6, weight=False)
    x = support.x.clone()  # type: ignore[union-attr]
    x[..., 1] = 1234.5
    scale = Scaled(cnp(), *GIVEN, rows=0.0).scale(support._replace(x=x))
    assert_close(scale.x_mean[:, 0, 1], torch.full((3,), 1234.5).double())
    assert_close(scale.x_deviation[:, 0, 1], torch.full((3,), 3.0).double())
    one = Examples(x[:, :1], support.y[:, :1], support.weight[:, :1])
    assert_close(Scaled(cnp(), *GIVEN, rows=0.0).scale(one).x_deviation, torch.tensor([[[1.5, 3.0]]] * 3).double())


def test_a_relative_entry_counts_from_the_support() -> None:
    support, query = rows(0, 6), rows(1, 5)
    learner = Scaled(cnp(), *GIVEN, rows=math.inf, relative=(1,))
    later = torch.tensor([0.0, 1000.0]).double()
    plain = learner.predict(learner.adapt(support), query.x)
    other = learner.predict(learner.adapt(support._replace(x=support.x + later)), query.x + later)
    assert_close(plain, other)
    assert_close(learner.scale(support).x_deviation[:, 0, 1], torch.full((3,), 3.0).double())


def test_classes_are_left_alone_and_the_way_may_change() -> None:
    torch.manual_seed(0)
    spec = Spec("classification", (2,), way=3, scaling=Scaling((0.4, -1.0), (1.5, 3.0), rows=0.0))
    learner = make("protonet", spec)
    assert isinstance(learner, Scaled) and isinstance(learner.learner, ProtoNet)
    assert name_of(learner, "learner") == "protonet"
    five = learner.for_way(5)
    assert five.objective.size == 5 and learner.objective.size == 3 and five.learner.net is learner.learner.net


def test_a_pooled_learner_is_given_the_constants() -> None:
    learner = Scaled(Pooled(MLP((2,), out=1), Regression(1)).double(), *GIVEN, rows=0.0)
    support = rows(0, 6)
    nothing = Examples(support.x[:, :0], support.y[:, :0], support.weight[:, :0])  # type: ignore[index]
    for a, b in zip(learner.scale(support), learner.scale(nothing), strict=True):
        assert_close(a, b)


def test_a_prior_keeps_its_scale() -> None:
    learner, a, b = Scaled(cnp(), *GIVEN), rows(0, 4), rows(1, 6)
    first = learner.adapt(a)
    both = learner.adapt(b, prior=first)
    assert torch.equal(both["scaled.y_mean"], first["scaled.y_mean"])
    assert_close(both["weight"], (a.weight.sum(1) + b.weight.sum(1)))


def test_chance_is_the_mean_in_any_units() -> None:
    learner, support = Scaled(Chance(Regression(1)), *GIVEN), rows(0, 6)
    mean = (support.y * support.weight.unsqueeze(-1)).sum(1) / support.weight.sum(1, keepdim=True)
    assert_close(learner.predict(learner.adapt(support), support.x)[:, 0], mean)


def test_what_it_refuses() -> None:
    for arguments, word in (
        (((0.0,), (1.0, 2.0)), "deviation for every mean"),
        (((0.0,), (0.0,)), "positive"),
        (((0.0,), (math.nan,)), "positive"),
        (((), (), (0.0,), (1.0,), -1.0), "0 or more"),
    ):
        with pytest.raises(UserError, match=word):
            Scaled(cnp(), *arguments)
    with pytest.raises(UserError, match="name that learner"):
        make("scaled", Spec("regression", (2,)))


def test_it_comes_back_from_a_checkpoint(tmp_path) -> None:
    scaling = Scaling((0.4, -1.0), (1.5, 3.0), (0.2,), (2.0,), math.inf, (1,))
    learner = make("maml", Spec("regression", (2,), scaling=scaling)).eval()
    qs.checkpoint.save(learner, tmp_path / "it.safetensors")
    again = qs.checkpoint.load(tmp_path / "it.safetensors").learner
    assert isinstance(again, Scaled) and again.rows == math.inf and again.relative == (1,)
    part = Examples(*(t.float() for t in rows(0, 6)))  # type: ignore[union-attr]
    assert_close(again.predict(again.adapt(part), part.x), learner.predict(learner.adapt(part), part.x))
