"""Rates by name, rates by step and other rules than w - lr g: plain loops, and the same under every memory plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quickstudy.core.task import Examples, State, examples
from quickstudy.inner.descent import Rule, descend, descent_path, downhill

TASKS, ROWS, SIZE, STEPS = 2, 6, 3, 3
PLANS = ["store", "checkpoint", "sweep"]


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem() -> tuple[State, Examples, Examples]:
    """Three sets of weights for each task, leaves, with rows to descend on and rows to be judged on."""
    shapes = {"first": (SIZE, 4), "second": (4, 1), "shift": (1, 1)}
    weights = {n: noise(TASKS, *s, seed=i).requires_grad_() for i, (n, s) in enumerate(shapes.items())}
    support, query = (examples(noise(TASKS, ROWS, SIZE, seed=i), noise(TASKS, ROWS, 1, seed=i + 1)) for i in (5, 7))
    return weights, support, query


def loss(weights: State, rows: Examples) -> Tensor:
    assert isinstance(rows.x, Tensor)
    out = torch.tanh(rows.x @ weights["first"]) @ weights["second"] + weights["shift"]
    return ((out - rows.y).square().squeeze(-1) * rows.weight).mean(1)


def leaf(*shape: int, seed: int) -> Tensor:
    return (0.1 + 0.05 * noise(*shape, seed=seed)).requires_grad_()


def turned(weights: State, slopes: State, losses: Tensor, rate: Any) -> State:
    """A rule of another kind: w - |loss| * rate * M g, with what it counts in `shift`."""
    moved = {n: weights[n] - losses.view(-1, 1, 1) * rate[n][0] * (rate[n][1] @ g) for n, g in slopes.items()}
    return {**moved, "shift": weights["shift"] + 0.1}


RATES: dict[str, tuple[Any, Rule]] = {
    "one": (leaf(seed=20), downhill),
    "names": ({"first": leaf(SIZE, 4, seed=21), "second": leaf(seed=22), "shift": 0.2}, downhill),
    "some": ({"second": leaf(4, 1, seed=23)}, downhill),
    "steps": ([leaf(seed=24), {"first": leaf(seed=25)}, {"second": leaf(seed=26), "shift": 0.3}], downhill),
    "rule": ({"first": (leaf(seed=27), leaf(SIZE, SIZE, seed=28)), "second": (0.1, leaf(4, 4, seed=29))}, turned),
}


def leaves(lr: Any) -> list[Tensor]:
    if isinstance(lr, Tensor):
        return [lr]
    parts = lr.values() if isinstance(lr, dict) else lr if isinstance(lr, list | tuple) else ()
    return [leaf for part in parts for leaf in leaves(part)]


def plain_loop(weights: State, support: Examples, lr: Any, rule: Rule) -> State:
    for number in range(STEPS):
        rate = lr[number] if isinstance(lr, list) else lr
        names = list(rate) if isinstance(rate, dict) else list(weights)
        # slopes are partial: not also through what another weight has become since
        weights = {n: w * 1.0 for n, w in weights.items()}
        grads = torch.autograd.grad(loss(weights, support).sum(), [weights[n] for n in names], create_graph=True)
        if rule is downhill:
            rates = rate if isinstance(rate, dict) else dict.fromkeys(names, rate)
            moved = {n: weights[n] - rates[n] * g for n, g in zip(names, grads, strict=True)}
        else:
            moved = rule(weights, dict(zip(names, grads, strict=True)), loss(weights, support), rate)
        weights = {**weights, **moved}
    return weights


@pytest.mark.parametrize("memory", [*PLANS, f"truncated:{STEPS}"])
@pytest.mark.parametrize("case", RATES)
def test_every_exact_plan_is_the_plain_loop(case: str, memory: str) -> None:
    lr, rule = RATES[case]
    found, wanted = [], []
    for into in (found, wanted):
        weights, support, query = problem()
        if into is found:
            ends = descend(loss, weights, support, STEPS, lr, memory=memory, rule=rule)
        else:
            ends = plain_loop(weights, support, lr, rule)
        into.extend([*ends.values()])
        into.extend(torch.autograd.grad(loss(ends, query).sum(), [*weights.values(), *leaves(lr)]))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("case", RATES)
def test_without_a_graph_the_states_are_the_same(case: str) -> None:
    lr, rule = RATES[case]
    weights, support, _ = problem()
    recorded = descend(loss, weights, support, STEPS, lr, rule=rule)
    with torch.no_grad():
        plain = list(descent_path(loss, weights, support, STEPS, lr, rule=rule))[-1]
    for name, w in plain.items():
        assert not w.requires_grad
        torch.testing.assert_close(w, recorded[name].detach(), rtol=1e-13, atol=1e-14)


def test_the_last_rate_of_a_list_goes_on() -> None:
    weights, support, _ = problem()
    short, full = (descend(loss, weights, support, 4, lr) for lr in ([0.1, 0.3], [0.1, 0.3, 0.3, 0.3]))
    assert all(torch.equal(short[n], full[n]) for n in weights)
    other = descend(loss, weights, support, 4, [0.1, 0.3, 0.3, 0.2])
    assert not torch.equal(short["first"], other["first"])


def test_the_implicit_plan_takes_equal_rates_for_one() -> None:
    found = []
    for lr in (0.1, dict.fromkeys(problem()[0], 0.1), [0.1] * 3, [dict.fromkeys(problem()[0], 0.1), 0.1]):
        weights, support, query = problem()
        ends = descend(loss, weights, support, STEPS, lr, memory="implicit")
        found.append(torch.autograd.grad(loss(ends, query).sum(), list(weights.values())))
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_implicit_plan_passes_on_what_stays() -> None:
    # a weight that does not move is part of the problem: its gradient goes through the solution as well
    weights, support, query = problem()
    rate = {"second": 0.2, "shift": 0.2}
    found = []
    for memory in ("store", "implicit"):
        ends = descend(loss, weights, support, STEPS, rate, memory=memory)
        found.append(torch.autograd.grad(loss(ends, query).sum(), weights["first"])[0].flatten())
    assert 0.5 < float(torch.cosine_similarity(found[0], found[1], 0)) < 1 - 1e-9
    constant = {n: w if n == "first" else w.detach() for n, w in ends.items()}
    blind = torch.autograd.grad(loss(constant, query).sum(), weights["first"])[0]
    assert (blind.flatten() - found[1]).norm() > 0.01 * found[1].norm()


def test_a_start_without_a_graph_has_a_slope() -> None:
    weights, support, _ = problem()
    wanted = descend(loss, weights, support, 2, 0.1)
    loaded = {n: w.detach() for n, w in weights.items()}
    for memory in PLANS:
        found = descend(loss, loaded, support, 2, 0.1, memory=memory)
        assert all(torch.equal(found[n], wanted[n]) for n in weights)
    assert not any(w.requires_grad for w in loaded.values())
