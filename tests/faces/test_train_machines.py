"""The commands of docs/training.md for two machines, on this one: the weights are those of one process."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quickstudy import checkpoint
from quickstudy.cli import main

TRAINING = Path(__file__).parents[2] / "docs" / "training.md"
RUN = """
learner: {name: maml, inner_steps: 2}
tasks: sinusoid
net: {width: 8}
train: {steps: 6, meta_batch: 4, lr: 0.0001, valid_every: 3, valid_tasks: 4, clip: 1.0, precision: 64-true}
"""
"""Adam blows the rounding of a gradient that is truly 0 up to (rate / 1e-8) of it: hence the small rate."""


def commands(port: int, out: Path) -> list[tuple[dict[str, str], list[str]]]:
    """The variables and the words of every command for several machines, their names made those of this one."""
    text = TRAINING.read_text().replace("\\\n", " ")
    found = []
    for line in re.findall(r"^MASTER_ADDR=.*$", text, re.MULTILINE):
        for theirs, ours in (("first", "127.0.0.2"), ("29500", str(port)), ("/shared/run", str(out))):
            assert theirs in line
            line = line.replace(theirs, ours)
        words = shlex.split(line, comments=True)
        named = [word for word in words if re.match(r"[A-Z_]+=", word)]
        assert words[len(named)] == "quickstudy"
        found.append((dict(word.split("=", 1) for word in named), words[len(named) + 1 :]))
    return found


@pytest.mark.slow
def test_two_machines_do_what_one_process_does(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    (tmp_path / "run.yaml").write_text(RUN)
    inherited = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "WORLD_SIZE")}
    inherited |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    machines = []
    for variables, words in commands(port, tmp_path / "shared"):
        tool = [sys.executable, "-m", "quickstudy", *words, "--quiet"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        machines.append(subprocess.Popen(tool, env=inherited | variables, cwd=tmp_path, **pipes))
    assert len(machines) == 2
    try:
        said = [machine.communicate(timeout=150) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "trained maml on sinusoid: 6 steps" in said[0][0] and not said[1][0]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(tmp_path)
        assert main(["train", "--config", "run.yaml", "--out", "alone", "--quiet"]) == 0
    for name, kind in (("last", "training"), ("best", "learner")):
        shared, alone = (checkpoint.read(tmp_path / f / f"{name}.safetensors", kind) for f in ("shared", "alone"))
        assert shared[0].keys() == alone[0].keys()
        for key, tensor in alone[0].items():
            torch.testing.assert_close(shared[0][key], tensor, rtol=0, atol=1e-12)
        assert kind != "learner" or shared[1]["step"] == alone[1]["step"]
