"""Memory plans: the exact ones give the unrolled gradient, the others what they say; memory stays flat."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.core.task import Task, map_tensors
from quickstudy.inner.descent import descend
from quickstudy.inner.implicit import implicit
from quickstudy.inner.memory import Plan
from quickstudy.learners import MAML
from quickstudy.peak import peak_bytes

LR = 0.05


def learner(memory: str, steps: int = 5, lr: float = LR, **options: object) -> qs.MetaLearner:
    torch.manual_seed(0)
    spec = qs.tasks.Sinusoid().spec
    return qs.make("maml", spec, inner_steps=steps, inner_lr=lr, memory=memory, **options).double()


def waves(tasks: int = 3) -> Task:
    source = qs.tasks.Sinusoid()
    return map_tensors(source.sample("train", tasks, source.rng(0)), lambda t: t.double())


def gradient(model: qs.MetaLearner, tasks: Task) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(model(tasks), list(model.parameters()))])


@pytest.mark.parametrize("memory", ["checkpoint", "sweep", "truncated:5", "truncated:9"])
def test_exact_plans_give_the_unrolled_gradient(memory: str) -> None:
    found, true = gradient(learner(memory), waves()), gradient(learner("store"), waves())
    torch.testing.assert_close(found, true, rtol=1e-12, atol=1e-14)


def test_truncated_keeps_the_last_steps_and_no_more() -> None:
    """Truncated to 2 of 3 steps is second order through two steps from where the first one ends."""
    model, tasks = learner("truncated:2", 3), waves()
    found = gradient(model, tasks)
    first = {k: v.detach().requires_grad_() for k, v in learner("store", 1).adapt(tasks.support).items()}

    def loss(weights: dict[str, Tensor], support: qs.Examples) -> Tensor:
        return model.objective.loss(model.output(weights, support.x, support.weight), support)  # type: ignore[attr-defined]

    state = descend(loss, first, tasks.support, 2, LR)
    expected = torch.autograd.grad(loss(state, tasks.query).mean(), list(first.values()))
    torch.testing.assert_close(found, torch.cat([g.sum(0).flatten() for g in expected]), rtol=1e-12, atol=1e-14)


def test_implicit_takes_the_end_for_the_solution_of_a_proximal_problem() -> None:
    model, tasks = learner("implicit", 4), waves()
    found = gradient(model, tasks)
    theta = {k: v.detach().requires_grad_() for k, v in model.shared_start(tasks.support).items()}  # type: ignore[attr-defined]
    with torch.no_grad():
        end = learner("store", 4).adapt(tasks.support)

    def loss(weights: dict[str, Tensor], support: qs.Examples) -> Tensor:
        return model.objective.loss(model.output(weights, support.x, support.weight), support)  # type: ignore[attr-defined]

    state = implicit(loss, end, theta, tasks.support, 1 / (4 * LR), 10)
    expected = torch.autograd.grad(loss(state, tasks.query).mean(), list(theta.values()))
    torch.testing.assert_close(found, torch.cat([g.sum(0).flatten() for g in expected]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory", ["truncated", "implicit"])
def test_approximate_plans_declare_it_and_point_the_same_way(memory: str) -> None:
    model = learner(memory, lr=0.01)
    assert not model.exact_gradient
    true = gradient(learner("store", lr=0.01), waves())
    found = gradient(model, waves())
    assert 0.5 < float(torch.cosine_similarity(found, true, 0)) < 1 - 1e-6


@pytest.mark.parametrize("memory", ["store", "checkpoint", "sweep", "implicit"])
def test_every_plan_predicts_the_same(memory: str) -> None:
    tasks, model, plain = waves(), learner(memory), learner("store")
    with torch.no_grad():
        found, expected = (m.predict(m.adapt(tasks.support), tasks.query.x) for m in (model, plain))
    assert torch.equal(found, expected)


def test_the_support_gets_its_gradient_through_a_sweep() -> None:
    """Influence: the derivative by the weight of a support row goes through the plan too."""
    found = []
    for memory in ("store", "sweep"):
        tasks, model = waves(1), learner(memory)
        weight = tasks.support.weight.clone().requires_grad_()
        state = model.adapt(tasks.support._replace(weight=weight))
        loss = model.objective.loss(model.predict(state, tasks.query.x), tasks.query)
        found.append(torch.autograd.grad(loss.sum(), weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-14)
    assert bool((found[0] != 0).any())


def test_a_sweep_draws_dropout_alike_both_times() -> None:
    """Recomputing a step with another mask would give another gradient, silently."""
    spec, tasks = qs.tasks.Sinusoid().spec, waves()
    rows = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Dropout(0.5), nn.Linear(20, 1))
    net = qs.nets.RowNet(rows, 1).double()
    found = []
    for memory in ("store", "checkpoint", "sweep"):
        model = MAML(net, spec.objective(), inner_steps=3, inner_lr=LR, memory=memory)
        torch.manual_seed(1)
        found.append(gradient(model, tasks))
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(found[2], found[0], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("memory", "most"), [("sweep", 1.35), ("checkpoint", 1.35), ("implicit", 1.02), ("store", 9.0)]
)
def test_memory_against_inner_steps(memory: str, most: float) -> None:
    """From 2 to 20 steps; what grows in a sweep are the weights of each step, not its graph."""

    def held(steps: int) -> int:
        source = qs.tasks.Sinusoid(shot=400, query=400)
        tasks = source.sample("train", 2, source.rng(0))
        model = learner(memory, steps).float()
        return peak_bytes(lambda: model(tasks).backward())

    ratio = held(20) / held(2)
    assert ratio < most
    assert memory != "store" or ratio > 3


@pytest.mark.parametrize("text", ["swept", "truncated:0", "truncated:x", "store:2", ""])
def test_an_unknown_plan_is_refused(text: str) -> None:
    with pytest.raises(qs.UserError, match="memory plan"):
        Plan.of(text)
