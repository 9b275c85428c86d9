"""Meta-LSTM: gradient descent where the gates are fixed, and its gates by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from exact.test_maml_kin import IDS, OBJECTIVES, close, mlp, predictions, rows, same
from quickstudy.core import Objective
from quickstudy.core.errors import UserError
from quickstudy.inner.gated import preprocessed
from quickstudy.learners import MAML, MetaLSTM


def learner(objective: Objective, steps: int = 3, lr: float = 0.2, **options: object) -> MetaLSTM:
    torch.manual_seed(1)
    net = mlp(objective.size)
    return MetaLSTM(net, objective, steps, lr, hidden=4, **options).double()  # type: ignore[arg-type]


def fixed(made: MetaLSTM, forget: float, rate: float) -> MetaLSTM:
    """Gates that look at nothing."""
    with torch.no_grad():
        made.optimiser.gates.weight.zero_()
        made.optimiser.gates.bias.copy_(torch.logit(torch.tensor([rate, forget], dtype=torch.float64)))
        if forget == 1:
            made.optimiser.gates.bias[1] = 50.0
    return made


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_with_fixed_gates_it_is_gradient_descent(objective: Objective, first_order: bool) -> None:
    found = fixed(learner(objective, first_order=first_order), 1, 0.2)
    maml = MAML(mlp(objective.size), objective, inner_steps=3, inner_lr=0.2, first_order=first_order)
    same(found, maml, rows(objective))


def test_with_a_fixed_forget_gate_weights_decay() -> None:
    objective, steps = OBJECTIVES[0], 2
    tasks = rows(objective)
    found = fixed(learner(objective, steps), 0.9, 0.1)
    loss = found.inner_loss({"seen": found.adapt(tasks.support)["seen"]})
    own = {k: w.detach() for k, w in found.start(tasks.support).items()}
    for _ in range(steps):
        own = {k: w.requires_grad_() for k, w in own.items()}
        grads = torch.autograd.grad(loss(own, tasks.support).sum(), list(own.values()))
        own = {k: 0.9 * w.detach() - 0.1 * g for (k, w), g in zip(own.items(), grads, strict=True)}
    state = found.adapt(tasks.support)
    for name, w in own.items():
        close(state[name].detach(), w)


def test_the_gates_by_hand_entry_by_entry() -> None:
    """torch's own LSTM cell on one entry at a time, and the paper's formulas; two tasks, two steps."""
    objective = OBJECTIVES[1]
    tasks, made = rows(objective), learner(objective, 2)
    with torch.no_grad():
        for p in made.optimiser.parameters():
            p.copy_(0.5 * torch.randn_like(p))
    loss = made.inner_loss({})
    rule, name = made.optimiser, "layers.1.weight"
    states = [{k: w.detach().requires_grad_() for k, w in s.items()} for s in made.path(tasks.support, 2)]
    w_i, w_f = rule.gates.weight
    b_i, b_f = rule.gates.bias
    for task, entry in ((0, (0, 0)), (1, (3, 5)), (2, (7, 2))):
        memory = (torch.zeros(1, 4, dtype=torch.float64),) * 2
        i = f = torch.zeros(1, dtype=torch.float64)
        for before, after in pairwise(states):
            losses = loss(before, tasks.support)
            g = torch.autograd.grad(losses.sum(), before[name])[0][task][entry]
            theta = before[name][task][entry].reshape(1)
            read = torch.cat([_pre(float(g)), _pre(float(losses[task].detach()))])
            memory = rule.lstm(read.unsqueeze(0), memory)
            i = torch.sigmoid(torch.cat([memory[0][0], theta, i]) @ w_i + b_i).reshape(1)
            f = torch.sigmoid(torch.cat([memory[0][0], theta, f]) @ w_f + b_f).reshape(1)
            close(after[name][task][entry].reshape(1), f * theta - i * g)


def _pre(x: float) -> Tensor:
    both = [math.log(abs(x)) / 10, math.copysign(1.0, x)] if abs(x) >= math.exp(-10) else [-1.0, math.exp(10) * x]
    return torch.tensor(both, dtype=torch.float64)


def test_preprocessing() -> None:
    x = torch.tensor([3.0, -3.0, 1e-4, 1e-5, -1e-5, 0.0], dtype=torch.float64)
    close(preprocessed(x), torch.stack([_pre(float(v)) for v in x]))
    x.requires_grad_()
    assert torch.isfinite(torch.autograd.grad(preprocessed(x).sum(), x)[0]).all()


def test_the_first_rate_is_inner_lr_and_little_is_forgotten() -> None:
    made = MetaLSTM(mlp(2), OBJECTIVES[1], inner_lr=0.03)
    i, f = torch.sigmoid(made.optimiser.gates.bias.detach())
    assert float(i) == pytest.approx(0.03) and 0.99 < float(f) < 1


def test_a_prior_begins_with_an_empty_memory() -> None:
    objective = OBJECTIVES[0]
    tasks, made = rows(objective), learner(objective, 1)
    with torch.no_grad():
        for p in made.optimiser.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        once = made.adapt(tasks.support)
        twice, path = made.adapt(tasks.support, prior=once), list(made.path(tasks.support, 2))
    assert set(once) == {"seen", *(n for n, _ in made.net.named_parameters())}
    assert not torch.allclose(twice["layers.0.weight"], path[2]["layers.0.weight"])
    close(once["layers.0.weight"], path[1]["layers.0.weight"])


def test_outer_gradients_reach_the_optimiser_and_the_start() -> None:
    tasks, made = rows(OBJECTIVES[0]), learner(OBJECTIVES[0])
    grads = torch.autograd.grad(made(tasks), list(made.parameters()))
    assert all(bool(g.abs().sum() > 0) for g in grads)
    assert not made.exact_gradient and learner(OBJECTIVES[0], first_order=False).exact_gradient
    assert torch.isfinite(predictions(made, tasks)).all()


def test_refusals() -> None:
    for options in ({"inner_lr": 0.0}, {"inner_lr": 1.0}, {"hidden": 0}):
        with pytest.raises(UserError, match="rate between 0 and 1"):
            MetaLSTM(mlp(2), OBJECTIVES[1], **options)  # type: ignore[arg-type]
