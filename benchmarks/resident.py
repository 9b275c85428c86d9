"""Peak memory of one step, each in a process of its own that has done nothing else.

One process imports the libraries and then forks: importing them anew would cost more than the steps themselves.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from peers import Builder
from workloads import WORKLOADS, Workload

from quickstudy.allocator import SETTINGS

LONGEST = 120.0
"""Seconds after which a step counts as hung."""


def peaks(script: Path, words: Iterable[str]) -> dict[str, dict[str, float]]:
    """What `script --peaks` prints: megabytes by workload and implementation.

    It runs with the allocator's own settings: memory kept for later would count as memory needed.
    """
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, str(script), "--peaks", *words]
    run = subprocess.run(command, env=plain, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {}


def measure(pairs: Iterable[tuple[str, str]], builder: Callable[[str, str], Builder | str]) -> str:
    """The JSON of every (workload, implementation) that could be measured."""
    found: dict[str, dict[str, float]] = {}
    forked = multiprocessing.get_context("fork")
    for key, name in pairs:
        here, there = forked.Pipe(duplex=False)
        child = forked.Process(target=_step, args=(WORKLOADS[key], name, builder, there), daemon=True)
        child.start()
        there.close()
        with suppress(EOFError):  # it has no figure
            if here.poll(LONGEST):
                found.setdefault(key, {})[name] = here.recv()
        child.kill()
        child.join()
    return json.dumps(found)


def _step(work: Workload, name: str, builder: Callable[[str, str], Builder | str], answer: Connection) -> None:
    build = builder(name, work.method)
    if isinstance(build, str):
        return
    with suppress(Exception):  # the timed run says what a library raises
        if name != "jax":  # which compiles anew for every size, before the step
            build(work.small, torch.float32).step()  # what is loaded at first use is no memory of the step
        built = build(work, torch.float32)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the mark of the highest level, set back to the present one
        before = _kilobytes("VmRSS")
        built.step()
        answer.send((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
