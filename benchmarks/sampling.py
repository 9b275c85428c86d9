"""Sampling tasks must never be what training waits for: tasks a second, beside a training step on the same tasks.

    python benchmarks/sampling.py                         # two minutes, and as long as it takes to write the file
    python benchmarks/sampling.py --mapped-gigabytes 0    # without the file

Writes benchmarks/results/sampling.json. Tasks are drawn as training draws them, each time between two steps;
figures are medians. The last rows draw images from a file larger than memory, by default 1.2 times as large, which
is written to a temporary folder first (some minutes) and deleted afterwards: "cold" are rows that were not read
before, "again" the same rows a second time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import data_folder, machine, write

import quickstudy as qs
from quickstudy.ahead import MOST, ROOM, ahead
from quickstudy.allocator import keep_memory

IMAGE = (84, 84, 3)
PER_CLASS = 600
"""As in miniImageNet."""
BLOCK = 3000
"""Images written at once."""


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def memory() -> int:
    """The memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def random_images(rows: int, rng: np.random.Generator) -> np.ndarray:
    words = rng.integers(0, 2**64, rows * int(np.prod(IMAGE)) // 8, dtype=np.uint64)
    return words.view(np.uint8).reshape(rows, *IMAGE)


def write_images(folder: Path, gigabytes: float) -> None:
    """x.npy of random images and y.npy, block by block."""
    rows = int(gigabytes * 1e9) // int(np.prod(IMAGE)) // PER_CLASS * PER_CLASS
    rng = np.random.default_rng(0)
    with open(folder / "x.npy", "wb") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": (rows, *IMAGE)}
        np.lib.format.write_array_header_1_0(file, head)
        for first in range(0, rows, BLOCK):
            file.write(random_images(min(BLOCK, rows - first), rng).data)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "y.npy", np.arange(rows) // PER_CLASS)


def forget(path: Path) -> None:
    """Drop what the system holds of a file in memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(
    name: str, source: qs.Source, learner: str, options: dict[str, Any], tasks: int, steps: int, again: bool = False
) -> dict[str, Any]:
    """What drawing costs between two steps, and the steps. again: the tasks were drawn once before."""
    torch.manual_seed(0)
    model = qs.make(learner, source.spec, **options)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def draw(i: int) -> qs.Task:
        return source.sample("train", tasks, source.rng(name, "train", i))

    first = draw(-1)
    size = sum(t.numel() * t.element_size() for part in first for t in part)  # type: ignore[union-attr]
    together = min(MOST, max(1, ROOM // size))
    steps = steps // together * together + 2 * together
    if again:
        for i in range(steps):
            draw(i)
    waiting: Iterator[qs.Task] = ahead(draw, range(steps))
    drawn, stepped = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        batch = next(waiting)
        middle = time.perf_counter()
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()
        drawn.append(middle - begin)
        stepped.append(time.perf_counter() - middle)
    in_a_row = [sum(drawn[i : i + together]) / together for i in range(0, steps, together)]
    sample, work = statistics.median(in_a_row[2:]), statistics.median(stepped[2 * together :])
    print(f"{name:45} {tasks / sample:9.0f} tasks/s, {100 * sample / work:.1f} % of a step of {learner}", flush=True)
    return {
        "learner": learner,
        "tasks": tasks,
        "drawn_together": together,
        "tasks_a_second": tasks / sample,
        "sample_ms": 1e3 * sample,
        "step_ms": 1e3 * work,
        "share_of_a_step": sample / work,
    }


def mapped(gigabytes: float, folder: str | None, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of tasks of colour images from memory and from a large file, and facts about the file."""
    few = random_images(40 * PER_CLASS, np.random.default_rng(1))
    shape = {"way": 5, "shot": 1, "query": 15}
    inside = qs.tasks.Arrays.of(few, np.arange(len(few)) // PER_CLASS, **shape)
    common = ("protonet", {}, 4, steps)
    name = "84 x 84 colour 5-way 1-shot"
    rows = {f"{name}, in memory": measured(f"{name}, in memory", inside, *common)}
    if not gigabytes:
        return rows, {}
    del inside, few
    place = Path(tempfile.mkdtemp(prefix="sampling", dir=folder))
    try:
        print(f"writing {gigabytes:.1f} GB to {place} ...", flush=True)
        spent = seconds(lambda: write_images(place, gigabytes))
        print(f"written in {spent:.0f} seconds", flush=True)
        forget(place / "x.npy")
        source = qs.tasks.Arrays(str(place), **shape)
        opened = seconds(source.prepare)
        for how in ("cold", "again"):
            key = f"{name}, from disk, {how}"
            rows[key] = measured(key, source, *common, again=how == "again")
        size = (place / "x.npy").stat().st_size
    finally:
        shutil.rmtree(place)
    return rows, {"bytes": size, "memory": memory(), "writing_seconds": spent, "opening_seconds": opened}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(data_folder() / "omniglot" / "omniglot28.npz"))
    parser.add_argument("--steps", type=int, default=15, help="of each large network; of the smallest, 40 times that")
    parser.add_argument("--mapped-gigabytes", type=float, default=1.2 * memory() / 1e9, help="the file; 0: none")
    parser.add_argument("--folder", default=None, help="where the file is written (default: the temporary folder)")
    args = parser.parse_args()
    omniglot = qs.tasks.Omniglot(args.data)
    glyphs, sines = qs.tasks.Glyphs(way=5, shot=5), qs.tasks.Sinusoid()
    variable = omniglot.reshaped(scheme="meta_dataset", way="5-20")
    rows = {}
    for name, source, learner, options, tasks in (
        ("omniglot 60-way 1-shot", omniglot.reshaped(way=60, query=5), "protonet", {}, 1),
        ("omniglot 5-way 1-shot", omniglot.reshaped(way=5, query=5), "maml", {"inner_steps": 1}, 16),
        ("omniglot Meta-Dataset sampler", variable, "protonet", {}, 4),
        ("glyphs 5-way 5-shot", glyphs, "protonet", {}, 4),
    ):
        rows[name] = measured(name, source, learner, options, tasks, args.steps)
    rows["sinusoid 10-shot"] = measured("sinusoid", sines, "maml", {"inner_steps": 1}, 25, 40 * args.steps)
    more, file = mapped(args.mapped_gigabytes, args.folder, args.steps)
    write("sampling", {"rows": rows | more, "file": file, **machine()})


if __name__ == "__main__":
    keep_memory()
    main()
