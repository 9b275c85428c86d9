"""A run that was broken off goes on to the very same weights, or says why it cannot."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.outer import Outer
from quickstudy.record import read_log
from quickstudy.resume import LAST, Saved


def blobs(shape: tuple[int, ...] = (6,)) -> qs.Source:
    """16 classes of rows round centres of their own."""
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(16).repeat_interleave(8)
    x = 2 * torch.randn(16, *shape, generator=rng)[label] + torch.randn(128, *shape, generator=rng)
    return qs.tasks.Arrays.of(x, label, way=3, shot=1, query=2)


class Dropout(qs.nets.MLP):
    """An MLP that draws for itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().forward(x), 0.3, self.training)


def maml(**options: Any) -> qs.MetaLearner:
    return qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), **{"inner_steps": 1} | options)


def protonet() -> qs.MetaLearner:
    return qs.learners.ProtoNet(qs.nets.Conv4((1, 16, 16), channels=8, norm="running"), qs.Classification(3))


def linear_probe() -> qs.MetaLearner:
    source = blobs()
    return qs.make("linear_probe", source.spec)


def reptile() -> qs.MetaLearner:
    return qs.learners.Reptile(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=2, inner_lr=0.01)


def dropout() -> qs.MetaLearner:
    return qs.learners.ProtoNet(Dropout((6,), width=8), qs.Classification(3))


CASES: dict[str, tuple[Callable[[], qs.MetaLearner], Callable[[], qs.Source]]] = {
    "maml": (maml, qs.tasks.Sinusoid),
    "protonet": (protonet, lambda: blobs((1, 16, 16))),
    "pooled": (linear_probe, blobs),
    "reptile": (reptile, qs.tasks.Sinusoid),
    "dropout": (dropout, blobs),
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(qs.catalogue("net").classes, "dropout", Dropout)


def make(build: Callable[[], qs.MetaLearner], seed: int = 0) -> qs.MetaLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def train(learner: qs.MetaLearner, source: qs.Source, out: Path | None, **options: Any) -> Any:
    defaults: dict[str, Any] = {"steps": 12, "meta_batch": 2, "lr": 0.01, "pooled_rows": 16, "warmup": 2}
    defaults |= {"valid_every": 4, "valid_tasks": 3, "weight_decay": 0.01, "progress": False}
    return qs.train(learner, source, out=out, **defaults | options)


def step_of(number: int) -> int:
    """The step that `Outer.seed` is given a number for."""
    return number // 997 % 1_000_003


def interrupt(learner: qs.MetaLearner, source: qs.Source, out: Path | None, step: int, **options: Any) -> Any:
    """Train, and press Ctrl-C when a step begins."""
    seed = Outer.seed

    def pressing(self: Outer, number: int) -> None:
        if step_of(number) == step:
            os.kill(os.getpid(), signal.SIGINT)
        seed(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outer, "seed", pressing)
        run = train(learner, source, out, **options)
    assert (run.stopped, run.steps) == ("interrupted", step)
    return run


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("validated", [True, False])
def test_resuming_goes_on_bit_for_bit(name: str, validated: bool, tmp_path: Path) -> None:
    build, source = CASES[name]
    options = {"valid_every": 4 if validated else 0}
    unbroken, first, second = make(build), make(build), make(build, seed=1)
    whole = train(unbroken, source(), tmp_path / "whole", **options)
    start = {k: v.clone() for k, v in unbroken.state_dict().items()}
    interrupt(first, source(), tmp_path / "broken", 5, **options)
    run = train(second, source(), tmp_path / "broken", resume=True, **options)
    assert (run.steps, run.stopped) == (12, "finished") == (whole.steps, whole.stopped)
    assert (run.best_step, run.best_score) == (whole.best_step, whole.best_score)
    for key, tensor in start.items():
        assert torch.equal(second.state_dict()[key], tensor), key
    broken, expected = (Saved.read(tmp_path / folder).tensors for folder in ("broken", "whole"))
    assert broken.keys() == expected.keys() and any(k.startswith("optimizer/") for k in broken)
    assert all(torch.equal(broken[k], expected[k]) for k in broken)
    rows = [without_seconds(read_log(tmp_path / folder / "log.jsonl")) for folder in ("broken", "whole")]
    assert rows[0] == rows[1] == without_seconds(run.log)
    assert not all(torch.equal(v, make(build).state_dict()[k]) for k, v in start.items())


def test_a_killed_run_goes_on_from_the_last_save(tmp_path: Path) -> None:
    whole = make(maml)
    train(whole, qs.tasks.Sinusoid(), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(sys.modules["quickstudy.train"], "rate", lambda step, *_: 1 / (step != 9) * min(1, step / 2))
        train(make(maml), qs.tasks.Sinusoid(), tmp_path / "run", schedule="constant", save_every=5)
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 7, "lo')
    resumed = make(maml)
    run = train(resumed, qs.tasks.Sinusoid(), tmp_path / "run", schedule="constant", save_every=5, resume=True)
    unbroken = make(maml)
    expected = train(unbroken, qs.tasks.Sinusoid(), None, schedule="constant")
    assert without_seconds(read_log(log)) == without_seconds(run.log) == without_seconds(expected.log)
    for a, b in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(a, b)


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "seed 0 and is now given 1"),
    ({"meta_batch": 4}, "meta_batch 2 and is now given 4"),
    ({"lr": 0.02}, "lr 0.01 and is now given 0.02"),
    ({"weight_decay": 0.0}, "weight_decay 0.01 and is now given 0.0"),
    ({"warmup": 0}, "warmup 2 and is now given 0"),
    ({"schedule": "constant"}, "schedule cosine and is now given constant"),
    ({"clip": 1.0}, "clip None and is now given 1.0"),
    ({"accumulate": 2}, "accumulate 1 and is now given 2"),
    ({"valid_every": 3}, "valid_every 4 and is now given 3"),
    ({"valid_tasks": 4}, "valid_tasks 3 and is now given 4"),
    ({"patience": 9}, "patience None and is now given 9"),
    ({"precision": "64-true"}, "precision 32-true and is now given 64-true"),
    ({"steps": 20}, "steps 12 and is now given 20"),
    ({"valid_source": qs.tasks.Sinusoid(shot=5)}, "valid_source.shot 10 and is now given 5"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    interrupt(make(maml), qs.tasks.Sinusoid(), folder, 5)
    return folder


@pytest.mark.parametrize(("options", "sentence"), CHANGED, ids=[next(iter(o)) for o, _ in CHANGED])
def test_another_option_is_refused(options: dict[str, Any], sentence: str, broken: Path) -> None:
    before = {p.name: p.read_bytes() for p in broken.iterdir()}
    with pytest.raises(qs.UserError, match=f"had {sentence}: resume with what it had, or add overwrite"):
        train(make(maml), qs.tasks.Sinusoid(), broken, resume=True, **options)
    assert {p.name: p.read_bytes() for p in broken.iterdir()} == before


def test_another_learner_or_source_is_refused(broken: Path) -> None:
    with pytest.raises(qs.UserError, match=r"had learner.inner_lr 0.1 and is now given 0.2"):
        train(make(lambda: maml(inner_lr=0.2)), qs.tasks.Sinusoid(), broken, resume=True)
    with pytest.raises(qs.UserError, match=r"had learner.name maml and is now given reptile"):
        train(make(reptile), qs.tasks.Sinusoid(), broken, resume=True)
    with pytest.raises(qs.UserError, match=r"had (tasks|valid_source).shot 10 and is now given 4"):
        train(make(maml), qs.tasks.Sinusoid(shot=4), broken, resume=True)


def test_data_that_moved_is_found_again(tmp_path: Path) -> None:
    source = blobs()
    interrupt(make(dropout), source, tmp_path / "run", 2)
    saved = Saved.read(tmp_path / "run")
    (tmp_path / "data.npz").touch()
    facts = {k: saved.card[k] for k in ("options", "tasks")}
    saved.check({**facts, "tasks": {**facts["tasks"], "path": str(tmp_path / "data.npz")}})
    with pytest.raises(qs.UserError, match=r"had tasks.path memory:.* and is now given nowhere.npz"):
        saved.check({**facts, "tasks": {**facts["tasks"], "path": "nowhere.npz"}})


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(qs.UserError, match=f"nothing to resume in {tmp_path}: there is no last.safetensors"):
        train(make(maml), qs.tasks.Sinusoid(), tmp_path, resume=True)
    with pytest.raises(qs.UserError, match="nothing to resume in None"):
        train(make(maml), qs.tasks.Sinusoid(), None, resume=True)


def test_a_finished_run_is_given_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    learner, again = make(maml), make(maml, seed=1)
    first = train(learner, qs.tasks.Sinusoid(), tmp_path)
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    run = train(again, qs.tasks.Sinusoid(), tmp_path, resume=True)
    assert f"the run in {tmp_path} is finished (12 steps)" in capfd.readouterr().err
    assert (run.stopped, run.steps, run.best_step, run.log) == ("finished", 12, first.best_step, first.log)
    assert run.best_score == first.best_score
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), learner.parameters(), strict=True))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_a_run_that_stopped_early_stays_so(tmp_path: Path) -> None:
    options = {"lr": 1e-9, "valid_every": 1, "patience": 1, "weight_decay": 0.0}
    first = train(make(maml), qs.tasks.Sinusoid(), tmp_path, **options)
    assert first.stopped == "early" and first.steps < 12
    run = train(make(maml), qs.tasks.Sinusoid(), tmp_path, resume=True, **options)
    assert (run.stopped, run.steps) == ("early", first.steps)


def test_a_constant_rate_may_be_given_more_steps(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": "constant", "valid_every": 0}
    whole, parts = make(maml), make(maml)
    train(whole, qs.tasks.Sinusoid(), None, steps=20, **options)
    train(parts, qs.tasks.Sinusoid(), tmp_path, steps=12, **options)
    run = train(parts, qs.tasks.Sinusoid(), tmp_path, steps=20, resume=True, **options)
    assert run.steps == 20 and [r["step"] for r in run.log] == [1, 10, 20]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_a_damaged_save_is_refused(tmp_path: Path) -> None:
    interrupt(make(maml), qs.tasks.Sinusoid(), tmp_path, 2)
    content = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(content[:-7])
    with pytest.raises(qs.UserError, match="no readable checkpoint"):
        train(make(maml), qs.tasks.Sinusoid(), tmp_path, resume=True)
