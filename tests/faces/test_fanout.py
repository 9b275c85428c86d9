"""An evaluation in several processes: the same scores, the same sentences, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy.cli import main
from quickstudy.fanout import Crew
from quickstudy.scores import Evaluation

MODULE = '''
"""Learners that go wrong, each in its own way."""

import os

import torch

import quickstudy as qs


class Odd(qs.MetaLearner):
    """Answers with noise; what it does in the third block of tasks is told by `how`."""

    def __init__(self, how=""):
        super().__init__()
        self.objective, self.how, self.parent = qs.Regression(), how, os.getpid()

    def adapt(self, support, prior=None):
        print("a word on standard output")
        if self.how and len(support.x) == 5:
            if self.how == "end" and os.getpid() != self.parent:
                os._exit(7)
            raise {"refuse": qs.UserError("the third block is refused: leave it out."), "fail": KeyError("third"),
                   "memory": MemoryError("third")}[self.how]
        return {"noise": torch.randn(len(support.x), 1, 1)}

    def predict(self, state, x, weight=None):
        return state["noise"].expand_as(x)
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "oddities.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield __import__("oddities").Odd
    del sys.modules["oddities"]


@pytest.fixture(scope="module")
def crew(odd: type) -> Iterator[Crew]:
    """Started after `odd` can be imported: processes see the path of the time when they were started."""
    with Crew(2) as crew:
        yield crew


def maml() -> tuple[qs.MetaLearner, qs.Source]:
    torch.manual_seed(0)
    return qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=2), qs.tasks.Sinusoid()


def protonet(folder: Path | None = None) -> tuple[qs.MetaLearner, qs.Source]:
    """Images in memory, or on the disk where a folder is given."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), dtype=np.uint8)
    y, options = np.arange(120) // 8, {"way": "2-3", "shot": 2, "query": 4}
    source = qs.tasks.Arrays.of(x, y, **options)
    if folder:
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        source = qs.tasks.Arrays(str(folder), **options)
    return qs.learners.ProtoNet(qs.nets.Conv4((3, 16, 16), channels=4), qs.Classification(3)), source


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(a: Evaluation, b: Evaluation) -> bool:
    """Equal to the last bit, but for the time that it took."""
    return replace(a, adapt_seconds=0.0) == replace(b, adapt_seconds=0.0)


@pytest.mark.parametrize("what", ["maml", "protonet", "mapped", "random"])
def test_several_processes_score_what_one_does(what: str, crew: Crew, odd: type, tmp_path: Path, one_thread) -> None:
    learner, source = {
        "maml": maml,
        "protonet": protonet,
        "mapped": lambda: protonet(tmp_path),
        "random": lambda: (odd(), qs.tasks.Sinusoid()),
    }[what]()
    before = torch.get_rng_state()
    done: list[int] = []
    alone = qs.evaluate(learner, source, tasks=45, seed=3)
    shared = qs.evaluate(learner, source, tasks=45, seed=3, processes=crew, watch=done.append)
    assert same(alone, shared) and len(set(alone.values())) > 3
    assert done == [20, 40, 45]
    assert torch.equal(torch.get_rng_state(), before) and learner.training
    if what == "protonet":
        small = qs.evaluate(learner, source, tasks=45, seed=3, batch=7, processes=crew)
        assert small.values() == pytest.approx(alone.values()) and small.fingerprint == alone.fingerprint


def test_a_crew_stays_and_an_evaluation_of_its_own_leaves_nobody(crew: Crew) -> None:
    learner, source = maml()
    qs.evaluate(learner, source, tasks=25, processes=crew)
    staying = [worker.process.pid for worker in crew.workers]
    qs.evaluate(learner, source, tasks=65, processes=crew)
    assert [worker.process.pid for worker in crew.workers] == staying and len(staying) == 2
    with Crew(2) as own:
        list(own.each(abs, 2))
        processes = [worker.process for worker in own.workers]
    assert len(processes) == 2 and all(process.poll() is not None for process in processes)


def test_what_goes_wrong_in_a_process(crew: Crew, odd: type) -> None:
    source = qs.tasks.Sinusoid()
    for how, kind, said in (
        ("refuse", qs.UserError, "^the third block is refused: leave it out.$"),
        ("fail", RuntimeError, "KeyError: 'third'"),
        ("memory", MemoryError, "third"),
        ("end", qs.UserError, "ended with exit code 7 before its work was done"),
    ):
        with pytest.raises(kind, match=said):
            qs.evaluate(odd(how), source, tasks=45, processes=crew)
        assert not crew.workers  # and the next one starts anew


def test_what_cannot_be_handed_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, source = maml()
    learner.hook = lambda: None
    with pytest.raises(qs.UserError, match=r"cannot be handed to other processes .*: define"):
        qs.evaluate(learner, source, tasks=45, processes=2)
    del learner.hook
    monkeypatch.setattr(sys.modules["__main__"], "Sinusoid", qs.tasks.Sinusoid, raising=False)
    monkeypatch.setattr(qs.tasks.Sinusoid, "__module__", "__main__")
    with pytest.raises(qs.UserError, match="defined in the script itself"):
        qs.evaluate(learner, source, tasks=45, processes=2)
    with pytest.raises(qs.UserError, match="processes is 0"):
        qs.evaluate(learner, source, tasks=45, processes=0)
    assert qs.evaluate(learner, source, tasks=20, processes=2).tasks == 20  # one block: nothing is handed over


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import quickstudy as qs
from quickstudy.fanout import Crew
source = qs.tasks.Sinusoid()
crew = Crew(2)
tell = lambda done: print(*(w.process.pid for w in crew.workers), flush=True) if done == 40 else None
qs.evaluate(qs.make("maml", source.spec), source, tasks=10**6, processes=crew, watch=tell)
"""


def ended(pid: int, seconds: float) -> bool:
    """Whether a process is gone within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("press", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_nobody_goes_on_after_ctrl_c_or_without_the_first_process(press: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        workers = [int(word) for word in process.stdout.readline().split()]  # type: ignore[union-attr]
        process.send_signal(press)
        complaint = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert len(workers) == 2 and all(ended(pid, 10) for pid in workers), complaint
    assert press == signal.SIGKILL or complaint.rstrip().endswith("KeyboardInterrupt")


def test_on_the_command_line(tmp_path: Path, refused, capsys: pytest.CaptureFixture[str], one_thread) -> None:
    learner, source = maml()
    qs.save(learner, tmp_path / "maml.safetensors", source)
    few = ["--test_tasks=45", "--curve_tasks=25", "--shots=2,3", "--baselines=chance"]
    numbers = []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.json"
        words = ["evaluate", str(tmp_path / "maml.safetensors"), *few, f"--processes={processes}", f"--json={out}"]
        assert main(words) == 0
        found = json.loads(out.read_text())
        for one in found["evaluations"]:
            del one["adapt_seconds"]
        numbers.append(found)
    assert numbers[0] == numbers[1]
    assert "--processes is 0" in refused("evaluate", tmp_path / "maml.safetensors", "--processes=0")
