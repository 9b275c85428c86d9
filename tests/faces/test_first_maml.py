"""The textbook example: the usual wrong snippet is caught, and the example on quickstudy runs and learns."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.testing import ContractError, check_learner, check_meta_gradient

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_maml.py"
LR = 0.1


def problem() -> tuple[nn.Module, qs.Task]:
    """A small network and one regression task, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        x = torch.randn(2, 1, 10, 3, dtype=torch.float64)
    y = torch.sin(2 * x.sum(-1, keepdim=True))
    return model, qs.Task(qs.examples(x[0], y[0]), qs.examples(x[1], y[1]))


def wrong_snippet(model: nn.Module, task: qs.Task, steps: int = 1) -> Tensor:
    """The usual snippet, to the letter of it: what not to do."""
    mse = nn.functional.mse_loss
    fast = list(model.parameters())
    for _ in range(steps):
        loss = mse(model(task.support.x), task.support.y)  # always the un-adapted model
        grads = torch.autograd.grad(loss, fast, create_graph=True)
        fast = [w - LR * g for w, g in zip(fast, grads, strict=True)]
    for w, adapted in zip(model.parameters(), fast, strict=True):
        w.data = adapted.data  # overwrites the initialisation, and cuts the graph
    return mse(model(task.query.x), task.query.y)


def right_snippet(model: nn.Module, task: qs.Task, steps: int = 1) -> Tensor:
    """The same in plain torch, done right: adapted weights are values, not contents of the model."""
    mse = nn.functional.mse_loss
    fast = dict(model.named_parameters())
    for _ in range(steps):
        loss = mse(torch.func.functional_call(model, fast, (task.support.x,)), task.support.y)
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        fast = {name: w - LR * g for (name, w), g in zip(fast.items(), grads, strict=True)}
    return mse(torch.func.functional_call(model, fast, (task.query.x,)), task.query.y)


def meta_gradient(snippet: Callable[[nn.Module, qs.Task], Tensor]) -> Tensor:
    model, task = problem()
    snippet(model, task).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_the_wrong_snippet_is_caught() -> None:
    model, task = problem()
    with pytest.raises(
        ContractError, match=r"\d+% off its central difference, and the loss overwrites 0.weight"
    ):
        names = [name for name, _ in model.named_parameters()]
        check_meta_gradient(lambda: wrong_snippet(model, task), model.parameters(), names)


def test_how_wrong_the_wrong_snippet_is() -> None:
    wrong, right = meta_gradient(wrong_snippet), meta_gradient(right_snippet)
    assert (wrong - right).norm() > 0.1 * right.norm()


def test_the_wrong_snippet_overwrites_the_initialisation() -> None:
    model, task = problem()
    before = [p.detach().clone() for p in model.parameters()]
    wrong_snippet(model, task)
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_the_wrong_snippet_raises_at_two_steps() -> None:
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        wrong_snippet(*problem(), steps=2)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_right_snippet_passes(steps: int) -> None:
    model, task = problem()
    check_meta_gradient(lambda: right_snippet(model, task, steps), model.parameters())


@pytest.mark.parametrize("steps", [1, 2])
def test_quickstudy_passes_and_agrees_with_the_right_snippet(steps: int) -> None:
    model, task = problem()
    maml = qs.learners.MAML(qs.nets.RowNet(model, 1), qs.Regression(), inner_steps=steps, inner_lr=LR)
    check_meta_gradient(lambda: maml(task), maml.parameters())
    ours = torch.autograd.grad(maml(task), list(maml.parameters()))
    theirs = torch.autograd.grad(right_snippet(model, task, steps), list(model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_learner_of_the_example_keeps_the_contract() -> None:
    objective = qs.Classification(5)
    check_learner(qs.learners.MAML(qs.nets.MLP((20,), out=5, width=8), objective, inner_steps=3, inner_lr=0.1))


def test_the_example_is_short_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40
    accuracy = runpy.run_path(str(EXAMPLE))["main"](steps=150, tasks=60)
    assert accuracy["maml"] > accuracy["centroid"] > 0.2
    assert "of 50 rows right" in capsys.readouterr().out
