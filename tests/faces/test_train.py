"""The outer loop: it learns, clips, schedules, stops, refuses, and names what is not finite."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy import outer
from quickstudy.record import read_log
from quickstudy.resume import BEST, Saved


def sinusoid_maml(seed: int = 0, **options: Any) -> qs.MetaLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = qs.nets.MLP((1,), out=1, width=16)
        return qs.learners.MAML(net, qs.Regression(), **{"inner_steps": 1, "inner_lr": 0.02} | options)


def train(learner: qs.MetaLearner, source: qs.Source | None = None, **options: Any) -> Any:
    defaults = {"steps": 6, "meta_batch": 4, "valid_every": 0, "progress": False}
    return qs.train(learner, source or qs.tasks.Sinusoid(), **defaults | options)


def blobs(**options: Any) -> qs.Source:
    """24 classes of vectors round centres of their own."""
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(24).repeat_interleave(12)
    x = 2 * torch.randn(24, 6, generator=rng)[label] + torch.randn(288, 6, generator=rng)
    return qs.tasks.Arrays.of(x, label, **{"way": 3, "shot": 2, "query": 4} | options)


class Poisoned(qs.tasks.Sinusoid):
    """Sinusoids; from the third training draw on, task 1 of it is spoilt."""

    value, draws = math.nan, 0

    def sample(self, split: Any, tasks: int, rng: torch.Generator) -> qs.Task:
        found = super().sample(split, tasks, rng)
        self.draws += tasks > 1
        if self.draws >= 3 and tasks > 1:
            found.query.y[1] = self.value
        return found


class Steep(torch.autograd.Function):
    """The identity, whose derivative is infinite where the input is above 1000."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * torch.where(x > 1000, math.inf, 1.0)


class SingularMAML(qs.learners.MAML):
    """Solves a system that has no solution where the loss is above 1000."""

    def meta_loss(self, tasks: qs.Task) -> Tensor:
        loss = super().meta_loss(tasks)
        return loss + 0 * torch.linalg.cholesky(1000 - loss.detach().view(-1, 1, 1)).flatten()


class SteepMAML(qs.learners.MAML):
    def meta_loss(self, tasks: qs.Task) -> Tensor:
        return Steep.apply(super().meta_loss(tasks))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for slot, cls in (("tasks", Poisoned), ("learner", SteepMAML), ("learner", SingularMAML)):
        monkeypatch.setitem(qs.catalogue(slot).classes, cls.__name__.lower(), cls)


def test_the_loss_falls() -> None:
    learner = sinusoid_maml()
    before = qs.evaluate(learner, qs.tasks.Sinusoid(), "test", tasks=100).mean()
    run = train(learner, steps=400, meta_batch=16, lr=5e-3)
    after = qs.evaluate(learner, qs.tasks.Sinusoid(), "test", tasks=100).mean()
    assert after < 0.75 * before
    assert (run.steps, run.stopped, run.best_step, run.best_score) == (400, "finished", 400, None)
    assert not learner.training and all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_parts_add_up_to_the_whole(accumulate: int) -> None:
    whole, parts = sinusoid_maml(), sinusoid_maml()
    train(whole, precision="64-true")
    train(parts, precision="64-true", accumulate=accumulate)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_float64_trains_and_validates() -> None:
    learner = sinusoid_maml()
    run = train(learner, precision="64-true", valid_every=3, valid_tasks=5)
    assert {p.dtype for p in learner.parameters()} == {torch.float64}
    assert run.best_score is not None
    source = qs.tasks.Sinusoid()
    tasks = outer.draw_tasks(learner, source, 2, 1, source.rng(0))
    assert tasks.query.x.dtype == torch.float32  # the source itself is left alone


def test_bfloat16_autocast_trains_and_validates() -> None:
    learner = qs.learners.ProtoNet(qs.nets.MLP((6,)), qs.Classification(3))
    run = train(learner, blobs(), precision="bf16-mixed", valid_every=3, valid_tasks=5)
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    assert run.best_score is not None


def test_an_outer_step_is_adamw_on_the_mean_loss() -> None:
    learner, by_hand, source = sinusoid_maml(), sinusoid_maml(), qs.tasks.Sinusoid()
    train(learner, steps=2, lr=0.01, weight_decay=0.1, schedule="constant")
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.1)
    for step in (1, 2):
        optimizer.zero_grad()
        by_hand(source.sample("train", 4, source.rng(0, "train", step))).backward()
        optimizer.step()
    for a, b in zip(learner.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_clip_bounds_the_gradient_that_the_optimizer_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        grads = [p.grad for g in self.param_groups for p in g["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    free = train(sinusoid_maml(), steps=1)
    assert norms[0] == free.log[0]["gradient_norm"] > 0.5
    clipped = train(sinusoid_maml(), steps=1, clip=0.5)
    assert clipped.log[0]["gradient_norm"] == free.log[0]["gradient_norm"]
    assert norms[1] == pytest.approx(0.5, rel=1e-5)


def test_rates() -> None:
    assert [outer.rate(s, 10, 4, "constant") for s in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = [outer.rate(s, 10, 2, "cosine") for s in range(1, 11)]
    assert cosine[:3] == [0.5, 1, 1]
    assert cosine[6] == pytest.approx(0.5)  # half way from step 3 to where step 11 would be
    assert cosine[9] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)
    assert [outer.rate(s, 3, 3, "cosine") for s in (1, 2, 3)] == [1 / 3, 2 / 3, 1]


def test_the_rate_reaches_the_optimizer_and_the_log() -> None:
    still, moved = sinusoid_maml(), sinusoid_maml()
    run = train(moved, steps=1, lr=0.01, warmup=4)
    assert run.log[0]["lr"] == 0.0025
    pairs = zip(still.state_dict().values(), moved.state_dict().values(), strict=True)
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    assert largest == pytest.approx(0.0025, rel=0.05)  # Adam's first step is the rate times a sign, less decay of 0


def scores(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[dict[str, Tensor]]:
    """Let validations find these mean squared errors; the weights that each of them met."""
    met: list[dict[str, Tensor]] = []

    def evaluate(learner: qs.MetaLearner, *args: Any, **kwargs: Any) -> Any:
        found = qs.evaluate(learner, *args, **kwargs)
        found.measures["mse"][:] = [values[len(met)]] * found.tasks
        met.append({k: v.clone() for k, v in learner.state_dict().items()})
        return found

    monkeypatch.setattr(sys.modules["quickstudy.train"], "evaluate", evaluate)
    return met


def test_the_best_weights_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    met = scores(monkeypatch, [3.0, 1.0, 2.0])
    learner = sinusoid_maml()
    run = train(learner, steps=7, valid_every=3, valid_tasks=2, out=tmp_path)
    assert (run.best_step, run.best_score, run.stopped) == (6, -1.0, "finished")  # lower errors are better
    kept = qs.load(tmp_path / BEST)
    assert kept.card["step"] == 6 and kept.card["scores"]["valid"]["mse"]["mean"] == 1.0
    last = Saved.read(tmp_path).tensors
    for name, tensor in learner.state_dict().items():
        assert torch.equal(tensor, met[1][name]) and torch.equal(tensor, kept.learner.state_dict()[name])
        assert torch.equal(last[f"learner/{name}"], met[2][name])
    assert [r["valid"] for r in run.log if "valid" in r] == [3.0, 1.0, 2.0]


def test_early_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, [3.0, 2.0, 2.0, 2.5, 0.0])
    run = train(sinusoid_maml(), steps=9, valid_every=1, valid_tasks=2, patience=2)
    assert (run.steps, run.stopped, run.best_step) == (4, "early", 2)


def test_a_score_that_is_not_a_number_is_never_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores(monkeypatch, [math.nan, 2.0])
    run = train(sinusoid_maml(), steps=2, valid_every=1, valid_tasks=2, out=tmp_path)
    assert (run.best_step, run.best_score) == (2, -2.0)
    assert [r["valid"] for r in read_log(tmp_path / "log.jsonl") if "valid" in r] == [None, 2.0]


def test_a_loss_that_is_not_finite_is_named_and_the_last_good_weights_are_kept(tmp_path: Path) -> None:
    good = sinusoid_maml()
    train(good, steps=2, schedule="constant")
    learner = sinusoid_maml()
    with pytest.raises(qs.UserError, match=r"stopped at step 3: the loss of task 1 .*weights of step 2 are kept"):
        train(learner, Poisoned(), schedule="constant", out=tmp_path)
    saved = Saved.read(tmp_path)
    assert saved.card["progress"]["step"] == 2
    for name, tensor in good.state_dict().items():
        for kept in (saved.tensors[f"learner/{name}"], learner.state_dict()[name]):
            assert torch.equal(kept, tensor)
        assert torch.equal(qs.load(tmp_path / BEST).learner.state_dict()[name], tensor)


def test_running_statistics_of_a_bad_step_are_not_kept(tmp_path: Path) -> None:
    class Images(qs.tasks.Arrays):
        draws = 0

        def sample(self, split: Any, tasks: int, rng: torch.Generator) -> qs.Task:
            found = super().sample(split, tasks, rng)
            self.draws += tasks > 1
            if self.draws == 2 and tasks > 1:
                found.query.x[1] = math.inf  # type: ignore[index]
            return found

    rng = torch.Generator().manual_seed(0)
    source = Images.of(torch.rand(40, 1, 16, 16, generator=rng), torch.arange(40) // 4, way=2, shot=1, query=2)
    learner = qs.learners.ProtoNet(qs.nets.Conv4((1, 16, 16), channels=8, norm="running"), qs.Classification(2))
    with pytest.raises(qs.UserError, match="step 2: the loss of task 1 "):
        train(learner, source, meta_batch=2)
    means = [v for k, v in learner.state_dict().items() if k.endswith(".mean")]
    assert len(means) == 4
    assert all(bool(m.isfinite().all()) and m.abs().sum() > 0 for m in means)


def test_a_gradient_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Poisoned, "value", 1e3)
    learner = SteepMAML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    with pytest.raises(qs.UserError, match=r"stopped at step 3: the gradient of task 1 "):
        train(learner, Poisoned(), out=tmp_path)
    assert Saved.read(tmp_path).card["progress"]["step"] == 2
    assert all(bool(p.isfinite().all()) for p in learner.parameters())


def test_a_system_without_a_solution_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Poisoned, "value", 1e3)
    learner = SingularMAML(qs.nets.MLP((1,), out=1), qs.Regression(), inner_steps=1, inner_lr=0.01)
    with pytest.raises(qs.UserError, match=r"stopped at step 3: the loss of task 1 "):
        train(learner, Poisoned())


def test_pooled_rows_are_no_task() -> None:
    learner = qs.learners.Pooled(qs.nets.MLP((1,), out=1), qs.Regression())
    with torch.no_grad():
        next(learner.parameters())[0] = math.inf
    with pytest.raises(qs.UserError, match=r"stopped at step 1: the loss of the pooled rows is not finite"):
        train(learner)


@pytest.mark.parametrize("fails", [False, True])
def test_global_randomness_is_left_alone(fails: bool) -> None:
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    torch.manual_seed(7)
    before = state()
    if fails:
        with pytest.raises(qs.UserError, match="step 3"):
            train(sinusoid_maml(), Poisoned())
    else:
        train(sinusoid_maml(), valid_every=3, valid_tasks=2)
    assert state() == before
