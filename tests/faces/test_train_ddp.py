"""Two processes on the CPU do what one process does, and stop together."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = '''
"""What each process runs: train some learners, and leave weights and sentences in a folder."""

import json, math, os, signal, sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import quickstudy as qs
from quickstudy.outer import Outer

RANK = int(os.environ.get("LOCAL_RANK", "0"))


def images(way):
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(16).repeat_interleave(6)
    x = 2 * torch.randn(16, 1, 16, 16, generator=rng)[label] + torch.randn(96, 1, 16, 16, generator=rng)
    return qs.tasks.Arrays.of(x, label, way=way, shot=1, query=2)


class Poisoned(qs.tasks.Sinusoid):
    """Task 1 of step 3, which is the first task of the second process, is not a number."""

    def rng(self, *words):
        self.step = words[-1]
        return super().rng(*words)

    def sample(self, split, tasks, rng):
        found = super().sample(split, tasks, rng)
        if self.step == 3:
            found.query.y[1] = math.nan
        return found


class Pressing(qs.tasks.Sinusoid):
    """The second process alone gets a Ctrl-C in step 3."""

    armed, pressed = False, False

    def rng(self, *words):
        Pressing.armed = True
        return super().rng(*words)


seed = Outer.seed


def pressing(self, number):
    step = number // 997 % 1_000_003
    if step == 3 and RANK == 1 and Pressing.armed and not Pressing.pressed:
        Pressing.pressed = True
        os.kill(os.getpid(), signal.SIGINT)
    seed(self, number)


Outer.seed = pressing

qs.catalogue("tasks").add("pressing", Pressing)
qs.catalogue("tasks").add("poisoned", Poisoned)


def maml():
    return qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=2, inner_lr=0.02)


def protonet():
    return qs.learners.ProtoNet(qs.nets.Conv4((1, 16, 16), channels=8, norm="running"), qs.Classification(3))


def r2d2():
    return qs.learners.R2D2(qs.nets.MLP((1, 16, 16), width=8), qs.Classification(3))


def pooled():
    return qs.learners.LinearProbe(qs.nets.MLP((1, 16, 16), width=8), qs.Classification(3), classes=10)


def train(name, devices, folder, make, source, **options):
    torch.manual_seed(RANK)  # the first process decides the first weights
    learner = make()
    said = {}
    # Adam blows the rounding of a gradient that is truly 0 up to (rate / 1e-8) of it: hence the small rate
    options = dict(steps=6, meta_batch=4, lr=1e-4, valid_every=3, valid_tasks=4, clip=1.0) | options
    try:
        run = qs.train(learner, source, devices=devices, precision="64-true", progress=False, **options)
        said = dict(stopped=run.stopped, steps=run.steps, best_step=run.best_step, best_score=run.best_score)
        said["loss"] = [r["loss"] for r in run.log if "loss" in r]
    except qs.UserError as error:
        said["error"] = str(error)
    save_file(dict(learner.state_dict()), folder / f"{name}.{RANK}.safetensors")
    (folder / f"{name}.{RANK}.json").write_text(json.dumps(said))


def main(devices, folder):
    train("maml", devices, folder, maml, qs.tasks.Sinusoid(), meta_batch=6, accumulate=3)
    train("protonet", devices, folder, protonet, images(3), out=folder / "protonet")
    train("r2d2", devices, folder, r2d2, images(3))
    train("pooled", devices, folder, pooled, images(3), pooled_rows=16)
    train("poisoned", devices, folder, maml, Poisoned(), out=folder / "poisoned", valid_every=0)
    train("pressing", devices, folder, maml, Pressing(), out=folder / "pressing")
    train("resumed", devices, folder, maml, Pressing(), out=folder / "pressing", resume=True)


if __name__ == "__main__":
    main(2, Path(sys.argv[1]))
'''


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where one process and two processes left their weights and sentences."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    script = two / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, str(script), str(two)], env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with torch.random.fork_rng(devices=[]):
        single = runpy.run_path(str(script))
        for name, make, source, options in (
            ("maml", "maml", single["qs"].tasks.Sinusoid(), {"meta_batch": 6}),
            ("protonet", "protonet", single["images"](3), {}),
            ("r2d2", "r2d2", single["images"](3), {}),
            ("pooled", "pooled", single["images"](3), {"pooled_rows": 16}),
            ("resumed", "maml", single["Pressing"](), {}),
        ):
            single["train"](name, 1, one, single[make], source, **options)
    return {1: one, 2: two}


def weights(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.{rank}.safetensors")


def said(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{name}.{rank}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["maml", "protonet", "r2d2", "pooled"])
def test_two_processes_do_what_one_does(name: str, folders: dict[int, Path]) -> None:
    alone, shared = weights(folders[1], name), weights(folders[2], name)
    assert alone.keys() == shared.keys() == weights(folders[2], name, 1).keys()
    assert (name == "protonet") == any(k.endswith(".variance") for k in alone)
    for key, tensor in alone.items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(shared[key], tensor, rtol=0, atol=1e-12)
        assert torch.equal(weights(folders[2], name, 1)[key], shared[key])
    expected = said(folders[1], name)
    for rank in (0, 1):
        found = said(folders[2], name, rank)
        assert (found["steps"], found["best_step"]) == (6, expected["best_step"])
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)
        assert found["best_score"] == pytest.approx(expected["best_score"], rel=1e-9)


def test_a_bad_task_of_another_process_is_named_by_all(folders: dict[int, Path]) -> None:
    sentence = said(folders[2], "poisoned")["error"]
    assert "stopped at step 3: the loss of task 1 (counted from 0) is not finite" in sentence
    assert said(folders[2], "poisoned", 1)["error"] == sentence
    assert all(bool(t.isfinite().all()) for t in weights(folders[2], "poisoned", 1).values())


def test_a_ctrl_c_at_one_process_stops_all_at_the_same_step(folders: dict[int, Path]) -> None:
    for rank in (0, 1):
        found = said(folders[2], "pressing", rank)
        assert (found["stopped"], found["steps"]) == ("interrupted", 3)


def test_two_processes_go_on_where_they_stopped(folders: dict[int, Path]) -> None:
    assert said(folders[2], "resumed")["stopped"] == "finished"
    for rank in (0, 1):
        for key, tensor in weights(folders[1], "resumed").items():
            torch.testing.assert_close(weights(folders[2], "resumed", rank)[key], tensor, rtol=0, atol=1e-12)
