"""Ctrl-C ends a run in order: saved, whole, and with something to evaluate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.outer import Outer
from quickstudy.record import read_log
from quickstudy.resume import BEST, LAST, Saved


def maml() -> qs.MetaLearner:
    return qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=1)


def train(learner: qs.MetaLearner, source: qs.Source, out: Path | None, **options: Any) -> Any:
    defaults: dict[str, Any] = {"steps": 12, "meta_batch": 2, "lr": 0.01, "warmup": 2}
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


def test_an_interrupted_run_leaves_something_to_evaluate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    learner = maml()
    run = interrupt(learner, qs.tasks.Sinusoid(), tmp_path, 2)
    assert (run.best_step, run.best_score) == (2, None)
    assert f"stopped at step 2 of 12: saved in {tmp_path}; go on with resume" in capfd.readouterr().err
    kept = qs.load(tmp_path / BEST).learner
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), learner.parameters(), strict=True))
    interrupt(maml(), qs.tasks.Sinusoid(), None, 2)
    assert "stopped at step 2 of 12: not saved" in capfd.readouterr().err


def test_after_an_interruption_the_learner_holds_the_best_weights(tmp_path: Path) -> None:
    learner = maml()
    run = interrupt(learner, qs.tasks.Sinusoid(), tmp_path, 6)
    assert run.best_step == 4
    tensors = Saved.read(tmp_path).tensors
    for name, tensor in learner.state_dict().items():
        assert torch.equal(tensor, tensors[f"best/{name}"])
        assert not torch.equal(tensor, tensors[f"learner/{name}"])


def test_a_second_ctrl_c_leaves_the_last_save_whole(tmp_path: Path) -> None:
    interrupt(maml(), qs.tasks.Sinusoid(), tmp_path, 3)
    before = (tmp_path / LAST).read_bytes()
    handler, seed = signal.getsignal(signal.SIGINT), Outer.seed

    def press(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:

        def pressing(self: Outer, number: int) -> None:
            if step_of(number) == 5:
                press()
                patch.setattr(os, "fsync", press)  # the moment before a new file takes its place
            seed(self, number)

        patch.setattr(Outer, "seed", pressing)
        with pytest.raises(KeyboardInterrupt):
            train(maml(), qs.tasks.Sinusoid(), tmp_path, resume=True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert Saved.read(tmp_path).card["progress"]["step"] == 3
    assert (tmp_path / LAST).read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {LAST, BEST, "log.jsonl"}


SCRIPT = """
import sys
import quickstudy as qs
source = qs.tasks.Sinusoid()
run = qs.train(qs.make("maml", source.spec), source, steps=10**6, valid_every=0, out=sys.argv[1])
print("stopped:", run.stopped, run.steps)
"""


def test_a_real_ctrl_c(tmp_path: Path) -> None:
    log = tmp_path / "run" / "log.jsonl"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and read_log(log)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, complaint
    step = Saved.read(tmp_path / "run").card["progress"]["step"]
    assert said == f"stopped: interrupted {step}\n" and step > 0
    assert f"stopped at step {step} of 1000000: saved in {tmp_path / 'run'}; go on with resume" in complaint
    assert "Traceback" not in complaint
    assert qs.load(tmp_path / "run" / BEST).card["step"] == step
