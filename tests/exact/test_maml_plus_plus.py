"""MAML++ is MAML with all options off; each option by itself against what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from exact.test_maml_kin import IDS, OBJECTIVES, WAY, close, conv4, images, mlp, predictions, rows, same
from quickstudy.core import Classification, Objective
from quickstudy.core.errors import UserError
from quickstudy.core.task import Task
from quickstudy.core.tracing import tracing
from quickstudy.learners import MAML, MAMLPlusPlus
from quickstudy.nets import Conv4

OFF = {"multi_step_tasks": 0, "first_order_tasks": 0, "learnt_rates": False, "norm_per_step": False}
WAYS = Classification(WAY)


def plus(steps: int = 3, lr: float = 0.2, **options: object) -> MAMLPlusPlus:
    return MAMLPlusPlus(mlp(WAY), WAYS, steps, lr, **(OFF | options)).double().train()  # type: ignore[arg-type]


def maml(steps: int = 3, lr: float = 0.2, **options: object) -> MAML:
    return MAML(mlp(WAY), WAYS, steps, lr, **options).train()  # type: ignore[arg-type]


def slope(learner: qs.MetaLearner, tasks: Task) -> Tensor:
    parameters = list(learner.net.parameters())  # type: ignore[union-attr]
    return torch.cat([g.flatten() for g in torch.autograd.grad(learner(tasks), parameters)])


@pytest.mark.parametrize("options", [{}, {"first_order": True}, {"memory": "sweep"}], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_with_all_options_off_it_is_maml(objective: Objective, options: dict[str, object]) -> None:
    found = MAMLPlusPlus(mlp(objective.size), objective, 3, 0.2, **(OFF | options)).double()  # type: ignore[arg-type]
    same(found, MAML(mlp(objective.size), objective, 3, 0.2, **options), rows(objective))  # type: ignore[arg-type]


def test_with_all_options_off_it_is_maml_on_images() -> None:
    found = MAMLPlusPlus(conv4(2), Classification(2), 2, 0.1, **OFF).double()  # type: ignore[arg-type]
    same(found, MAML(conv4(2), Classification(2), 2, 0.1), images())


def test_learnt_rates_start_as_the_one_rate() -> None:
    same(plus(lr=0.25, learnt_rates=True), maml(lr=0.25), rows(WAYS))  # 0.25 is the same in single precision


def test_every_tensor_has_a_rate_in_every_step() -> None:
    tasks, learner = rows(WAYS), plus(steps=2, learnt_rates=True)
    with torch.no_grad():
        for rate in learner.rates:
            rate.uniform_(0.1, 0.5)
        states = list(learner.path(tasks.support, 4))
        for k, rates in enumerate((0, 1, 1, 1)):  # the last one goes on
            loss = learner.inner_loss({"seen": states[0]["seen"]})
            own = {n: w.detach().requires_grad_() for n, w in states[k].items() if n != "seen"}
            with torch.enable_grad():
                grads = torch.autograd.grad(loss(own, tasks.support).sum(), list(own.values()))
            for (name, w), g, rate in zip(own.items(), grads, learner.rates, strict=True):
                close(states[k + 1][name], w.detach() - 2 * 0.2 * rate[rates] * g)


def test_an_outer_step_moves_small_rates_in_proportion() -> None:
    for lr in (0.25, 0.0025):
        learner, tasks = plus(lr=lr, learnt_rates=True), rows(WAYS)
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
        learner(tasks).backward()
        optimizer.step()
        shares = torch.cat([torch.stack([rate / lr for rate in step.values() if isinstance(rate, Tensor)])
                            for step in learner.rate()])  # fmt: skip
        torch.testing.assert_close((shares - 1).abs(), torch.full_like(shares, 2e-3), rtol=1e-2, atol=0.0)


def test_the_multi_step_loss_goes_from_equal_shares_to_the_last_step() -> None:
    tasks = rows(WAYS)
    after = [maml(steps=k)(tasks).detach() for k in (1, 2, 3)]
    learner = plus(multi_step_tasks=12)
    for shares in ([4, 4, 4], [3, 3, 6], [2, 2, 8], [1, 1, 10], [0, 0, 12], [0, 0, 12]):  # three tasks at a time
        assert learner.shares() == pytest.approx([s / 12 for s in shares])
        close(learner(tasks).detach(), sum(s / 12 * loss for s, loss in zip(shares, after, strict=True)))  # type: ignore
    assert int(learner.met) == 18
    close(learner.eval()(tasks).detach(), after[-1])
    assert int(learner.met) == 18  # nothing counts outside training


def test_first_order_comes_before_second() -> None:
    tasks = rows(WAYS)
    learner = plus(first_order_tasks=4)
    for wanted in (True, True, False, False):  # after 0, 3, 6 and 9 tasks
        assert learner.exact_gradient != wanted
        close(slope(learner, tasks), slope(maml(first_order=wanted), tasks))
    assert (slope(maml(first_order=True), tasks) - slope(maml(), tasks)).norm() > 1e-3


def test_what_was_counted_is_saved_with_it() -> None:
    tasks, learner = rows(WAYS), plus(first_order_tasks=4)
    learner(tasks)
    learner(tasks)
    again = plus(first_order_tasks=4)
    again.load_state_dict(learner.state_dict())
    assert int(again.met) == 6 and again.exact_gradient


def test_counting_does_not_depend_on_the_parts_of_a_step() -> None:
    source = qs.tasks.Sinusoid()
    met = []
    for accumulate in (1, 2):
        learner = qs.make("maml_plus_plus", source.spec, inner_steps=1)
        qs.train(learner, source, steps=3, meta_batch=4, accumulate=accumulate, valid_every=0, progress=False)
        met.append(int(learner.met))  # type: ignore[arg-type]
    assert met == [12, 12]


def test_a_learner_that_counts_is_not_compiled() -> None:
    with tracing(), pytest.raises(UserError, match="cannot be compiled"):
        plus(multi_step_tasks=5)(rows(WAYS))
    with tracing():
        plus()(rows(WAYS))


# --- norms of every step's own ---


def images_learner(**options: object) -> MAMLPlusPlus:
    options = OFF | {"norm_per_step": True} | options
    return MAMLPlusPlus(conv4(2), Classification(2), 2, 0.1, **options).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["store", "sweep", "implicit"])
def test_after_every_step_the_norms_have_the_next_set(memory: str) -> None:
    learner, tasks = images_learner(memory=memory), images()
    with torch.no_grad():
        for each in learner.sets:
            each.add_(0.1 * torch.randn_like(each))
    assert len(learner.placed) == 8 and len(learner.moved) == 6
    for states in (list(learner.path(tasks.support, 3)), _plain(learner, tasks)):
        for name, each in zip(learner.placed, learner.sets, strict=True):
            own = learner.net.get_parameter(name)
            for state, wanted in zip(states, (own, each[0], each[1], each[1]), strict=True):
                close(state[name], wanted.detach().expand(2, -1))
        for name in learner.moved:
            assert not torch.equal(states[1][name], states[0][name])


def _plain(learner: MAMLPlusPlus, tasks: Task) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        return list(learner.path(tasks.support, 3))


def test_one_step_with_norms_that_stay_by_hand() -> None:
    learner, tasks = images_learner(), images()
    with torch.no_grad():
        for each in learner.sets:
            each.add_(0.1 * torch.randn_like(each))
        found = learner.predict(state := list(learner.path(tasks.support, 1))[1], tasks.query.x, tasks.query.weight)
    for t in range(2):
        net: Conv4 = conv4(2)
        kept = tasks.support.weight[t] > 0
        x, y = tasks.support.x[t : t + 1, kept], tasks.support.y[t, kept]  # type: ignore[index]
        moved = [net.get_parameter(n) for n in learner.moved]
        loss = torch.nn.functional.cross_entropy(net(x)[0], y)
        with torch.no_grad():
            for p, g in zip(moved, torch.autograd.grad(loss, moved), strict=True):
                p.sub_(0.1 * g)
            for n, each in zip(learner.placed, learner.sets, strict=True):
                net.get_parameter(n).copy_(each[0])
            for n in learner.moved:
                close(state[n][t], net.get_parameter(n))
            asked = tasks.query.weight[t] > 0
            close(found[t, asked], net(tasks.query.x[t : t + 1, asked])[0])  # type: ignore[index]


def test_sets_that_are_never_reached_do_not_matter() -> None:
    tasks = images()
    learners = [images_learner(), images_learner()]
    with torch.no_grad():
        for each in learners[1].sets:
            each[0].add_(1.0)  # of the first step: met on the way
    first, second = (predictions(each, tasks) for each in learners)
    assert (first - second).abs().max() > 1e-3


def test_refusals() -> None:
    for options in ({"inner_steps": 0}, {"multi_step_tasks": -1}, {"first_order_tasks": -1}):
        with pytest.raises(UserError, match="maml_plus_plus needs"):
            MAMLPlusPlus(mlp(WAY), WAYS, **options)  # type: ignore[arg-type]
