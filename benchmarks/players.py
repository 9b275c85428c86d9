"""Each implementation in a process of its own: one's threads, heap and caches of code are none of another's business.

They take turns: a process works while it is asked something, and sleeps while another is.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ours
import torch
from limits import wait
from peers import Builder, Missing, Numbers, distance, load
from workloads import WORKLOADS

OURS = {"quickstudy": False, "quickstudy, compiled": True}
EXACT = 1e-8
"""Relative error in float64 above which a meta-gradient is wrong."""

REST = 50
"""Looks at whether a process is at rest, at most."""

Step = Callable[[], object]


def builder(name: str, method: str) -> Builder | str:
    """How an implementation is built, or why it is not."""
    if name in OURS:
        return partial(ours.build, compiled=OURS[name])
    methods = load(name)
    return methods if isinstance(methods, str) else methods.get(method, "")


class Player:
    """One implementation, with `threads` threads."""

    def __init__(self, name: str, threads: int, device: str = "cpu"):
        started = multiprocessing.get_context("spawn")
        self.here, there = started.Pipe()
        self.process = started.Process(target=_play, args=(name, threads, device, there), daemon=True)
        self.process.start()
        there.close()

    def check(self, key: str, reference: Numbers) -> dict[str, Any] | None:
        """Build a workload and hold its gradient against the reference: its errors, or a note on why it is not timed.

        None if it does not offer the method.
        """
        return self._ask("check", key, {name: value.cpu().numpy() for name, value in reference.items()})

    def time(self, times: int) -> float:
        """Seconds of a step of the workload that was checked last, over so many in a row."""
        seconds = self._ask("time", times)
        self._come_to_rest()
        return seconds

    def memory(self) -> float:
        """Megabytes that a step of the workload that was checked last takes of a GPU at most, above what stays."""
        return self._ask("memory")

    def _come_to_rest(self) -> None:
        """Wait until the process does nothing more: some go on for a tenth of a second after a step has returned,
        handing memory back, at the cost of whoever is timed next."""
        before = None
        for _ in range(REST):
            now = _processor_time(self.process.pid)
            if now == before:
                return
            before = now
            time.sleep(0.03)

    def _ask(self, *question: Any) -> Any:
        self.here.send(question)
        return self.here.recv()

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def _processor_time(process: int | None) -> list[str]:
    """User and system time of a process so far, in ticks of a hundredth of a second; the same where /proc is not."""
    place = Path(f"/proc/{process}/stat")
    return place.read_text().rsplit(")", 1)[1].split()[11:13] if place.exists() else []


def _play(name: str, threads: int, device: str, there: Connection) -> None:
    torch.set_num_threads(threads)
    step: Step | None = None
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            kind, *rest = there.recv()
            if kind == "time":
                assert step is not None
                there.send(timed(step, *rest))
            elif kind == "memory":
                there.send(_held(step) if step else math.nan)
            else:
                step = None
                gc.collect()
                found, step = _check(name, device, *rest)
                there.send(found)


def _check(name: str, device: str, key: str, numbers: dict[str, Any]) -> tuple[dict[str, Any] | None, Step | None]:
    work = replace(WORKLOADS[key], device=device)
    reference = {name: torch.from_numpy(value) for name, value in numbers.items()}
    build = builder(name, work.method)
    if isinstance(build, str):
        return None, None  # not there, which the table of versions says, or without this method
    found: dict[str, Any] = {}
    try:
        found["float64_error"] = distance(build(work, torch.float64).result(), reference)
        if not found["float64_error"] < EXACT:
            return found | {"note": f"wrong: {found['float64_error']:.1e} off the reference in float64"}, None
        start = time.perf_counter()
        built = build(work, torch.float32)
        found["float32_error"] = distance(built.result(), reference)
        built.step()
        wait()
        found["first_seconds"] = time.perf_counter() - start
        return found, built.step
    except Missing as error:
        return found | {"note": str(error)}, None
    except Exception as error:  # whatever a library raises is what its row says
        said = str(error).splitlines()[0] if str(error) else ""
        return found | {"note": f"fails: {type(error).__name__}: {said}"}, None


def timed(step: Step, times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        step()
    wait()
    return (time.perf_counter() - begin) / times


def _held(step: Step) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 1e6
