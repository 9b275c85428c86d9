"""Support and query in one pass of the network: the same numbers as two passes, and only where both want them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.core.task import Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.picked import picked
from quickstudy.inner.shared_pass import SharedPass, shared_pass
from quickstudy.learners import LEARNERS
from quickstudy.nets.norm import average, collect

SPEC = qs.Spec("classification", (1, 16, 16), way=2)
NAMES = [name for name in LEARNERS if issubclass(LEARNERS[name], SharedPass)]


def learner(name: str, norm: str = "running") -> SharedPass:
    torch.manual_seed(0)
    made = qs.make(name, SPEC, "conv4", {"norm": norm, "channels": 8})
    assert isinstance(made, SharedPass)
    return made.double().train()


def tasks(count: int = 2) -> Task:
    rng = torch.Generator().manual_seed(1)
    parts = []
    for shot in (2, 3):
        x = torch.rand(count, 2 * shot, 1, 16, 16, generator=rng, dtype=torch.float64)
        parts.append(qs.examples(x, torch.arange(2).repeat_interleave(shot).expand(count, -1)))
    return Task(*parts)



def apart_from_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.inner.apply.from_shared_pass", lambda *_: None)


def measured(made: qs.MetaLearner, given: Task) -> tuple[Tensor, list[Tensor], list[Tensor], list[str]]:
    """The loss, its gradient, what running norms saw, and what was picked."""
    torch.manual_seed(2)  # for those that draw
    with collect() as seen, picked() as told:
        loss = made(given)
    grads = torch.autograd.grad(loss, list(made.parameters()), allow_unused=True)
    return loss, [g for g in grads if g is not None], [values for _, values in average(seen)], told


def test_who_passes_both() -> None:
    assert {"protonet", "anil", "r2d2", "matching"} <= set(NAMES)


@pytest.mark.parametrize("norm", ["batch", "running", "group"])
@pytest.mark.parametrize("name", NAMES)
def test_one_pass_is_two(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(name, norm)
    loss, grads, seen, told = measured(made, tasks())
    apart_from_each_other(monkeypatch)
    expected, expected_grads, expected_seen, expected_told = measured(made, tasks())
    assert any("in one pass" in words for words in told) and told != expected_told
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
    for a, b in zip(grads + seen, expected_grads + expected_seen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["protonet", "anil"])
def test_padding_passes_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = learner(name), tasks()
    given.query.weight[0, -1] = 0.0
    loss, _, _, told = measured(made, given)
    assert not any("in one pass" in words for words in told)
    apart_from_each_other(monkeypatch)
    torch.testing.assert_close(loss, measured(made, given)[0], rtol=0, atol=0)


def test_what_has_no_graph_passes_by_itself() -> None:
    """First-order ANIL takes the support's features as constants: the query's are none."""
    torch.manual_seed(0)
    net = {"norm": "batch", "channels": 8}
    made = qs.make("anil", SPEC, "conv4", net, first_order=True).double().train()
    loss, grads, _, told = measured(made, tasks())
    assert not any("in one pass" in words for words in told)
    assert loss.requires_grad and any(g.abs().sum() > 0 for g in grads)
    with torch.no_grad(), picked() as told:
        learner("protonet")(tasks())
    assert not any("in one pass" in words for words in told)


def test_other_rows_than_those_of_the_task_pass_by_themselves() -> None:
    """The features of the query are handed over once, and to whoever asks for those very rows."""
    made, given = learner("protonet", "batch"), tasks(1)
    assert isinstance(given.query.x, Tensor)
    few_rows = given.query.x[:, :2]
    inside = made.predict(made.adapt(given.support), few_rows)
    with shared_pass(made.net, given):
        state = made.adapt(given.support)
        few = made.predict(state, few_rows)
        first, second = (made.predict(state, given.query.x) for _ in range(2))
    torch.testing.assert_close(few, inside)
    torch.testing.assert_close(first, second)


def test_another_network_is_not_handed_the_features_of_the_first() -> None:
    (one, other), given = (learner("protonet", norm).net for norm in ("batch", "group")), tasks(1)
    with shared_pass(one, given):
        apply_shared(one, given.support.x)
        found = apply_shared(other, given.query.x)
    torch.testing.assert_close(found, other(given.query.x))
